"""The trials of a study as a table, cells by seeds, in as many lines and columns as there are.

Where a terminal is too narrow for a value per trial there is a letter per trial, and then their numbers alone; where it
is too low, the cells that are worth looking at are shown and the others counted.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from cluster.terminal import inert
from cluster.trial_states import TrialState
from study.design import list_cells
from study.spec import StudySpec, Value

WIDTH = 9
"""Columns of a trial's value."""
MAX_NAME = 16
SHOWN = {"completed": "done", "infeasible": "diverged", "unfinished": "interrupted", "not_started": "waiting"}
"""State -> what it is called here; others as they are."""
MARKS = {
    "completed": "#", "running": ">", "unfinished": "~", "stopped": "s", "failed": "!", "infeasible": "x",
    "not_started": ".", "spared": "-",
}  # fmt: skip
LEGEND = "# done  > running  ~ interrupted  s stopped  ! failed  x diverged  . waiting  - spared"
UNDER_WAY = ("running", "unfinished")

Key = tuple[Value, ...]
"""The levels of a cell, in the order of the study file."""


@dataclass
class Row:
    """A cell: its trials by their seeds."""

    key: Key
    trials: dict[int, TrialState] = field(default_factory=dict)

    def state(self, seed: int) -> str:
        """How the trial at that seed stands; one that is not known yet waits, or is spared where another stopped."""
        if seed in self.trials:
            return self.trials[seed].state
        return "spared" if any(each.state == "stopped" for each in self.trials.values()) else "not_started"


@dataclass
class Table:
    """The trials of one phase.

    Attributes:
        metric: what is shown of a completed trial.
        seeds: the columns.
        rows: the cells, in the order of the study file or of the trials.
    """

    names: list[str]
    metric: str
    seeds: list[int]
    rows: dict[Key, Row]

    @classmethod
    def of_phase(cls, spec: StudySpec, phase: str, trials: Iterable[TrialState]) -> "Table":
        """The table of a phase; trials whose directory does not say their cell and seed are in none."""
        seeds = dict.fromkeys(spec.search.seeds if phase == "explore" else spec.confirm.seeds if spec.confirm else [])
        is_listed = phase == "explore" and spec.search.method == "grid"
        keys = (tuple(cell.values()) for cell in list_cells(spec)) if is_listed else ()
        rows = {key: Row(key) for key in keys}
        for trial in trials:
            if trial.phase == phase and trial.cell is not None and trial.seed is not None:
                seeds.setdefault(trial.seed)
                key = tuple(trial.cell.values())
                rows.setdefault(key, Row(key)).trials[trial.seed] = trial
        metric = spec.objective.metric if phase == "explore" else f"test/{spec.objective.metric.removeprefix('val/')}"
        return cls(list(spec.parameters), metric, list(seeds), rows if seeds else {})

    def lines(self, width: int, height: int) -> list[str]:
        """The table in at most so many columns and lines; nothing where there is no cell, or no room."""
        if not self.rows or height < 2:
            return []
        rows, hidden = self._worth_seeing(height - 1)
        left = _columns([self.names, *([_text(value) for value in row.key] for row in rows)])
        room = width - len(left[0]) - 1
        if room >= WIDTH * len(self.seeds):
            right = ["".join(f"{f'seed {seed}':>{WIDTH}}" for seed in self.seeds), *map(self._values, rows)]
        elif room >= len(self.seeds):
            right = [f" {len(self.seeds)} seeds: {LEGEND}", *(f" {self._marks(row)}" for row in rows)]
        else:
            right = [f" {len(self.seeds)} seeds", *(f" {_counted(self._states(row))}" for row in rows)]
        lines = [f"{a}{b}"[:width] for a, b in zip(left, right, strict=True)]
        states = [state for row in hidden for state in self._states(row)]
        return [*lines, *([f"... {len(hidden)} more cells: {_counted(states)}"[:width]] if hidden else [])]

    def _worth_seeing(self, height: int) -> tuple[list[Row], list[Row]]:
        """(cells that are shown, others): what is under way or failed, then the best, then what is to come."""
        rows = list(self.rows.values())
        if len(rows) <= height:
            return rows, []
        order = sorted(range(len(rows)), key=lambda place: self._interest(rows[place]))
        shown, hidden = sorted(order[: height - 1]), order[height - 1 :]
        return [rows[place] for place in shown], [rows[place] for place in hidden]

    def _interest(self, row: Row) -> tuple[int, float]:
        states = {trial.state for trial in row.trials.values()}
        values = [value for trial in row.trials.values() if (value := self._value(trial)) is not None]
        if not states.isdisjoint(UNDER_WAY):
            return 0, 0.0
        if "failed" in states:
            return 1, 0.0
        return (2, -fmean(values)) if values else (3, 0.0)

    def _states(self, row: Row) -> list[str]:
        return [row.state(seed) for seed in self.seeds]

    def _marks(self, row: Row) -> str:
        return "".join(MARKS[state] for state in self._states(row))

    def _values(self, row: Row) -> str:
        return "".join(f"{self._shown(row, seed)[: WIDTH - 1]:>{WIDTH}}" for seed in self.seeds)

    def _shown(self, row: Row, seed: int) -> str:
        state, trial = row.state(seed), row.trials.get(seed)
        if trial and state in UNDER_WAY:
            progress = f"{trial.epoch}/{trial.epochs or '?'}"
            return progress if state == "running" else f"({progress})"
        if trial and (value := self._value(trial)) is not None:
            return f"{value:.3f}"
        words = {"not_started": ".", "spared": "-", "completed": "done", "infeasible": "diverged", "failed": "FAILED"}
        return words.get(state, state)

    def _value(self, trial: TrialState) -> float | None:
        value = (trial.metrics or {}).get(self.metric)
        return value if isinstance(value, float) and math.isfinite(value) else None


def _counted(states: Iterable[str]) -> str:
    return ", ".join(f"{count} {SHOWN.get(state, state)}" for state, count in sorted(Counter(states).items()))


def _columns(rows: list[list[str]]) -> list[str]:
    """Cells of a table as lines of one length."""
    widths = [min(MAX_NAME, max(map(len, column))) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{each[:at]:>{at}}" for each, at in zip(row, widths, strict=True)) for row in rows]


def _text(value: Any) -> str:
    return inert(f"{value:.4g}" if isinstance(value, float) else str(value))
