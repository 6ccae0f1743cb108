import itertools
import math

import pytest
import torch
from torch import Tensor

from trainable.regularisers import consistency_loss, entropy_loss, gated_crf_loss

QUARTERS = (0.0, math.log(3))  # logits of p = (1/4, 3/4)


def random_logits(num_classes: int = 3, height: int = 5, width: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(2, num_classes, height, width, dtype=torch.float64, generator=generator)


def random_images(num_bands: int = 4, height: int = 5, width: int = 7) -> Tensor:
    """(2, bands, height, width) with colours near enough to each other for the kernel to see."""
    generator = torch.Generator().manual_seed(1)
    return 0.5 + 0.1 * torch.rand(2, num_bands, height, width, dtype=torch.float64, generator=generator)


def row(*pixels: tuple[float, ...]) -> Tensor:
    """(1, C, 1, number of pixels), from the values of each pixel."""
    return torch.tensor(pixels, dtype=torch.float64).T[None, :, None, :]


def test_entropy_worked_by_hand() -> None:
    # Pixel 1: entropy of (1/4, 3/4); pixel 2: ln 2; pixel 3 is labelled and does not count.
    logits = row(QUARTERS, (5.0, 5.0), (1.0, 9.0))
    expected = (math.log(4) / 4 + 3 * math.log(4 / 3) / 4 + math.log(2)) / 2
    assert entropy_loss(logits, torch.tensor([[[True, True, False]]])).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_entropy_is_log_of_the_classes_where_all_are_equal(num_classes: int) -> None:
    logits = torch.full((2, num_classes, 3, 4), 7.0, dtype=torch.float64)
    loss = entropy_loss(logits, torch.ones(2, 3, 4, dtype=torch.bool))
    assert loss.item() == pytest.approx(math.log(num_classes), abs=1e-12)


def test_entropy_is_that_of_torch_distributions() -> None:
    logits, unlabelled = random_logits(), torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(2)) > 0.3
    expected = torch.distributions.Categorical(logits=logits.permute(0, 2, 3, 1)).entropy()[unlabelled].mean()
    torch.testing.assert_close(entropy_loss(logits, unlabelled), expected, rtol=0, atol=1e-12)


def test_entropy_leaves_labelled_pixels_alone() -> None:
    logits = random_logits().requires_grad_()
    unlabelled = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(2)) > 0.3
    (gradient,) = torch.autograd.grad(entropy_loss(logits, unlabelled), logits)
    torch.testing.assert_close((gradient != 0).any(dim=1), unlabelled)


def test_no_unlabelled_pixel_gives_zero_with_a_graph() -> None:
    logits = random_logits().requires_grad_()
    loss = entropy_loss(logits, torch.zeros(2, 5, 7, dtype=torch.bool))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_an_entropy_step_makes_predictions_surer() -> None:
    logits = row(QUARTERS).requires_grad_()
    (gradient,) = torch.autograd.grad(entropy_loss(logits, torch.ones(1, 1, 1, dtype=torch.bool)), logits)
    assert gradient[0, 0, 0, 0] > 0 > gradient[0, 1, 0, 0]


def test_consistency_worked_by_hand() -> None:
    # (1/4, 3/4) against (1/2, 1/2), and (1/4, 3/4) against itself with other logits: (1/16 + 1/16 + 0 + 0) / 4.
    a, b = row(QUARTERS, QUARTERS), row((2.0, 2.0), (1.0, 1.0 + math.log(3)))
    assert consistency_loss(a, b).item() == pytest.approx(1 / 32, abs=1e-12)


def test_consistency_is_zero_for_equal_predictions_and_largest_for_opposite_ones() -> None:
    logits = random_logits()
    assert consistency_loss(logits, logits).item() == 0
    assert consistency_loss(row((0.0, 1e3)), row((1e3, 0.0))).item() == 1  # 2 / C


def test_consistency_treats_both_views_alike() -> None:
    a, b = (random_logits(seed=seed).requires_grad_() for seed in (0, 1))
    assert consistency_loss(a, b).item() == consistency_loss(b, a).item()
    there, back = (torch.autograd.grad(loss, (a, b)) for loss in (consistency_loss(a, b), consistency_loss(b, a)))
    assert all(torch.equal(one, other) and one.any() for one, other in zip(there, back, strict=True))


def gaussian(down: float, right: float, colour: float, num_bands: int = 3) -> float:
    """The kernel between two pixels so far apart; `colour` is the sum over the bands of the squared difference."""
    return math.exp(-(down**2 + right**2) / (2 * 6**2) - 3 / num_bands * colour / (2 * 0.1**2))


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        # Two pixels, sure of opposite classes: each pays for the other, divided by two pixels.
        ([(0.5, 0.5, 0.5), (0.5, 0.5, 0.5)], math.exp(-1 / 72)),  # one pixel apart, equal colour
        ([(0.5, 0.5, 0.5), (0.5, 0.6, 0.5)], math.exp(-1 / 72 - 1 / 2)),  # one deviation in one of three bands
        ([(0.5, 0.5, 0.5), (0.6, 0.6, 0.6)], math.exp(-1 / 72 - 3 / 2)),
        ([(0.5,), (0.6,)], math.exp(-1 / 72 - 3 / 2)),  # one band says what three equal ones say
        ([(0.5,) * 8, (0.6,) * 8], math.exp(-1 / 72 - 3 / 2)),
    ],
)
def test_crf_worked_by_hand(colours: list[tuple[float, ...]], expected: float) -> None:
    assert gated_crf_loss(row((1e3, 0.0), (0.0, 1e3)), row(*colours)).item() == pytest.approx(expected, abs=1e-12)


