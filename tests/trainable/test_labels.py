import numpy as np
import pytest

from trainable.config import IGNORE_INDEX
from trainable.labels import mask_labels, point_labels
from trainable.point_files import PointAnnotation

X = IGNORE_INDEX


def grey(*values: int) -> np.ndarray:
    return np.array([values], dtype=np.uint8).repeat(len(values), axis=0)


@pytest.mark.parametrize(
    ("values", "is_lossy", "labels", "is_indices"),
    [
        ((0, 127, 128, 255), False, [0, 0, 1, 1], False),
        ((0, 9, 246, 255), True, [0, 0, 1, 1], False),
        ((0, 1, 1, 0), False, [0, 1, 1, 0], True),  # class indices: the format keeps values
        ((0, 1, 1, 0), True, [0, 0, 0, 0], False),  # noise of a JPEG that is black
        ((0, 0, 0, 0), False, [0, 0, 0, 0], False),
        ((0, 1, 2, 0), False, [0, 0, 0, 0], False),  # neither convention
    ],
)
def test_masks_by_their_convention(
    values: tuple[int, ...], is_lossy: bool, labels: list[int], is_indices: bool
) -> None:
    found, facts = mask_labels(grey(*values), is_lossy, 4)
    assert found.tolist() == [labels] * 4
    assert facts.is_indices == is_indices
    assert facts.num_pixels == (4 * labels.count(0), 4 * labels.count(1))


@pytest.mark.parametrize(
    ("values", "share"), [((0, 9, 246, 255), 0.0), ((0, 10, 245, 255), 0.5), ((128, 50, 99, 200), 1.0)]
)
def test_what_is_neither_black_nor_white_is_counted(values: tuple[int, ...], share: float) -> None:
    assert mask_labels(grey(*values), True, 4)[1].grey_share == share


def test_points_fall_into_the_pixels_that_hold_them() -> None:
    # An image of 4 rows and 8 columns stored at 4 px: rows stay, columns are halved.
    points = [
        PointAnnotation(0.0, 0.0, 1),  # the outer corner
        PointAnnotation(1.999, 2.0, 0),  # row 1; column 2 is the left edge of stored column 1
        PointAnnotation(3.5, 7.999, 1),
    ]
    labels, facts = point_labels(points, (4, 8), 4)
    assert labels.tolist() == [[1, X, X, X], [X, 0, X, X], [X, X, X, X], [X, X, X, 1]]
    assert facts.num_pixels == (1, 2)
    assert facts.num_conflicts == 0


def test_of_two_points_in_one_pixel_the_first_counts() -> None:
    points = [PointAnnotation(0.2, 0.2, 1), PointAnnotation(0.8, 0.8, 0), PointAnnotation(0.5, 0.5, 1)]
    labels, facts = point_labels(points, (2, 2), 2)
    assert labels.tolist() == [[1, X], [X, X]]
    assert facts.num_conflicts == 1  # the third agrees


@pytest.mark.parametrize("length", [1, 3, 97, 250, 256, 1199])
@pytest.mark.parametrize("image_size", [32, 96, 256])
def test_a_point_just_inside_the_far_edge_stays_inside(length: int, image_size: int) -> None:
    edge = float(np.nextafter(length, 0))  # no rounding carries it over
    labels, _ = point_labels([PointAnnotation(edge, edge, 1)], (length, length), image_size)
    assert labels[-1, -1] == 1


def test_an_image_without_points_is_unknown_throughout() -> None:
    labels, facts = point_labels([], (5, 5), 2)
    assert labels.tolist() == [[X, X], [X, X]]
    assert facts.num_pixels == (0, 0)
