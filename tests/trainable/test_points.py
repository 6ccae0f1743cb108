import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from trainable.config import IGNORE_INDEX, POINT_STRATEGIES, InputError, TrainConfig
from trainable.points import Points, describe_points, draw_points, pack_points

# Higher than wide, a third of it unknown, both classes in patches of 4 x 4 pixels.
PATCHES = np.random.default_rng(0).choice([0, 1, IGNORE_INDEX], (16, 12)).repeat(4, axis=0).repeat(4, axis=1)
MASK: NDArray[np.uint8] = PATCHES.astype(np.uint8)
EDGE: NDArray[np.uint8] = np.repeat([[0] * 16 + [1] * 16], 32, axis=0).astype(np.uint8)  # forest from column 16 on
ERRORS = {"label_flip_rate": 0.2, "position_jitter_px": 2.0}

every_strategy = pytest.mark.parametrize("strategy", POINT_STRATEGIES)


def as_rows(points: Points) -> list[list[int]]:
    return np.stack([points.rows, points.columns, points.classes], axis=1).tolist()


@every_strategy
@pytest.mark.parametrize("errors", [{}, ERRORS])
def test_points_nest(strategy: str, errors: dict[str, float]) -> None:
    config = TrainConfig(point_strategy=strategy, **errors)
    lists = [as_rows(draw_points(MASK, count, "a.png", config)) for count in (1, 10, 50, 100, 200, 1500, MASK.size)]
    assert [len(each) for each in lists[:5]] == [1, 10, 50, 100, 200]
    for few, many in itertools.pairwise(lists):
        assert few == many[: len(few)]


@every_strategy
def test_points_and_errors_follow_their_own_seed_where_they_have_one(strategy: str) -> None:
    def drawn(**seeds: int) -> list[list[int]]:
        return as_rows(draw_points(MASK, 50, "a.png", TrainConfig(point_strategy=strategy, **ERRORS, **seeds)))

    assert drawn(seed=7, points_seed=3) == drawn(seed=3) == drawn(seed=0, points_seed=3)
    assert drawn(seed=7, points_seed=3) != drawn(seed=7)


@every_strategy
def test_points_carry_the_class_of_their_pixel(strategy: str) -> None:
    points = draw_points(MASK, 200, "a.png", TrainConfig(point_strategy=strategy))
    assert points.classes.tolist() == MASK[points.rows, points.columns].tolist()
    assert (points.rows.dtype, points.columns.dtype, points.classes.dtype) == (np.int64, np.int64, np.uint8)


@every_strategy
def test_nothing_known_gives_no_points(strategy: str) -> None:
    unknown = np.full((4, 4), IGNORE_INDEX, np.uint8)
    config = TrainConfig(point_strategy=strategy, **ERRORS)
    assert as_rows(draw_points(unknown, 10, "a.png", config)) == []


def test_another_process_draws_the_same() -> None:
    code = (
        "import numpy as np\n"
        "from trainable.config import POINT_STRATEGIES, TrainConfig\n"
        "from trainable.points import draw_points\n"
        "mask = np.repeat([[0] * 16 + [1] * 16], 32, axis=0).astype(np.uint8)\n"
        "for strategy in POINT_STRATEGIES:\n"
        "    config = TrainConfig(point_strategy=strategy, seed=3, label_flip_rate=0.2, position_jitter_px=2.0)\n"
        "    points = draw_points(mask, 50, 'a.png', config)\n"
        "    print(points.rows.tolist(), points.columns.tolist(), points.classes.tolist())\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    here = (
        draw_points(EDGE, 50, "a.png", TrainConfig(point_strategy=strategy, seed=3, **ERRORS))
        for strategy in POINT_STRATEGIES
    )
    expected = [f"{p.rows.tolist()} {p.columns.tolist()} {p.classes.tolist()}" for p in here]
    assert printed.stdout.splitlines() == expected


