import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from trainable.config import IGNORE_INDEX, POINT_STRATEGIES
from trainable.point_strategies import AVOIDED_PX, BAND_PX, STRATEGIES, Streams, squared_distance

# Higher than wide, a third of it unknown, both classes in patches of 4 x 4 pixels.
PATCHES = np.random.default_rng(0).choice([0, 1, IGNORE_INDEX], (16, 12)).repeat(4, axis=0).repeat(4, axis=1)
MASK: NDArray[np.uint8] = PATCHES.astype(np.uint8)
EDGE: NDArray[np.uint8] = np.repeat([[0] * 16 + [1] * 16], 32, axis=0).astype(np.uint8)  # forest from column 16 on

every_strategy = pytest.mark.parametrize("strategy", POINT_STRATEGIES)


def pixels(mask: NDArray[np.uint8], num_points: int, strategy: str, name: str = "a.png", seed: int = 0) -> list[int]:
    """Flattened positions, in the order of their rank."""
    return STRATEGIES[strategy](mask, num_points, Streams(seed, strategy, name)).tolist()


def test_every_strategy_of_the_settings_is_there() -> None:
    assert tuple(STRATEGIES) == POINT_STRATEGIES


@every_strategy
def test_a_list_ends_when_every_pixel_that_may_be_labelled_is_in_it(strategy: str) -> None:
    candidates = MASK == 1 if strategy == "positive_only" else MASK != IGNORE_INDEX
    listed = pixels(MASK, MASK.size, strategy)
    assert sorted(listed) == np.flatnonzero(candidates).tolist()  # once each, and none that is unknown


@every_strategy
def test_an_image_of_one_class_and_one_of_one_pixel_can_be_labelled(strategy: str) -> None:
    assert len(set(pixels(np.ones((8, 8), np.uint8), 20, strategy))) == 20
    assert pixels(np.ones((1, 1), np.uint8), 20, strategy) == [0]


@every_strategy
def test_images_and_seeds_have_lists_of_their_own(strategy: str) -> None:
    lists = [set(pixels(EDGE, 50, strategy, name, seed)) for name in ("a.png", "b.png") for seed in (0, 1)]
    # Of the 192 pixels of the band at the boundary, or more: independent lists share 50 * 50 / 192 = 13 on average.
    assert max(len(one & other) for one, other in itertools.combinations(lists, 2)) <= 25


# uniform


@pytest.mark.parametrize("strategy", ["uniform", "grid", "clustered"])
def test_a_list_depends_on_where_is_known_and_not_on_what(strategy: str) -> None:
    # A corrected label must not move the points.
    assert pixels(EDGE, 50, strategy) == pixels(1 - EDGE, 50, strategy)


