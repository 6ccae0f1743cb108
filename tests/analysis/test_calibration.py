"""How often findings are wrong, in simulated studies with known truth: a shorter `make calibrate` (bench/calibrate.py).

The quick form has 100 studies a case and allows three standard errors more than the bounds; the slow one has 2,000.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis import levels
from analysis.arms import Arm
from analysis.family import paired_family
from analysis.levels import scientific_factors
from analysis.reading.study_terms import CONFIRM
from analysis.statistics import judge, mean_interval, paired_difference
from bench.calibrate import (
    COVERAGE,
    FAMILY,
    MEAN,
    MOST_WRONG,
    RECOMMENDED,
    RIGHT,
    WRONG_DIFFERENCE,
    WRONG_ENOUGH,
    calibrate,
)
from bench.simulated_studies import BLOCKS, MARGIN, NAMES, NOISE, ONE_COLLAPSES, Case, make_runs

QUICK, FULL = 100, 2000


def slack(share, num_studies):
    """Three standard errors."""
    return 3 * np.sqrt(share * (1 - share) / num_studies)


@pytest.mark.parametrize(
    ("case", "through"),
    [
        (Case("equal", 2, 3, margin=0.0), "arms"),
        (Case("margin", 4, 5, "t3"), "arms"),
        (Case("margin", 6, 3, missing=True), "arms"),
        (Case("equal", 2, 3, margin=0.0, additions=(2, 2, 2)), "arms"),
        (Case("margin", 2, 5), "find"),
    ],
    ids=repr,
)
def test_few_studies_are_judged_wrongly(case, through):
    row = calibrate(case, QUICK, through)
    assert row.rates[WRONG_ENOUGH] <= MOST_WRONG + slack(MOST_WRONG, QUICK)
    assert row.rates[WRONG_DIFFERENCE] <= MOST_WRONG + slack(MOST_WRONG, QUICK)
    assert all(row.coverage[name] >= COVERAGE[0] - slack(COVERAGE[0], QUICK) for name in (MEAN, FAMILY))
    assert row.problems == []


def test_arms_and_whole_studies_are_judged_alike():
    # The same draws: `find` reads from runs what arms are handed as arrays.
    case = Case("margin", 2, 3)
    arms, found = calibrate(case, 20), calibrate(case, 20, "find")
    assert found.coverage == arms.coverage
    assert found.rates == arms.rates


def test_a_judge_that_errs_is_caught():
    # Chosen and read on the same seeds, the best of twenty settings against a clear winner: the worst that there is.
    row = calibrate(Case("equal", 2, 5, margin=0.0, num_settings=20, confirmed=False), QUICK)
    assert row.rates[WRONG_DIFFERENCE] > MOST_WRONG + slack(MOST_WRONG, QUICK)
    assert row.coverage[FAMILY] < COVERAGE[0]


@pytest.mark.parametrize(
    ("case", "through"), [(Case("equal", 2, 3, margin=0.0), "arms"), (Case("margin", 2, 5), "find")]
)
def test_published_differences_a_quarter_as_wide_are_caught(monkeypatch, case, through):
    # The verdicts stay right: the intervals alone are wrong, as they are published.
    publish = levels._levels

    def narrow(runs, table, compared):
        for level in publish(runs, table, compared):
            estimate = level.difference
            quarter = (estimate.high - estimate.low) / 8 if estimate else 0
            difference = estimate and replace(estimate, low=estimate.value - quarter, high=estimate.value + quarter)
            yield replace(level, difference=difference)

    monkeypatch.setattr(levels, "_levels", narrow)
    assert calibrate(case, QUICK, through).problems == [FAMILY]


def test_intervals_without_end_and_verdicts_that_say_nothing_are_caught(monkeypatch):
    widest = levels.paired_family
    monkeypatch.setattr(levels, "paired_family", lambda table, additions: widest(table, 0.99999, additions))
    monkeypatch.setattr(levels, "judge_level", lambda *_: "undecided")
    assert calibrate(Case("real", 4, 5), QUICK).problems == [RIGHT]
    assert calibrate(Case("equal", 2, 3, margin=0.0), 600).problems == [FAMILY]


def test_what_no_interval_can_know_is_published_and_not_bounded():
    # A level that alone collapses in one run of ten is taken for enough wherever no seed shows it: .9^8 = 43 %.
    row = calibrate(Case("equal", 2, 8, ONE_COLLAPSES), QUICK)
    assert row.rates[WRONG_ENOUGH] == pytest.approx(0.43, abs=0.15)
    assert row.problems == []


def test_the_recommended_level_reads_too_well_where_seeds_shift_little():
    # Six equal levels, of which one was chosen on these very readings; the mean of any one of them is as it should be.
    row = calibrate(Case("equal", 6, 8, blocks=NOISE / 2), 200)
    assert row.coverage[RECOMMENDED] < 0.93 < row.coverage[MEAN]
    assert row.problems == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        *(Case("equal", levels, seeds, noise, margin=0.0) for levels, seeds, noise in ((2, 3, "t3"), (6, 8, "normal"))),
        *(Case("margin", levels, seeds, noise) for levels, seeds, noise in ((2, 3, "normal"), (4, 5, "unequal"))),
        Case("margin", 4, 5, missing=True),
        Case("margin", 2, 8, num_settings=6),
        Case("margin", 2, 3, additions=(2, 2, 2)),
        Case("equal", 4, 3, margin=0.0, additions=(3, 3, 3)),
    ],
    ids=repr,
)
def test_what_must_hold_holds_in_2000_studies(case):
    assert calibrate(case, FULL).problems == []


@pytest.mark.slow
def test_looking_again_at_the_full_error_would_err_too_often():
    # What the allowance is for. Two counts one margin apart, 2 more seeds while undecided; each look has the full 5 %.
    rng = np.random.default_rng(5)
    tables = rng.normal(0, BLOCKS, (FULL, 1, 9)) + rng.normal(0, NOISE / 2, (FULL, 2, 9))
    tables[:, 0] -= MARGIN
    decided = [
        [judge(paired_difference(*table[:, :n]), MARGIN, "max") != "undecided" for n in (3, 5, 7, 9)]
        for table in tables
    ]
    assert np.mean(decided, axis=0)[0] <= 0.065
    assert np.mean(np.any(decided, axis=1)) >= 0.09
    row = calibrate(Case("margin", 2, 3, additions=(2, 2, 2)), FULL)
    assert row.rates[WRONG_ENOUGH] + row.rates[WRONG_DIFFERENCE] <= MOST_WRONG


@pytest.mark.slow
def test_levels_with_other_seeds_compare_as_surely():
    # Four equal levels, two of which were given 3 seeds more; a seed shifts all its levels by five times the noise.
    rng = np.random.default_rng(11)
    tables = rng.normal(0, BLOCKS, (FULL, 1, 6)) + rng.normal(0, NOISE, (FULL, 4, 6))
    tables[:, :2, 3:] = np.nan
    missed = []
    for table in tables:
        family = paired_family(table)
        assert {family[pair].num_seeds for pair in ((0, 1), (0, 2), (1, 3))} == {3}
        assert family[2, 3].num_seeds == 6
        missed.append([not e.low <= 0 <= e.high for (i, j), e in family.items() if i < j])
    assert 0.002 <= np.mean(missed) <= 0.0135  # each: 5 % / 6 pairs = 0.83 %
    assert np.mean(np.any(missed, axis=1)) <= 0.065  # all of them at once: at most 5 %


def arms_of(table):
    return [
        Arm({NAMES[0]: i}, {NAMES[0]: i, NAMES[1]: 0}, mean_interval(row), [*range(len(row))], [*row], [], [])
        for i, row in enumerate(table)
    ]


@pytest.mark.parametrize(("mean", "verdict"), [(0.0, "enough"), (-0.03, "not enough")])
def test_the_seeds_that_are_said_to_decide_do_so_in_four_studies_of_five(mean, verdict):
    # The pilot's difference is what further seeds show too, as is assumed: mean and spread of three seeds exactly.
    rng = np.random.default_rng(3)
    pilot = rng.normal(size=3)
    pilot = 0.014 * (pilot - pilot.mean()) / pilot.std(ddof=1) + mean
    best = 0.7 + rng.normal(0, BLOCKS, 3)
    runs = make_runs(Case("equal", 2, 3))
    (factor,) = scientific_factors(runs, arms_of([best + pilot, best + 1e-6]), CONFIRM)
    number = factor.levels[0].seeds_needed
    assert factor.levels[0].text.endswith(f"some {number} further seeds would likely decide (80 %)")
    runs.search.extensions.append([*range(3, 3 + number)])
    verdicts = []
    for _ in range(1000):
        fresh = np.concatenate([pilot, rng.normal(mean, 0.014, number)])
        blocks = np.concatenate([best, 0.7 + rng.normal(0, BLOCKS, number)])
        (again,) = scientific_factors(runs, arms_of([blocks + fresh, blocks]), CONFIRM)
        verdicts.append(again.levels[0].verdict)
    share = np.mean([each in (verdict, "best") for each in verdicts])
    assert 0.76 <= share <= 0.88


def test_the_seeds_that_are_said_to_decide_do_so_against_all_rivals_together():
    # Four levels that are as good, each pair's difference varying alike: the first needs all three others cleared.
    rng = np.random.default_rng(4)
    noise = np.linalg.qr(np.hstack([np.ones((5, 1)), rng.normal(size=(5, 4))]))[0][:, 1:].T  # mean 0, uncorrelated
    pilot = 0.7 + 2 * NOISE * noise  # (4, 5): each level varies by exactly NOISE
    runs = make_runs(Case("equal", 4, 5))
    (factor,) = scientific_factors(runs, arms_of(pilot + 1e-6 * np.eye(4, 1)), CONFIRM)
    number = factor.levels[1].seeds_needed
    runs.search.extensions.append([*range(5, 5 + number)])
    verdicts = []
    for _ in range(400):
        fresh = 0.7 + rng.normal(0, NOISE, (4, number))
        (again,) = scientific_factors(runs, arms_of(np.hstack([pilot, fresh])), CONFIRM)
        verdicts.append(not again.levels[1].rivals)
    assert 0.77 <= np.mean(verdicts) <= 0.92


def test_normal_noise_is_what_the_t_interval_is_exact_for():
    # An oracle for the simulation itself: coverage of the single difference is 95 % within three standard errors.
    row = calibrate(Case("equal", 2, 5, margin=0.0), QUICK)
    assert stats.binomtest(round(row.coverage[FAMILY] * QUICK), QUICK, 0.96).pvalue > 0.001
