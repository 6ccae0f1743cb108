"""What W&B holds of one run: from run files (`run_records.py`) or over the API (`wandb_api.py`), one and the same."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from analysis.reading.history import EPOCH, History

MAX_NESTING = 32
"""Deepest JSON or nested key that is read. Ours has 4 levels; hostile ones exhaust the stack."""


@dataclass(frozen=True)
class WandbRun:
    """What W&B holds of one run, without W&B's own keys (those that start with an underscore).

    Attributes:
        run_id: the run's id; the one in the file's name where the file ends before the run is named.
        group: the run's group, the study; empty where there is none.
        name: what the user interface shows.
        config: nested, the last state in the file. W&B stores NaN in it as null.
        history: the logged rows in order; a nested key is one name with dots, as W&B shows it.
        summary: nested, the last state in the file.
        exit_code: 0 for success; None where the file has no exit record.
        path: the file; of several, the latest.
        problems: what the reader met: torn or damaged bytes, a missing exit record, no rows, several files.
        fingerprint: tells this state of the run apart, as the cache knows it; empty where it does not.
    """

    run_id: str
    group: str
    name: str
    config: dict[str, Any]
    history: History
    summary: dict[str, Any]
    exit_code: int | None
    path: Path
    problems: tuple[str, ...]
    fingerprint: str = ""


def merged(runs: Sequence[WandbRun]) -> WandbRun:
    """Several files of one run id (resumed, interrupted, mirrored again), from the earliest to the latest, as one run.

    Its rows are the union by epoch, and where two files disagree the later one counts. Each problem names its folder.
    """
    return reduce(_merge, runs)


def _merge(earlier: WandbRun, later: WandbRun) -> WandbRun:
    """Two files of one run id -> one run, whose problems name their file's folder."""
    note = f"merged from {earlier.path.parent.name} and {later.path.parent.name}"
    return replace(
        later,
        group=later.group or earlier.group,
        name=later.name or earlier.name,
        config={**earlier.config, **later.config},
        history=_merge_rows(earlier.history, later.history),
        summary={**earlier.summary, **later.summary},
        exit_code=earlier.exit_code if later.exit_code is None else later.exit_code,
        problems=(*_placed_problems(earlier), note, *_placed_problems(later)),
        fingerprint=f"{earlier.fingerprint}, {later.fingerprint}",
    )


def _merge_rows(earlier: History, later: History) -> History:
    """The union by epoch, where the later row counts; rows without a number for an epoch stay, at the end."""
    both = earlier.followed_by(later)
    epochs = both.values(EPOCH)
    last = {epoch: row for row, epoch in enumerate(epochs.tolist()) if epoch == epoch}
    kept = [row for _, row in sorted(last.items())] + np.flatnonzero(np.isnan(epochs)).tolist()
    return both.take(kept)


def _placed_problems(run: WandbRun) -> tuple[str, ...]:
    """Name the folder in each problem, where a merge has not done so."""
    place = f"{run.path.parent.name}: "
    if any(problem.startswith("merged from ") for problem in run.problems):
        return run.problems
    return tuple(place + problem for problem in run.problems)
