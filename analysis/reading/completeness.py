"""The rules by which a run is left out, each with its reason.

A run is complete where all of this holds; the first rule that does not is the reason:
1. its config has what the analysis needs, in the shape in which it is read (`data_shape.py`), and without a
   `study.yaml` its own terms too (`study_terms.py`);
2. it belongs to this study, and its trial to the plan as it stands (`trials.json`, where there is one);
3. it was not stopped early by a scheduler and did not diverge: both are results, but none to compare with;
4. it ended, and well: an exit record with code 0, and no other state than "completed" in its summary;
5. it has every epoch from 1 to `training.epochs` once;
6. its metrics are numbers, and the objective is finite, and not absurdly large, at every epoch that its rule reads; in
   a confirmation run, the objective's counterpart on the test split is too, after the last epoch;
7. it equals its trial's own `metrics.jsonl` and `result.json`, where they are at hand, wall-clock times apart.

What this means for what happens to runs:
- torn or damaged files: the records that survive count, as in W&B's own reader, and what then is missing breaks rule 1,
  4 or 5; the place of the first damage stands behind the reason. A file that cannot be one ends the analysis;
- killed runs have no exit record (4), runs without rows no epochs (5);
- a run resumed in several directories under one id is one run: the union of its epochs, where the later file counts;
- steps that go back: an epoch that one file has twice (5), as nobody can say which of the two W&B's charts show;
- NaN and infinities: allowed, but where the objective is read (6); null reads as NaN;
- missing metrics: NaN in the tables, but for the objective (6); what is no number (6);
- two ids of one trial: the first by id counts, where both are complete (`runs.py`).
"""

import math
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from analysis.reading.data_shape import data_problem
from analysis.reading.history import EPOCH, History
from analysis.reading.study_terms import (
    CONFIRM,
    EXPLORE,
    OWN_COLUMNS,
    TOO_LARGE,
    StudyTerms,
    is_finite,
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


def exclusion(
    run: WandbRun,
    terms: StudyTerms,
    plan: Collection[str] | None,
    difference: str = "",
    data_problem: Callable[[dict[str, Any]], str] = data_problem,
) -> str:
    """The first rule that the run breaks; empty for a complete run.

    Args:
        run: as W&B holds it.
        terms: what the analysis goes by.
        plan: the study's trial ids; None where they are not known.
        difference: in what it differs from its trial, where that is at hand (`gaps.py`).
        data_problem: what is wrong with its description of the data.
    """
    rules: tuple[Callable[[], str], ...] = (
        lambda: _config_problem(run.config, terms) or data_problem(run.config["data"]),
        lambda: _membership_problem(run, terms.study, plan),
        lambda: _early_end(run),
        lambda: _end_problem(run),
        lambda: _epochs_problem(run.history, run.config["training"]["epochs"]),
        lambda: _metrics_problem(run.history, terms),
        lambda: _objective_problem(run.history, terms),
        lambda: _test_problem(run, terms),
        lambda: difference and f"differs from its trial: {difference}",
    )
    return next((problem for rule in rules if (problem := rule())), "")


def kind_of(reason: str) -> str:
    """Of which kind an exclusion is, by its reason."""
    return next((kind for kind in (STOPPED, DIVERGED) if reason.startswith(kind)), INCOMPLETE)


def phase_of(run: WandbRun) -> str:
    """The run's phase; runs of studies older than confirmation say none, and explored."""
    return str(run.config.get("phase", EXPLORE))


def objective_rows(history: History, terms: StudyTerms) -> list[int]:
    """The rows that the objective's rule reads, by epoch: the last epoch's, or all for the best."""
    order: list[int] = history.order.tolist()
    return order[-1:] if terms.objective["at"] == "last" else order


def last_value(history: History, name: str) -> float:
    """A metric after the last epoch, the only row with metrics of the test split; NaN where there is none."""
    return math.nan if history.last is None else float(history.values(name)[history.last])


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
    yield f"config.phase: must be {EXPLORE} or {CONFIRM}", config.get("phase", EXPLORE) in (EXPLORE, CONFIRM)
    annotations = config["data_config"].get("annotations")
    yield "config.data_config.annotations: must be a section", annotations is None or isinstance(annotations, dict)
    for name in terms.parameters:
        level = config["training"].get(name, "")
        holds = is_finite(level) or isinstance(level, str | bool)
        yield f"config.training.{name}: must be a number, text or true/false", holds


def _membership_problem(run: WandbRun, study: str, plan: Collection[str] | None) -> str:
    for name in (run.config["study"], run.group):
        if name != study:
            return f"belongs to study {name!r:.80}"
    return "" if plan is None or run.config["trial_id"] in plan else "not part of the study as it stands"


def _early_end(run: WandbRun) -> str:
    state, num_epochs = run.summary.get("state"), run.config["training"]["epochs"]
    if state == "stopped":
        epoch = run.history.epochs.max(initial=0)
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


def _epochs_problem(history: History, num_epochs: int) -> str:
    if history.in_order and history.num_rows == num_epochs:
        return ""
    if history.num_rows < num_epochs:
        return f"{history.num_rows} of {num_epochs} epochs"
    epochs = history.epochs
    if not epochs.all():
        return f"a row's epoch is {history.said(int(epochs.argmin()), EPOCH)}"
    expected = np.arange(1, num_epochs + 1)
    missing = expected[~np.isin(expected, epochs)]
    if missing.size:
        return f"epoch {missing[0]} is missing"
    return f"steps go back: {history.num_rows} rows for {num_epochs} epochs" if history.num_rows > num_epochs else ""


def _metrics_problem(history: History, terms: StudyTerms) -> str:
    reserved = (set(OWN_COLUMNS) - {EPOCH}) | terms.parameters.keys()
    for name in history.columns:
        if name in reserved:
            return f"metric {name!r} has the name of a column"
    for row, name in sorted(history.odd):
        return f"{name!r:.80} is not a number at epoch {history.epochs[row]}"
    return ""


def _objective_problem(history: History, terms: StudyTerms) -> str:
    metric = terms.objective["metric"]
    rows, values = objective_rows(history, terms), history.values(metric)
    for row in rows:
        if not abs(values[row]) < TOO_LARGE:
            state = float(values[row]) if history.has(row, metric) else "missing"
            return f"objective {metric} is {state} at epoch {history.epochs[row]}"
    return ""


def _test_problem(run: WandbRun, terms: StudyTerms) -> str:
    if phase_of(run) != CONFIRM:
        return ""
    metric = on_test_split(terms.objective["metric"])
    is_read = abs(last_value(run.history, metric)) < TOO_LARGE
    return "" if is_read else f"confirms without a finite {metric} after its last epoch"


def _whole(value: object) -> int:
    """A whole number; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
