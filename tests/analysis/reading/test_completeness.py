"""Each rule by which a run is left out, on runs as the reader returns them; real files are read in test_runs.py."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from analysis.reading.completeness import (
    DIVERGED,
    INCOMPLETE,
    STOPPED,
    exclusion,
    kind_of,
    last_value,
    objective_rows,
    phase_of,
)
from analysis.reading.history import History
from analysis.reading.study_terms import StudyTerms
from analysis.reading.wandb_runs import WandbRun

TRIAL = "0000000000aa"
TERMS = StudyTerms(
    "demo",
    {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
    {"points_per_image": "scientific", "learning_rate": "nuisance"},
)
ROWS = [{"epoch": n, "val/miou": 0.1 * n, "val/loss": 1.0 / n, "time/total_s": 2.5 * n} for n in (1, 2, 3)]

MakeRun = Callable[..., WandbRun]


def test_a_complete_run_breaks_no_rule(make_run: MakeRun) -> None:
    assert exclusion(make_run(), TERMS, [TRIAL]) == ""
    assert exclusion(make_run(), replace(TERMS, from_runs=True), None) == ""


BAD_CONFIGS = [
    ({"seed": "2"}, "config.seed: must be int, got '2'"),
    ({"training": None}, "config.training: must be dict, got None"),
    ({"trial_id": "../../etc/hosts"}, "config.trial_id: must be 12 hex digits"),
    ({"training": {"epochs": 10**15}}, f"3 of {10**15} epochs"),
    ({"training": {"epochs": True}}, "config.training.epochs: must be a whole number above 0"),
    (
        {"training": {"epochs": 3, "points_per_image": [1]}},
        "config.training.points_per_image: must be a number, text or true/false",
    ),
    ({"data": {}}, "config.data.fingerprint: must be text"),
    ({"data": {"fingerprint": "f00d", "floors": [3]}}, "config.data.floors: must be sections by name"),
    ({"data_config": {"annotations": []}}, "config.data_config.annotations: must be a section"),
    (
        {"training": {"epochs": 3, "learning_rate": math.nan}},
        "config.training.learning_rate: must be a number, text or true/false",
    ),
    ({"study": "other"}, "belongs to study 'other'"),
]


@pytest.mark.parametrize(("changes", "reason"), BAD_CONFIGS)
def test_a_config_without_what_the_analysis_needs(
    changes: dict[str, Any], reason: str, make_run: MakeRun, make_config: Callable[..., dict[str, Any]]
) -> None:
    assert exclusion(make_run(config=make_config() | changes), TERMS, None) == reason


OBJECTIVE = TERMS.objective
BAD_TERMS = [
    ({"parameters": {"seed": 1}, "roles": {"seed": "nuisance"}}, "config.roles: must not be named like a column"),
    ({"parameters": [1]}, "config.parameters: must be dict, got [1]"),
    ({"roles": {}}, "config.roles: must name the parameters"),
    ({"roles": {"points_per_image": 1, "learning_rate": "nuisance"}}, "config.roles: must be text"),
    ({"objective": None}, "config.objective: must be dict, got None"),
    ({"objective": {**OBJECTIVE, "metric": 7}}, "config.objective.metric: must be text"),
    ({"objective": {**OBJECTIVE, "mode": "up"}}, "config.objective.mode: must be max or min"),
    ({"objective": {**OBJECTIVE, "at": "first"}}, "config.objective.at: must be last or best"),
    ({"objective": {**OBJECTIVE, "margin": "small"}}, "config.objective.margin: must be a number"),
    ({"objective": {**OBJECTIVE, "margin": math.nan}}, "config.objective.margin: must be a number"),
    (
        {"objective": {**OBJECTIVE, "references": {"a": math.inf}}},
        "config.objective.references: must be numbers by name",
    ),
]


@pytest.mark.parametrize(("changes", "reason"), BAD_TERMS)
def test_a_runs_own_terms_count_only_without_a_study_file(
    changes: dict[str, Any], reason: str, make_run: MakeRun, make_config: Callable[..., dict[str, Any]]
) -> None:
    run = make_run(config=make_config() | changes)
    assert exclusion(run, replace(TERMS, from_runs=True), None) == reason
    assert exclusion(run, TERMS, None) == ""


def test_a_run_of_another_group_or_plan(make_run: MakeRun) -> None:
    assert exclusion(make_run(group="elsewhere"), TERMS, None) == "belongs to study 'elsewhere'"
    assert exclusion(make_run(), TERMS, ["0000000000dd"]) == "not part of the study as it stands"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exit_code": 3}, "ended with exit code 3"),
        ({"exit_code": None}, "no exit record: it is still running or was interrupted"),
        ({"summary": {"state": "failed"}}, "its state is 'failed'"),
        ({"summary": {}}, ""),
    ],
)
def test_a_run_must_end_well(changes: dict[str, Any], reason: str, make_run: MakeRun) -> None:
    assert exclusion(make_run(**changes), TERMS, None) == reason


@pytest.mark.parametrize(
    ("changes", "reason", "kind"),
    [
        (
            {"summary": {"state": "stopped"}, "history": ROWS[:2]},
            "stopped early at epoch 2 of 3 by the scheduler: never compared with finished runs",
            STOPPED,
        ),
        # However it was closed, and whatever it holds: nothing is wrong with it.
        (
            {"summary": {"state": "stopped"}, "history": [], "exit_code": 1},
            "stopped early at epoch 0 of 3 by the scheduler: never compared with finished runs",
            STOPPED,
        ),
        ({"summary": {"state": "infeasible"}, "history": []}, "diverged", DIVERGED),
        ({"summary": {"state": "infeasible", "reason": "loss is nan"}}, "diverged: loss is nan", DIVERGED),
        (
            {"summary": {"state": "infeasible", "reason": "diverged in epoch 2: loss is nan"}},
            "diverged in epoch 2: loss is nan",
            DIVERGED,
        ),
        ({"summary": {"state": "infeasible", "reason": ["odd"]}}, "diverged: ['odd']", DIVERGED),
        ({"summary": {"state": "failed"}}, "its state is 'failed'", INCOMPLETE),
    ],
)
def test_what_ended_early_is_a_result_and_no_defect(
    changes: dict[str, Any], reason: str, kind: str, make_run: MakeRun
) -> None:
    assert exclusion(make_run(**changes), TERMS, None) == reason
    assert kind_of(reason) == kind


def test_a_stopped_run_of_another_study_is_first_of_all_not_ours(make_run: MakeRun) -> None:
    run = make_run(group="elsewhere", summary={"state": "stopped"})
    assert kind_of(exclusion(run, TERMS, None)) == INCOMPLETE


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ({"test/miou": 0.3}, ""),
        ({}, "confirms without a finite test/miou after its last epoch"),
        ({"test/miou": math.nan}, "confirms without a finite test/miou after its last epoch"),
    ],
)
def test_a_run_that_confirms_reads_the_test_split_after_its_last_epoch(
    test: dict[str, float], reason: str, make_run: MakeRun, make_config: Callable[..., dict[str, Any]]
) -> None:
    run = make_run(config=make_config(phase="confirm"), history=[*ROWS[:2], ROWS[2] | test])
    assert exclusion(run, TERMS, None) == reason
    assert exclusion(replace(run, config=make_config(phase="explore")), TERMS, None) == ""


def test_the_phase_is_known(make_run: MakeRun, make_config: Callable[..., dict[str, Any]]) -> None:
    run = make_run(config=make_config(phase=["confirm"]))
    assert exclusion(run, TERMS, None) == "config.phase: must be explore or confirm"
    assert phase_of(make_run()) == "explore"  # a run of a study older than confirmation


BAD_ROWS = [
    ([], "0 of 3 epochs"),
    (ROWS[:2], "2 of 3 epochs"),
    ([ROWS[0], ROWS[2], {"epoch": 4, "val/miou": 0.3}], "epoch 2 is missing"),
    ([*ROWS, {"epoch": 4, "val/miou": 0.3}], "steps go back: 4 rows for 3 epochs"),
    ([*ROWS[:2], {"epoch": 2, "val/miou": 0.3}], "epoch 3 is missing"),
    ([*ROWS[:2], {"val/miou": 0.3}], "a row's epoch is None"),
    ([*ROWS[:2], {"epoch": 2.5, "val/miou": 0.3}], "a row's epoch is 2.5"),
    ([*ROWS[:2], {"epoch": 3, "val/loss": 0.3}], "objective val/miou is missing at epoch 3"),
    ([*ROWS[:2], {"epoch": 3, "val/miou": math.nan}], "objective val/miou is nan at epoch 3"),
    ([*ROWS[:2], {"epoch": 3, "val/miou": math.inf}], "objective val/miou is inf at epoch 3"),
    ([*ROWS[:2], {"epoch": 3, "val/miou": "high"}], "'val/miou' is not a number at epoch 3"),
    ([*ROWS[:2], {"epoch": 3, "val/miou": 0.3, "val/loss": 2**63}], "'val/loss' is not a number at epoch 3"),
    ([*ROWS[:2], {"epoch": 3, "val/miou": 0.3, "seed": 9}], "metric 'seed' has the name of a column"),
    ([*ROWS[:2], {"epoch": 3, "val/miou": 0.3, "learning_rate": 9}], "metric 'learning_rate' has the name of a column"),
    # What is not the objective may be missing or not finite.
    ([*ROWS[:2], {"epoch": 3, "val/miou": 0.3, "val/loss": math.nan, "time/total_s": None}], ""),
]


@pytest.mark.parametrize(("rows", "reason"), BAD_ROWS)
def test_every_epoch_stands_once_and_its_metrics_are_numbers(
    rows: list[dict[str, Any]], reason: str, make_run: MakeRun
) -> None:
    assert exclusion(make_run(history=rows), TERMS, None) == reason


def test_the_objective_is_finite_where_its_rule_reads_it(make_run: MakeRun) -> None:
    run = make_run(history=[{**ROWS[0], "val/miou": math.nan}, *ROWS[1:]])
    best = replace(TERMS, objective={**OBJECTIVE, "at": "best"})
    assert exclusion(run, TERMS, None) == ""
    assert exclusion(run, best, None) == "objective val/miou is nan at epoch 1"
    shuffled = History.from_rows([ROWS[2], ROWS[0], ROWS[1]])
    assert objective_rows(shuffled, TERMS) == [0]
    assert objective_rows(shuffled, best) == [1, 2, 0]


def test_the_last_value_is_that_of_the_last_epoch() -> None:
    assert last_value(History.from_rows([ROWS[2], ROWS[0]]), "val/miou") == ROWS[2]["val/miou"]
    assert math.isnan(last_value(History.from_rows([]), "val/miou"))
    assert math.isnan(last_value(History.from_rows([{"epoch": 1, "a": None}]), "a"))
    assert math.isnan(last_value(History.from_rows([{"epoch": 1}]), "a"))


def test_what_differs_from_its_trial_is_left_out_with_the_difference(make_run: MakeRun) -> None:
    said = "W&B has other values at epoch 2"
    assert exclusion(make_run(), TERMS, None, said) == f"differs from its trial: {said}"
    assert exclusion(make_run(exit_code=3), TERMS, None, said) == "ended with exit code 3"


def test_an_objective_too_large_to_reckon_with_is_none(make_run: MakeRun) -> None:
    rows = [dict(row) for row in ROWS]
    rows[2]["val/miou"] = -1e300
    assert exclusion(make_run(history=rows), TERMS, None) == "objective val/miou is -1e+300 at epoch 3"
    rows[0]["val/miou"], rows[2]["val/miou"] = 1e300, 0.5
    assert exclusion(make_run(history=rows), TERMS, None) == ""
    best = replace(TERMS, objective={**TERMS.objective, "at": "best"})
    assert exclusion(make_run(history=rows), best, None) == "objective val/miou is 1e+300 at epoch 1"
