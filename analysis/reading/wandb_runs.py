"""The only reader of W&B: run files -> one WandbRun each.

A record of a run file (`run_files.py`) is a protobuf `Record`. What is left out is named in the run's `problems`.
Run files come from other machines: none of them can raise anything but an InputError that names it.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import accumulate
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

from analysis.reading.run_files import iter_frames
from trainable.config import InputError

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
        history: the logged rows in order; a nested key is one key with dots, as W&B shows it.
        summary: nested, the last state in the file.
        exit_code: 0 for success; None where the file has no exit record.
        path: the file; of several, the latest.
        problems: what the reader met: torn or damaged bytes, a missing exit record, no rows, several files.
    """

    run_id: str
    group: str
    name: str
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    exit_code: int | None
    path: Path
    problems: tuple[str, ...]


def read_runs(folder: Path) -> list[WandbRun]:
    """Every run in W&B's `folder`, written offline or online, sorted by run id; none where there is no such folder.

    A run id met in several folders (resumed, interrupted or mirrored again) is one run: its rows are the union by
    epoch, and where two files disagree the later one wins (W&B puts the time, then a counter, in the folder's name).

    Raises:
        InputError: a file that is no run file, cannot be read, or lies outside the folder behind a symlink.
    """
    runs: dict[str, list[WandbRun]] = {}
    for path in sorted(folder.glob("*run-*/run-*.wandb"), key=_time_order):  # not `latest-run`, a link to one of them
        _check_inside(path, folder)
        run = read_run(path)
        runs.setdefault(run.run_id, []).append(run)
    return [reduce(_merge, files) for _, files in sorted(runs.items())]


def read_run(path: Path) -> WandbRun:
    """One run file.

    Raises:
        InputError: the file cannot be read, or is no W&B run file of the known version.
    """
    draft = _Draft(run_id=path.stem.removeprefix("run-"))
    for payload in iter_frames(path, draft.problems):
        try:
            record = Record.FromString(payload)
        except DecodeError:
            draft.note("a record that is no W&B record, left out")
            continue
        apply = _HANDLERS.get(record.WhichOneof("record_type"))
        if apply:
            apply(draft, record)
    return draft.finish(path)


@dataclass
class _Draft:
    """A run while its records are read."""

    run_id: str
    group: str = ""
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    problems: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        """Once each: a hostile file must not make a long list of them."""
        if problem not in self.problems:
            self.problems.append(problem)

    def add_run(self, record: Any) -> None:
        """Take the names and the config; the record comes again when a name changes."""
        self.run_id = record.run.run_id or self.run_id
        self.group = record.run.run_group or self.group
        self.name = record.run.display_name or self.name
        self._update_config(record.run.config)

    def add_config(self, record: Any) -> None:
        self._update_config(record.config)

    def _update_config(self, change: Any) -> None:
        """Merge mappings key by key, as the public reader does, and replace anything else."""
        for keys, value in self._values(change.update):
            _assign(self.config, keys, value, merge=True)
        for item in change.remove:
            _remove(self.config, _keys(item))

    def add_summary(self, record: Any) -> None:
        """Replace values by later ones, mappings too."""
        for keys, value in self._values(record.summary.update):
            _assign(self.summary, keys, value, merge=False)
        for item in record.summary.remove:
            _remove(self.summary, _keys(item))

    def add_row(self, record: Any) -> None:
        """One logged row; rows that hold W&B's own keys only are left out."""
        row = {".".join(keys): value for keys, value in self._values(record.history.item)}
        if row:
            self.history.append(row)

    def add_exit(self, record: Any) -> None:
        self.exit_code = int(record.exit.exit_code)

    def _values(self, items: Iterable[Any]) -> Iterator[tuple[list[str], Any]]:
        """Key path and decoded value of each item that is the user's."""
        for item in items:
            keys = _keys(item)
            if keys[0].startswith("_"):
                continue
            try:
                yield keys, _decode(keys, item.value_json)
            except ValueError:
                self.note(f"an unreadable value of {keys[0][:80]!r}, left out")

    def finish(self, path: Path) -> WandbRun:
        if self.exit_code is None:
            self.note("no exit record")
        if not self.history:
            self.note("no rows")
        return WandbRun(**{**vars(self), "problems": tuple(self.problems)}, path=path)


