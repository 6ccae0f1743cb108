"""Runs as an Arrow table, one row a run, and back: what readers hand over between processes and the cache keeps.

A metric is a column of lists, one list a run: null where the run has no such metric, and a null in the list where a row
has not; so one metric of 10,000 runs is read without the others.
"""

import functools
import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.reading.history import Flags, Floats, History
from analysis.reading.wandb_runs import WandbRun

PREFIX = "metric/"
HEAD = pa.schema(
    {
        "key": pa.string(),
        "fingerprint": pa.string(),
        "run_id": pa.string(),
        "group": pa.string(),
        "name": pa.string(),
        "config": pa.list_(pa.string()),
        "summary": pa.string(),
        "exit_code": pa.int64(),
        "problems": pa.list_(pa.string()),
        "num_rows": pa.int64(),
        "in_order": pa.bool_(),
        "metrics": pa.string(),
        "odd": pa.string(),
    }
)
"""What stands in a row beside the metrics, mostly JSON: `config` as `["key", value]` for each top-level key, which runs
mostly share, `metrics` the names of the run's metrics, `odd` its `[row, name, text]`."""

METRIC = pa.list_(pa.float64())

READER = "reader 2"
"""Stands in every fingerprint. Raise it whenever the same file or answer would be read, or compared, otherwise."""

KeyedRun = tuple[str, str, WandbRun]
"""Where a run was read, what distinguishes this state of it from later ones, and the run."""


def to_table(runs: Iterable[KeyedRun]) -> pa.Table:
    """One row per run, in the given order."""
    keyed = list(runs)
    heads = [_head(*each) for each in keyed]
    columns = {
        name: pa.array([head[name] for head in heads], kind) for name, kind in zip(HEAD.names, HEAD.types, strict=True)
    }
    histories = [run.history for _, _, run in keyed]
    names = dict.fromkeys(name for history in histories for name in history.columns)
    return pa.table({**columns, **{PREFIX + name: _metric(name, histories) for name in names}})


def _head(key: str, fingerprint: str, run: WandbRun) -> dict[str, Any]:
    history = run.history
    return {
        "key": key,
        "fingerprint": fingerprint,
        "run_id": run.run_id,
        "group": run.group,
        "name": run.name,
        "config": [json.dumps(item) for item in run.config.items()],
        "summary": json.dumps(run.summary),
        "exit_code": run.exit_code,
        "problems": list(run.problems),
        "num_rows": history.num_rows,
        "in_order": history.in_order,
        "metrics": json.dumps(list(history.columns)),
        "odd": json.dumps([[row, name, text] for (row, name), text in history.odd.items()]) if history.odd else "",
    }


def _metric(name: str, histories: Sequence[History]) -> pa.Array:
    has = np.array([name in history.columns for history in histories], dtype=np.bool_)
    those = [history for history in histories if name in history.columns]
    lengths = np.array([history.num_rows for history in histories]) * has
    values = np.concatenate([history.columns[name] for history in those])
    absent = np.concatenate([history.lacks(name) for history in those])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, mask=absent), mask=pa.array(~has))


@dataclass(frozen=True)
class RunTable:
    """Runs as `to_table` laid them out; columns are read when they are first asked for.

    Attributes:
        read: the named columns, or all, for None.
        damage: what to raise where it does not hold what was written, given what is wrong.
    """

    read: Callable[[list[str] | None], pa.Table]
    damage: Callable[[str], Exception]
    _columns: dict[str, "_Column"] = field(default_factory=dict)

    def fingerprints(self) -> dict[str, str]:
        """Key -> fingerprint of every run in it."""
        head = self.read(["key", "fingerprint"])
        return dict(zip(head["key"].to_pylist(), head["fingerprint"].to_pylist(), strict=True))

    def runs(self, keys: Container[str], root: Path) -> Iterator[tuple[str, WandbRun]]:
        """Key and run of the runs with these keys; their configs share what is equal, and must not be changed.

        Args:
            keys: which.
            root: of their paths, which are keys otherwise.

        Raises:
            InputError: it does not hold what `to_table` wrote.
        """
        head = self.read(HEAD.names).select(HEAD.names)
        section, names = functools.cache(_section), functools.cache(_names)
        for row, values in enumerate(zip(*(column.to_pylist() for column in head.columns), strict=True)):
            said = dict(zip(HEAD.names, values, strict=True))
            if said["key"] in keys:
                try:
                    yield said["key"], _run(said, self._history(row, said, names), root, section)
                except (ValueError, TypeError, RecursionError) as error:
                    raise self.damage(str(error)) from error

    def _history(self, row: int, said: dict[str, Any], names: Callable[[str], dict[str, None]]) -> History:
        num_rows, metrics = int(said["num_rows"]), names(said["metrics"])
        return History(
            num_rows,
            _Columns(self, row, num_rows, metrics),
            _Absent(self, row, num_rows, metrics),
            {(int(at), str(name)): str(text) for at, name, text in json.loads(said["odd"] or "[]")},
            bool(said["in_order"]),
        )

    def metric(self, name: str) -> "_Column":
        """All runs' values of one metric."""
        if name not in self._columns:
            table = self.read([PREFIX + name])
            if PREFIX + name not in table.column_names:
                raise self.damage(f"it has no {name!r:.80}, though a run has")
            self._columns[name] = _Column.of(table[PREFIX + name])
        return self._columns[name]


@dataclass(frozen=True)
class _Column:
    """(num_values,) of all runs, the first of each run, and where a row has none; None where every row has one."""

    values: Floats
    offsets: list[int]
    absent: Flags | None

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> "_Column":
        lists = pa.concat_arrays(column.chunks)
        values = lists.values
        absent = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
        return cls(values.to_numpy(zero_copy_only=False), lists.offsets.tolist(), absent)


@dataclass(frozen=True)
class _Columns(Mapping[str, Any]):
    """The metrics of one run, as `History.columns`."""

    table: RunTable
    row: int
    num_rows: int
    names: dict[str, None]

    def __getitem__(self, name: str) -> Any:
        column, place = self._find(name)
        return column.values[place]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def _find(self, name: str) -> tuple[_Column, slice]:
        if name not in self.names:
            raise KeyError(name)
        column = self.table.metric(name)
        start, stop = column.offsets[self.row : self.row + 2]
        if stop - start != self.num_rows:
            raise self.table.damage(f"{stop - start} values of {name!r:.80} for {self.num_rows} rows")
        return column, slice(start, stop)


class _Absent(_Columns):
    """Of one run what `History.absent` holds; to list it is to read every metric."""

    def __getitem__(self, name: str) -> Any:
        column, place = self._find(name)
        if column.absent is None or not column.absent[place].any():
            raise KeyError(name)
        return column.absent[place]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _section(text: str) -> tuple[str, Any]:
    key, value = json.loads(text)
    return key, value


def _names(text: str) -> dict[str, None]:
    return dict.fromkeys(json.loads(text))


def _run(said: dict[str, Any], history: History, root: Path, section: Callable[[str], tuple[str, Any]]) -> WandbRun:
    return WandbRun(
        run_id=said["run_id"],
        group=said["group"],
        name=said["name"],
        config=dict(map(section, said["config"])),
        history=history,
        summary=dict(json.loads(said["summary"])),
        exit_code=said["exit_code"],
        path=root / said["key"],
        problems=tuple(said["problems"]),
        fingerprint=said["fingerprint"],
    )
