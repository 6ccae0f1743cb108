"""A run that goes on from its state equals the uninterrupted one bit by bit; whatever is lost of that state shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from trainable import batches, train
from trainable.checkpoint import Arrays
from trainable.config import TrainConfig
from trainable.store import Store
from trainable.train import EpochResult, TrainingRun
from trainable.trial_files import result_hash

STATEFUL: dict[str, Any] = {
    "encoder": "efficientnet_b0",  # drops whole layers at random
    "augmentation": "full",
    "optimizer": "adamw", "schedule": "cosine", "warmup_epochs": 1.25,  # so that both epochs warm up
}  # fmt: skip
"""All that a run could lose its place in."""

EVERYTHING = STATEFUL | {
    "label_flip_rate": 0.1, "position_jitter_px": 1.0, "precision": "bfloat16", "focal_gamma": 2.0,
    "class_weights": "balanced", "entropy_weight": 0.1, "consistency_weight": 1.0, "crf_weight": 0.1,
}  # fmt: skip
SLOW = pytest.mark.slow

CASES: list[Any] = [
    pytest.param({}, id="adam, float32, points"),
    pytest.param(EVERYTHING, id="everything at once"),
    pytest.param({"points_per_image": "dense", "augmentation": "light"}, id="dense"),
    pytest.param({"encoder": "mobilenet_v3_large", "freeze_encoder": True, "optimizer": "adamw"}, id="frozen encoder"),
    pytest.param({"gradient_checkpointing": True}, id="gradient checkpointing"),
    pytest.param({"encoder": "resnet18", "decoder_stride": 4}, id="resnet18", marks=SLOW),
    pytest.param({"encoder": "convnext_tiny", "precision": "bfloat16"}, id="convnext_tiny", marks=SLOW),
    pytest.param({**EVERYTHING, "encoder": "resnet50"}, id="resnet50, everything", marks=SLOW),
]  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """What two runs are compared by: all of their bits, wall-clock times apart.

    Attributes:
        sha256: of the metrics of every epoch, as `result.json` has it.
        counts: of every epoch, by name.
        state: weights, batch statistics, moments and step counters, by name.
    """

    sha256: str
    counts: list[dict[str, bytes]]
    state: dict[str, bytes]


def finished(run: TrainingRun, results: list[EpochResult]) -> Finished:
    rows = [{"epoch": float(result.epoch), **result.metrics} for result in results]
    return Finished(result_hash(rows), [bits(each.counts["val"]) for each in results], bits(run.state(final=False)))


def bits(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


def move_global_streams(seed: int) -> None:
    """Two processes find them in different places; nothing may come from there."""
    torch.manual_seed(seed)
    np.random.seed(seed)


def interrupted(config: TrainConfig, store: Store) -> tuple[Finished, EpochResult, Arrays]:
    """The end of an uninterrupted run of two epochs; its first result, and its state after that."""
    move_global_streams(1)
    run = TrainingRun(config, store)
    epochs = run.epochs()
    first = next(epochs)
    arrays = {name: array.copy() for name, array in run.state(final=False).items()}
    return finished(run, [first, *epochs]), first, arrays


def resumed(config: TrainConfig, store: Store, first: EpochResult, arrays: Arrays) -> Finished:
    """The end of a run that another process has trained for one epoch."""
    move_global_streams(2)
    run = TrainingRun(config, store)
    run.restore(first.epoch, {name: array.copy() for name, array in arrays.items()})
    return finished(run, [first, *run.epochs()])


@pytest.mark.parametrize("settings", CASES)
def test_a_resumed_run_equals_the_uninterrupted_one(
    config: TrainConfig, store: Store, settings: dict[str, Any]
) -> None:
    config = replace(config, epochs=2, **settings)
    uninterrupted, first, arrays = interrupted(config, store)
    again = resumed(config, store, first, arrays)
    assert [name for name in again.state if again.state[name] != uninterrupted.state[name]] == []
    assert again == uninterrupted


Interrupted = tuple[TrainConfig, Finished, EpochResult, Arrays]


@pytest.fixture(scope="module")
def stateful(config: TrainConfig, store: Store) -> Interrupted:
    config = replace(config, epochs=2, **STATEFUL)
    return config, *interrupted(config, store)


def put(value: float, ending: str) -> Callable[[Arrays], Arrays]:
    """Sets every array whose name ends so to what a fresh model or optimizer would have there."""

    def damage(arrays: Arrays) -> Arrays:
        return {n: np.full_like(array, value) if n.endswith(ending) else array for n, array in arrays.items()}

    return damage


def without_optimizer(arrays: Arrays) -> Arrays:
    return {name: array for name, array in arrays.items() if not name.startswith("optimizer/")}


# The negative controls: were any of these lost, the test above would fail.
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(without_optimizer, id="optimizer"),
        pytest.param(put(0, "/exp_avg"), id="first moments"),
        pytest.param(put(0, "/exp_avg_sq"), id="second moments"),
        pytest.param(put(0, "/step"), id="step counter"),
        pytest.param(put(0, "running_mean"), id="batch means"),
        pytest.param(put(1, "running_var"), id="batch variances"),
    ],
)
def test_lost_state_shows(stateful: Interrupted, store: Store, damage: Callable[[Arrays], Arrays]) -> None:
    config, uninterrupted, first, arrays = stateful
    again = resumed(config, store, first, damage(arrays))
    assert again.sha256 != uninterrupted.sha256
    assert again.state != uninterrupted.state
    assert again.counts[1] != uninterrupted.counts[1]


@pytest.mark.parametrize(
    ("module", "function", "position"),  # where among its arguments the epoch is
    [
        pytest.param(batches, "derive_seed", 2, id="order of images"),
        pytest.param(train, "derive_seed", 2, id="stochastic depth"),
        pytest.param(train, "draw_transforms", 2, id="augmentation"),
        pytest.param(train, "rate_factor", 1, id="schedule"),
    ],
)
def test_a_stream_that_begins_anew_shows(
    stateful: Interrupted,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    function: str,
    position: int,
) -> None:
    config, uninterrupted, first, arrays = stateful
    original = getattr(module, function)

    def counting_from_the_last_start(*arguments: Any) -> Any:
        return original(*arguments[:position], arguments[position] - first.epoch, *arguments[position + 1 :])

    monkeypatch.setattr(module, function, counting_from_the_last_start)
    again = resumed(config, store, first, arrays)
    assert again.sha256 != uninterrupted.sha256
    assert again.state != uninterrupted.state


def test_global_streams_are_left_where_they_are(stateful: Interrupted, store: Store) -> None:
    config, _, first, arrays = stateful
    run = TrainingRun(config, store)
    run.restore(first.epoch, arrays)
    before = torch.get_rng_state(), np.random.get_state()[1]
    assert len(list(run.epochs())) == 1
    after = torch.get_rng_state(), np.random.get_state()[1]
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])


@pytest.mark.slow
def test_saving_memory_changes_no_bit(config: TrainConfig, store: Store) -> None:
    # Layers are dropped at random and batch statistics kept: the second pass must repeat the one, not the other.
    config = replace(config, encoder="efficientnet_b0", epochs=1)
    usual = TrainingRun(config, store)
    saving = TrainingRun(replace(config, gradient_checkpointing=True), store)
    assert finished(usual, list(usual.epochs())) == finished(saving, list(saving.epochs()))
