"""The rules by which a run is left out, each with its reason.

A run is complete where all of this holds; the first rule that does not is the reason:
1. its config has what the analysis needs, and without a `study.yaml` its own terms too (`study_terms.py`);
2. it belongs to this study, and its trial to the plan as it stands (`trials.json`, where there is one);
3. it was not stopped early by a scheduler and did not diverge: both are results, but none to compare with;
4. it ended, and well: an exit record with code 0, and no other state than "completed" in its summary;
5. it has every epoch from 1 to `training.epochs` once;
6. its metrics are numbers, and the objective is finite at every epoch that its rule reads; in a confirmation run, the
   objective's counterpart on the test split is too, after the last epoch;
7. it equals the trial's own `metrics.jsonl`, where that is at hand, wall-clock times apart.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from analysis.reading.study_terms import (
    CONFIRM,
    EXPLORE,
    OWN_COLUMNS,
    StudyTerms,
    is_number,
    on_test_split,
    terms_problem,
)
from analysis.reading.wandb_runs import WandbRun

CONFIG_TYPES: dict[str, type] = {
    "study": str,
    "trial_id": str,
    "seed": int,
    "training": dict,
    "data_config": dict,
    "data": dict,
    "trainer_version": str,
}
"""What a run's config must hold."""

STOPPED, DIVERGED, INCOMPLETE = "stopped early", "diverged", "incomplete"
"""Kinds of exclusion. The first two are results of the search, and as it should be; they begin their reasons."""

Row = dict[str, Any]


def exclusion(run: WandbRun, terms: StudyTerms, plan: Collection[str] | None, study_dir: Path) -> str:
    """The first rule that the run breaks; empty for a complete run.

    Args:
        run: as W&B holds it.
        terms: what the analysis goes by.
        plan: the study's trial ids; None where they are not known.
        study_dir: the study's folder, where the trial's own metrics may be.
    """
    rules: tuple[Callable[[], str], ...] = (
        lambda: _config_problem(run.config, terms),
        lambda: _membership_problem(run, terms.study, plan),
        lambda: _early_end(run),
        lambda: _end_problem(run),
        lambda: _epochs_problem(run.history, run.config["training"]["epochs"]),
        lambda: _metrics_problem(run.history, terms),
        lambda: _objective_problem(run.history, terms),
        lambda: _test_problem(run, terms),
        lambda: _mirror_problem(run.history, study_dir / "trials" / run.config["trial_id"] / "metrics.jsonl"),
    )
    return next((problem for rule in rules if (problem := rule())), "")


def kind_of(reason: str) -> str:
    """Of which kind an exclusion is, by its reason."""
    return next((kind for kind in (STOPPED, DIVERGED) if reason.startswith(kind)), INCOMPLETE)


def phase_of(run: WandbRun) -> str:
    """The run's phase; runs of studies older than confirmation say none, and explored."""
    return str(run.config.get("phase", EXPLORE))


def objective_rows(rows: list[Row], terms: StudyTerms) -> list[Row]:
    """The rows that the objective's rule reads: the last epoch's, or all for the best."""
    ordered = sorted(rows, key=lambda row: int(row["epoch"]))
    return ordered[-1:] if terms.objective["at"] == "last" else ordered


def last_row(rows: list[Row]) -> Row:
    """The row of the last epoch, the only one with metrics of the test split; empty where there is none."""
    return max(rows, key=lambda row: _whole(row.get("epoch")), default={})


def metric_value(row: Row, name: str) -> float:
    """A metric as a float; NaN where it is missing or null, as nothing could be measured."""
    value = row.get(name)
    return math.nan if value is None else float(value)


def _config_problem(config: dict[str, Any], terms: StudyTerms) -> str:
    if not config:
        return "no config: the file ends or is damaged before it"
    for key, kind in CONFIG_TYPES.items():
        if not isinstance(config.get(key), kind):
            return f"config.{key}: must be {kind.__name__}, got {config.get(key)!r:.80}"
    own_terms = terms_problem(config) if terms.from_runs else ""
    return own_terms or next((rule for rule, holds in _config_rules(config, terms) if not holds), "")


