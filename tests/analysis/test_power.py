"""Power against simulation through the very intervals that findings stand on."""

import json
import math

import numpy as np
import pytest

from analysis.family import paired_family
from analysis.find import find
from analysis.power import describe_power, plan_power, power_text
from analysis.reading.study_terms import SearchTerms
from analysis.sample_size import detectable
from analysis.spread import find_spread
from analysis.statistics import rivals
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


def test_with_the_seeds_of_the_margin_an_equal_level_is_enough_in_four_studies_of_five(pilot):
    # Against all three others, as verdicts have it; one of them alone is cleared more often than that.
    power = planned(pilot, margin=0.015)
    target = power.targets[0]
    assert (target.subject, target.difference) == ("margin", 0.015)
    tables = simulated(4, target.num_seeds, power.spread.value, 0.0)
    enough = [not rivals(0, paired_family(table), 0.015, "max") for table in tables]
    assert 0.78 <= np.mean(enough) <= 0.88
    assert "seeds at each of 4 levels (80 % against all 3 others together), " in power_text(power)


def test_of_several_scientific_factors_the_largest_one_counts(make_study):
    # 3 counts x 2 architectures: six arms to run, but verdicts are per factor, on 3 pairs and not on 15.
    rng = np.random.default_rng(2)
    cells = {
        (count, rate, 0.0): (0.7 + rng.normal(0, 0.01, 4)).tolist() for count in (10, 50, 100) for rate in (0.001, 0.01)
    }
    roles = {"points_per_image": "scientific", "learning_rate": "scientific", "focal_gamma": "nuisance"}
    power = planned(make_study(cells, roles=roles), seeds=[5])
    assert (power.num_levels, power.num_compared, power.rows[0].num_trials) == (6, 3, 30)
    assert power.rows[0].detectable == pytest.approx(power.spread.value * detectable(5, 1 - 0.05 / 3))
    assert "seeds at each of 6 levels (80 % against all 2 others together), " in power_text(power)


def test_costs_are_those_of_the_pilots_trials(make_study):
    # 5 s a trial, 2 counts: 10 s a seed.
    power = planned(make_study(), seeds=[3, 7])
    assert power.seed_hours == pytest.approx(10 / 3600)
    assert [(row.num_seeds, row.num_trials) for row in power.rows] == [(3, 6), (7, 14)]
    assert power.rows[1].hours == pytest.approx(70 / 3600)
    unknown = make_study()
    unknown.trials["time_s"] = math.nan
    assert planned(unknown).seed_hours is None
    assert "hours of training" not in power_text(planned(unknown))


def test_hours_are_gpu_hours_only_where_the_pilot_had_gpus(make_study):
    runs = make_study()
    of_cpu = power_text(planned(runs))
    assert "hours of training, on the pilot's device (cpu)" in of_cpu
    assert "GPU" not in of_cpu
    for settings in runs.training.values():
        settings["device"] = "cuda"
    assert planned(runs).device == "cuda"
    assert "GPU-hours, at one GPU a trial" in power_text(planned(runs))
    next(iter(runs.training.values()))["device"] = "cpu"  # of a setting that is not compared
    assert planned(runs).device == "cuda"
    runs.training[planned(runs).run_ids[0].removeprefix("demo-")]["device"] = "cpu"
    assert planned(runs).device is None
    mixed = power_text(planned(runs))
    assert "hours of training." in mixed
    assert "GPU" not in mixed


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


def test_where_nothing_pairs_the_spread_is_that_of_two_runs(make_study):
    # Count 10 at seeds 0 to 2, count 50 at seed 3 alone: repeats of one cell, with a standard deviation of .01.
    cells = {(10, 0.001, 0.0): [0.60, 0.61, 0.62, 0.0], (50, 0.001, 0.0): [0.0, 0.0, 0.0, 0.70]}
    without = [((10, 0.001, 0.0), 3), *(((50, 0.001, 0.0), seed) for seed in range(3))]
    power = planned(make_study(cells, without))
    assert (power.num_levels, power.spread.paired) == (2, False)
    assert power.spread.value == pytest.approx(0.01 * math.sqrt(2))
    assert "Spread between seeds of a difference of two independent runs: 0.0141" in power_text(power)


@pytest.mark.parametrize(
    ("roles", "why"),
    [
        (("scientific", "nuisance", "nuisance"), "this one has points per image 10 alone"),
        (("nuisance", "nuisance", "nuisance"), "this one has no scientific parameter"),
    ],
)
def test_a_study_without_two_levels_is_refused_in_one_line(make_study, roles, why):
    names = ("points_per_image", "learning_rate", "focal_gamma")
    runs = make_study({(10, 0.001, 0.0): [0.60, 0.61, 0.62]}, roles=dict(zip(names, roles, strict=True)))
    assert find_spread(runs, find(runs)) is None
    with pytest.raises(InputError) as refused:
        planned(runs)
    assert str(refused.value).startswith(f"study demo: power compares scientific levels, and {why}; run two, as in ")
    assert "\n" not in str(refused.value)


def test_a_spread_of_rounding_alone_is_none(make_study):
    # .6 - .5 and .7 - .6 differ in the last bit.
    runs = make_study({(10, 0.001, 0.0): [0.5, 0.6], (50, 0.001, 0.0): [0.6, 0.7]})
    with pytest.raises(InputError, match="power needs a pilot that shows noise"):
        planned(runs)


def test_seeds_are_looked_at_once_each_in_order(make_study):
    assert [row.num_seeds for row in planned(make_study(), seeds=[5, 5, 3]).rows] == [3, 5]


def test_a_small_margin_is_not_shown_as_none(make_study):
    assert "margin 1e-09" in power_text(planned(make_study(), margin=1e-9))
    assert "margin 0.00012" in power_text(planned(make_study(), margin=1.2e-4))


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
