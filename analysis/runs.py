"""W&B runs -> one tidy table, and what is left out of it by stated rule.

A run enters the table where all of this holds; the first rule that does not is the reason of its exclusion:
1. its config has what the analysis needs (`_config_problem`);
2. it belongs to this study, and its trial to the plan as it stands (`trials.json`, where there is one);
3. it ended, and well: an exit record with code 0, and no other state than "completed" in its summary;
4. it has every epoch from 1 to `training.epochs` once;
5. its metrics are numbers, and the objective is finite at every epoch that its rule reads;
6. it equals the trial's own `metrics.jsonl`, where that is at hand;
7. no run before it (by run id) is of the same trial.
A trial of the plan without a run is listed as excluded too.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.wandb_runs import WandbRun, read_runs
from trainable.config import InputError

OWN_COLUMNS = ("run_id", "trial_id", "seed", "epoch", "objective", "time_s")
"""Columns of the two tables that no parameter and no metric may be named after (but for the metric `epoch`)."""

CONFIG_TYPES: dict[str, type] = {
    "study": str,
    "trial_id": str,
    "seed": int,
    "parameters": dict,
    "roles": dict,
    "training": dict,
    "data_config": dict,
    "data": dict,
    "objective": dict,
    "trainer_version": str,
}
"""What a run's config must hold."""

Row = dict[str, Any]


@dataclass(frozen=True)
class StudyRuns:
    """The complete runs of one study.

    Attributes:
        study: the study's name.
        parameters: name -> role (scientific, nuisance, fixed), over all runs.
        objective: metric, mode (max or min), at (last or best), margin; the same for all runs.
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
            another objective, data fingerprint, trainer version or role of a parameter.
    """
    runs = read_runs(study_dir / "wandb")
    if not runs:
        raise InputError(f"{study_dir}: no W&B runs in {study_dir / 'wandb'}; run `canopoint run STUDY` first")
    study = _study_name(runs, study_dir)
    complete, excluded = _select(runs, study, study_dir)
    if not complete:
        run_id, reason = excluded[0]
        raise InputError(
            f"{study_dir}: none of {len(runs)} W&B runs is complete (run {run_id}: {reason});"
            f" run `canopoint run STUDY` again to complete them"
        )
    return _tabulate(study, complete, excluded)


def _study_name(runs: list[WandbRun], study_dir: Path) -> str:
    """The folder's name where a run has it as its study; in a renamed copy, the one study that all runs name."""
    names = {run.config["study"] for run in runs if isinstance(run.config.get("study"), str)}
    folder_name = study_dir.resolve().name
    if folder_name in names or not names:
        return folder_name
    if len(names) > 1:
        raise InputError(
            f"{study_dir}: holds runs of the studies {', '.join(sorted(names))}, none of them named like the folder;"
            f" give each study its own folder"
        )
    return str(names.pop())


def _select(runs: list[WandbRun], study: str, study_dir: Path) -> tuple[list[WandbRun], list[tuple[str, str]]]:
    """The complete runs, and the excluded ones with their reasons."""
    plan = _planned_trials(study_dir)
    complete: dict[str, WandbRun] = {}
    excluded = []
    for run in runs:
        reason = _exclusion(run, study, plan, study_dir)
        if not reason and (twin := complete.get(run.config["trial_id"])):
            reason = f"of the same trial as run {twin.run_id}"
        if reason:
            damage = [problem for problem in run.problems if " at byte " in problem]
            excluded.append((run.run_id, "; ".join([reason, *damage[:1]])))
        else:
            complete[run.config["trial_id"]] = run
    with_run = {str(run.config.get("trial_id")) for run in runs}
    excluded += [(f"{study}-{trial_id}", "no W&B run") for trial_id in plan or () if trial_id not in with_run]
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


def _exclusion(run: WandbRun, study: str, plan: list[str] | None, study_dir: Path) -> str:
    """The first rule of the module's docstring that the run breaks; empty for a complete run."""
    rules: tuple[Callable[[], str], ...] = (
        lambda: _config_problem(run.config),
        lambda: _membership_problem(run, study, plan),
        lambda: _end_problem(run),
        lambda: _epochs_problem(run.history, run.config["training"]["epochs"]),
        lambda: _metrics_problem(run.history, run.config["parameters"]),
        lambda: _objective_problem(run),
        lambda: _mirror_problem(run, study_dir / "trials" / run.config["trial_id"] / "metrics.jsonl"),
    )
    return next((problem for rule in rules if (problem := rule())), "")


