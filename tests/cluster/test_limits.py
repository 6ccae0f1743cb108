import copy
import time
from typing import Any

import pytest

from cluster.limits import Limits, limits_so_far
from study.spec import StudySpec, parse_study

STUDY: dict[str, Any] = {
    "study": "s",
    "data": {"root": "forest"},
    "parameters": {"points_per_image": {"role": "scientific", "values": [2, 20]}},
    "resources": {"gpus_per_trial": 0.5},
}


def make_study(**changes: Any) -> StudySpec:
    return parse_study(copy.deepcopy(STUDY) | changes, "study.yaml")


def event(kind: str, at: float, **fields: Any) -> dict[str, Any]:
    return {"event": kind, "time": at, **fields}


def test_without_a_budget_nothing_is_reached() -> None:
    limits = Limits(make_study(), {"a", "b"}, wall_s=1e9, trial_s=1e9)
    assert limits.allows_another_trial
    assert limits.reached() == ""


def test_earlier_sessions_count_the_killed_ones_to_their_last_event() -> None:
    events = [
        event("session_started", 1000.0),
        event("trial_ended", 1050.0, trial_id="a", time_s=40.0),
        event("session_ended", 1060.0),
        event("session_started", 5000.0),
        event("trial_started", 5010.0),  # killed after it
        event("session_started", 9000.0),
        event("trial_ended", 9100.0, trial_id="b", time_s=80.0),
    ]
    limits = limits_so_far(make_study(), events)
    assert (limits.trained, limits.trial_s, limits.wall_s) == ({"a", "b"}, 120.0, 60.0 + 10.0 + 100.0)
    assert limits.gpu_hours == pytest.approx(120 * 0.5 / 3600)
    assert limits_so_far(make_study(), events, trial_s=500.0).trial_s == 500.0  # one was killed on its way


def test_a_trial_that_failed_and_went_on_is_counted_once() -> None:
    events = [
        event("session_started", 0.0),
        event("trial_ended", 100.0, trial_id="a", time_s=60.0),
        event("trial_ended", 200.0, trial_id="a", time_s=90.0),
    ]
    limits = limits_so_far(make_study(), events)
    assert (limits.trained, limits.trial_s) == ({"a"}, 90.0)


def test_a_budget_of_trials_counts_those_that_were_chosen_and_lets_them_end() -> None:
    limits = Limits(make_study(budget={"trials": 2}), {"x"})
    assert limits.allows_another_trial
    limits.trial_chosen("a")
    assert not limits.allows_another_trial
    assert limits.reached() == ""
    assert limits.exhausted() == "budget.trials: 2 used up"


def test_a_budget_of_hours_ends_the_run() -> None:
    assert Limits(make_study(budget={"hours": 1.0}), wall_s=3599.0 - 5).reached() == ""
    assert Limits(make_study(budget={"hours": 1.0}), wall_s=3600.0).reached() == "budget.hours: 1 used up"


def test_a_budget_of_gpu_hours_counts_the_live_trials_too() -> None:
    limits = Limits(make_study(budget={"gpu_hours": 1.0}), trial_s=7200.0 - 0.2)  # half a GPU each
    assert limits.reached() == ""
    limits.trial_started("a")
    limits.trial_started("b")
    time.sleep(0.12)
    assert limits.reached() == "budget.gpu_hours: 1 used up"


def test_a_trial_that_waits_for_a_node_uses_no_gpu_hours() -> None:
    limits = Limits(make_study())
    limits.trial_chosen("a")
    time.sleep(0.01)
    assert limits.gpu_hours == 0
    limits.trial_started("a")
    time.sleep(0.01)
    limits.trial_paused("a")
    used = limits.gpu_hours
    assert used > 0
    time.sleep(0.01)
    assert limits.gpu_hours == used
    limits.trial_started("a")
    time.sleep(0.01)
    limits.trial_ended("a")
    limits.trial_ended("b", "its node never came up")
    assert limits.gpu_hours == pytest.approx(2 * used, rel=0.5)


def test_failures_in_a_row_end_the_run_and_name_their_common_cause() -> None:
    limits = Limits(make_study(failures={"stop_after": 3}))
    for failure in ("disk full", "", "disk full", "out of memory", "disk full"):
        assert limits.reached() == ""
        limits.trial_ended("a", failure)
    assert limits.reached() == "3 trials failed in a row, 2 of them with: disk full"
    assert limits.failed_in_a_row
