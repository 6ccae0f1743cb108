from dataclasses import replace
from math import pi, sqrt

import numpy as np
import pytest
from scipy import stats

from analysis.find import find
from analysis.topics.curse import expected_maximum, find_curse, unpaired_difference

ROLES = {"points_per_image": "scientific", "learning_rate": "nuisance"}
CELLS = {
    (10, 0.001): [0.60, 0.62, 0.64],
    (10, 0.01): [0.50, 0.51, 0.55],
    (50, 0.001): [0.70, 0.72, 0.74],
    (50, 0.01): [0.60, 0.61, 0.65],
}
FRESH = {(10, 0.001): [0.52, 0.53, 0.54, 0.55], (50, 0.001): [0.62, 0.63, 0.64, 0.65]}


def topic(runs):
    return find_curse(runs, find(runs))


def test_each_level_has_what_exploration_read_and_what_fresh_seeds_did(make_runs):
    found = topic(make_runs(ROLES, CELLS, FRESH))
    few, _, whole = found.claims
    # Fresh seeds read .05 more on validation: .585 and .685.
    explored, fresh = CELLS[10, 0.001], [value + 0.05 for value in FRESH[10, 0.001]]
    welch = stats.ttest_ind(explored, fresh, equal_var=False).confidence_interval(0.975)
    assert (few.estimate.value, few.estimate.low, few.estimate.high) == pytest.approx((0.035, welch.low, welch.high))
    assert (few.values["explored"], few.values["fresh"]) == pytest.approx((0.62, 0.585))
    assert (few.values["settings"], few.values["seeds"], few.values["fresh_seeds"]) == (2, 3, 4)
    assert whole.subject == "mean over the levels"
    assert whole.estimate.value == pytest.approx(0.035)
    assert len(whole.run_ids) == 14
    assert found.text.startswith("Exploration read val/miou of the chosen settings 0.035 better than fresh seeds do (+")


def test_what_chance_adds_is_the_best_of_equal_settings(make_runs):
    whole = topic(make_runs(ROLES, CELLS, FRESH)).claims[-1]
    # At either level, half the differences between the two settings, without their mean: (.0025, .0075, -.01) / 2 ...
    difference = np.array(CELLS[10, 0.001]) - np.array(CELLS[10, 0.01])
    # ... so that the noise of one reading is the standard deviation of the differences over the root of 2.
    noise = difference.std(ddof=1) / sqrt(2)
    assert whole.values["expected"] == pytest.approx(noise / sqrt(3) / sqrt(pi), rel=1e-6)


@pytest.mark.parametrize(("number", "expected"), [(1, 0.0), (2, pi**-0.5), (3, 1.5 * pi**-0.5), (10, 1.5387527308)])
def test_the_expected_maximum_equals_the_tables(number, expected):
    # Harter 1961, "Expected values of normal order statistics".
    assert expected_maximum(number) == pytest.approx(expected, abs=1e-7)


def test_the_expected_optimism_is_what_selection_among_equals_costs(make_runs):
    rng = np.random.default_rng(0)
    runs = make_runs(ROLES, {(10, rate): [0.6] * 3 for rate in range(1, 7)}, {(10, 1): [0.55] * 3})
    findings = find(runs)  # fresh seeds read .6 on validation
    claims = []
    for _ in range(400):
        cells = [replace(cell, readings=list(0.6 + rng.normal(0, 0.02, 3))) for cell in findings.cells]
        best = max(cells, key=lambda cell: np.mean(cell.readings))
        arms = [replace(findings.arms[0], parameters=best.parameters)]
        claims += find_curse(runs, replace(findings, cells=cells, arms=arms)).claims
    # 1.267 times .02 / sqrt(3).
    assert np.mean([claim.values["expected"] for claim in claims]) == pytest.approx(0.01463, abs=0.0005)
    assert np.mean([claim.estimate.value for claim in claims]) == pytest.approx(0.01463, abs=0.0011)


def test_where_smaller_is_better_reading_too_well_is_reading_too_low(make_runs):
    objective = {"metric": "val/miou", "mode": "min", "at": "last", "margin": 0.01}
    fresh = {(10, 0.01): [0.72, 0.73, 0.71], (50, 0.01): [0.82, 0.83, 0.81]}
    found = topic(make_runs(ROLES, CELLS, fresh, objective=objective))
    assert [claim.verdict for claim in found.claims] == ["read too well"] * 3
    assert found.claims[0].estimate.value == pytest.approx(0.77 - 0.52)
    assert "better than fresh seeds do" in found.text


def test_single_readings_give_no_interval_and_equal_ones_no_width():
    single = unpaired_difference(np.array([0.6]), np.array([0.5, 0.6]), 0.95)
    assert (single.value, single.low, single.num_seeds) == (pytest.approx(0.05), None, 1)
    equal = unpaired_difference(np.array([0.6, 0.6]), np.array([0.5, 0.5]), 0.95)
    assert (equal.low, equal.high) == (equal.value, equal.value)


def test_without_confirmation_there_is_no_topic(make_runs):
    assert topic(make_runs(ROLES, CELLS)) is None


def test_levels_that_share_no_fresh_seed_are_shown_alone(make_runs):
    fresh = {(10, 0.001): [0.52, 0.53], (50, 0.001): [None, None, 0.64, 0.65]}
    *levels, whole = topic(make_runs(ROLES, CELLS, fresh)).claims
    assert all(claim.estimate.low is not None for claim in levels)
    assert whole.estimate is None