def _config_problem(config: dict[str, Any]) -> str:
    if not config:
        return "no config: the file ends or is damaged before it"
    for key, kind in CONFIG_TYPES.items():
        if not isinstance(config.get(key), kind):
            return f"config.{key}: must be {kind.__name__}, got {config.get(key)!r:.80}"
    return next((rule for rule, holds in _config_rules(config) if not holds), "")


def _config_rules(config: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Each rule, and whether it holds. The trial id becomes part of a path, the parameters become columns."""
    objective, parameters, roles = config["objective"], config["parameters"], config["roles"]
    yield "config.trial_id: must be 12 hex digits", bool(re.fullmatch("[0-9a-f]{12}", config["trial_id"]))
    yield "config.training.epochs: must be a whole number above 0", _whole(config["training"].get("epochs")) > 0
    yield "config.data.fingerprint: must be text", isinstance(config["data"].get("fingerprint"), str)
    yield "config.objective.metric: must be text", isinstance(objective.get("metric"), str)
    yield "config.objective.mode: must be max or min", objective.get("mode") in ("max", "min")
    yield "config.objective.at: must be last or best", objective.get("at") in ("last", "best")
    yield "config.objective.margin: must be a number", _is_number(objective.get("margin"))
    yield "config.roles: must name the parameters", roles.keys() == parameters.keys()
    yield "config.roles: must be text", all(isinstance(role, str) for role in roles.values())
    yield (
        "config.parameters: must be numbers, text or true/false",
        all(_is_number(value) or isinstance(value, str | bool) for value in parameters.values()),
    )
    yield "config.parameters: must not be named like a column", parameters.keys().isdisjoint(OWN_COLUMNS)


def _membership_problem(run: WandbRun, study: str, plan: list[str] | None) -> str:
    for name in (run.config["study"], run.group):
        if name != study:
            return f"belongs to study {name!r:.80}"
    return "" if plan is None or run.config["trial_id"] in plan else "not part of the study as it stands"


def _end_problem(run: WandbRun) -> str:
    if run.exit_code is None:
        return "no exit record: it is still running or was interrupted"
    if run.exit_code:
        return f"ended with exit code {run.exit_code}"
    state = run.summary.get("state", "completed")
    return "" if state == "completed" else f"its state is {state!r:.80}"


def _epochs_problem(rows: list[Row], num_epochs: int) -> str:
    if len(rows) < num_epochs:
        return f"{len(rows)} of {num_epochs} epochs"
    epochs = [row.get("epoch") for row in rows]
    odd = [epoch for epoch in epochs if _whole(epoch) < 1]
    if odd:
        return f"a row's epoch is {odd[0]!r:.80}"
    missing = sorted(set(range(1, num_epochs + 1)) - set(epochs))
    if missing:
        return f"epoch {missing[0]} is missing"
    return f"{len(rows)} rows for {num_epochs} epochs" if len(rows) > num_epochs else ""


def _metrics_problem(rows: list[Row], parameters: dict[str, Any]) -> str:
    reserved = (set(OWN_COLUMNS) - {"epoch"}) | parameters.keys()
    for row in rows:
        for name, value in row.items():
            if name in reserved:
                return f"metric {name!r} has the name of a column"
            if value is not None and not _is_number(value):
                return f"{name!r:.80} is not a number at epoch {row['epoch']}"
    return ""


def _objective_problem(run: WandbRun) -> str:
    metric = run.config["objective"]["metric"]
    for row in _objective_rows(run):
        value = _metric(row, metric)
        if not math.isfinite(value):
            state = value if metric in row else "missing"
            return f"objective {metric} is {state} at epoch {row['epoch']}"
    return ""


def _objective_rows(run: WandbRun) -> list[Row]:
    """The rows that the objective's rule reads: the last epoch's, or all for the best."""
    rows = sorted(run.history, key=lambda row: int(row["epoch"]))
    return rows[-1:] if run.config["objective"]["at"] == "last" else rows


def _mirror_problem(run: WandbRun, path: Path) -> str:
    """W&B is a mirror of `metrics.jsonl`: the same epochs, the same names, the same values."""
    if not path.is_file():
        return ""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        own = {_whole(row["epoch"]): row for row in rows}
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        return f"its metrics.jsonl cannot be read ({error!r:.80})"
    mirrored = {row["epoch"]: row for row in run.history}
    different = [epoch for epoch in own.keys() | mirrored.keys() if not _same(own.get(epoch), mirrored.get(epoch))]
    return f"differs from its metrics.jsonl at epoch {min(different)}" if different else ""


def _same(own: Row | None, mirrored: Row | None) -> bool:
    """Equal names and values, NaN equal to NaN."""
    if own is None or mirrored is None or own.keys() != mirrored.keys():
        return False
    pairs = ((own[name], mirrored[name]) for name in own)
    return all(a == b or (a != a and b != b) for a, b in pairs)


def _tabulate(study: str, runs: list[WandbRun], excluded: list[tuple[str, str]]) -> StudyRuns:
    """The tables of the complete runs, in the order of their run ids."""
    objective = _agreed(runs, "objective", lambda run: run.config["objective"])
    _agreed(runs, "data fingerprint", lambda run: run.config["data"]["fingerprint"])
    _agreed(runs, "trainer_version", lambda run: run.config["trainer_version"])
    parameters = _roles(runs)
    keys = [_identity(run, parameters) for run in runs]
    epochs = [
        {**key, "epoch": row["epoch"], **{name: _metric(row, name) for name in row if name != "epoch"}}
        for run, key in zip(runs, keys, strict=True)
        for row in sorted(run.history, key=lambda row: int(row["epoch"]))
    ]
    return StudyRuns(
        study=study,
        parameters=parameters,
        objective=objective,
        data=runs[0].config["data"],
        data_config=runs[0].config["data_config"],
        epochs=pd.DataFrame(epochs),
        trials=pd.DataFrame([{**key, **_outcome(run)} for run, key in zip(runs, keys, strict=True)]),
        training={run.config["trial_id"]: run.config["training"] for run in runs},
        excluded=excluded,
    )


def _agreed(runs: list[WandbRun], what: str, read: Callable[[WandbRun], Any]) -> Any:
    """What all runs have in common."""
    first = runs[0]
    for run in runs:
        if read(run) != read(first):
            raise InputError(
                f"study {first.config['study']}: runs {first.run_id} and {run.run_id} must have the same {what},"
                f" got {read(first)!r} and {read(run)!r}; give each its own study"
            )
    return read(first)


def _roles(runs: list[WandbRun]) -> dict[str, str]:
    """Parameter -> role, over all runs: a study that was extended by a parameter has runs from before it."""
    roles: dict[str, str] = {}
    for run in runs:
        for name, role in run.config["roles"].items():
            if roles.setdefault(name, role) != role:
                raise InputError(
                    f"study {run.config['study']}: {name} must have the same role in all runs, got {roles[name]!r} and"
                    f" {role!r} (run {run.run_id}); give each its own study"
                )
    return roles


def _identity(run: WandbRun, parameters: dict[str, str]) -> Row:
    """Run id, trial id, seed and the level of every parameter; a run from before a parameter had it as a setting."""
    config = run.config
    levels = {**config["training"], **config["parameters"]}
    missing = [name for name in parameters if name not in levels]
    if missing:
        raise InputError(f"run {run.run_id}: has no value of parameter {missing[0]}; give the two studies two names")
    key = {"run_id": run.run_id, "trial_id": config["trial_id"], "seed": config["seed"]}
    return key | {name: levels[name] for name in parameters}


def _outcome(run: WandbRun) -> Row:
    """The objective by its rule, and the trial's time in seconds."""
    objective = run.config["objective"]
    values = [_metric(row, objective["metric"]) for row in _objective_rows(run)]
    last = max(run.history, key=lambda row: int(row["epoch"]))
    best = max if objective["mode"] == "max" else min
    return {"objective": best(values), "time_s": _metric(last, "time/total_s")}


def _metric(row: Row, name: str) -> float:
    """A metric as a float; NaN where it is missing or null, as nothing could be measured."""
    value = row.get(name)
    return math.nan if value is None else float(value)


def _whole(value: object) -> int:
    """A whole number; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _is_number(value: object) -> bool:
    """What a column of floats can hold; JSON's integers have no limit."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, float)
