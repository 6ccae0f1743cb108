"""Arms: each combination of scientific levels at one setting of the nuisance factors, chosen by exploration.

Without confirmation the setting is chosen and read on the same seeds, so its value is that of the exported cell, and
flattered (the winner's curse). At 3 to 8 seeds, equal noise and up to six tied settings a level, nominal 95 % intervals
of differences miss in 1 to 9 % of studies for that; tests/analysis/test_winners_curse.py. To choose for each seed on
the others is no way out: the readings then share choices, so are dependent, and intervals miss in up to a fifth of
studies.

Confirmation runs the setting again on fresh seeds, which did not choose it, and reads them on the test split, on which
nothing was chosen: intervals then miss as often as they claim.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.family import paired_family
from analysis.findings import SCIENTIFIC, Arm, CellFinding
from analysis.grid import Cell, Exploration, Grid, tabulate
from analysis.looks import additions_of
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import CONFIRM
from analysis.statistics import Estimate, best_index


@dataclass(frozen=True)
class Confirmation:
    """The confirmed cells at the same seeds: `test` on the test split, `val` by the objective itself."""

    test: Grid
    val: Grid


def confirm(runs: StudyRuns) -> Confirmation:
    """What was confirmed, if anything."""
    return Confirmation(tabulate(runs, CONFIRM, "test"), tabulate(runs, CONFIRM))


def unconfirmed_levels(runs: StudyRuns, exploration: Exploration, confirmation: Confirmation) -> list[Cell]:
    """The scientific levels that have something to confirm and no confirmed run."""
    confirmed = confirmation.test.by_level(runs.parameters)
    return [level for level in exploration.candidates.by_level(runs.parameters) if level not in confirmed]


def explored_arms(runs: StudyRuns, exploration: Exploration) -> list[Arm]:
    """One arm for every combination of scientific levels, ascending: its candidate of the best mean."""
    grid, means, mode = exploration.candidates, exploration.means, runs.objective["mode"]
    chosen = [rows[best_index(means[rows], mode)] for rows in grid.by_level(runs.parameters).values()]
    return [_arm(runs, grid.finding(row)) for row in chosen]


def confirmed_arms(runs: StudyRuns, exploration: Exploration, confirmation: Confirmation) -> list[Arm]:
    """One arm for every combination of scientific levels, ascending: its confirmed cell, read on the test split.

    Of several confirmed cells, the one of the best exploration mean; the first of equals, and where none was explored.
    """
    explored = {cell: exploration.explored.finding(row).value for row, cell in enumerate(exploration.explored.cells)}
    chosen = _confirmed_rows(runs, explored, confirmation.test)
    return [
        replace(
            _arm(runs, confirmation.test.finding(row)),
            explored=explored.get(confirmation.test.cells[row]),
            val=confirmation.val.finding(row).value,
        )
        for row in chosen
    ]


def confirmed_cells(runs: StudyRuns, confirmation: Confirmation, arms: list[Arm]) -> list[CellFinding]:
    """Every confirmed cell with its difference to the arm of its level, simultaneous over all pairs of that level."""
    grid, cells = confirmation.test, []
    looks = additions(runs, grid.seeds, grid.values)
    chosen = [arm.parameters for arm in arms]
    for rows in grid.by_level(runs.parameters).values():
        found = [grid.finding(row) for row in rows]
        family = paired_family(grid.values[rows], additions=looks)
        (arm,) = [i for i, cell in enumerate(found) if cell.parameters in chosen] or [-1]
        cells += [replace(cell, difference=family.get((i, arm))) for i, cell in enumerate(found)]
    return cells


def additions(runs: StudyRuns, seeds: Sequence[int], values: NDArray[np.float64]) -> list[list[int]]:
    """Columns of each addition to the seeds of confirmation, every one a further look at the data (`looks.py`).

    Where nothing says which seeds were planned, those that every row has were.

    Args:
        runs: the study's.
        seeds: of the columns.
        values: (num_rows, num_seeds) what is compared; NaN where a run is missing.
    """
    in_all = ~np.isnan(values.sum(axis=0))
    planned = runs.search.confirm_seeds or [seed for seed, is_there in zip(seeds, in_all, strict=True) if is_there]
    return additions_of(seeds, planned, runs.search.extensions)


def _confirmed_rows(runs: StudyRuns, explored: dict[Cell, Estimate], grid: Grid) -> list[int]:
    mode = runs.objective["mode"]
    never = -np.inf if mode == "max" else np.inf
    means = np.array([explored[cell].value if cell in explored else never for cell in grid.cells])
    return [rows[best_index(means[rows], mode)] for rows in grid.by_level(runs.parameters).values()]


def _arm(runs: StudyRuns, cell: CellFinding) -> Arm:
    return Arm(
        scientific={name: level for name, level in cell.parameters.items() if runs.parameters[name] == SCIENTIFIC},
        parameters=cell.parameters,
        value=cell.value,
        seeds=cell.seeds,
        readings=cell.readings,
        trial_ids=cell.trial_ids,
        run_ids=cell.run_ids,
    )
