"""StudyRuns -> cells by seeds, and what of the exploration settings may be chosen from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.findings import SCIENTIFIC, Caveat, CellFinding
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import EXPLORE
from analysis.statistics import mean_interval
from analysis.wording import counted, listed
from trainable.config import InputError

Cell = tuple[Any, ...]


@dataclass(frozen=True)
class Grid:
    """Cells by seeds. Where a cell has no complete run at a seed, its value is NaN and its ids are empty.

    Attributes:
        names: the parameters.
        cells: (num_cells,) the levels of each cell, in the order of `names`, ascending.
        seeds: (num_seeds,) ascending.
        values: (num_cells, num_seeds); each cell has at least one.
        trial_ids: (num_cells, num_seeds).
        run_ids: (num_cells, num_seeds).
    """

    names: list[str]
    cells: list[Cell]
    seeds: list[int]
    values: NDArray[np.float64]
    trial_ids: list[list[str]]
    run_ids: list[list[str]]

    def named(self, cell: Cell) -> dict[str, Any]:
        """The cell's levels by parameter."""
        return dict(zip(self.names, cell, strict=True))

    def take(self, rows: Sequence[int]) -> "Grid":
        """These cells alone."""
        return Grid(
            self.names,
            [self.cells[row] for row in rows],
            self.seeds,
            self.values[list(rows)],
            [self.trial_ids[row] for row in rows],
            [self.run_ids[row] for row in rows],
        )

    def by_level(self, roles: dict[str, str]) -> dict[Cell, list[int]]:
        """Scientific levels -> their rows."""
        positions = [i for i, name in enumerate(self.names) if roles[name] == SCIENTIFIC]
        rows: dict[Cell, list[int]] = {}
        for row, cell in enumerate(self.cells):
            rows.setdefault(tuple(cell[i] for i in positions), []).append(row)
        return rows

    def finding(self, row: int) -> CellFinding:
        """One cell at the seeds that it has."""
        there = np.flatnonzero(~np.isnan(self.values[row])).tolist()
        readings = self.values[row][there]
        return CellFinding(
            parameters=self.named(self.cells[row]),
            value=mean_interval(readings),
            seeds=[self.seeds[i] for i in there],
            readings=readings.tolist(),
            trial_ids=[self.trial_ids[row][i] for i in there],
            run_ids=[self.run_ids[row][i] for i in there],
        )


@dataclass(frozen=True)
class Exploration:
    """The explored cells, and which of them may be chosen.

    Attributes:
        explored: every cell with a complete run.
        candidates: the cells that may be chosen.
        blocks: columns of `candidates` that settings are chosen on.
        caveats: what was left out.
    """

    explored: Grid
    candidates: Grid
    blocks: list[int]
    caveats: list[Caveat]

    @property
    def means(self) -> NDArray[np.float64]:
        """(num_candidates,) what candidates are chosen by: their means over the seeds of the blocks."""
        columns = self.candidates.values[:, self.blocks]
        return np.nanmean(columns, axis=1) if columns.size else np.zeros(0)


def tabulate(runs: StudyRuns, phase: str, column: str = "objective") -> Grid:
    """The complete runs of a phase, at one column of `runs.trials`.

    Raises:
        InputError: two runs claim the same cell and seed.
    """
    names = list(runs.parameters)
    found = _by_cell_and_seed(runs, names, phase, column)
    cells = sorted({cell for cell, _ in found}, key=lambda cell: [level_order(level) for level in cell])
    seeds = sorted({seed for _, seed in found})
    rows = [[found.get((cell, seed), (np.nan, "", "")) for seed in seeds] for cell in cells]
    return Grid(
        names=names,
        cells=cells,
        seeds=seeds,
        values=np.array([[value for value, _, _ in row] for row in rows]).reshape(len(cells), len(seeds)),
        trial_ids=[[trial_id for _, trial_id, _ in row] for row in rows],
        run_ids=[[run_id for _, _, run_id in row] for row in rows],
    )


