"""Power against simulation through the very intervals that findings stand on."""

import json
import math

import numpy as np
import pytest

from analysis.family import paired_family
from analysis.find import find
from analysis.power import describe_power, find_spread, plan_power, power_text
from analysis.reading.study_terms import SearchTerms
from analysis.statistics import judge
from trainable.config import InputError

WINNERS = {(10, 0.001, 2.0): [0.50, 0.52, 0.51], (50, 0.001, 0.0): [0.60, 0.62, 0.64]}


def planned(runs, **changes):
    return plan_power(runs, find(runs), **changes)


def simulated(num_levels, num_seeds, spread, difference, num_studies=1000):
    """(num_studies, num_levels, num_seeds) the first better by `difference`; `spread` is of paired differences."""
    rng = np.random.default_rng([num_levels, num_seeds])
    noise = rng.normal(0, spread / math.sqrt(2), (num_studies, num_levels, num_seeds))
    noise[:, 0] += difference
    return noise + rng.normal(0, 0.05, (num_studies, 1, num_seeds))


@pytest.fixture
def pilot(points_study, make_study):
    """Four counts, five seeds."""
    rng = np.random.default_rng(4)
    values = 0.7 + rng.normal(0, 0.05, 5) + rng.normal(0, 0.01, (4, 5))
    return make_study(
        {(count, 0.001, 0.0): row.tolist() for count, row in zip((10, 50, 100, 200), values, strict=True)}
    )


def test_the_spread_is_pooled_over_all_pairs_by_hand(make_study):
    # 10: .58 .58 .62, 50: .70 .71 .72; differences -.12 -.13 -.10, standard deviation .0152753, 2 degrees of freedom.
    runs = make_study()
    spread = find_spread(runs, find(runs))
    assert spread.value == pytest.approx(0.0152753, abs=1e-7)
    assert (spread.degrees_of_freedom, spread.paired) == (2, True)
    # chi-squared(.975, 2) = 7.3778 and (.025, 2) = .050636.
    assert spread.low == pytest.approx(0.0152753 * math.sqrt(2 / 7.3778), rel=1e-4)
    assert spread.high == pytest.approx(0.0152753 * math.sqrt(2 / 0.050636), rel=1e-4)


def test_of_equal_seeds_it_is_the_mean_square_of_a_two_way_table(pilot):
    # Blocks out, levels out: the residual mean square of the additive model, times two, with (k - 1)(n - 1) = 12.
    findings = find(pilot)
    table = np.array([arm.readings for arm in findings.arms])
    residual = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    spread = find_spread(pilot, findings)
    assert spread.degrees_of_freedom == 12
    assert spread.value == pytest.approx(math.sqrt(2 * (residual**2).sum() / 12))


@pytest.mark.parametrize("num_seeds", [3, 5, 12])
def test_the_detectable_difference_is_found_in_four_studies_of_five(pilot, num_seeds):
    power = planned(pilot, seeds=[num_seeds])
    (row,) = power.rows
    tables = simulated(4, num_seeds, power.spread.value, row.detectable)
    found = [paired_family(table)[0, 1].low > 0 for table in tables]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)


def test_with_the_seeds_of_the_margin_an_equal_level_is_enough_against_another_in_four_of_five(pilot):
    power = planned(pilot, margin=0.015)
    target = power.targets[0]
    assert (target.subject, target.difference) == ("margin", 0.015)
    tables = simulated(4, target.num_seeds, power.spread.value, 0.0)
    within = [judge(paired_family(table)[0, 1], 0.015, "max") == "within" for table in tables]
    assert np.mean(within) == pytest.approx(0.82, abs=0.05)


def test_costs_are_those_of_the_pilots_trials(make_study):
    # 5 s a trial, 2 counts: 10 s a seed.
    power = planned(make_study(), seeds=[3, 7])
    assert power.seed_hours == pytest.approx(10 / 3600)
    assert [(row.num_seeds, row.num_trials) for row in power.rows] == [(3, 6), (7, 14)]
    assert power.rows[1].hours == pytest.approx(70 / 3600)
    unknown = make_study()
    unknown.trials["time_s"] = math.nan
    assert planned(unknown).seed_hours is None
    assert "GPU-hours" not in power_text(planned(unknown))


def test_what_was_observed_is_a_target_beside_the_margin(make_study):
    power = planned(make_study())
    assert [target.subject for target in power.targets] == ["margin", "10 against 50"]
    assert power.targets[1].difference == pytest.approx(0.35 / 3)
    assert power.targets[1].num_seeds < power.targets[0].num_seeds
    no_margin = make_study(objective={"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.0})
    assert [target.subject for target in planned(no_margin).targets] == ["10 against 50"]


def test_a_first_look_of_several_needs_more(make_study):
    confirm = {"confirm": WINNERS}
    once, extendable = make_study(**confirm), make_study(**confirm, search=SearchTerms(confirm_seeds=[100, 101, 102]))
    assert planned(extendable).metric == "test/miou"
    assert planned(extendable).rows[1].detectable > planned(once).rows[1].detectable


def test_one_level_is_planned_for_as_if_unpaired(make_study):
    runs = make_study({(10, 0.001, 0.0): [0.60, 0.61, 0.62]})
    power = planned(runs)
    assert (power.num_levels, power.spread.paired) == (1, False)
    assert power.spread.value == pytest.approx(0.01 * math.sqrt(2))
    assert "Spread between seeds of a difference of two independent runs: 0.0141" in power_text(power)


def test_the_text_answers_first_and_the_mapping_is_json(pilot):
    power = planned(pilot, seeds=[2, 3, 20], margin=0.02)
    lines = power_text(power).splitlines()
    assert lines[0].startswith("To call a level enough that is as good (margin 0.0200): some ")
    assert [line.split()[0] for line in lines[-3:]] == ["2", "3", "20"]
    described = json.loads(json.dumps(describe_power(power), allow_nan=False))
    assert [row["num_seeds"] for row in described["rows"]] == [2, 3, 20]
    assert (described["margin"], described["power"], described["confidence"]) == (0.02, 0.8, 0.95)


def test_more_seeds_than_anyone_runs_are_not_counted(pilot):
    power = planned(pilot, margin=1e-5)
    assert power.targets[0].num_seeds is None
    assert "more than 1000 seeds at each level." in power_text(power)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seeds": [3, 1]}, "--seeds: must be 2 to 1000, got 1"),
        ({"seeds": [1001]}, "--seeds: must be 2 to 1000, got 1001"),
        ({"margin": 0.0}, "--margin: must be a number above 0, got 0"),
        ({"margin": math.nan}, "--margin: must be a number above 0, got nan"),
    ],
)
def test_impossible_wishes_are_refused_in_one_line(make_study, changes, line):
    with pytest.raises(InputError) as refused:
        planned(make_study(), **changes)
    assert str(refused.value) == line


def test_a_pilot_without_replication_is_refused_in_one_line(make_study, cells):
    runs = make_study({cell: values[:1] for cell, values in cells.items()})
    with pytest.raises(InputError, match="power needs a pilot that shows noise") as refused:
        planned(runs)
    assert "\n" not in str(refused.value)
    assert "search: {seeds: [0, 1, 2]}" in str(refused.value)
