"""How often intervals of differences between point counts miss: where settings are chosen on the same seeds, and where
fresh seeds confirm them.

2,000 simulated studies a case, of equal normal noise, through the functions that choose and read arms. The comments
give the rates in 40,000 studies; the bounds allow three standard errors of 2,000 more (0.5 % each, at a rate of 5 %).
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.arms import Confirmation, confirmed_arms, explored_arms
from analysis.findings import Arm
from analysis.grid import Exploration, Grid
from analysis.reading.runs import StudyRuns
from analysis.statistics import Estimate, judge, paired_difference

pytestmark = pytest.mark.slow

NUM_STUDIES, BATCH = 2000, 100
NOISE = 0.01
MARGIN = 0.01
RUNNERS_UP = 1.0
"""How far the settings below a clear winner lie: none of them is ever chosen."""
NAMES = ["points_per_image", "learning_rate"]

Simulate = Callable[..., list[Estimate]]
Values = NDArray[np.float64]


@pytest.fixture
def simulate(make_study: Callable[..., StudyRuns]) -> Simulate:
    """A function that draws studies of two counts and returns the difference of the first to the second in each."""

    def differences(
        num_settings: int, num_seeds: int, clear_winner: bool = False, gap: float = 0.0, confirmed: bool = False
    ) -> list[Estimate]:
        rng = np.random.default_rng([num_settings, num_seeds])
        means = np.full((2, num_settings, 1), 0.7)
        means[0] -= gap
        means[1, 1:] -= RUNNERS_UP * clear_winner
        explored, fresh = (draw(rng, means, num_seeds) for _ in range(2))
        runs = make_study(roles=dict(zip(NAMES, ("scientific", "nuisance"), strict=True)))
        batches = zip(*(np.split(values, NUM_STUDIES // BATCH) for values in (explored, fresh)), strict=True)
        arms = [arm for batch in batches for arm in choose(runs, *batch, confirmed=confirmed)]
        return [paired_difference(a.readings, b.readings) for a, b in zip(arms[::2], arms[1::2], strict=True)]

    return differences


def draw(rng: np.random.Generator, means: Values, num_seeds: int) -> Values:
    """(studies, 2, settings, seeds): noise of each run, and five times as much that the runs of a seed share."""
    blocks = rng.normal(0, 5 * NOISE, (NUM_STUDIES, 1, 1, num_seeds))
    return means + blocks + rng.normal(0, NOISE, (NUM_STUDIES, *means.shape[:2], num_seeds))


def choose(runs: StudyRuns, explored: Values, fresh: Values, *, confirmed: bool) -> list[Arm]:
    """The arms of a batch of studies: its counts 2 i and 2 i + 1 are the two of study i."""
    grid = make_grid(explored)
    exploration = Exploration(grid, grid, list(range(len(grid.seeds))), [])
    arms = explored_arms(runs, exploration)
    if not confirmed:
        return arms
    again = make_grid(fresh)
    winners = again.take([again.cells.index(tuple(arm.parameters.values())) for arm in arms])
    return confirmed_arms(runs, exploration, Confirmation(winners, winners))


def make_grid(values: Values) -> Grid:
    num_settings, num_seeds = values.shape[2:]
    cells = [(count, setting) for count in range(2 * len(values)) for setting in range(num_settings)]
    ids = [["-"] * num_seeds] * len(cells)
    return Grid(NAMES, cells, list(range(num_seeds)), values.reshape(-1, num_seeds), ids, ids)


def miss_rate(differences: list[Estimate]) -> float:
    return float(np.mean([not d.low <= 0 <= d.high for d in differences if d.low is not None and d.high is not None]))


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_without_a_choice_intervals_miss_as_often_as_they_claim(simulate: Simulate, num_seeds: int) -> None:
    assert 0.035 <= miss_rate(simulate(1, num_seeds)) <= 0.065  # 5 % exactly


@pytest.mark.parametrize(("num_seeds", "most"), [(3, 0.036), (5, 0.027)])
def test_where_both_counts_have_ties_intervals_miss_less(simulate: Simulate, num_seeds: int, most: float) -> None:
    assert miss_rate(simulate(4, num_seeds)) <= most  # 2.5 % and 1.8 %


@pytest.mark.parametrize(("num_seeds", "most"), [(3, 0.078), (5, 0.084)])
def test_a_clear_winner_against_ties_misses_more(simulate: Simulate, num_seeds: int, most: float) -> None:
    rate = miss_rate(simulate(4, num_seeds, clear_winner=True))
    assert 0.045 <= rate <= most  # 6.1 % and 6.7 %; above 4.5 %: the curse is there, and the report names it


@pytest.mark.parametrize(("num_seeds", "most"), [(3, 0.091), (8, 0.112)])
def test_wrong_enough_at_a_gap_of_one_margin_in_the_worst_case(simulate: Simulate, num_seeds: int, most: float) -> None:
    differences = simulate(6, num_seeds, clear_winner=True, gap=MARGIN)
    wrong = np.mean([judge(difference, MARGIN, "max") == "within" for difference in differences])
    assert wrong <= most  # 7.3 % and 9.2 %


@pytest.mark.parametrize(("num_settings", "num_seeds"), [(4, 3), (6, 8)])
def test_confirmation_repairs_the_winners_curse(simulate: Simulate, num_settings: int, num_seeds: int) -> None:
    # The very case in which intervals of exploration miss most: fresh seeds did not choose, so they miss in 5 %.
    assert 0.035 <= miss_rate(simulate(num_settings, num_seeds, clear_winner=True, confirmed=True)) <= 0.065


def test_confirmed_enough_is_rarely_wrong(simulate: Simulate) -> None:
    differences = simulate(6, 8, clear_winner=True, gap=MARGIN, confirmed=True)
    wrong = np.mean([judge(difference, MARGIN, "max") == "within" for difference in differences])
    assert wrong <= 0.035  # 2.5 %, half of what an interval may miss; 9.2 % without confirmation
