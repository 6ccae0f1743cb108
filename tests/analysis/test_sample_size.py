import numpy as np
import pytest
from scipy import stats

from analysis.sample_size import MAX_SEEDS, chance_to_decide, detectable, fewest, further_seeds, seeds_to_detect
from analysis.statistics import Estimate, mean_interval, paired_difference


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 20, 200])
@pytest.mark.parametrize("confidence", [0.95, 0.9967])
@pytest.mark.parametrize("distance", [0.1, 1.0, 5.0])
def test_without_seeds_so_far_the_chance_is_the_power_of_the_t_test(num_seeds, confidence, distance):
    critical = stats.t.ppf((1 + confidence) / 2, num_seeds - 1)
    exact = stats.nct.sf(critical, num_seeds - 1, distance * np.sqrt(num_seeds))
    assert chance_to_decide(distance, 0, num_seeds, confidence) == pytest.approx(exact, abs=2e-4)


def with_mean_and_spread(rng, num, mean):
    """So many values of exactly that mean and a standard deviation of 1."""
    values = rng.normal(size=num)
    return (values - values.mean()) / values.std(ddof=1) + mean


@pytest.mark.parametrize(("num_before", "num_more", "distance"), [(3, 2, 1.0), (3, 7, 0.8), (5, 20, 0.5), (2, 3, 1.5)])
def test_with_seeds_so_far_it_is_the_share_of_simulated_studies(num_before, num_more, distance):
    rng = np.random.default_rng(0)
    pilot = with_mean_and_spread(rng, num_before, distance)
    studies = np.concatenate([np.tile(pilot, (20_000, 1)), rng.normal(distance, 1, (20_000, num_more))], axis=1)
    decided = stats.ttest_1samp(studies, 0, axis=1).confidence_interval(0.95).low > 0
    assert chance_to_decide(distance, num_before, num_more, 0.95) == pytest.approx(decided.mean(), abs=0.012)


@pytest.mark.parametrize("num_seeds", [2, 3, 8, 20])
def test_the_detectable_distance_is_found_with_80_percent(num_seeds):
    assert chance_to_decide(detectable(num_seeds, 0.99), 0, num_seeds, 0.99) == pytest.approx(0.8, abs=1e-6)


def test_seeds_to_detect_by_the_textbook():
    # Two-sided 5 %, 80 %, half a standard deviation: (1.96 + .84)^2 / .5^2 = 31.4, and two more for the t: 34.
    assert seeds_to_detect(0.5, 0.95) == 34
    assert seeds_to_detect(0.5, 0.95, at_least=50) == 50
    assert seeds_to_detect(0.05, 0.95) is None  # 3,140 and more than anyone runs
    assert detectable(34, 0.95) <= 0.5 < detectable(33, 0.95)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("distance", [0.006, 0.004, -0.004])
def test_further_seeds_decide_four_studies_in_five(mode, distance):
    # 3 seeds of which the difference lies `distance` on the good side of a margin of .01, and varies by .005.
    rng, sign = np.random.default_rng(1), 1 if mode == "max" else -1
    pilot = 0.005 * with_mean_and_spread(rng, 3, (distance - 0.01) / 0.005) * sign
    number = further_seeds(mean_interval(pilot, 0.96), 0.01, mode, 0.995)
    fresh = rng.normal((distance - 0.01) * sign, 0.005, (4000, number))
    studies = np.concatenate([np.tile(pilot, (4000, 1)), fresh], axis=1)
    assert 0.78 <= decided(studies, -0.01 * sign) <= 0.87  # at least 80 %
    assert decided(studies[:, :-1], -0.01 * sign) < 0.82  # one seed less would be too few


def decided(studies, value):
    """The share of studies whose 99.5 % interval clears the value."""
    ends = stats.ttest_1samp(studies, 0, axis=1).confidence_interval(0.995)
    return ((ends.low > value) | (ends.high < value)).mean()


def test_nothing_is_said_where_nothing_is_known_or_nothing_would_do():
    assert further_seeds(mean_interval([0.1]), 0.01, "max", 0.95) is None
    assert further_seeds(Estimate(-0.01, -0.01, -0.01, 3, 0.95), 0.01, "max", 0.95) is None  # the margin, no spread
    on_the_margin = paired_difference([0.50, 0.60, 0.70], [0.505, 0.61, 0.715])
    assert on_the_margin.value == pytest.approx(-0.01)
    assert further_seeds(on_the_margin, 0.01, "max", 0.95) is None


def test_fewest_is_the_first_number_that_is_enough():
    assert fewest(lambda number: min(number / 100, 1.0), 1) == 80
    assert fewest(lambda number: min(number / 100, 1.0), 90) == 90
    assert fewest(lambda number: number / MAX_SEEDS * 0.79, 1) is None
