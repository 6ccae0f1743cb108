"""The loss of a batch: at points and dense alike, with each optional term, and where nothing is labelled."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainable.config import IGNORE_INDEX, TrainConfig
from trainable.loss import partial_focal_loss
from trainable.model import DECODER_WIDTHS, Segmenter
from trainable.objective import Objective
from trainable.regularisers import consistency_loss, entropy_loss, gated_crf_loss

HEIGHT, WIDTH = 16, 24
CONFIG = TrainConfig(encoder="mobilenet_v2", weights="none", image_size=32)
CLASS_WEIGHTS = torch.tensor([0.3, 1.7], dtype=torch.float64)
TERMS = {"entropy_weight": 0.25, "consistency_weight": 2.0, "crf_weight": 0.125}

every_stride = pytest.mark.parametrize("stride", [1, 2, 4])


class Seen(nn.Module):
    """A segmenter behind one convolution in place of encoder and decoder, in float64; it counts its calls."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = Segmenter(replace(CONFIG, decoder_stride=stride), 3).double()
            self.stem = nn.Conv2d(3, DECODER_WIDTHS[stride], 2 * stride + 1, stride, padding=stride).double()
        self.calls = 0

    def features(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.stem(images)

    def objective(self, class_weights: Tensor | None = None, **settings: Any) -> Objective:
        return Objective(replace(CONFIG, **settings), self.model, self.features, class_weights)

    def gradients(self, loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, [*self.stem.parameters(), *self.model.head.parameters()]))


@pytest.fixture(scope="module")
def models() -> dict[int, Seen]:
    return {stride: Seen(stride) for stride in (1, 2, 4)}


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, HEIGHT, WIDTH, dtype=torch.float64, generator=generator)


def annotate(points_per_image: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, their classes, and the same as a label map; the last place of the second image's list is unused."""
    generator = torch.Generator().manual_seed(2)
    positions = torch.rand(2, HEIGHT * WIDTH, generator=generator).argsort(dim=1)[:, :points_per_image]
    classes = torch.randint(0, 2, positions.shape, generator=generator)
    if points_per_image < HEIGHT * WIDTH:
        positions[1, -1], classes[1, -1] = 0, IGNORE_INDEX
    labels = torch.full((2, HEIGHT * WIDTH + 1), IGNORE_INDEX)  # one place more, where padding goes
    labels.scatter_(1, positions.masked_fill(classes == IGNORE_INDEX, HEIGHT * WIDTH), classes)
    return positions, classes, labels[:, :-1].reshape(2, HEIGHT, WIDTH).byte()


# Points and dense


@every_stride
@pytest.mark.parametrize("points_per_image", [1, 20, HEIGHT * WIDTH])
@pytest.mark.parametrize("focal_gamma", [0.0, 2.0])
@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
@pytest.mark.parametrize("terms", [{}, TERMS])
def test_points_and_a_label_map_of_the_same_pixels_give_the_same(
    models: dict[int, Seen],
    images: Tensor,
    stride: int,
    points_per_image: int,
    focal_gamma: float,
    class_weights: Tensor | None,
    terms: dict[str, float],
) -> None:
    seen = models[stride]
    positions, classes, labels = annotate(points_per_image)
    objective = seen.objective(class_weights, focal_gamma=focal_gamma, **terms)
    at_points, dense = objective(images, positions, classes), objective(images, None, labels)
    torch.testing.assert_close(at_points, dense, rtol=0, atol=1e-12)
    for ours, expected in zip(seen.gradients(at_points), seen.gradients(dense), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
        assert expected.any()


@every_stride
def test_it_is_the_focal_loss_of_the_dense_logits(models: dict[int, Seen], images: Tensor, stride: int) -> None:
    seen = models[stride]
    positions, classes, labels = annotate(20)
    loss = seen.objective(CLASS_WEIGHTS, focal_gamma=2.0)(images, positions, classes)
    expected = partial_focal_loss(seen.model.dense_logits(seen.stem(images)), labels, 2.0, CLASS_WEIGHTS)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)


def test_padding_changes_nothing(models: dict[int, Seen], images: Tensor) -> None:
    positions, classes, _ = annotate(20)
    padded = torch.zeros(2, 7, dtype=torch.int64)
    nothing = torch.full_like(padded, IGNORE_INDEX)
    objective = models[2].objective(CLASS_WEIGHTS, **TERMS)
    torch.testing.assert_close(
        objective(images, torch.cat([positions, padded], dim=1), torch.cat([classes, nothing], dim=1)),
        objective(images, positions, classes),
        rtol=0,
        atol=1e-12,
    )


# Optional terms


def parts(seen: Seen, images: Tensor, unlabelled: Tensor) -> dict[str, Tensor]:
    """Each term by itself, at the decoder's own resolution."""
    logits = seen.model.head(seen.stem(images))
    mirrored = seen.model.head(seen.stem(images.flip(3))).flip(3)
    return {
        "entropy_weight": entropy_loss(logits, unlabelled),
        "consistency_weight": consistency_loss(logits, mirrored),
        "crf_weight": gated_crf_loss(logits, images),
    }


def hit_map(labels: Tensor, stride: int) -> Tensor:
    """(B, h, w) bool: cells of the decoder's grid without a labelled pixel, one by one."""
    cells = labels.unfold(1, stride, stride).unfold(2, stride, stride)  # (B, h, w, stride, stride)
    return (cells == IGNORE_INDEX).all(dim=4).all(dim=3)


@every_stride
@pytest.mark.parametrize("on", [(), *((name,) for name in TERMS), ("entropy_weight", "crf_weight"), tuple(TERMS)])
@pytest.mark.parametrize("dense", [False, True])
def test_the_loss_is_the_sum_of_its_parts(
    models: dict[int, Seen], images: Tensor, stride: int, on: tuple[str, ...], dense: bool
) -> None:
    seen = models[stride]
    positions, classes, labels = annotate(20)
    batch = (images, None, labels) if dense else (images, positions, classes)
    seen.calls = 0
    loss = seen.objective(focal_gamma=1.0, **{name: TERMS[name] for name in on})(*batch)
    assert seen.calls == (2 if "consistency_weight" in on else 1)  # the mirror images alone cost a second pass
    expected = partial_focal_loss(seen.model.dense_logits(seen.stem(images)), labels, 1.0)
    each = parts(seen, images, hit_map(labels, stride))
    assert all(part > 1e-6 for part in each.values())
    expected = expected + sum(TERMS[name] * each[name] for name in on)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)