_HANDLERS: dict[str | None, Callable[[_Draft, Any], None]] = {
    "run": _Draft.add_run,
    "config": _Draft.add_config,
    "summary": _Draft.add_summary,
    "history": _Draft.add_row,
    "exit": _Draft.add_exit,
}
"""Type of record -> what it adds to the run; all other types (telemetry, files, ...) hold nothing of ours."""


def _keys(item: Any) -> list[str]:
    return list(item.nested_key) or [item.key]


def _decode(keys: list[str], text: str) -> Any:
    """W&B's JSON, which writes NaN and Infinity bare.

    Raises:
        ValueError: not JSON, nested too deep, or half a surrogate pair in a string, which nothing could print.
    """
    if len(keys) > MAX_NESTING or (text[:1] in ("[", "{") and len(keys) + _nesting(text) > MAX_NESTING):
        raise ValueError(f"nested deeper than {MAX_NESTING}")
    value = json.loads(text)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _nesting(text: str) -> int:
    """Depth of a JSON text, before parsing. Brackets within strings count: no value of ours has 32 unclosed ones."""
    steps = (1 if bracket.group() in "[{" else -1 for bracket in re.finditer(r"[\[\]{}]", text))
    return max(accumulate(steps), default=0)


def _assign(target: dict[str, Any], keys: list[str], value: Any, *, merge: bool) -> None:
    """Set `value` at the path `keys`, making the mappings on the way."""
    for key in keys[:-1]:
        inner = target.get(key)
        if not isinstance(inner, dict):
            inner = target[key] = {}
        target = inner
    if merge and isinstance(value, dict) and isinstance(target.get(keys[-1]), dict):
        for key, inner in value.items():
            _assign(target[keys[-1]], [key], inner, merge=True)
    else:
        target[keys[-1]] = value


def _remove(target: dict[str, Any], keys: list[str]) -> None:
    """Take the path `keys` out; nothing where it is not there."""
    for key in keys[:-1]:
        inner = target.get(key)
        if not isinstance(inner, dict):
            return
        target = inner
    target.pop(keys[-1], None)


def _merge(earlier: WandbRun, later: WandbRun) -> WandbRun:
    """Two files of one run id -> one run, whose problems name their file's folder."""
    rows = {_row_key(row, index): row for index, row in enumerate([*earlier.history, *later.history])}
    note = f"merged from {earlier.path.parent.name} and {later.path.parent.name}"
    return replace(
        later,
        group=later.group or earlier.group,
        name=later.name or earlier.name,
        config={**earlier.config, **later.config},
        history=sorted(rows.values(), key=_epoch_order),
        summary={**earlier.summary, **later.summary},
        exit_code=earlier.exit_code if later.exit_code is None else later.exit_code,
        problems=(*_placed_problems(earlier), note, *_placed_problems(later)),
    )


def _placed_problems(run: WandbRun) -> tuple[str, ...]:
    """Name the folder in each problem, where a merge has not done so."""
    place = f"{run.path.parent.name}: "
    if any(problem.startswith("merged from ") for problem in run.problems):
        return run.problems
    return tuple(place + problem for problem in run.problems)


def _row_key(row: dict[str, Any], index: int) -> tuple[str, Any]:
    """Equal for rows of the same epoch; a row without a number for an epoch equals none."""
    epoch = row.get("epoch")
    return ("epoch", epoch) if isinstance(epoch, int | float) else ("row", index)


def _epoch_order(row: dict[str, Any]) -> float:
    """Rows without an epoch last; the sort is stable, so in the order they were read."""
    epoch = row.get("epoch")
    return epoch if isinstance(epoch, int | float) and epoch == epoch else float("inf")


def _time_order(path: Path) -> list[str | int]:
    """Sorts by the numbers in the folder's name, `[offline-]run-<time>-<id>[-<counter>]`; 10 comes after 2."""
    name = path.parent.name.removeprefix("offline-")
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _check_inside(path: Path, folder: Path) -> None:
    """Refuses what a hostile folder could point at: files elsewhere, and pipes or devices, which block a reader."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise InputError(f"{path}: is a symlink out of {folder}; copy the run into the folder instead")
    if not real.is_file():
        raise InputError(f"{path}: must be a regular file; remove it from the folder")