def test_crf_window_ends_at_five_pixels_and_at_the_image_s_edge() -> None:
    # Seven pixels in a row, the first of the one class, the others of the other: it pays for five neighbours.
    logits = row((1e3, 0.0), *[(0.0, 1e3)] * 6)
    expected = 2 * sum(gaussian(0, right, 0) for right in range(1, 6)) / 7
    assert gated_crf_loss(logits, row(*[(0.5,)] * 7)).item() == pytest.approx(expected, abs=1e-12)


def brute_force_crf(logits: Tensor, images: Tensor) -> Tensor:
    """Every pixel against every other, one after the other."""
    batch, num_bands, height, width = images.shape
    probs, total = logits.softmax(dim=1), torch.zeros((), dtype=torch.float64)
    pixels = list(itertools.product(range(height), range(width)))
    for b, (r, c), (s, d) in itertools.product(range(batch), pixels, pixels):
        if (r, c) != (s, d) and abs(r - s) <= 5 and abs(c - d) <= 5:
            colour = ((images[b, :, r, c] - images[b, :, s, d]) ** 2).sum().item()
            unlike = (probs[b, :, r, c] * (1 - probs[b, :, s, d])).sum()
            total = total + gaussian(r - s, c - d, colour, num_bands) * unlike
    return total / (batch * len(pixels))


# The first is larger than the window, the others smaller in one direction or in both.
@pytest.mark.parametrize(("num_bands", "height", "width"), [(3, 7, 8), (1, 2, 9), (4, 3, 2), (8, 1, 1)])
def test_crf_is_the_sum_over_all_pairs(num_bands: int, height: int, width: int) -> None:
    images = random_images(num_bands, height, width)
    logits = random_logits(3, height, width).requires_grad_()
    losses = gated_crf_loss(logits, images), brute_force_crf(logits, images)
    torch.testing.assert_close(*losses, rtol=0, atol=1e-12)
    if height * width > 1:  # a pixel alone has no neighbour, and its loss no graph to compare
        torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in losses), rtol=0, atol=1e-12)


def test_crf_is_zero_where_one_class_is_sure_everywhere_and_not_where_none_is() -> None:
    sure = torch.zeros(2, 3, 5, 7, dtype=torch.float64)
    sure[:, 1] = 1e3
    assert gated_crf_loss(sure, random_images()).item() == 0
    assert gated_crf_loss(torch.zeros_like(sure), random_images()).item() > 0.1


def test_crf_averages_images_down_to_the_prediction() -> None:
    images = random_images()
    larger = images.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    expected = gated_crf_loss(random_logits(), images)
    torch.testing.assert_close(gated_crf_loss(random_logits(), larger), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("contrast", "follows"), [(0.3, True), (0.0, False)])
def test_crf_makes_a_noisy_prediction_follow_the_image_s_edge(contrast: float, follows: bool) -> None:
    # The image has its edge at column 8. The prediction has noise, and its edge at column 6.
    column = torch.arange(16).expand(1, 16, 16)
    images = (0.5 + contrast * ((column >= 8).double() - 0.5)).unsqueeze(1).repeat(1, 4, 1, 1)
    towards_forest = (column >= 6).double() - 0.5
    noise = torch.randn(1, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = (torch.stack([-towards_forest, towards_forest], dim=1) + noise).requires_grad_()
    assert (logits.argmax(dim=1) == (column >= 8)).double().mean() < 0.7
    for _ in range(20):
        (gradient,) = torch.autograd.grad(gated_crf_loss(logits, images), logits)
        logits = (logits - 10 * gradient).detach().requires_grad_()
    agreement = (logits.argmax(dim=1) == (column >= 8)).double().mean()
    assert agreement == 1 if follows else agreement < 0.9


def all_losses(logits: Tensor, images: Tensor) -> dict[str, Tensor]:
    """Each regulariser of the module, of the same predictions."""
    unlabelled = torch.ones_like(logits[:, 0], dtype=torch.bool)
    return {
        "entropy": entropy_loss(logits, unlabelled),
        "consistency": consistency_loss(logits, logits.flip(-1)),
        "crf": gated_crf_loss(logits, images),
    }


def test_half_precision_is_computed_in_float32() -> None:
    logits = random_logits().bfloat16()
    half, single = all_losses(logits, random_images()), all_losses(logits.float(), random_images())
    assert {name: loss.item() for name, loss in half.items()} == {name: loss.item() for name, loss in single.items()}
    assert {loss.dtype for loss in half.values()} == {torch.float32}


def test_the_memory_layout_changes_nothing() -> None:
    other = random_logits().contiguous(memory_format=torch.channels_last)
    for name, loss in all_losses(other, random_images()).items():
        torch.testing.assert_close(loss, all_losses(random_logits(), random_images())[name], rtol=0, atol=1e-12)


def test_the_host_never_waits_for_the_device() -> None:
    # Tensors on "meta" have no content: whatever needs it on the host raises.
    logits = torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)
    losses = all_losses(logits, torch.empty(2, 4, 16, 16, device="meta"))
    assert all(torch.autograd.grad(loss, logits)[0].is_meta for loss in losses.values())
    with pytest.raises((RuntimeError, NotImplementedError)):
        losses["crf"].item()


NEEDS_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_deterministic_mode_is_kept_and_gives_the_same_bits_twice(device: str) -> None:
    logits, images = random_logits().to(device).requires_grad_(), random_images(4, 20, 28).to(device)
    first, second = (all_losses(logits, images) for _ in range(2))
    for name, expected in all_losses(random_logits(), random_images(4, 20, 28)).items():
        assert torch.equal(first[name], second[name])
        assert torch.equal(*(torch.autograd.grad(each[name], logits)[0] for each in (first, second)))
        torch.testing.assert_close(first[name].cpu(), expected, rtol=0, atol=1e-12)
