"""W&B runs -> one tidy table, and what is left out of it by stated rule.

A run enters the table where it is complete (`completeness.py`) and no run before it, by run id, is of the same trial.
A trial of the plan without a run is listed as excluded too. Runs that were stopped early or diverged are kept apart.
"""

import gc
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.reading.cache_file import DamagedCacheError
from analysis.reading.column_map import Mapped, check_mapped, map_runs
from analysis.reading.completeness import INCOMPLETE, exclusion, kind_of, last_value, objective_rows, phase_of
from analysis.reading.data_shape import data_problem, once_each
from analysis.reading.epochs import EpochTable
from analysis.reading.gaps import find_differences, gaps_by_trial
from analysis.reading.history import EPOCH
from analysis.reading.source import Source, find_source
from analysis.reading.study_files import read_study_json
from analysis.reading.study_terms import CONFIRM, SearchTerms, StudyTerms, agreed, is_finite, on_test_split, read_terms
from analysis.reading.wandb_runs import WandbRun
from study.effort import PUBLISHED
from study.sections import Effort
from trainable.config import InputError

TIME = "time/total_s"
"""A metric of ours: seconds that the trial has taken."""


class _Epochs:
    """The attribute `StudyRuns.epochs`: a table, or what makes it when it is first asked for."""

    def __set__(self, runs: "StudyRuns", value: pd.DataFrame | EpochTable) -> None:
        runs.__dict__["_epochs"] = value

    def __get__(self, runs: "StudyRuns | None", owner: type) -> pd.DataFrame:
        if runs is None:
            raise AttributeError("a field without a default")  # as dataclasses ask
        value: pd.DataFrame | EpochTable = runs.__dict__["_epochs"]
        if isinstance(value, EpochTable):
            value = runs.__dict__["_epochs"] = value.whole()
        return value


@dataclass(frozen=True)
class StudyRuns:
    """The complete runs of one study.

    Attributes:
        study: the study's name.
        parameters: name -> role (scientific, nuisance, fixed), as the study stands now.
        objective: metric, mode (max or min), at (last or best), margin, as the study stands now.
        data: summary of the data, of the first run that confirms, else of the first; all have the same fingerprint.
        data_config: settings of the data, of the same run.
        trials: one row per run: run_id, trial_id, seed, phase, a column per parameter, objective, test (its counterpart
            on the test split; NaN where the run explores), time_s (NaN if unknown).
        training: trial id -> all settings of its training.
        excluded: (run id, reason), by run id.
        epochs: one row per run and epoch: run_id, trial_id, seed, phase, a column per parameter, epoch, a column per
            metric; made when first asked for, as it may be large: see `curves`.
        search: how settings are searched and confirmed.
        ended_early: one row per run that was stopped early or diverged: run_id, trial_id, seed, phase, a column per
            parameter, state (of which kind), time_s.
        effort: what labelling costs.
        study_dir: the folder with the trials' own files; None where there are only W&B's runs.
        gaps: every difference between the trials' own files and W&B, each with its trial and remedy.
        cache_dir: where numbers that take long may be kept; None where nowhere.
        notes: what a reader must know of how runs of another project were read.
    """

    study: str
    parameters: dict[str, str]
    objective: dict[str, Any]
    data: dict[str, Any]
    data_config: dict[str, Any]
    trials: pd.DataFrame
    training: dict[str, dict[str, Any]]
    excluded: list[tuple[str, str]]
    epochs: _Epochs = _Epochs()
    search: SearchTerms = field(default_factory=SearchTerms)
    ended_early: pd.DataFrame = field(default_factory=pd.DataFrame)
    effort: Effort = PUBLISHED
    study_dir: Path | None = None
    cache_dir: Path | None = None
    gaps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def curves(self, metrics: Sequence[str], run_ids: Collection[str] | None = None) -> pd.DataFrame:
        """Of `epochs` these metrics of these runs (all, for None), with run_id and epoch; what no run has is left out.

        The runs are in the order of `trials`, each by ascending epoch.
        """
        value: pd.DataFrame | EpochTable = self.__dict__["_epochs"]
        if isinstance(value, EpochTable):
            return value.some(metrics, run_ids)
        wanted = value if run_ids is None or value.empty else value[value["run_id"].isin(list(run_ids))]
        return wanted[[name for name in ("run_id", EPOCH, *metrics) if name in wanted]]