def _config_rules(config: dict[str, Any], terms: StudyTerms) -> Iterator[tuple[str, bool]]:
    """Each rule, and whether it holds. The trial id becomes part of a path, the levels become columns."""
    yield "config.trial_id: must be 12 hex digits", bool(re.fullmatch("[0-9a-f]{12}", config["trial_id"]))
    yield "config.training.epochs: must be a whole number above 0", _whole(config["training"].get("epochs")) > 0
    yield "config.data.fingerprint: must be text", isinstance(config["data"].get("fingerprint"), str)
    yield f"config.phase: must be {EXPLORE} or {CONFIRM}", config.get("phase", EXPLORE) in (EXPLORE, CONFIRM)
    for name in terms.parameters:
        level = config["training"].get(name, "")
        holds = is_number(level) or isinstance(level, str | bool)
        yield f"config.training.{name}: must be a number, text or true/false", holds


def _membership_problem(run: WandbRun, study: str, plan: Collection[str] | None) -> str:
    for name in (run.config["study"], run.group):
        if name != study:
            return f"belongs to study {name!r:.80}"
    return "" if plan is None or run.config["trial_id"] in plan else "not part of the study as it stands"


def _early_end(run: WandbRun) -> str:
    state, num_epochs = run.summary.get("state"), run.config["training"]["epochs"]
    if state == "stopped":
        epoch = _whole(last_row(run.history).get("epoch"))
        return f"{STOPPED} at epoch {epoch} of {num_epochs} by the scheduler: never compared with finished runs"
    if state == "infeasible":
        reason = f"{run.summary.get('reason') or ''}"[:200]
        return reason if reason.startswith(DIVERGED) else f"{DIVERGED}: {reason}" if reason else DIVERGED
    return ""


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


def _metrics_problem(rows: list[Row], terms: StudyTerms) -> str:
    reserved = (set(OWN_COLUMNS) - {"epoch"}) | terms.parameters.keys()
    for row in rows:
        for name, value in row.items():
            if name in reserved:
                return f"metric {name!r} has the name of a column"
            if value is not None and not is_number(value):
                return f"{name!r:.80} is not a number at epoch {row['epoch']}"
    return ""


def _objective_problem(rows: list[Row], terms: StudyTerms) -> str:
    metric = terms.objective["metric"]
    for row in objective_rows(rows, terms):
        value = metric_value(row, metric)
        if not math.isfinite(value):
            state = value if metric in row else "missing"
            return f"objective {metric} is {state} at epoch {row['epoch']}"
    return ""


def _test_problem(run: WandbRun, terms: StudyTerms) -> str:
    if phase_of(run) != CONFIRM:
        return ""
    metric = on_test_split(terms.objective["metric"])
    value = metric_value(last_row(run.history), metric)
    return "" if math.isfinite(value) else f"confirms without a finite {metric} after its last epoch"


def _mirror_problem(rows: list[Row], path: Path) -> str:
    """W&B is a mirror of `metrics.jsonl`: the same epochs, the same names, the same values."""
    if not path.is_file():
        return ""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a torn last line is no row yet
        own = {_whole(row["epoch"]): row for row in map(json.loads, lines)}
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        return f"its metrics.jsonl cannot be read ({error!r:.80})"
    mirrored = {row["epoch"]: row for row in rows}
    different = [epoch for epoch in own.keys() | mirrored.keys() if not _same(own.get(epoch), mirrored.get(epoch))]
    return f"differs from its metrics.jsonl at epoch {min(different)}" if different else ""


def _same(own: Row | None, mirrored: Row | None) -> bool:
    """Equal names and values, NaN equal to NaN; an epoch that was redone has another duration and is still the same."""
    if own is None or mirrored is None:
        return False
    names = {name for name in own.keys() | mirrored.keys() if not name.startswith("time/")}
    if not names <= own.keys() & mirrored.keys():
        return False
    pairs = ((own[name], mirrored[name]) for name in names)
    return all(a == b or (a != a and b != b) for a, b in pairs)


def _whole(value: object) -> int:
    """A whole number; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
