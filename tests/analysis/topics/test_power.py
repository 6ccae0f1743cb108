import pytest

from analysis.find import find
from analysis.power import plan_power
from analysis.topics.power import SHOWN, find_power


def test_the_topic_says_what_the_command_says(make_study):
    runs = make_study()
    topic, power = find_power(runs, find(runs)), plan_power(runs, find(runs), SHOWN)
    assert [claim.subject for claim in topic.claims] == [
        "margin", "10 against 50", "3 seeds", "5 seeds", "8 seeds", "12 seeds", "20 seeds",
    ]  # fmt: skip
    assert topic.claims[0].values["num_seeds"] == power.targets[0].num_seeds
    assert topic.claims[2].values == {
        "difference": power.rows[0].detectable,
        "num_seeds": 3,
        "num_trials": 6,
        "hours": pytest.approx(3 * 10 / 3600),
    }
    assert {*topic.columns} - {"subject"} == {*topic.claims[0].values}
    assert topic.claims[0].run_ids == [run_id for arm in find(runs).arms for run_id in arm.run_ids]
    assert topic.text.startswith("To call a level enough that is as good (margin 0.0100): some ")
    assert topic.population == "seeds"
    assert topic.columns["hours"] == "hours of training, on the pilot's device (cpu)"


def test_hours_that_are_not_known_have_no_column(make_study):
    runs = make_study()
    runs.trials["time_s"] = float("nan")
    assert "hours" not in find_power(runs, find(runs)).columns


def test_without_two_levels_there_is_no_topic(make_study):
    runs = make_study({(10, 0.001, 0.0): [0.60, 0.61, 0.62]})
    assert find_power(runs, find(runs)) is None


def test_without_replication_there_is_no_topic(make_study, cells):
    runs = make_study({cell: values[:1] for cell, values in cells.items()})
    assert find_power(runs, find(runs)) is None