def explore(runs: StudyRuns) -> Exploration:
    """Which of the explored cells may be chosen, and on which seeds.

    A setting of which a run was stopped early or diverged cannot be chosen. In a grid, settings are chosen on the seeds
    that every other cell has. Where there is no such seed, and where settings are searched, those with the most seeds
    at their scientific level are candidates, each at its own seeds. What is chosen is read at all seeds that it has.
    """
    explored = tabulate(runs, EXPLORE)
    ended_early = ended_cells(runs, EXPLORE)
    unbroken = [row for row, cell in enumerate(explored.cells) if cell not in ended_early]
    candidates = explored.take(unbroken)
    blocks = np.flatnonzero(~np.isnan(candidates.values).any(axis=0)).tolist()
    if not runs.search.is_grid or not blocks:
        candidates = candidates.take(_most_seeds(runs, candidates))
        blocks = list(range(len(explored.seeds)))
    caveats = [
        *_left_out(explored, len(unbroken), len(candidates.cells), blocks),
        *_missing_cells(runs, {*explored.cells, *ended_early}),
    ]
    return Exploration(explored, candidates, blocks, caveats)


def _most_seeds(runs: StudyRuns, grid: Grid) -> list[int]:
    """The rows with the most seeds at their scientific level."""
    counts = (~np.isnan(grid.values)).sum(axis=1)
    return sorted(
        row for rows in grid.by_level(runs.parameters).values() for row in rows if counts[row] == counts[rows].max()
    )


def ended_cells(runs: StudyRuns, phase: str) -> dict[Cell, dict[int, str]]:
    """The cells of which a run of the phase was stopped early or diverged: cell -> seed -> which of the two."""
    if runs.ended_early.empty:
        return {}
    rows = runs.ended_early[runs.ended_early["phase"] == phase]
    columns = [rows[name].tolist() for name in [*runs.parameters, "seed", "state"]]
    found: dict[Cell, dict[int, str]] = {}
    for *cell, seed, state in zip(*columns, strict=True):
        found.setdefault(tuple(cell), {})[int(seed)] = str(state)
    return found


def _by_cell_and_seed(
    runs: StudyRuns, names: list[str], phase: str, column: str
) -> dict[tuple[Cell, int], tuple[float, str, str]]:
    """(cell, seed) -> value, trial id, run id."""
    if runs.trials.empty:
        return {}
    rows = runs.trials[runs.trials["phase"] == phase]
    columns = [rows[name].tolist() for name in [*names, "seed", column, "trial_id", "run_id"]]
    found: dict[tuple[Cell, int], tuple[float, str, str]] = {}
    for *cell, seed, value, trial_id, run_id in zip(*columns, strict=True):
        key = (tuple(cell), int(seed))
        if key in found:
            raise InputError(
                f"study {runs.study}: runs {found[key][2]} and {run_id} have the same levels and the same seed; give"
                f" each study its own name, or move the runs of the older one away"
            )
        found[key] = (float(value), str(trial_id), str(run_id))
    return found


def _left_out(explored: Grid, num_unbroken: int, num_candidates: int, blocks: list[int]) -> Iterator[Caveat]:
    if num := len(explored.cells) - num_unbroken:
        yield Caveat(
            "broken_settings", f"No candidates: {counted(num, 'setting')} that some seed stopped early or saw diverge."
        )
    if num := num_unbroken - num_candidates:
        yield Caveat("cells_missing", f"Left out: {counted(num, 'cell')} with fewer seeds than others at their level.")
    if others := [seed for i, seed in enumerate(explored.seeds) if i not in blocks]:
        yield Caveat("cells_missing", f"Seed {listed(others)}: cells are missing; settings are chosen on the others.")


def _missing_cells(runs: StudyRuns, cells: set[Cell]) -> Iterator[Caveat]:
    """Cells of a grid that no seed has; one that was stopped or diverged is not missing."""
    full = prod(len({cell[i] for cell in cells}) for i in range(len(runs.parameters)))
    if runs.search.is_grid and len(cells) < full:
        yield Caveat("cells_missing", f"Cells missing: {full - len(cells)} of {full} have no complete run at any seed.")


def level_order(level: Any) -> tuple[bool, Any]:
    """Numbers by size, then names by letter; so `dense`, which is more than any number of points, comes last."""
    return (isinstance(level, str), level)