def test_both_views_learn_from_their_difference(models: dict[int, Seen], images: Tensor) -> None:
    seen = models[2]
    positions, classes, labels = annotate(20)
    base, full = (
        seen.gradients(seen.objective(consistency_weight=weight)(images, positions, classes)) for weight in (0.0, 3.0)
    )
    alone = seen.gradients(parts(seen, images, hit_map(labels, 2))["consistency_weight"])
    for without, with_term, term in zip(base, full, alone, strict=True):
        torch.testing.assert_close(with_term - without, 3 * term, rtol=0, atol=1e-12)


# Eight by eight pixels, three of them labelled: (0, 0), (3, 5), (7, 6).
THREE = torch.tensor([[0, 3 * 8 + 5, 7 * 8 + 6]])
AT_STRIDE_2 = [
    [False, True, True, True],
    [True, True, False, True],
    [True, True, True, True],
    [True, True, True, False],
]
AT_STRIDE_4 = [[False, False], [True, False]]


@pytest.mark.parametrize(("stride", "unlabelled"), [(2, AT_STRIDE_2), (4, AT_STRIDE_4)])
@pytest.mark.parametrize("dense", [False, True])
def test_unlabelled_is_where_no_labelled_pixel_lies(
    models: dict[int, Seen], stride: int, unlabelled: list[list[bool]], dense: bool
) -> None:
    seen = models[stride]
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    classes = torch.tensor([[0, 1, 1]])
    labels = torch.full((1, 64), IGNORE_INDEX).scatter_(1, THREE, classes).view(1, 8, 8).byte()
    batch = (images, None, labels) if dense else (images, THREE, classes)
    term = seen.objective(entropy_weight=1.0)(*batch) - seen.objective()(*batch)
    expected = entropy_loss(seen.model.head(seen.stem(images)), torch.tensor([unlabelled]))
    torch.testing.assert_close(term, expected, rtol=0, atol=1e-12)
    everywhere = entropy_loss(seen.model.head(seen.stem(images)), torch.ones(1, 8 // stride, 8 // stride) > 0)
    assert abs(term - everywhere) > 1e-6  # the mask matters here


def test_a_padded_place_labels_nothing(models: dict[int, Seen]) -> None:
    # Padding has position 0: taken for a point, it would hide the first cell from the entropy.
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    positions, classes = torch.tensor([[63, 0]]), torch.tensor([[1, IGNORE_INDEX]])
    seen = models[4]
    term = seen.objective(entropy_weight=1.0)(images, positions, classes) - seen.objective()(images, positions, classes)
    expected = entropy_loss(seen.model.head(seen.stem(images)), torch.tensor([[[True, True], [True, False]]]))
    torch.testing.assert_close(term, expected, rtol=0, atol=1e-12)


# Nothing labelled


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
@pytest.mark.parametrize("terms", [{}, TERMS])
def test_a_batch_without_labels_has_a_finite_loss_with_a_graph(
    models: dict[int, Seen], images: Tensor, dense: bool, class_weights: Tensor | None, terms: dict[str, float]
) -> None:
    seen = models[2]
    nothing = torch.full((2, HEIGHT, WIDTH), IGNORE_INDEX).byte() if dense else torch.full((2, 5), IGNORE_INDEX)
    positions = None if dense else torch.zeros(2, 5, dtype=torch.int64)
    loss = seen.objective(class_weights, focal_gamma=0.5, **terms)(images, positions, nothing)
    gradients = seen.gradients(loss)
    assert all(gradient.isfinite().all() for gradient in gradients)
    if terms:  # the optional ones need no label
        expected = parts(seen, images, torch.ones(2, HEIGHT // 2, WIDTH // 2) > 0)
        assert loss.item() == pytest.approx(sum(TERMS[name] * expected[name].item() for name in TERMS), abs=1e-12)
    else:
        assert loss.item() == 0
        assert not any(gradient.any() for gradient in gradients)


def test_entropy_has_nothing_to_say_where_all_is_labelled(models: dict[int, Seen], images: Tensor) -> None:
    _, _, labels = annotate(HEIGHT * WIDTH)
    objectives = (models[2].objective(entropy_weight=weight) for weight in (0.0, 10.0))
    without, with_term = (objective(images, None, labels) for objective in objectives)
    assert torch.equal(without, with_term)
