"""Confusion and border counts against counting one by one, and against scipy's distance transform."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt
from torch import Tensor

from trainable.config import IGNORE_INDEX
from trainable.pixel_counts import border_counts, confusion_counts, count_flags

TOLERANCE = 3


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 32, 32), (2, 257, 3), (1, 300, 300)])
@pytest.mark.parametrize("predicted_type", [torch.bool, torch.uint8, torch.int64])
@pytest.mark.parametrize("truth_type", [torch.uint8, torch.int64])
def test_confusion_is_what_counting_one_by_one_gives(
    shape: tuple[int, ...], predicted_type: torch.dtype, truth_type: torch.dtype
) -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, IGNORE_INDEX], shape, p=[0.3, 0.5, 0.2])
    predicted = rng.integers(0, 2, shape)
    expected = np.zeros((len(truth), 2, 2), dtype=np.int64)
    known = truth != IGNORE_INDEX
    np.add.at(expected, (np.nonzero(known)[0], truth[known], predicted[known]), 1)
    counts = confusion_counts(torch.from_numpy(predicted).to(predicted_type), torch.from_numpy(truth).to(truth_type))
    assert counts.dtype == torch.int64
    assert counts.tolist() == expected.tolist()


def test_counts_are_image_true_predicted() -> None:
    truth = torch.tensor([[[0, 0, 0, 1]], [[1, 1, 1, 1]]])
    predicted = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 1]]])
    assert confusion_counts(predicted, truth).tolist() == [[[2, 1], [0, 1]], [[0, 0], [3, 1]]]


def test_unknown_pixels_do_not_count() -> None:
    truth = torch.tensor([[[0, 1, IGNORE_INDEX, IGNORE_INDEX]]], dtype=torch.uint8)
    predicted = torch.tensor([[[0, 0, 0, 1]]])
    assert confusion_counts(predicted, truth).tolist() == [[[1, 0], [1, 0]]]


@pytest.mark.parametrize("num_pixels", [1, 7, 8, 1023, 1024, 1025, 2**16, 10**6 + 3])
def test_flags_are_counted_exactly_also_where_all_are_set(num_pixels: int) -> None:
    assert count_flags(torch.ones(2, 1, num_pixels, dtype=torch.uint8)).tolist() == [num_pixels] * 2


def test_maps_that_lie_scattered_or_unaligned_in_memory_count_the_same() -> None:
    truth = torch.randint(0, 2, (5, 33, 31), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    predicted = truth.flip(0)
    for seen in (slice(1, 4), slice(None, None, 2)):
        expected = confusion_counts(predicted[seen].clone(), truth[seen].clone())
        assert torch.equal(confusion_counts(predicted[seen], truth[seen]), expected)
        assert torch.equal(confusion_counts(predicted[seen].mT, truth[seen].mT), expected)


def border_counts_by_distance(predicted: NDArray[np.int64], truth: NDArray[np.int64]) -> list[int]:
    """The same five numbers of one image, from Euclidean distances."""
    known = truth != IGNORE_INDEX
    judged = distances(~known) > TOLERANCE
    borders = []
    for classes in (predicted, truth):
        near_background = binary_dilation(known & (classes == 0), np.ones((3, 3)))
        borders.append(known & (classes == 1) & near_background)
    found, true = borders
    matched = [each & judged & (distances(other) <= TOLERANCE) for each, other in ((found, true), (true, found))]
    flags = (matched[0], found & judged, matched[1], true & judged, judged)
    return [int(each.sum()) for each in flags]


def distances(to: NDArray[np.bool_]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = distance_transform_edt(~to) if to.any() else np.full(to.shape, np.inf)
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("unknown_share", [0.0, 0.01, 1.0])
def test_borders_against_the_distance_transform(seed: int, unknown_share: float) -> None:
    rng = np.random.default_rng(seed)
    shape = (3, int(rng.integers(1, 50)), int(rng.integers(1, 50)))
    # Few seeds, grown: blobs, with borders that partly coincide.
    truth = np.stack([binary_dilation(each, iterations=2) for each in rng.random(shape) < 0.01]).astype(np.int64)
    predicted = np.stack([np.roll(each, rng.integers(-4, 5, 2), (0, 1)) for each in truth])
    truth[rng.random(shape) < unknown_share] = IGNORE_INDEX
    counts = border_counts(torch.from_numpy(predicted), torch.from_numpy(truth))
    assert counts.tolist() == [border_counts_by_distance(*each) for each in zip(predicted, truth, strict=True)]


@pytest.mark.parametrize("row", range(5))
@pytest.mark.parametrize("column", range(5))
def test_within_3_px_means_in_a_disk(row: int, column: int) -> None:
    truth, predicted = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    truth[0, 6, 6] = 1
    predicted[0, 6 + row, 6 + column] = 1
    matched = int(row**2 + column**2 <= 9)
    assert border_counts(predicted, truth).tolist() == [[matched, 1, matched, 1, 256]]


def forest_from(column: int) -> Tensor:
    """(1, 10, 20), forest from a column on: its border is that column."""
    return (torch.arange(20) >= column).expand(1, 10, 20)


@pytest.mark.parametrize(("shift", "matched"), [(0, 10), (3, 10), (-3, 10), (4, 0)])
def test_a_shifted_border(shift: int, matched: int) -> None:
    counts = border_counts(forest_from(8 + shift), forest_from(8).byte())
    assert counts.tolist() == [[matched, 10, matched, 10, 200]]


def test_the_frame_is_no_border() -> None:
    assert border_counts(forest_from(0), forest_from(0).byte()).tolist() == [[0, 0, 0, 0, 200]]


def test_the_edge_of_what_is_known_is_no_border_and_a_border_near_it_is_not_judged() -> None:
    truth = forest_from(8).byte()
    truth[:, :, 15:] = IGNORE_INDEX  # 7 columns from the border, whose 10 pixels are judged
    assert border_counts(forest_from(8), truth).tolist() == [[10, 10, 10, 10, 120]]
    truth[:, :, 11:] = IGNORE_INDEX  # 3 columns from it
    assert border_counts(forest_from(8), truth).tolist() == [[0, 0, 0, 0, 80]]


def test_a_border_is_not_matched_by_the_edge_of_what_is_known() -> None:
    truth = forest_from(0).byte()
    truth[:, :, 15:] = IGNORE_INDEX  # 4 columns from the predicted border, and 3 from it the last that are known
    assert border_counts(forest_from(11), truth).tolist() == [[0, 10, 0, 0, 120]]


def test_nothing_is_judged_among_scattered_points() -> None:
    truth = torch.full((1, 32, 32), IGNORE_INDEX, dtype=torch.uint8)
    truth[0, ::4, ::4] = 1
    assert border_counts(torch.zeros_like(truth), truth).tolist() == [[0, 0, 0, 0, 0]]
