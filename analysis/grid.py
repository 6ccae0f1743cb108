"""StudyRuns -> the balanced table: every kept cell at every kept seed block, so that differences pair by seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.findings import Caveat
from analysis.runs import StudyRuns
from analysis.wording import listed
from trainable.config import InputError

Cell = tuple[Any, ...]


@dataclass(frozen=True)
class Grid:
    """The balanced part of a study.

    Attributes:
        names: the parameters.
        cells: (num_cells,) the levels of each cell, in the order of `names`.
        seeds: (num_seeds,) ascending.
        values: (num_cells, num_seeds) the objective.
        trial_ids: (num_cells, num_seeds).
        run_ids: (num_cells, num_seeds).
        caveats: what was left out to have every cell at every seed.
    """

    names: list[str]
    cells: list[Cell]
    seeds: list[int]
    values: NDArray[np.float64]
    trial_ids: list[list[str]]
    run_ids: list[list[str]]
    caveats: list[Caveat]

    def named(self, cell: Cell) -> dict[str, Any]:
        """The cell's levels by parameter."""
        return dict(zip(self.names, cell, strict=True))


def balance(runs: StudyRuns) -> Grid:
    """Keeps the seed blocks in which every cell is there; if no block is whole, the cells that every block has.

    Raises:
        InputError: no run is complete, no cell is in every block, or two runs claim the same cell and seed.
    """
    names = list(runs.parameters)
    found = _by_cell_and_seed(runs, names)
    cells = sorted({cell for cell, _ in found}, key=lambda cell: [level_order(level) for level in cell])
    seeds = sorted({seed for _, seed in found})
    whole = [seed for seed in seeds if all((cell, seed) in found for cell in cells)]
    kept_seeds = whole or seeds
    kept_cells = [cell for cell in cells if all((cell, seed) in found for seed in kept_seeds)]
    if not kept_cells:
        raise InputError(f"study {runs.study}: no cell is complete at every seed; run the study again to complete it")
    rows = [[found[cell, seed] for seed in kept_seeds] for cell in kept_cells]
    return Grid(
        names=names,
        cells=kept_cells,
        seeds=kept_seeds,
        values=np.array([[value for value, _, _ in row] for row in rows], dtype=np.float64),
        trial_ids=[[trial_id for _, trial_id, _ in row] for row in rows],
        run_ids=[[run_id for _, _, run_id in row] for row in rows],
        caveats=list(_gaps(names, cells, seeds, kept_cells, kept_seeds)),
    )


def _by_cell_and_seed(runs: StudyRuns, names: list[str]) -> dict[tuple[Cell, int], tuple[float, str, str]]:
    """(cell, seed) -> objective, trial id, run id."""
    if runs.trials.empty:
        raise InputError(f"study {runs.study}: no complete run to analyze; run the study first")
    columns = [runs.trials[name].tolist() for name in [*names, "seed", "objective", "trial_id", "run_id"]]
    found: dict[tuple[Cell, int], tuple[float, str, str]] = {}
    for *cell, seed, objective, trial_id, run_id in zip(*columns, strict=True):
        key = (tuple(cell), int(seed))
        if key in found:
            raise InputError(
                f"study {runs.study}: runs {found[key][2]} and {run_id} have the same levels and the same seed; give"
                f" each study its own name, or move the runs of the older one away"
            )
        found[key] = (float(objective), str(trial_id), str(run_id))
    return found


def _gaps(
    names: list[str], cells: list[Cell], seeds: list[int], kept_cells: list[Cell], kept_seeds: list[int]
) -> Iterator[Caveat]:
    dropped = [seed for seed in seeds if seed not in kept_seeds]
    if dropped:
        yield Caveat("cells_missing", f"Seed {listed(dropped)} left out: cells are missing there.")
    if len(kept_cells) < len(cells):
        number = len(cells) - len(kept_cells)
        yield Caveat("cells_missing", f"Left out: {number} cells that some seed lacks, as no seed has all.")
    full = prod(len({cell[i] for cell in cells}) for i in range(len(names)))
    if len(cells) < full:
        yield Caveat("cells_missing", f"Cells missing: {full - len(cells)} of {full} have no complete run at any seed.")


def level_order(level: Any) -> tuple[bool, Any]:
    """Numbers by size, then names by letter; so `dense`, which is more than any number of points, comes last."""
    return (isinstance(level, str), level)
