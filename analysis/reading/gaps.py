"""What W&B lacks of a study whose trial directories are at hand; `canopoint sync` closes it.

W&B is a mirror of every trial's `metrics.jsonl` and `result.json`: the same epochs, metrics and values (wall-clock
times apart), and the same end. The comparison of 10,000 trials takes ten seconds, so what came of it is kept.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.reading.history import History
from analysis.reading.wandb_runs import WandbRun
from trainable.config import InputError
from trainable.sealed import read_sealed, take_sealed, write_sealed

_LOG = logging.getLogger(__name__)

KEPT = "gaps.json"
NO_RUN = "no W&B run"


def find_gaps(study_dir: Path, runs: Sequence[WandbRun]) -> dict[str, str]:
    """Trial id -> what W&B lacks of it, or has otherwise; nothing where the study's folder has no trials.

    Args:
        study_dir: the study's folder.
        runs: as W&B holds them.
    """
    return gaps_by_trial(study_dir, runs, find_differences(study_dir, runs))


def gaps_by_trial(study_dir: Path, runs: Sequence[WandbRun], differences: Mapping[str, str]) -> dict[str, str]:
    """The same from what each run differs in; of several runs of one trial, one without a difference speaks."""
    of_trial: dict[str, list[str]] = {}
    for run in runs:
        of_trial.setdefault(_trial_id(run), []).append(differences.get(run.run_id, ""))
    trials = study_dir / "trials"
    names = sorted(os.listdir(trials)) if trials.is_dir() else []
    gaps = {name: min(of_trial[name], key=len) for name in names if name in of_trial}
    gaps |= {name: NO_RUN for name in names if name not in of_trial and _has_something(trials / name)}
    return {trial_id: gap for trial_id, gap in sorted(gaps.items()) if gap}


def find_differences(study_dir: Path, runs: Sequence[WandbRun], kept_in: Path | None = None) -> dict[str, str]:
    """Run id -> in what the run differs from its trial; nothing of runs that do not differ or have no trial here."""
    trials = study_dir / "trials"
    if not trials.is_dir():
        return {}
    known = (take_sealed(kept_in / KEPT) if kept_in else None) or {}
    found: dict[str, list[str]] = {}
    for run in runs:
        state = f"{_state(trials / _trial_id(run))} {run.fingerprint}"
        is_known = bool(run.fingerprint) and known.get(run.run_id, [""])[0] == state
        found[run.run_id] = known[run.run_id] if is_known else [state, difference(trials / _trial_id(run), run)]
    if kept_in and kept_in.is_dir() and found != known:
        _keep(kept_in / KEPT, found)
    return {run_id: text for run_id, (_, text) in found.items() if text}


def _keep(path: Path, found: dict[str, list[str]]) -> None:
    try:
        write_sealed(path, found)
    except OSError as error:
        _LOG.warning("%s: cannot be written (%s): the trials will be compared anew each time", path, error)


def difference(folder: Path, run: WandbRun) -> str:
    """In what a run differs from its trial's directory; empty where in nothing, or there is nothing to compare with."""
    try:
        own = read_history(folder / "metrics.jsonl")
        result = read_sealed(folder / "result.json")
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, InputError) as error:
        return f"its trial cannot be read ({error!s:.200})"
    if own is not None and (text := _rows_lacking(own, run.history)):
        return text
    if result is not None and (run.exit_code is None or run.summary.get("state") not in (None, result.get("state"))):
        return f"W&B lacks its end ({result.get('state')!s:.40})"
    return ""


def read_history(path: Path) -> History | None:
    """A trial's own rows; None where there is no such file. A torn last line is no row yet."""
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    rows = {row["epoch"]: row for row in map(json.loads, lines)}
    return History.from_rows(rows.values())


def _rows_lacking(own: History, mirrored: History) -> str:
    ours, theirs = Counter(own.epochs.tolist()), Counter(mirrored.epochs.tolist())
    if missing := sorted(ours - theirs):
        return f"W&B lacks {_listed(missing)}"
    if extra := sorted(theirs - ours):
        return f"W&B has {_listed(extra)}, which its trial has not"
    different = differing_epochs(own, mirrored)
    return f"W&B has other values at {_listed(different)}" if different else ""


def differing_epochs(own: History, mirrored: History) -> list[int]:
    """The epochs at which two histories differ in names or values, NaN and null being equal; ascending.

    An epoch that was redone has another duration and is still the same.
    """
    own, mirrored = own.take(own.order.tolist()), mirrored.take(mirrored.order.tolist())
    if not np.array_equal(own.epochs, mirrored.epochs):
        ours, theirs = Counter(own.epochs.tolist()), Counter(mirrored.epochs.tolist())
        return sorted((ours - theirs) + (theirs - ours))
    both = own.followed_by(mirrored)
    same = np.ones(own.num_rows, dtype=np.bool_)
    for name in both.columns:
        if not name.startswith("time/"):
            same &= _halves_equal(both.values(name)) & _halves_equal(both.lacks(name))
    epochs: list[int] = own.epochs[~same].tolist()
    return epochs


def _halves_equal(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(num_values / 2,) whether the first half equals the second, NaN equal to NaN."""
    first, second = np.split(values, 2)
    return np.asarray((first == second) | ((first != first) & (second != second)), dtype=np.bool_)


def _trial_id(run: WandbRun) -> str:
    """As a folder's name; hostile ones name none."""
    trial_id = run.config.get("trial_id")
    return trial_id if isinstance(trial_id, str) and trial_id.isalnum() else "-"


def _state(folder: Path) -> str:
    """What tells the states of a trial apart: size and times of change of its files."""
    parts = []
    for name in ("metrics.jsonl", "result.json"):
        try:
            status = (folder / name).stat()
            parts.append(f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}")
        except (FileNotFoundError, NotADirectoryError):
            parts.append("-")
    return " ".join(parts)


def _has_something(folder: Path) -> bool:
    """Whether a trial has shown anything yet that W&B could lack."""
    path = folder / "metrics.jsonl"
    return (folder / "result.json").is_file() or (path.is_file() and path.stat().st_size > 0)


def _listed(epochs: Sequence[int]) -> str:
    """`epoch 3`, `epochs 3, 4 and 5 more`."""
    few = ", ".join(map(str, epochs[:2]))
    more = f" and {len(epochs) - 2} more" if len(epochs) > 2 else ""
    return f"epoch{'s' if len(epochs) > 1 else ''} {few}{more}"
