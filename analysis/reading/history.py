"""The logged rows of one run, column by column: 10,000 runs of 100 epochs and 25 metrics fit into 200 MB.

Numbers are float64, with NaN for what is null, absent or no number; what was absent, and what was no number, is kept
beside them, so that the rules of `completeness.py` can say so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Cell = tuple[int, str]
"""A row, counted from 0, and the name of a metric."""

EPOCH = "epoch"
MAX_WHOLE = 2**53
"""Above it, a float64 does not hold every whole number."""

MAX_ODD_CHARS = 80
MAX_METRICS = 2_000
MAX_CELLS = 2**24
"""Rows times metrics of one run, 128 MiB: a small hostile file could otherwise ask for all of the memory."""


@dataclass(frozen=True, eq=False)
class History:
    """Rows in the order in which they were logged.

    Attributes:
        num_rows: how many there are.
        columns: name -> (num_rows,) float64; NaN where there is no number.
        absent: name -> (num_rows,) true where a row has no such metric; only of the names that some row lacks.
        odd: (row, name) -> the beginning of a value that is no number, as Python would write it.
        in_order: the rows are the epochs 1, 2, 3, ...: so it is with a run that went well, and spares a look at them.
    """

    num_rows: int
    columns: Mapping[str, Floats]
    absent: Mapping[str, Flags]
    odd: Mapping[Cell, str]
    in_order: bool

    @classmethod
    def of(cls, num_rows: int, columns: dict[str, Floats], absent: dict[str, Flags], odd: dict[Cell, str]) -> "History":
        """From its parts; names that no row lacks are left out of `absent`."""
        epochs = columns.get(EPOCH, np.zeros(0))
        flags = {name: each for name, each in absent.items() if each.any()}
        return cls(num_rows, columns, flags, odd, np.array_equal(epochs, np.arange(1, num_rows + 1)))

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> "History":
        """From one mapping per row, as W&B's API and JSON lines give them."""
        draft = HistoryDraft()
        for row in rows:
            draft.add(row.items())
        return draft.finish()

    def rows(self) -> list[dict[str, Any]]:
        """One mapping per row: numbers as floats (whole epochs as int), NaN where null, odd values as their text."""
        return [
            {name: self._value(row, name) for name in self.columns if self.has(row, name)}
            for row in range(self.num_rows)
        ]

    def has(self, row: int, name: str) -> bool:
        """Whether a row has a metric, be it NaN."""
        return name in self.columns and not (name in self.absent and self.absent[name][row])

    def values(self, name: str) -> Floats:
        """(num_rows,) one metric; NaN where it is missing."""
        return self.columns[name] if name in self.columns else np.full(self.num_rows, np.nan)

    @cached_property
    def epochs(self) -> NDArray[np.int64]:
        """(num_rows,) the epoch of each row; 0 where that is no whole number from 1."""
        values = self.values(EPOCH)
        is_whole = (values >= 1) & (values < MAX_WHOLE) & (values == np.floor(values))
        return np.where(is_whole, values, 0).astype(np.int64)

    @property
    def order(self) -> NDArray[np.intp]:
        """(num_rows,) rows by epoch; of equal epochs, as they were logged."""
        return np.arange(self.num_rows) if self.in_order else np.argsort(self.epochs, kind="stable")

    @property
    def last(self) -> int | None:
        """The row of the last epoch, the first of several; None where there are no rows."""
        if self.in_order or not self.num_rows:
            return self.num_rows - 1 if self.num_rows else None
        return int(self.epochs.argmax())

    def said(self, row: int, name: str) -> str:
        """A value as it was logged, for a message."""
        return self.odd.get((row, name)) or repr(self._value(row, name) if self.has(row, name) else None)

    def take(self, rows: Sequence[int]) -> "History":
        """These rows alone, in this order."""
        index = np.asarray(rows, dtype=np.intp)
        place = {row: i for i, row in enumerate(rows)}
        return History.of(
            num_rows=len(index),
            columns={name: values[index] for name, values in self.columns.items()},
            absent={name: flags[index] for name, flags in self.absent.items()},
            odd={(place[row], name): text for (row, name), text in self.odd.items() if row in place},
        )

    def followed_by(self, later: "History") -> "History":
        """The rows of both."""
        names = [*self.columns, *(name for name in later.columns if name not in self.columns)]
        return History.of(
            num_rows=self.num_rows + later.num_rows,
            columns={name: np.concatenate([self.values(name), later.values(name)]) for name in names},
            absent={name: np.concatenate([self.lacks(name), later.lacks(name)]) for name in names},
            odd={**self.odd, **{(row + self.num_rows, name): text for (row, name), text in later.odd.items()}},
        )

    def lacks(self, name: str) -> Flags:
        """(num_rows,) true where a row has no such metric."""
        if name not in self.columns:
            return np.ones(self.num_rows, dtype=np.bool_)
        return self.absent[name] if name in self.absent else np.zeros(self.num_rows, dtype=np.bool_)

    def _value(self, row: int, name: str) -> Any:
        if (row, name) in self.odd:
            return self.odd[row, name]
        value = float(self.columns[name][row])
        return int(value) if name == EPOCH and self.epochs[row] else value


@dataclass
class HistoryDraft:
    """A history while its rows are read: of each name the rows that have it, and the values there."""

    num_rows: int = 0
    cells: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    odd: dict[Cell, str] = field(default_factory=dict)

    def add(self, items: Iterable[tuple[str, Any]]) -> None:
        """One row, as (name, value); of a name that stands twice, the last value counts."""
        row, cells = self.num_rows, self.cells
        for name, value in items:
            rows, values = cells.get(name) or cells.setdefault(name, ([], []))
            if rows and rows[-1] == row:
                self.odd.pop((row, name), None)
                values.pop()
            else:
                rows.append(row)
            values.append(value if type(value) is float else self._number(row, name, value))
        self.num_rows += 1

    def _number(self, row: int, name: str, value: Any) -> float:
        """A value as a float; NaN for null and for what is no number, which is remembered."""
        if isinstance(value, float) or (isinstance(value, int) and type(value) is not bool and abs(value) < 2**63):
            return float(value)
        if value is not None:
            self.odd[row, name] = repr(value)[:MAX_ODD_CHARS]
        return float("nan")

    @property
    def num_too_many(self) -> int:
        """How many metrics, the last that were met, are left out, so that a run remains within the limits above."""
        return max(0, len(self.cells) - min(MAX_METRICS, MAX_CELLS // max(self.num_rows, 1)))

    def finish(self) -> History:
        """The columns."""
        names = list(self.cells)[: len(self.cells) - self.num_too_many]
        absent = {name: self._absent(name) for name in names if len(self.cells[name][0]) < self.num_rows}
        columns = {name: self._column(name) for name in names}
        odd = {cell: text for cell, text in self.odd.items() if cell[1] in columns}
        return History.of(self.num_rows, columns, absent, odd)

    def _column(self, name: str) -> Floats:
        rows, values = self.cells[name]
        column = np.full(self.num_rows, np.nan)
        column[rows] = values
        return column

    def _absent(self, name: str) -> Flags:
        flags = np.ones(self.num_rows, dtype=np.bool_)
        flags[self.cells[name][0]] = False
        return flags
