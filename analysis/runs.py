"""W&B runs -> one tidy table, and what is left out of it by stated rule.

A run enters the table where it is complete (`completeness.py`) and no run before it, by run id, is of the same trial.
A trial of the plan without a run is listed as excluded too.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.completeness import Row, exclusion, metric_value, objective_rows
from analysis.study_terms import StudyTerms, agreed, read_terms
from analysis.wandb_runs import WandbRun, read_runs
from trainable.config import InputError


@dataclass(frozen=True)
class StudyRuns:
    """The complete runs of one study.

    Attributes:
        study: the study's name.
        parameters: name -> role (scientific, nuisance, fixed), as the study stands now.
        objective: metric, mode (max or min), at (last or best), margin, as the study stands now.
        data: summary of the data, of the first run; the fingerprint is the same for all.
        data_config: settings of the data, of the first run.
        epochs: one row per run and epoch: run_id, trial_id, seed, a column per parameter, epoch, a column per metric.
        trials: one row per run: run_id, trial_id, seed, a column per parameter, objective, time_s (NaN if unknown).
        training: trial id -> all settings of its training.
        excluded: (run id, reason), by run id.
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
    complete, excluded = _select(runs, terms, study_dir)
    if not complete:
        run_id, reason = excluded[0]
        raise InputError(
            f"{study_dir}: none of {len(runs)} W&B runs is complete (run {run_id}: {reason});"
            f" run `canopoint run STUDY` again to complete them"
        )
    return _tabulate(complete, terms, excluded)


def _select(runs: list[WandbRun], terms: StudyTerms, study_dir: Path) -> tuple[list[WandbRun], list[tuple[str, str]]]:
    """The complete runs, and the excluded ones with their reasons."""
    plan = _planned_trials(study_dir)
    complete: dict[str, WandbRun] = {}
    excluded = []
    for run in runs:
        reason = exclusion(run, terms, plan, study_dir)
        if not reason and (twin := complete.get(run.config["trial_id"])):
            reason = f"of the same trial as run {twin.run_id}"
        if reason:
            damage = [problem for problem in run.problems if " at byte " in problem]
            excluded.append((run.run_id, "; ".join([reason, *damage[:1]])))
        else:
            complete[run.config["trial_id"]] = run
    with_run = {str(run.config.get("trial_id")) for run in runs}
    excluded += [(f"{terms.study}-{trial_id}", "no W&B run") for trial_id in plan or () if trial_id not in with_run]
    return list(complete.values()), sorted(excluded)


def _planned_trials(study_dir: Path) -> list[str] | None:
    """The trial ids of the plan as it stands; None where there is no `trials.json`."""
    path = study_dir / "trials.json"
    if not path.exists():
        return None
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); run `canopoint run STUDY` again") from error
    if not isinstance(plan, list) or not all(isinstance(trial_id, str) for trial_id in plan):
        raise InputError(f"{path}: must be a list of trial ids; run `canopoint run STUDY` again")
    return plan


def _tabulate(runs: list[WandbRun], terms: StudyTerms, excluded: list[tuple[str, str]]) -> StudyRuns:
    """The tables of the complete runs, in the order of their run ids."""
    agreed("data fingerprint", [(run.run_id, run.config["data"]["fingerprint"]) for run in runs])
    agreed("trainer_version", [(run.run_id, run.config["trainer_version"]) for run in runs])
    keys = [_identity(run, terms) for run in runs]
    epochs = [
        {**key, "epoch": row["epoch"], **{name: metric_value(row, name) for name in row if name != "epoch"}}
        for run, key in zip(runs, keys, strict=True)
        for row in sorted(run.history, key=lambda row: int(row["epoch"]))
    ]
    return StudyRuns(
        study=terms.study,
        parameters=terms.parameters,
        objective=terms.objective,
        data=runs[0].config["data"],
        data_config=runs[0].config["data_config"],
        epochs=pd.DataFrame(epochs),
        trials=pd.DataFrame([{**key, **_outcome(run, terms)} for run, key in zip(runs, keys, strict=True)]),
        training={run.config["trial_id"]: run.config["training"] for run in runs},
        excluded=excluded,
    )


def _identity(run: WandbRun, terms: StudyTerms) -> Row:
    """Run id, trial id, seed and the level of every parameter, which to an older run was a fixed setting."""
    levels = run.config["training"]
    missing = [name for name in terms.parameters if name not in levels]
    if missing:
        raise InputError(f"run {run.run_id}: has no value of parameter {missing[0]}; give the two studies two names")
    key = {"run_id": run.run_id, "trial_id": run.config["trial_id"], "seed": run.config["seed"]}
    return key | {name: levels[name] for name in terms.parameters}


def _outcome(run: WandbRun, terms: StudyTerms) -> Row:
    """The objective by its rule, and the trial's time in seconds."""
    values = [metric_value(row, terms.objective["metric"]) for row in objective_rows(run.history, terms)]
    last = max(run.history, key=lambda row: int(row["epoch"]))
    best = max if terms.objective["mode"] == "max" else min
    return {"objective": best(values), "time_s": metric_value(last, "time/total_s")}
