"""Jackknife values of scenes, and how often the intervals that stand on them cover in simulated data."""

from itertools import combinations

import numpy as np
import pytest

from analysis.family import paired_family
from analysis.reading.scene_counts import pooled_metric
from analysis.scenes import jackknife_values
from analysis.statistics import mean_interval


def draw(rng, num_studies, num_scenes, num_arms):
    """(studies, arms, scenes, 2, 2) pixels: scenes unequal in size, in share of forest and in difficulty."""
    size = rng.integers(3, 30, (num_studies, 1, num_scenes)) * 4096.0
    forest = rng.beta(1.2, 0.9, size.shape) * size
    hard = rng.normal(0, 0.7, size.shape) + rng.normal(0, 0.25, (num_studies, num_arms, num_scenes))
    level = np.linspace(-1.5, -1.3, num_arms)[:, None] + hard
    missed, false = 1 / (1 + np.exp(-level)), 1 / (1 + np.exp(-(level + 0.2 - 1.5 * hard)))
    rows = [(size - forest) * (1 - false), (size - forest) * false, forest * missed, forest * (1 - missed)]
    return np.stack(np.broadcast_arrays(*rows), axis=-1).reshape(*level.shape, 2, 2)


@pytest.fixture(scope="module")
def truth():
    """What three arms would read on endlessly many scenes."""
    return pooled_metric(draw(np.random.default_rng(9), 1, 1_000_000, 3).sum(axis=2), "miou")[0]


@pytest.mark.parametrize("num_scenes", [4, 6, 12, 38])
def test_intervals_over_scenes_cover_for_means_and_for_all_differences(truth, num_scenes):
    values = jackknife_values(draw(np.random.default_rng(num_scenes), 1000, num_scenes, 3), "miou")
    means, families = 0, 0
    for each in values:
        interval = mean_interval(each[0])
        means += interval.low <= truth[0] <= interval.high
        family = paired_family(each)
        families += all(
            family[i, j].low <= truth[i] - truth[j] <= family[i, j].high for i, j in combinations(range(3), 2)
        )
    assert 0.92 <= means / 1000 <= 0.97
    assert 0.91 <= families / 1000 <= 0.97


def test_a_percentile_bootstrap_of_few_scenes_would_not(truth):
    rng = np.random.default_rng(0)
    counts = draw(rng, 400, 4, 1)[:, 0]
    weights = rng.multinomial(4, [0.25] * 4, 500)
    hits = 0
    for each in counts:
        low, high = np.quantile(pooled_metric(np.einsum("rs,sij->rij", weights, each), "miou"), [0.025, 0.975])
        hits += low <= truth[0] <= high
    assert hits / 400 < 0.87


def test_the_mean_of_an_arms_values_is_its_reading():
    counts = draw(np.random.default_rng(1), 5, 7, 2)
    assert np.allclose(jackknife_values(counts, "miou").mean(axis=-1), pooled_metric(counts.sum(axis=2), "miou"))


def test_of_a_plain_mean_the_values_are_the_readings_themselves():
    # Equal scenes: accuracy is the mean of theirs.
    right = np.array([60.0, 80.0, 70.0])
    counts = np.zeros((1, 3, 2, 2))
    counts[0, :, 0, 0], counts[0, :, 1, 0] = right, 100 - right
    assert np.allclose(jackknife_values(counts, "accuracy"), right / 100)
