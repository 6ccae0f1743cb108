import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from trainable.config import IGNORE_INDEX
from trainable.loss import partial_focal_loss

GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)


@pytest.fixture
def logits() -> Tensor:
    """(3, 2, 8, 8), from nearly sure to nearly sure of the contrary."""
    return 4 * torch.randn(3, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> Tensor:
    """(3, 8, 8), about one pixel in ten labelled, the last image without any label."""
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(0, 2, (3, 8, 8), generator=generator)
    unlabelled = torch.rand(3, 8, 8, generator=generator) > 0.1
    unlabelled[2] = True
    return classes.masked_fill(unlabelled, IGNORE_INDEX)


@pytest.mark.parametrize("class_weights", [None, torch.tensor([0.3, 1.7], dtype=torch.float64)])
def test_gamma_zero_is_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> None:
    expected = F.cross_entropy(logits, labels, weight=class_weights, ignore_index=IGNORE_INDEX)
    assert partial_focal_loss(logits, labels, 0.0, class_weights).item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_two_classes_are_the_sigmoid_focal_loss_at_the_points(logits: Tensor, labels: Tensor, gamma: float) -> None:
    # Softmax over two classes is the sigmoid of their difference; alpha = -1 switches its class weights off.
    points = labels != IGNORE_INDEX
    difference, target = (logits[:, 1] - logits[:, 0])[points], labels[points].double()
    expected = sigmoid_focal_loss(difference, target, alpha=-1, gamma=gamma, reduction="mean")
    assert partial_focal_loss(logits, labels, gamma).item() == pytest.approx(expected.item(), abs=1e-12)


def two_points() -> tuple[Tensor, Tensor]:
    """Logits (0, ln 3) at both of two pixels, labelled 0 and 1: p = 1/4 and p = 3/4; a third pixel is unlabelled."""
    logits = torch.tensor([0.0, math.log(3)], dtype=torch.float64).view(1, 2, 1, 1).repeat(1, 1, 1, 3)
    return logits, torch.tensor([[[0, 1, IGNORE_INDEX]]])


@pytest.mark.parametrize(
    ("gamma", "weights", "expected"),
    [
        (0, None, (math.log(4) + math.log(4 / 3)) / 2),
        (2, None, (9 / 16 * math.log(4) + 1 / 16 * math.log(4 / 3)) / 2),  # (3/4)^2 and (1/4)^2
        (0.5, None, (math.sqrt(3 / 4) * math.log(4) + math.sqrt(1 / 4) * math.log(4 / 3)) / 2),
        (2, (1, 3), (9 / 16 * math.log(4) + 3 * 1 / 16 * math.log(4 / 3)) / 4),  # divided by the weights' sum
    ],
)
def test_worked_by_hand(gamma: float, weights: tuple[float, ...] | None, expected: float) -> None:
    logits, labels = two_points()
    class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    assert partial_focal_loss(logits, labels, gamma, class_weights).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_unlabelled_pixels_get_no_gradient(logits: Tensor, labels: Tensor, gamma: float) -> None:
    logits.requires_grad_()
    partial_focal_loss(logits, labels, gamma).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    touched = (logits.grad != 0).any(dim=1)
    torch.testing.assert_close(touched, labels != IGNORE_INDEX)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_gradient_is_that_of_finite_differences(logits: Tensor, labels: Tensor, gamma: float) -> None:
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: partial_focal_loss(z, labels[:2], gamma), logits[:2])


def test_the_number_of_points_does_not_scale_the_loss(logits: Tensor, labels: Tensor) -> None:
    once = partial_focal_loss(logits, labels, 2.0)
    twice = partial_focal_loss(torch.cat([logits, logits]), torch.cat([labels, labels]), 2.0)
    assert twice.item() == pytest.approx(once.item(), abs=1e-12)


def test_an_image_without_labels_changes_nothing(logits: Tensor, labels: Tensor) -> None:
    # A mean of per-image means would count it as 0, and dilute the others.
    assert partial_focal_loss(logits, labels, 2.0).item() == pytest.approx(
        partial_focal_loss(logits[:2], labels[:2], 2.0).item(), abs=1e-12
    )


def test_gamma_turns_down_what_is_learned_already(logits: Tensor, labels: Tensor) -> None:
    losses = [partial_focal_loss(logits, labels, gamma).item() for gamma in GAMMAS]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_no_labels_give_zero_with_a_graph(logits: Tensor, labels: Tensor, gamma: float) -> None:
    logits.requires_grad_()
    loss = partial_focal_loss(logits, torch.full_like(labels, IGNORE_INDEX), gamma)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


# 40 and 200: p rounds to 1 in float32, log p to -4e-18 and to 0; there (1 - p)^gamma has slope infinity for gamma < 1.
@pytest.mark.parametrize("margin", [0.0, 10.0, 40.0, 200.0, -200.0])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_loss_and_gradient_are_finite_however_sure(gamma: float, margin: float) -> None:
    logits = torch.tensor([0.0, margin]).view(1, 2, 1, 1).requires_grad_()
    loss = partial_focal_loss(logits, torch.ones(1, 1, 1, dtype=torch.long), gamma)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_may_be_of_any_integer_type(logits: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
    # uint8 is what the store holds; PyTorch would take it for a mask where it indexes.
    weights = torch.tensor([0.3, 1.7], dtype=torch.float64)
    expected = partial_focal_loss(logits, labels, 2.0, weights)
    assert partial_focal_loss(logits, labels.to(dtype), 2.0, weights).item() == expected.item()


def test_a_third_class_is_softmax_too() -> None:
    # Equal logits: p = 1/3 whichever the label.
    loss = partial_focal_loss(torch.zeros(1, 3, 1, 2, dtype=torch.float64), torch.tensor([[[0, 2]]]), 2.0)
    assert loss.item() == pytest.approx(4 / 9 * math.log(3), abs=1e-12)
