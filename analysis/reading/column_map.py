"""Runs of other projects as if they were ours, by a mapping of columns (`--map points=num_points`).

A column is a key of the run's config or summary, or a logged metric; nested keys have dots. The objective is read from
the logged rows, in the order of the epoch column where there is one (of an epoch that was logged again, the last row),
and where it was never logged, from the summary. Larger is better, and the margin is 0.01. Nothing is known of data,
scenes or test splits. Where no column is the seed, runs of the same setting are repeats of it: independent, so that any
pairing of them is as good as any other.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.findings import NUISANCE, SCIENTIFIC
from analysis.reading.history import EPOCH, History
from analysis.reading.study_terms import EXPLORE, OWN_COLUMNS, is_finite, is_number
from analysis.reading.wandb_runs import WandbRun
from study.settings import SETTINGS
from trainable.config import DENSE, InputError, known_or_nearest, nearest

SEED, OBJECTIVE = "seed", "objective"
SHORT = {"points": "points_per_image", "gamma": "focal_gamma"}
"""What people type -> the training setting."""

POINTS, EPOCHS = SHORT["points"], "epochs"
SMALLER_IS_BETTER = {"loss", "nll", "ece", "error", "err", "mse", "rmse", "mae", "perplexity"}
"""Words in the names of metrics that are not to be made large."""

MARGIN = 0.01
UNKNOWN = "unknown"
REPEATS = (
    "No seed is known: runs of one setting count as its repeats, numbered by their ids. Settings are compared number by"
    " number, which holds where all runs are independent, though intervals are wider than pairing by seed makes them."
)


@dataclass(frozen=True)
class ColumnMap:
    """Our name -> column: any of seed, epoch, objective (which must be there) and the training settings."""

    columns: Mapping[str, str]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "ColumnMap":
        """From `name=column` each.

        Raises:
            InputError: no such name, the same twice, or no objective.
        """
        columns: dict[str, str] = {}
        for text in texts:
            name, _, column = text.partition("=")
            name = SHORT.get(name, name)
            if not column:
                raise InputError(f"--map {text}: must be name=column, as in points=num_points")
            if name not in (*SETTINGS, SEED, EPOCH, OBJECTIVE):
                hint = known_or_nearest(name, (*SHORT, "learning_rate", SEED, EPOCH, OBJECTIVE))
                raise InputError(f"--map {text}: no such name{nearest(name, SETTINGS) or hint}")
            if problem := _mapping_problem(name, column, columns):
                raise InputError(f"--map {text}: {problem}")
            columns[name] = column
        if OBJECTIVE not in columns:
            raise InputError("--map: must say which metric is the objective; add --map objective=METRIC")
        return cls(columns)

    @property
    def parameters(self) -> dict[str, str]:
        """Name -> role of the mapped settings: points are the question, the others are tuned."""
        names = [name for name in self.columns if name in SETTINGS]
        return {name: SCIENTIFIC if name == POINTS else NUISANCE for name in names}

    @property
    def metric(self) -> str:
        """What the objective is called in the tables."""
        column = self.columns[OBJECTIVE]
        return f"run/{column}" if column in (*OWN_COLUMNS, *self.parameters) else column


def _mapping_problem(name: str, column: str, columns: Mapping[str, str]) -> str:
    """Why a name cannot have a column beside those that are mapped; empty where it can."""
    if name in columns:
        return f"{name} is {columns[name]} already; leave one of them out"
    if others := [other for other, known in columns.items() if known == column]:
        return f"{column} is {others[0]} already; leave one of them out"
    if name == EPOCHS:
        return "how many epochs a run has is counted; leave it out"
    if name == OBJECTIVE and SMALLER_IS_BETTER.intersection(re.split("[^a-z]+", column.lower())):
        return "smaller looks to be better there, and the largest would be recommended; map a score"
    return ""


@dataclass(frozen=True)
class Mapped:
    """Runs in our own layout, those that lack a column as (run id, reason), and what a reader must know."""

    runs: list[WandbRun]
    excluded: list[tuple[str, str]]
    notes: list[str]


def map_runs(runs: Sequence[WandbRun], mapping: ColumnMap, study: str) -> Mapped:
    """Reads the mapped columns of all runs.

    Raises:
        InputError: a column that no run has.
    """
    for name, column in mapping.columns.items():
        if not any(_has(run, column) for run in runs):
            typed = next((short for short, setting in SHORT.items() if setting == name), name)
            known = sorted({key for run in runs for key in _columns(run)})
            raise InputError(
                f"--map {typed}={column}: no run has such a column{known_or_nearest(column, known[:1000])}"
            )
    found: list[WandbRun] = []
    excluded: list[tuple[str, str]] = []
    num_of_setting: dict[tuple[Any, ...], int] = {}
    for run in runs:
        levels = {name: _value(run, mapping.columns[name]) for name in mapping.parameters}
        repeat = num_of_setting.get(tuple(levels.values()), 0) if _are_levels(levels) else 0
        seed = _whole(_value(run, mapping.columns[SEED])) if SEED in mapping.columns else repeat
        if problem := _problem(run, mapping, levels, seed):
            excluded.append((run.run_id, problem))
            continue
        num_of_setting[tuple(levels.values())] = repeat + 1
        found.append(_ours(run, mapping, study, levels, seed))
    return Mapped(found, excluded, list(_notes(found, mapping)))


def check_mapped(runs: Iterable[WandbRun], mapping: ColumnMap) -> None:
    """Refuses complete runs that are the same as far as the mapping says.

    Raises:
        InputError: two of them have the same levels and seed.
    """
    known: dict[tuple[Any, ...], str] = {}
    for run in runs:
        key = (*run.config["parameters"].values(), run.config["seed"])
        if key in known:
            raise InputError(
                f"runs {known[key]} and {run.run_id}: have the same {', '.join([*mapping.parameters, SEED])}; map what"
                f" else they differ in, as in --map learning_rate=COLUMN, or leave runs out (--filter)"
            )
        known[key] = run.run_id


def _notes(runs: Sequence[WandbRun], mapping: ColumnMap) -> Iterator[str]:
    """What a reader must know of how they were read."""
    if SEED not in mapping.columns:
        yield REPEATS
    lengths = {run.config["training"][EPOCHS] for run in runs}
    if len(lengths) > 1:
        yield f"Runs have {min(lengths)} to {max(lengths)} rows of the objective: each is read at its own last one."


def _problem(run: WandbRun, mapping: ColumnMap, levels: Mapping[str, Any], seed: int | None) -> str:
    for name, level in levels.items():
        if level is None:
            return f"has no {mapping.columns[name]!r:.80}"
        if not _are_levels({name: level}):
            return f"{mapping.columns[name]!r:.80} must be a number, text or true/false, got {level!r:.80}"
        if name == POINTS and not _are_points(level):
            return f"{mapping.columns[name]!r:.80} must be a whole number above 0 or {DENSE}, got {level!r:.80}"
    return f"{mapping.columns[SEED]!r:.80} must be a whole number" if seed is None else ""


def _ours(run: WandbRun, mapping: ColumnMap, study: str, levels: dict[str, Any], seed: int | None) -> WandbRun:
    """The run in the layout that our own mirror gives it."""
    history = _curve(run, mapping)
    objective = {"metric": mapping.metric, "mode": "max", "at": "last", "margin": MARGIN, "references": {}}
    config = {
        "study": study,
        "trial_id": hashlib.sha256(run.run_id.encode()).hexdigest()[:12],
        "phase": EXPLORE,
        "seed": seed,
        "parameters": levels,
        "roles": mapping.parameters,
        "training": {**levels, EPOCHS: max(1, history.num_rows), "seed": seed},
        "data_config": {},
        "data": {"fingerprint": UNKNOWN},
        "objective": objective,
        "trainer_version": UNKNOWN,
    }
    return replace(run, group=study, config=config, history=history, summary={})


def _curve(run: WandbRun, mapping: ColumnMap) -> History:
    """The objective at epochs 1, 2, ...: how the other project counts its epochs is not known, but their order is."""
    column = mapping.columns[OBJECTIVE]
    rows = [row for row in range(run.history.num_rows) if run.history.has(row, column)]
    if not rows:
        value = _value(run, column)
        scores = [float(value)] if is_number(value) else []
    else:
        epochs = run.history.values(mapping.columns.get(EPOCH, EPOCH))[rows]
        if not np.isnan(epochs).any():
            latest = dict(zip(epochs.tolist(), rows, strict=True))
            rows = [latest[epoch] for epoch in sorted(latest)]
        scores = run.history.values(column)[rows].tolist()
    return History.from_rows({EPOCH: epoch, mapping.metric: score} for epoch, score in enumerate(scores, 1))


def _value(run: WandbRun, column: str) -> Any:
    """Of the config, else of the summary, else of the last row that has it; None where there is none."""
    for place in (run.config, run.summary):
        if (value := _nested(place, column)) is not None:
            return value
    values = run.history.values(column)
    there = np.flatnonzero(~np.isnan(values))
    return float(values[there[-1]]) if there.size else None


def _has(run: WandbRun, column: str) -> bool:
    return column in run.history.columns or any(
        _nested(place, column) is not None for place in (run.config, run.summary)
    )


def _nested(mapping: Any, column: str) -> Any:
    """The value at a key, or at keys within one another that are joined by dots."""
    if not isinstance(mapping, Mapping):
        return None
    if column in mapping:
        return mapping[column]
    keys = column.split(".")
    heads = (".".join(keys[:i]) for i in range(1, len(keys)))
    values = (_nested(mapping[head], column[len(head) + 1 :]) for head in heads if head in mapping)
    return next((value for value in values if value is not None), None)


def _columns(run: WandbRun) -> Iterable[str]:
    """Every name that a column may have."""
    yield from run.history.columns
    for mapping in (run.config, run.summary):
        yield from _leaves(mapping, "")


def _leaves(mapping: Mapping[str, Any], prefix: str) -> Iterable[str]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _are_levels(levels: Mapping[str, Any]) -> bool:
    return all(is_finite(level) or isinstance(level, str | bool) for level in levels.values())


def _are_points(level: Any) -> bool:
    return level == DENSE or (is_finite(level) and level > 0 and float(level).is_integer())


def _whole(value: Any) -> int | None:
    """A seed: 3 and 3.0, but neither 3.5 nor text."""
    return int(value) if is_number(value) and float(value).is_integer() else None