@pytest.mark.parametrize("num_points", [1, 4])
def test_uniform_points_are_uniform(num_points: int) -> None:
    mask = np.zeros((4, 4), dtype=np.uint8)
    draws = [pixels(mask, num_points, "uniform", f"{number}.png") for number in range(1600 // num_points)]
    observed = np.bincount(np.concatenate(draws), minlength=16)
    # 1600 points on 16 pixels: 100 each. Chi-square with 15 degrees of freedom: 37.7 is exceeded once in a thousand.
    assert ((observed - 100) ** 2 / 100).sum() < 37.7


def test_the_end_of_a_long_list_is_uniform_too() -> None:
    mask = np.zeros((48, 48), dtype=np.uint8)  # 2304 pixels; about 827 of them are thrown, the rest is permuted
    last = np.concatenate([pixels(mask, 1800, "uniform", f"{number}.png")[900:] for number in range(16)])
    observed = np.histogram2d(*np.divmod(last, 48), bins=4)[0]  # 900 points of an image in 16 cells
    assert ((observed - 900) ** 2 / 900).sum() < 37.7


# per_class


def test_classes_take_turns() -> None:
    classes = MASK.ravel()[pixels(MASK, 200, "per_class")]
    assert (classes[::2] == classes[0]).all()
    assert (classes[1::2] == 1 - classes[0]).all()


def test_the_other_class_goes_on_where_one_has_run_out() -> None:
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2, 3:6] = 1
    classes = mask.ravel()[pixels(mask, 12, "per_class")].tolist()
    assert sorted(classes[:6]) == [0, 0, 0, 1, 1, 1]
    assert classes[6:] == [0] * 6


def test_either_class_may_begin() -> None:
    first = EDGE.ravel()[[pixels(EDGE, 1, "per_class", f"{number}.png")[0] for number in range(100)]]
    assert 30 <= first.sum() <= 70  # binomial, 100 at 1/2: beyond 4 standard deviations


def test_the_classes_have_streams_of_their_own() -> None:
    rows, columns = np.divmod(pixels(EDGE, 100, "per_class"), 32)
    places = rows * 16 + columns % 16  # forest and background are halves of one shape
    assert (places[::2] == places[1::2]).sum() <= 3  # 50 pairs, 512 pixels


# grid


@pytest.mark.parametrize("cells", [2, 4, 8])
def test_every_prefix_of_the_grid_covers_its_cells_evenly(cells: int) -> None:
    mask = np.zeros((64, 64), dtype=np.uint8)
    for name in ("a.png", "b.png", "c.png"):
        rows, columns = np.divmod(pixels(mask, 256, "grid", name), 64)
        cell = rows * cells // 64 * cells + columns * cells // 64
        for count in range(1, 257):
            in_cells = np.bincount(cell[:count], minlength=cells**2)
            # At cells^2 points one in each; at any count no cell has two more than another.
            assert in_cells.max() - in_cells.min() <= 1


def test_the_grid_leaves_unknown_pixels_out_and_stays_even_elsewhere() -> None:
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:, :32] = IGNORE_INDEX
    rows, columns = np.divmod(pixels(mask, 32, "grid"), 64)
    assert columns.min() >= 32
    # The known half, 8 cells of 16 x 16 px: 4 points each, or one more or less where the list ends amid a round.
    assert np.abs(np.bincount(rows // 16 * 2 + (columns - 32) // 16, minlength=8) - 4).max() <= 1


def test_a_long_grid_is_even_to_its_end() -> None:
    rows, columns = np.divmod(pixels(np.zeros((64, 64), np.uint8), 2048, "grid"), 64)
    assert np.bincount(rows // 2 * 32 + columns // 2, minlength=1024).tolist() == [2] * 1024


def test_the_grid_is_shifted_at_random() -> None:
    mask = np.zeros((4, 4), dtype=np.uint8)
    observed = np.bincount([pixels(mask, 1, "grid", f"{number}.png")[0] for number in range(1600)], minlength=16)
    assert ((observed - 100) ** 2 / 100).sum() < 37.7


# boundary and boundary_avoiding


@pytest.mark.parametrize("seed", range(5))
def test_the_distance_to_another_class_is_exact(seed: int) -> None:
    # Few points of forest in much background, so that all distances up to the limit occur; an eighth is unknown.
    generator = np.random.default_rng(seed)
    mask = generator.choice([0, 1, IGNORE_INDEX], (19, 26), p=[0.86, 0.015, 0.125]).astype(np.uint8)
    places = np.stack(np.indices(mask.shape), axis=-1).reshape(-1, 2)
    squared = ((places[:, None] - places[None]) ** 2).sum(axis=-1)
    flat = mask.ravel()
    is_other = (flat[:, None] != flat[None]) & (flat[None] != IGNORE_INDEX)
    expected = np.where(is_other, squared, AVOIDED_PX**2).min(axis=1).clip(max=AVOIDED_PX**2)
    known = flat != IGNORE_INDEX
    assert squared_distance(mask).ravel()[known].tolist() == expected[known].tolist()
    assert len(set(expected[known])) > 5


def test_boundary_points_lie_in_the_band_first_and_then_by_distance() -> None:
    columns = np.array(pixels(EDGE, EDGE.size, "boundary")) % 32
    distance = np.where(columns < 16, 16 - columns, columns - 15)
    in_band = 2 * BAND_PX * 32  # 3 columns on either side
    assert distance[:in_band].max() == BAND_PX
    assert len(set(distance[:20])) > 1  # anywhere in the band
    assert distance[in_band : in_band + 64].tolist() == [BAND_PX + 1] * 64
    assert distance[in_band + 64 :].min() == AVOIDED_PX
    assert (np.diff(distance[in_band + 64 :]) < 0).any()  # farther off, all are alike


def test_points_avoid_the_boundary_and_then_take_the_farthest() -> None:
    columns = np.array(pixels(EDGE, EDGE.size, "boundary_avoiding")) % 32
    distance = np.where(columns < 16, 16 - columns, columns - 15)
    clear = 2 * 12 * 32  # columns 0 to 11 and 20 to 31
    assert distance[:clear].min() == AVOIDED_PX
    assert len(set(columns[:50].tolist())) > 10  # anywhere in the clear
    assert distance[clear:].tolist() == sorted(distance[clear:], reverse=True)


def test_where_no_pixel_is_clear_of_the_boundary_the_middle_is_clicked() -> None:
    mask = np.repeat([[0, 0, 0, 1, 1, 1] * 4], 24, axis=0).astype(np.uint8)  # strips of 3 px
    mask[:, 0] = mask[:, -1] = IGNORE_INDEX  # unknown is no class: nothing is bounded by it
    columns = np.array(pixels(mask, 8 * 24, "boundary_avoiding")) % 24
    # At the sides two columns are left of a strip, the outer one of them 2 px from the next.
    assert sorted(set(columns.tolist())) == [1, 4, 7, 10, 13, 16, 19, 22]


# clustered and positive_only


def test_clustered_points_are_in_clumps() -> None:
    mask = np.zeros((256, 256), dtype=np.uint8)

    def mean_distance_to_nearest(strategy: str) -> float:
        places = np.stack(np.divmod(pixels(mask, 50, strategy), 256), axis=1)
        distances = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + np.eye(50) * 1e9
        return float(distances.min(axis=1).mean())

    # Uniform: 0.5 / sqrt(density) = 18 px. Five points of standard deviation 5 px around a place: 4 to 5 px.
    assert mean_distance_to_nearest("clustered") < 8 < 14 < mean_distance_to_nearest("uniform")


def test_positive_only_stops_where_the_forest_ends() -> None:
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2, 3:6] = 1
    assert sorted(pixels(mask, 10, "positive_only")) == [19, 20, 21]
    assert pixels(mask * 0, 10, "positive_only") == []