# The annotator's errors


def test_flips_come_at_their_rate_and_leave_the_places() -> None:
    mask = np.ones((64, 64), dtype=np.uint8)
    sound, careless = (draw_points(mask, 4000, "a.png", TrainConfig(label_flip_rate=rate)) for rate in (0.0, 0.2))
    assert sound.classes.min() == 1
    # Binomial: 4000 at 0.2 is 800, standard deviation 25.
    assert 700 < (careless.classes == 0).sum() < 900
    np.testing.assert_array_equal(sound.rows, careless.rows)


def test_a_higher_rate_only_adds_flips_and_1_flips_all() -> None:
    lists = [draw_points(EDGE, 500, "a.png", TrainConfig(label_flip_rate=rate)) for rate in (0.1, 0.3, 1.0)]
    few, more, every = (points.classes != EDGE[points.rows, points.columns] for points in lists)
    assert 0 < few.sum() < more.sum() < 500
    assert (more | ~few).all()
    assert every.all()


def test_jitter_moves_the_click_and_keeps_the_class_of_the_pixel_it_was_meant_for() -> None:
    mask = np.random.default_rng(0).integers(0, 2, (256, 256), dtype=np.uint8)
    meant, made = (draw_points(mask, 4000, "a.png", TrainConfig(position_jitter_px=px)) for px in (0.0, 3.0))
    np.testing.assert_array_equal(meant.classes, made.classes)
    inner = (np.minimum(meant.rows, meant.columns) > 20) & (np.maximum(meant.rows, meant.columns) < 235)
    for moved, was in ((made.rows, meant.rows), (made.columns, meant.columns)):
        offsets = (moved - was)[inner]
        # Variance 9, and 1/12 from rounding; of 3000 points it is known to 0.23. The mean is known to 0.055.
        assert abs(offsets.var() - 9.083) < 1
        assert abs(offsets.mean()) < 0.25


def test_jitter_stays_in_the_image_and_points_may_share_a_pixel() -> None:
    points = draw_points(np.zeros((6, 9), np.uint8), 54, "a.png", TrainConfig(position_jitter_px=50.0))
    assert (points.rows.min(), points.rows.max()) == (0, 5)
    assert (points.columns.min(), points.columns.max()) == (0, 8)
    assert len(points.rows) == 54 > len(set(zip(points.rows.tolist(), points.columns.tolist(), strict=True)))


# Packing and describing


def points_of(*annotations: tuple[int, int, int]) -> Points:
    rows, columns, classes = np.array(annotations, dtype=np.int64).reshape(-1, 3).T
    return Points(rows, columns, classes.astype(np.uint8))


def test_lists_are_packed_to_the_length_of_the_longest() -> None:
    positions, classes = pack_points([points_of((0, 3, 1), (2, 1, 0)), points_of(), points_of((1, 0, 0))], width=10)
    assert positions.tolist() == [[3, 21], [0, 0], [10, 0]]
    assert classes.tolist() == [[1, 0], [255, 255], [0, 255]]
    assert (positions.dtype, classes.dtype) == (np.int64, np.int64)


def test_no_points_at_all_are_packed_to_a_width_of_1() -> None:
    positions, classes = pack_points([points_of(), points_of()], width=10)
    assert positions.tolist() == [[0], [0]]
    assert classes.tolist() == [[255], [255]]


def test_what_was_obtained_is_described() -> None:
    assert describe_points(np.array([[1, 3], [0, 2], [1, 0], [0, 0]])) == {
        "points/per_image": 7 / 4,
        "points/fewest": 0,
        "points/background_share": 2 / 7,
        "points/forest_share": 5 / 7,
        "points/images_of_one_class": 2,
        "points/images_without": 1,
    }


def test_no_point_in_any_image_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^training\.point_strategy: finds no pixel to label in any of the 2 training"
    ):
        describe_points(np.zeros((2, 2), np.int64))