def load_study(source: Source | Path) -> StudyRuns:
    """Reads all runs of a source (a folder's are in `<folder>/wandb`) and keeps the complete ones of the study.

    Raises:
        InputError: no runs, no complete run, something that cannot be read, or complete runs that do not go together:
            another data fingerprint or trainer version, or no value of a parameter.
    """
    source = find_source(source) if isinstance(source, Path) else source
    with _no_garbage_collection():
        try:
            return _load(source)
        except DamagedCacheError:  # it is named and set aside
            return _load(source)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Ten thousand runs are millions of objects that stay: to look through them again and again takes a quarter."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _load(source: Source) -> StudyRuns:
    runs = source.read()
    if not runs:
        raise InputError(f"{source.place}: no W&B runs{source.none_remedy}")
    mapped = map_runs(runs, source.mapping, source.name) if source.mapping else Mapped(runs, [], [])
    terms = read_terms(source.trials_dir, mapped.runs, source.name, source.several_remedy)
    trials_dir = source.trials_dir
    differences = find_differences(trials_dir, mapped.runs, source.cache_dir) if trials_dir else {}
    plan = _planned_trials(trials_dir) if trials_dir else None
    sorted_out = _sort_out(mapped, terms, plan, differences)
    if source.mapping:
        check_mapped(sorted_out.complete, source.mapping)
    if not sorted_out.complete:
        run_id, reason = sorted_out.excluded[0]
        raise InputError(
            f"{source.place}: none of {len(runs)} W&B runs is complete (run {run_id}: {reason});"
            f" {source.incomplete_remedy}"
        )
    gaps = gaps_by_trial(trials_dir, mapped.runs, differences) if trials_dir else {}
    remedy = f"`canopoint sync {source.place}` closes it"
    return _tabulate(
        sorted_out,
        terms,
        study_dir=trials_dir,
        cache_dir=source.cache_dir,
        gaps=[f"trial {trial}: {gap}; {remedy}" for trial, gap in gaps.items() if plan is None or trial in plan],
        notes=mapped.notes,
    )


@dataclass(frozen=True)
class _SortedOut:
    """The complete runs; those that were stopped early or diverged, each with its kind; all that is left out."""

    complete: list[WandbRun]
    ended_early: list[tuple[WandbRun, str]]
    excluded: list[tuple[str, str]]


def _sort_out(mapped: Mapped, terms: StudyTerms, plan: set[str] | None, differences: Mapping[str, str]) -> _SortedOut:
    complete: dict[str, WandbRun] = {}
    ended_early, excluded = [], list(mapped.excluded)
    data_problems = once_each(data_problem)
    for run in mapped.runs:
        reason = exclusion(run, terms, plan, differences.get(run.run_id, ""), data_problems)
        if not reason and (twin := complete.get(run.config["trial_id"])):
            reason = f"of the same trial as run {twin.run_id}"
        if not reason:
            complete[run.config["trial_id"]] = run
            continue
        if (kind := kind_of(reason)) != INCOMPLETE:
            ended_early.append((run, kind))
        damage = [problem for problem in run.problems if " at byte " in problem]
        excluded.append((run.run_id, "; ".join([reason, *damage[:1]])))
    with_run = {str(run.config.get("trial_id")) for run in mapped.runs}
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


def _tabulate(sorted_out: _SortedOut, terms: StudyTerms, **known: Any) -> StudyRuns:
    """The tables of the complete runs, in the order of their run ids, and what else is `known`."""
    runs = sorted_out.complete
    agreed("data fingerprint", [(run.run_id, run.config["data"]["fingerprint"]) for run in runs])
    agreed("trainer_version", [(run.run_id, run.config["trainer_version"]) for run in runs])
    keys = [_identity(run, terms) for run in runs]
    described = next((run for run in runs if phase_of(run) == CONFIRM), runs[0])  # knows the test split's floors
    return StudyRuns(
        study=terms.study,
        parameters=terms.parameters,
        objective=terms.objective,
        data=described.config["data"],
        data_config=described.config["data_config"],
        epochs=EpochTable(runs, keys),
        trials=pd.DataFrame([{**key, **_outcome(run, terms)} for run, key in zip(runs, keys, strict=True)]),
        training={run.config["trial_id"]: run.config["training"] for run in runs},
        excluded=sorted_out.excluded,
        search=terms.search,
        effort=terms.effort,
        ended_early=pd.DataFrame([_ended(run, terms, kind) for run, kind in sorted_out.ended_early]),
        **known,
    )


def _identity(run: WandbRun, terms: StudyTerms) -> dict[str, Any]:
    """Run id, trial id, seed, phase and the level of every parameter, which to an older run was a fixed setting."""
    levels = run.config["training"]
    missing = [name for name in terms.parameters if name not in levels]
    if missing:
        raise InputError(f"run {run.run_id}: has no value of parameter {missing[0]}; give the two studies two names")
    key = {"run_id": run.run_id, "trial_id": run.config["trial_id"], "seed": run.config["seed"], "phase": phase_of(run)}
    return key | {name: levels[name] for name in terms.parameters}


def _outcome(run: WandbRun, terms: StudyTerms) -> dict[str, Any]:
    """The objective by its rule, its counterpart on the test split, and the trial's time in seconds."""
    metric = terms.objective["metric"]
    values = run.history.values(metric)[objective_rows(run.history, terms)]
    best = values.max() if terms.objective["mode"] == "max" else values.min()
    test = last_value(run.history, on_test_split(metric)) if phase_of(run) == CONFIRM else math.nan
    return {"objective": float(best), "test": test, "time_s": _time(run)}


def _ended(run: WandbRun, terms: StudyTerms, kind: str) -> dict[str, Any]:
    """A run that ended early; its time is that of the last epoch that it has."""
    return {**_identity(run, terms), "state": kind, "time_s": _time(run)}


def _time(run: WandbRun) -> float:
    """Seconds that the trial has taken; NaN where that is not known."""
    seconds = last_value(run.history, TIME)
    return seconds if is_finite(seconds) else math.nan
