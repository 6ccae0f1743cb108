"""Counts and prices: what is reused, what is yet to be proposed and to be confirmed."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from study.agenda import Agenda
from study.design import Trial, make_config
from study.exploration import TrialOutcome
from study.plan import Plan, describe_plan, estimate_s, make_plan
from study.spec import StudySpec, parse_study
from trainable.config import TrainConfig

STUDY: dict[str, Any] = {
    "study": "s",
    "data": {"root": "forest"},
    "training": {"encoder": "resnet18", "weights": "none", "image_size": 64, "epochs": 2},
    "parameters": {
        "points_per_image": {"role": "scientific", "values": [50, 5]},
        "focal_gamma": {"role": "nuisance", "values": [0, 2]},
    },
    "search": {"seeds": [7, 3]},
}
NUM_IMAGES = {"train": 10, "val": 6, "test": 4}
CONFIG = TrainConfig(encoder="resnet18", weights="none", decoder_stride=1, epochs=2)


def make_study(**changes: Any) -> StudySpec:
    return parse_study(copy.deepcopy(STUDY) | changes, "study.yaml")


def make_agenda(spec: StudySpec, num_done: int = 0) -> Agenda:
    """With its first trials completed."""
    agenda = Agenda(spec, "f" * 64, [], lambda trial, was_stopped: None)
    for trial in agenda.trials[:num_done]:
        agenda.ended(trial, TrialOutcome("completed", 0.5))
    return agenda


def plan_of(spec: StudySpec, measured: list[float] | None = None, num_concurrent: int = 2) -> tuple[Plan, float]:
    """The plan with the first trials measured at these multiples of their estimate, and that estimate."""
    factors = measured or []
    agenda = make_agenda(spec, len(factors))
    config = make_config(spec, {"points_per_image": 50}, seed=0) if "image_size" not in spec.parameters else None
    estimate = estimate_s(config or agenda.trials[0].config, NUM_IMAGES)
    known: list[Trial] = agenda.trials
    measured_s = {trial.trial_id: each * estimate for trial, each in zip(known, factors, strict=False)}
    return make_plan(agenda, NUM_IMAGES, measured_s, num_concurrent), estimate


def test_an_estimate_counts_forward_passes() -> None:
    # resnet18 at 256 px: 10.8 GFLOP. Two epochs of 3 x 10 training and 6 validation passes, at 50 GFLOP/s and thread.
    config = replace(CONFIG, image_size=256)
    assert estimate_s(config, NUM_IMAGES) == pytest.approx(2 * 36 * 10.8 / 50)
    assert estimate_s(replace(config, num_threads=4), NUM_IMAGES) == pytest.approx(2 * 36 * 10.8 / 200)
    assert estimate_s(replace(config, device="cuda"), NUM_IMAGES) == pytest.approx(2 * 36 * 10.8 / 10_000)


def test_a_trial_on_fewer_images_is_quicker() -> None:
    whole, half = (estimate_s(replace(CONFIG, train_images=number), NUM_IMAGES) for number in (None, 5))
    assert half / whole == pytest.approx((3 * 5 + 6) / (3 * 10 + 6))


def test_an_estimate_grows_with_the_image_s_area() -> None:
    times = [estimate_s(replace(CONFIG, image_size=size), NUM_IMAGES) for size in (64, 128, 256)]
    assert times[1] / times[0] == pytest.approx(4)
    assert times[2] / times[0] == pytest.approx(16)


def test_a_plan_of_a_new_study() -> None:
    plan, estimate = plan_of(make_study())
    assert (plan.num_levels, plan.num_trials, plan.num_done, plan.num_missing) == (2, 8, 0, 8)
    assert (plan.expected_s, plan.num_epochs, plan.gpu_hours) == (pytest.approx(8 * estimate / 2), 16, 0)
    assert "rough estimate" in plan.basis


def test_a_plan_rests_on_measured_times_where_there_are_some() -> None:
    # Three times and five times the estimate: on average four times.
    plan, estimate = plan_of(make_study(resources={"gpus_per_trial": 0.5}), [3, 5], num_concurrent=4)
    assert (plan.num_done, plan.num_missing, plan.basis) == (2, 6, "measured on 2 finished trials")
    assert plan.expected_s == pytest.approx(6 * 4 * estimate / 4)
    assert plan.gpu_hours == pytest.approx(6 * 4 * estimate * 0.5 / 3600)


def test_a_measured_time_is_scaled_to_trials_of_another_size() -> None:
    parameters = {"image_size": {"role": "scientific", "values": [64, 128]}}
    spec = make_study(training={"encoder": "resnet18"}, parameters=parameters, search={"seeds": [0]})
    plan, estimate = plan_of(spec, [1], num_concurrent=1)
    assert plan.expected_s == pytest.approx(4 * estimate)  # four times the pixels


def test_a_few_trials_do_not_run_more_at_once_than_there_are() -> None:
    plan, estimate = plan_of(make_study(), num_concurrent=100)
    assert plan.expected_s == pytest.approx(estimate)


def test_nothing_is_expected_of_a_study_that_is_done() -> None:
    plan, _ = plan_of(make_study(), [1] * 8)
    assert (plan.num_missing, plan.expected_s, plan.gpu_hours) == (0, 0, 0)


def test_confirmation_is_planned_before_its_winners_are_known_and_listed_afterwards() -> None:
    spec = make_study(confirm={"seeds": [100, 101, 102]})
    plan, estimate = plan_of(spec)
    assert [(phase.name, phase.num_trials, phase.num_missing) for phase in plan.phases] == [
        ("explore", 8, 8),
        ("confirm", 6, 6),  # two levels, three seeds
    ]
    assert plan.expected_s == pytest.approx(14 * estimate / 2)
    agenda = make_agenda(spec, 8)
    agenda.list_winners()
    later = make_plan(agenda, NUM_IMAGES, {}, 2)
    assert [(phase.num_trials, phase.num_done) for phase in later.phases] == [(8, 8), (6, 0)]


def test_what_a_search_is_yet_to_propose_is_counted_and_no_more_than_its_space_holds() -> None:
    learning_rate = {"role": "nuisance", "min": 1e-5, "max": 1e-2, "scale": "log"}
    parameters = STUDY["parameters"] | {"learning_rate": learning_rate}
    search = {"method": "optuna", "trials_per_level": 5, "seeds": [0, 1]}
    plan, estimate = plan_of(make_study(parameters=parameters, search=search))
    assert (plan.num_trials, plan.num_missing) == (2 * 5 * 2, 20)
    assert plan.expected_s == pytest.approx(20 * estimate / 2)
    plan, _ = plan_of(make_study(search=search))  # two gammas are all there is
    assert plan.num_trials == 2 * 2 * 2


def test_a_plan_is_plain_json() -> None:
    plan, _ = plan_of(make_study())
    described = json.loads(json.dumps(describe_plan(plan)))
    assert (described["num_trials"], described["num_missing"]) == (8, 8)
    assert described["phases"][0] == {
        "name": "explore",
        "seeds": [7, 3],
        "num_trials": 8,
        "num_missing": 8,
        "num_done": 0,
    }
    assert described["expected_s"] == plan.expected_s
