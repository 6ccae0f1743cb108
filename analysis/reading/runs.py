"""W&B runs -> one tidy table, and what is left out of it by stated rule.

A run enters the table where it is complete (`completeness.py`) and no run before it, by run id, is of the same trial.
A trial of the plan without a run is listed as excluded too. Runs that were stopped early or diverged are kept apart.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.reading.completeness import (
    INCOMPLETE,
    Row,
    exclusion,
    kind_of,
    last_row,
    metric_value,
    objective_rows,
    phase_of,
)
from analysis.reading.study_files import read_study_json
from analysis.reading.study_terms import CONFIRM, SearchTerms, StudyTerms, agreed, is_number, on_test_split, read_terms
from analysis.reading.wandb_runs import WandbRun, read_runs
from trainable.config import InputError


@dataclass(frozen=True)
class StudyRuns:
    """The complete runs of one study.

    Attributes:
        study: the study's name.
        parameters: name -> role (scientific, nuisance, fixed), as the study stands now.
        objective: metric, mode (max or min), at (last or best), margin, as the study stands now.
        data: summary of the data, of the first run that confirms, else of the first; all have the same fingerprint.
        data_config: settings of the data, of the same run.
        epochs: one row per run and epoch: run_id, trial_id, seed, phase, a column per parameter, epoch, a column per
            metric.
        trials: one row per run: run_id, trial_id, seed, phase, a column per parameter, objective, test (its counterpart
            on the test split; NaN where the run explores), time_s (NaN if unknown).
        training: trial id -> all settings of its training.
        excluded: (run id, reason), by run id.
        search: how settings are searched and confirmed.
        ended_early: one row per run that was stopped early or diverged: run_id, trial_id, seed, phase, a column per
            parameter, state (of which kind), time_s.
    """

    study: str
    parameters: dict[str, str]
    objective: dict[str, Any]
    data: dict[str, Any]
    data_config: dict[str, Any]
    epochs: pd.DataFrame
    trials: pd.DataFrame
    training: dict[str, dict[str, Any]]
    excluded: list[tuple[str, str]]
    search: SearchTerms = field(default_factory=SearchTerms)
    ended_early: pd.DataFrame = field(default_factory=pd.DataFrame)


def load_study(study_dir: Path) -> StudyRuns:
    """Reads all runs in `study_dir/wandb` and keeps the complete ones of the study.

    Raises:
        InputError: no runs, no complete run, a file that cannot be read, or complete runs that do not go together:
            another data fingerprint or trainer version, or no value of a parameter.
    """
    runs = read_runs(study_dir / "wandb")
    if not runs:
        raise InputError(f"{study_dir}: no W&B runs in {study_dir / 'wandb'}; run `canopoint run STUDY` first")
    terms = read_terms(study_dir, runs)
    sorted_out = _sort_out(runs, terms, study_dir)
    if not sorted_out.complete:
        run_id, reason = sorted_out.excluded[0]
        raise InputError(
            f"{study_dir}: none of {len(runs)} W&B runs is complete (run {run_id}: {reason});"
            f" run `canopoint run STUDY` again to complete them"
        )
    return _tabulate(sorted_out, terms)


@dataclass(frozen=True)
class _SortedOut:
    """The complete runs; those that were stopped early or diverged, each with its kind; all that is left out."""

    complete: list[WandbRun]
    ended_early: list[tuple[WandbRun, str]]
    excluded: list[tuple[str, str]]


def _sort_out(runs: list[WandbRun], terms: StudyTerms, study_dir: Path) -> _SortedOut:
    plan = _planned_trials(study_dir)
    complete: dict[str, WandbRun] = {}
    ended_early, excluded = [], []
    for run in runs:
        reason = exclusion(run, terms, plan, study_dir)
        if not reason and (twin := complete.get(run.config["trial_id"])):
            reason = f"of the same trial as run {twin.run_id}"
        if not reason:
            complete[run.config["trial_id"]] = run
            continue
        if (kind := kind_of(reason)) != INCOMPLETE:
            ended_early.append((run, kind))
        damage = [problem for problem in run.problems if " at byte " in problem]
        excluded.append((run.run_id, "; ".join([reason, *damage[:1]])))
    with_run = {str(run.config.get("trial_id")) for run in runs}
    excluded += [(f"{terms.study}-{trial_id}", "no W&B run") for trial_id in plan or () if trial_id not in with_run]
    return _SortedOut(list(complete.values()), ended_early, sorted(excluded))


def _planned_trials(study_dir: Path) -> set[str] | None:
    """The trial ids of the plan as it stands; None where there is no `trials.json`."""
    path, remedy = study_dir / "trials.json", "run `canopoint run STUDY` again"
    plan = read_study_json(path, remedy)
    if plan is None:
        return None
    trial_ids = plan.get("trials") if isinstance(plan, dict) else plan  # a bare list in older studies
    if not isinstance(trial_ids, list) or not all(isinstance(trial_id, str) for trial_id in trial_ids):
        raise InputError(f"{path}: must name the ids of the trials; {remedy}")
    return set(trial_ids)


def _tabulate(sorted_out: _SortedOut, terms: StudyTerms) -> StudyRuns:
    """The tables of the complete runs, in the order of their run ids."""
    runs = sorted_out.complete
    agreed("data fingerprint", [(run.run_id, run.config["data"]["fingerprint"]) for run in runs])
    agreed("trainer_version", [(run.run_id, run.config["trainer_version"]) for run in runs])
    keys = [_identity(run, terms) for run in runs]
    epochs = [
        {**key, "epoch": row["epoch"], **{name: metric_value(row, name) for name in row if name != "epoch"}}
        for run, key in zip(runs, keys, strict=True)
        for row in sorted(run.history, key=lambda row: int(row["epoch"]))
    ]
    described = next((run for run in runs if phase_of(run) == CONFIRM), runs[0])  # knows the test split's floors
    return StudyRuns(
        study=terms.study,
        parameters=terms.parameters,
        objective=terms.objective,
        data=described.config["data"],
        data_config=described.config["data_config"],
        epochs=pd.DataFrame(epochs),
        trials=pd.DataFrame([{**key, **_outcome(run, terms)} for run, key in zip(runs, keys, strict=True)]),
        training={run.config["trial_id"]: run.config["training"] for run in runs},
        excluded=sorted_out.excluded,
        search=terms.search,
        ended_early=pd.DataFrame(
            [{**_identity(run, terms), "state": kind, "time_s": _time_s(run)} for run, kind in sorted_out.ended_early]
        ),
    )


def _identity(run: WandbRun, terms: StudyTerms) -> Row:
    """Run id, trial id, seed, phase and the level of every parameter, which to an older run was a fixed setting."""
    levels = run.config["training"]
    missing = [name for name in terms.parameters if name not in levels]
    if missing:
        raise InputError(f"run {run.run_id}: has no value of parameter {missing[0]}; give the two studies two names")
    key = {"run_id": run.run_id, "trial_id": run.config["trial_id"], "seed": run.config["seed"], "phase": phase_of(run)}
    return key | {name: levels[name] for name in terms.parameters}


def _outcome(run: WandbRun, terms: StudyTerms) -> Row:
    """The objective by its rule, its counterpart on the test split, and the trial's time in seconds."""
    metric = terms.objective["metric"]
    values = [metric_value(row, metric) for row in objective_rows(run.history, terms)]
    best = max if terms.objective["mode"] == "max" else min
    test = metric_value(last_row(run.history), on_test_split(metric)) if phase_of(run) == CONFIRM else math.nan
    return {"objective": best(values), "test": test, "time_s": _time_s(run)}


def _time_s(run: WandbRun) -> float:
    """Seconds at the last epoch; NaN where they are not known. A run that ended early may hold anything in its rows."""
    time_s = last_row(run.history).get("time/total_s")
    return float(time_s) if is_number(time_s) else math.nan
