import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from kornia.losses import focal_loss as kornia_focal_loss
from segmentation_models_pytorch.losses import FocalLoss
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from trainable.config import IGNORE_INDEX
from trainable.loss import partial_focal_loss, point_focal_loss

GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
WEIGHTS = (None, (0.3, 1.7))

Oracle = Callable[[Tensor, Tensor, float], Tensor]


@pytest.fixture
def logits() -> Tensor:
    """(3, 2, 8, 8), from nearly sure to nearly sure of the contrary."""
    logits = 4 * torch.randn(3, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return logits.requires_grad_()


@pytest.fixture
def labels() -> Tensor:
    """(3, 8, 8), about one pixel in ten labelled, the last image without any label."""
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(0, 2, (3, 8, 8), generator=generator)
    unlabelled = torch.rand(3, 8, 8, generator=generator) > 0.1
    unlabelled[2] = True
    return classes.masked_fill(unlabelled, IGNORE_INDEX)


def at_points(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C) logits and (N,) classes of the labelled pixels alone."""
    labelled = labels != IGNORE_INDEX
    return logits.permute(0, 2, 3, 1)[labelled], labels[labelled]


def as_weights(weights: tuple[float, ...] | None) -> Tensor | None:
    return None if weights is None else torch.tensor(weights, dtype=torch.float64)


def assert_same_loss(ours: Tensor, expected: Tensor, logits: Tensor) -> None:
    """Equal to 1e-12, in value and in gradient."""
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_gamma_zero_is_cross_entropy(logits: Tensor, labels: Tensor, weights: tuple[float, ...] | None) -> None:
    class_weights = as_weights(weights)
    expected = F.cross_entropy(logits, labels, weight=class_weights, ignore_index=IGNORE_INDEX)
    assert_same_loss(partial_focal_loss(logits, labels, 0.0, class_weights), expected, logits)


def torchvision_oracle(logits: Tensor, classes: Tensor, gamma: float) -> Tensor:
    # Softmax over two classes is the sigmoid of their difference; alpha = -1 switches its class weights off.
    difference = logits[:, 1] - logits[:, 0]
    return sigmoid_focal_loss(difference, classes.double(), alpha=-1, gamma=gamma, reduction="mean")


def kornia_oracle(logits: Tensor, classes: Tensor, gamma: float) -> Tensor:
    # Its own "mean" would divide by the number of classes as well.
    losses = kornia_focal_loss(logits.T[None], classes[None], alpha=None, gamma=gamma, reduction="none")
    return losses.sum() / len(classes)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("oracle", [torchvision_oracle, softmax_focal_loss_with_logits, kornia_oracle])
def test_it_is_the_focal_loss_of_others_at_the_points(
    logits: Tensor, labels: Tensor, oracle: Oracle, gamma: float
) -> None:
    expected = oracle(*at_points(logits, labels), gamma)
    assert_same_loss(partial_focal_loss(logits, labels, gamma), expected, logits)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_class_weights_are_those_of_kornia_once_normalised(logits: Tensor, labels: Tensor, gamma: float) -> None:
    weights = torch.tensor([0.3, 1.7], dtype=torch.float64)
    points, classes = at_points(logits, labels)
    losses = kornia_focal_loss(points.T[None], classes[None], alpha=None, gamma=gamma, weight=weights)
    expected = losses.sum() / weights[classes].sum()
    assert_same_loss(partial_focal_loss(logits, labels, gamma, weights), expected, logits)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_it_is_not_the_multiclass_focal_loss_of_smp(logits: Tensor, labels: Tensor, gamma: float) -> None:
    # That one is one-vs-rest: the mean over classes of a sigmoid focal loss each. The classes do not compete, so that
    # raising all logits of a pixel by the same amount changes it; softmax does not notice.
    theirs = FocalLoss("multiclass", gamma=gamma, ignore_index=IGNORE_INDEX)
    points, classes = at_points(logits, labels)
    one_vs_rest = [
        sigmoid_focal_loss(points[:, c], (classes == c).double(), alpha=-1, gamma=gamma, reduction="mean")
        for c in range(2)
    ]
    torch.testing.assert_close(theirs(logits, labels), sum(one_vs_rest) / 2, rtol=0, atol=1e-12)

    ours = partial_focal_loss(logits, labels, gamma)
    assert abs(theirs(logits, labels) - ours) > 1e-3
    assert abs(theirs(logits + 3, labels) - theirs(logits, labels)) > 1e-3
    torch.testing.assert_close(partial_focal_loss(logits + 3, labels, gamma), ours, rtol=0, atol=1e-12)


@pytest.mark.parametrize("every", [1, 4])
def test_it_is_not_the_mean_over_all_pixels_of_mmsegmentation(logits: Tensor, labels: Tensor, every: int) -> None:
    # Its default (avg_non_ignore=False) counts ignored pixels as 0 in the mean. Its loss, and so the step of a given
    # learning rate, then grows with the number of points; ours does not.
    thinned = labels.clone()
    thinned.view(-1)[torch.arange(labels.numel()) % every != 0] = IGNORE_INDEX
    theirs = F.cross_entropy(logits, thinned, ignore_index=IGNORE_INDEX, reduction="none").mean()
    labelled_share = (thinned != IGNORE_INDEX).double().mean()
    ours = partial_focal_loss(logits, thinned, 0.0)
    assert_same_loss(ours * labelled_share, theirs, logits)
    assert ours > 5 * theirs


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_point_loss_is_the_dense_loss(
    logits: Tensor, labels: Tensor, gamma: float, weights: tuple[float, ...] | None
) -> None:
    # Padding may hold any logits; here, those of the first pixel.
    points, classes = at_points(logits, labels)
    padded = torch.cat([points, logits[0, :, :1, 0].T.expand(5, 2)])
    padded_classes = F.pad(classes, (0, 5), value=IGNORE_INDEX)
    ours = point_focal_loss(padded, padded_classes, gamma, as_weights(weights))
    assert_same_loss(ours, partial_focal_loss(logits, labels, gamma, as_weights(weights)), logits)


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
        (2, (0, 3), 1 / 16 * math.log(4 / 3)),
        (2, (0, 0), 0),
    ],
)
def test_worked_by_hand(gamma: float, weights: tuple[float, ...] | None, expected: float) -> None:
    logits, labels = two_points()
    loss = partial_focal_loss(logits, labels, gamma, as_weights(weights))
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_a_third_class_is_softmax_too() -> None:
    # Equal logits: p = 1/3 whichever the label.
    loss = partial_focal_loss(torch.zeros(1, 3, 1, 2, dtype=torch.float64), torch.tensor([[[0, 2]]]), 2.0)
    assert loss.item() == pytest.approx(4 / 9 * math.log(3), abs=1e-12)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_unlabelled_pixels_get_no_gradient(
    logits: Tensor, labels: Tensor, gamma: float, weights: tuple[float, ...] | None
) -> None:
    (gradient,) = torch.autograd.grad(partial_focal_loss(logits, labels, gamma, as_weights(weights)), logits)
    touched = (gradient != 0).any(dim=1)
    torch.testing.assert_close(touched, labels != IGNORE_INDEX)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_gradient_is_that_of_finite_differences(logits: Tensor, labels: Tensor, gamma: float) -> None:
    points, classes = (each.detach() for each in at_points(logits, labels))
    weights = torch.tensor([0.3, 1.7], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: point_focal_loss(z, classes, gamma, weights), points.requires_grad_())


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


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_no_labels_give_zero_with_a_graph(
    logits: Tensor, labels: Tensor, gamma: float, weights: tuple[float, ...] | None
) -> None:
    loss = partial_focal_loss(logits, torch.full_like(labels, IGNORE_INDEX), gamma, as_weights(weights))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert not gradient.any()


# 40 and 200: p rounds to 1 in float32, log p to -4e-18 and to 0; there (1 - p)^gamma has slope infinity for gamma < 1.
@pytest.mark.parametrize("margin", [0.0, 10.0, 40.0, 87.0, 103.0, 200.0, -200.0])
@pytest.mark.parametrize("gamma", [*GAMMAS, 0.01, 20.0])
def test_loss_and_gradient_are_finite_however_sure(gamma: float, margin: float) -> None:
    logits = torch.tensor([[0.0, margin]]).requires_grad_()
    loss = point_focal_loss(logits, torch.ones(1, dtype=torch.long), gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_the_focal_term_keeps_its_digits_where_p_is_nearly_one() -> None:
    # p = 1 - 6e-6, where 1 - p taken literally has lost five of float32's seven digits.
    single, double = (
        point_focal_loss(torch.tensor([[0.0, 12.0]], dtype=dtype), torch.ones(1, dtype=torch.long), 2.0)
        for dtype in (torch.float32, torch.float64)
    )
    assert single.item() == pytest.approx(double.item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_may_be_of_any_integer_type(logits: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
    # uint8 is what the store holds; PyTorch would take it for a mask where it indexes.
    weights = torch.tensor([0.3, 1.7], dtype=torch.float64)
    expected = partial_focal_loss(logits, labels, 2.0, weights)
    assert partial_focal_loss(logits, labels.to(dtype), 2.0, weights).item() == expected.item()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_half_precision_is_summed_in_float32(gamma: float) -> None:
    # 1000 points of ln 2 each: a sum in bfloat16 would stop at 256 times the step.
    logits = torch.zeros(1000, 2, dtype=torch.bfloat16, requires_grad=True)
    loss = point_focal_loss(logits, torch.arange(1000) % 2, gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2) * 0.5**gamma, rel=1e-6)
    assert gradient.dtype == torch.bfloat16


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("gamma", [0.0, 0.5])
@pytest.mark.parametrize("loss", [partial_focal_loss, point_focal_loss])
def test_the_host_never_waits_for_the_device(
    loss: Callable[..., Tensor], gamma: float, weights: tuple[float, ...] | None
) -> None:
    # Tensors on "meta" have no content: whatever needs it on the host raises, as the last line shows.
    size = (4, 4) if loss is partial_focal_loss else ()
    logits = torch.empty(3, 2, *size, device="meta", requires_grad=True)
    labels = torch.empty(3, *size, dtype=torch.uint8, device="meta")
    class_weights = None if weights is None else torch.empty(2, device="meta")
    (gradient,) = torch.autograd.grad(loss(logits, labels, gamma, class_weights), logits)
    assert gradient.shape == logits.shape
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool((labels != IGNORE_INDEX).any())


NEEDS_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_deterministic_mode_is_kept_and_gives_the_same_bits_twice(
    logits: Tensor, labels: Tensor, gamma: float, device: str
) -> None:
    weights = torch.tensor([0.3, 1.7], dtype=torch.float64)
    there = logits.detach().to(device).requires_grad_()
    first, second = (partial_focal_loss(there, labels.to(device), gamma, weights.to(device)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(*(torch.autograd.grad(loss, there)[0] for loss in (first, second)))
    torch.testing.assert_close(first.cpu(), partial_focal_loss(logits, labels, gamma, weights), rtol=0, atol=1e-12)
