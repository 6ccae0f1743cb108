"""The learning rate step by step, worked by hand, and the optimizers against torch's own and against paper."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from trainable.config import TrainConfig
from trainable.model import build_model
from trainable.optimizer import build_optimizer, rate_factor

CONFIG = TrainConfig(encoder="mobilenet_v2", weights="none", image_size=32)
ROOT = math.sqrt(2) / 2


def factors(steps_per_epoch: int, **settings: float | str) -> list[float]:
    """What the learning rate is multiplied by, at every step of a run."""
    config = replace(CONFIG, **settings)
    steps = range(config.epochs * steps_per_epoch)
    return [rate_factor(config, step / steps_per_epoch, 1 / steps_per_epoch) for step in steps]


@pytest.mark.parametrize(
    ("settings", "steps_per_epoch", "expected"),
    [
        # Constant from the first step on.
        ({"schedule": "constant", "epochs": 2}, 2, [1, 1, 1, 1]),
        # Angles of 0, 45, 90 and 135 degrees: the last step is not yet at 0, which would waste it.
        ({"schedule": "cosine", "epochs": 2}, 2, [1, (1 + ROOT) / 2, 1 / 2, (1 - ROOT) / 2]),
        ({"schedule": "cosine", "epochs": 1}, 3, [1, 3 / 4, 1 / 4]),  # 0, 60 and 120 degrees
        ({"schedule": "cosine", "epochs": 1}, 1, [1]),
        # Four steps of warm-up: quarters, the first of them not 0, which would waste it, the last of them 1.
        ({"schedule": "constant", "epochs": 3, "warmup_epochs": 2}, 2, [1 / 4, 1 / 2, 3 / 4, 1, 1, 1]),
        # The cosine runs over the two epochs that are left.
        (
            {"schedule": "cosine", "epochs": 3, "warmup_epochs": 1},
            2,
            [1 / 2, 1, 1, (1 + ROOT) / 2, 1 / 2, (1 - ROOT) / 2],
        ),
        # Half an epoch of warm-up; three steps of four are left of the cosine's 1.5 epochs at 0, 60 and 120 degrees.
        ({"schedule": "cosine", "epochs": 2, "warmup_epochs": 0.5}, 2, [1, 1, 3 / 4, 1 / 4]),
        # A warm-up that ends between two steps ends with the step that passes it.
        ({"schedule": "constant", "epochs": 1, "warmup_epochs": 0.75}, 2, [2 / 3, 1]),
        ({"schedule": "constant", "epochs": 1, "warmup_epochs": 0.1}, 2, [1, 1]),
        # Nothing but warm-up: it ends at 1 with the last step, under both schedules.
        ({"schedule": "constant", "epochs": 2, "warmup_epochs": 2}, 2, [1 / 4, 1 / 2, 3 / 4, 1]),
        ({"schedule": "cosine", "epochs": 2, "warmup_epochs": 2}, 2, [1 / 4, 1 / 2, 3 / 4, 1]),
    ],
)
def test_schedules_worked_by_hand(
    settings: dict[str, float | str], steps_per_epoch: int, expected: list[float]
) -> None:
    assert factors(steps_per_epoch, **settings) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("steps_per_epoch", [1, 7, 100])
@pytest.mark.parametrize("warmup_epochs", [0, 0.3, 1, 2.7, 10])
def test_it_rises_then_falls_and_no_step_is_wasted(schedule: str, steps_per_epoch: int, warmup_epochs: float) -> None:
    found = factors(steps_per_epoch, schedule=schedule, epochs=10, warmup_epochs=warmup_epochs)
    assert all(0 < factor <= 1 for factor in found)
    assert max(found) == pytest.approx(1, abs=1e-12)
    top = found.index(max(found))
    assert all(before < after for before, after in pairwise(found[: top + 1]))
    assert all(before >= after for before, after in pairwise(found[top:]))
    # The warm-up is over when it says; until then it rises by the same amount at every step.
    assert top + 1 == pytest.approx(max(1, warmup_epochs * steps_per_epoch), abs=1)
    rises = [after - before for before, after in pairwise(found[:top])]
    assert rises == pytest.approx([1 / (warmup_epochs * steps_per_epoch or 1)] * len(rises), abs=1e-12)


def test_the_cosine_is_torchs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    rates = []
    for _ in range(30):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        oracle.step()
    assert factors(10, schedule="cosine", epochs=3) == pytest.approx(rates, abs=1e-12)


# Optimizers


class Parabola(nn.Module):
    """Weights in float64, one of them frozen, on a loss of different steepness in each direction."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.linspace(-2, 2, 9, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.ones(1, dtype=torch.float64), requires_grad=False)

    def loss(self) -> Tensor:
        return (torch.logspace(-3, 3, 9, dtype=torch.float64) * (self.weights - self.frozen).square()).sum()


def descend(model: Parabola, optimizer: torch.optim.Optimizer, steps: int) -> Tensor:
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss().backward()
        optimizer.step()
    return model.weights.detach()


@pytest.mark.parametrize("weight_decay", [0.0, 1e-3, 0.5])
@pytest.mark.parametrize(("name", "oracle"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_it_moves_as_torchs_plain_loop_does(name: str, oracle: type[torch.optim.Adam], weight_decay: float) -> None:
    ours, theirs = Parabola(), Parabola()
    config = replace(CONFIG, optimizer=name, learning_rate=0.03, weight_decay=weight_decay)
    plain = oracle([theirs.weights], lr=0.03, weight_decay=weight_decay, foreach=False, fused=False)
    moved = descend(ours, build_optimizer(config, ours), steps=20)
    torch.testing.assert_close(moved, descend(theirs, plain, steps=20), rtol=0, atol=1e-12)
    assert not torch.equal(moved, Parabola().weights)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The first step of Adam is the learning rate, against the sign of the gradient: 2 - 0.1. The penalty turns the
        # gradient of -1 into -1 + 0.75 * 2 = 1/2, and so its sign.
        ("adam", 1.9),
        # Apart from the gradient: 2 (1 - 0.1 * 0.75) + 0.1.
        ("adamw", 1.95),
    ],
)
def test_weight_decay_worked_by_hand(name: str, expected: float) -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = build_optimizer(replace(CONFIG, optimizer=name, learning_rate=0.1, weight_decay=0.75), module)
    module.weight.grad = torch.tensor([-1.0], dtype=torch.float64)
    optimizer.step()
    assert module.weight.item() == pytest.approx(expected, abs=1e-7)  # epsilon is 1e-8 of a step of 0.1


@pytest.mark.parametrize("freeze_encoder", [False, True])
def test_it_holds_what_is_trained_and_nothing_else(freeze_encoder: bool) -> None:
    with torch.device("meta"):
        model = build_model(replace(CONFIG, freeze_encoder=freeze_encoder), 3)
        optimizer = build_optimizer(CONFIG, model)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trained = [model.decoder, model.head] if freeze_encoder else [model]
    assert held == {id(parameter) for module in trained for parameter in module.parameters()}
