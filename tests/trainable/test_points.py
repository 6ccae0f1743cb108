import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from trainable.config import IGNORE_INDEX
from trainable.points import point_labels, ranked_points

MASK: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 2, (32, 32), dtype=np.uint8)
COUNTS = (10, 50, 100, 200)


@pytest.mark.parametrize(("fewer", "more"), list(itertools.pairwise(COUNTS)))
def test_points_nest(fewer: int, more: int) -> None:
    few, many = (ranked_points(MASK, count, "a.png", 0) for count in (fewer, more))
    assert (few.size, many.size) == (fewer, more)
    np.testing.assert_array_equal(few, many[:fewer])  # the first of the list, hence a subset


def test_no_point_comes_twice() -> None:
    points = ranked_points(MASK, MASK.size, "a.png", 0)
    assert sorted(points.tolist()) == list(range(32 * 32))


def test_images_and_seeds_have_lists_of_their_own() -> None:
    lists = [ranked_points(MASK, 50, name, seed) for name in ("a.png", "b.png") for seed in (0, 1)]
    # 50 of 1024 pixels: two independent lists share 50 * 50 / 1024 = 2.4 on average.
    shared = [np.intersect1d(lists[i], lists[j]).size for i in range(4) for j in range(i)]
    assert max(shared) <= 10


def test_a_list_depends_on_where_is_known_and_not_on_what() -> None:
    # A corrected label must not move the points.
    np.testing.assert_array_equal(ranked_points(MASK, 50, "a.png", 0), ranked_points(1 - MASK, 50, "a.png", 0))


def test_another_process_draws_the_same() -> None:
    code = (
        "import numpy as np; from trainable.points import ranked_points;"
        "print(ranked_points(np.zeros((32, 32), np.uint8), 50, 'a.png', 3).tolist())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    assert printed.stdout.strip() == str(ranked_points(np.zeros((32, 32), np.uint8), 50, "a.png", 3).tolist())


@pytest.mark.parametrize("num_points", [1, 4])
def test_points_are_uniform(num_points: int) -> None:
    mask = np.zeros((4, 4), dtype=np.uint8)
    draws = [ranked_points(mask, num_points, f"{number}.png", 0) for number in range(1600 // num_points)]
    observed = np.bincount(np.concatenate(draws), minlength=16)
    # 1600 points on 16 pixels: 100 each. Chi-square with 15 degrees of freedom: 37.7 is exceeded once in a thousand.
    assert ((observed - 100) ** 2 / 100).sum() < 37.7


def test_unknown_pixels_are_never_drawn() -> None:
    mask = MASK.copy()
    mask[:, 1:] = IGNORE_INDEX
    points = ranked_points(mask, 200, "a.png", 0)
    assert sorted(points.tolist()) == list(range(0, 1024, 32))  # column 0 alone, and all of it: 32 of the 200 asked for


def test_nothing_known_gives_no_points() -> None:
    assert ranked_points(np.full((4, 4), IGNORE_INDEX, np.uint8), 10, "a.png", 0).size == 0


def test_labels_hold_the_class_at_the_points_alone() -> None:
    mask = np.array([[0, 1, 1], [0, 0, 1]], dtype=np.uint8)
    labels = point_labels(mask, np.array([1, 3]))  # row 0 column 1, row 1 column 0
    assert labels.tolist() == [[255, 1, 255], [0, 255, 255]]
    assert labels.dtype == np.uint8
