"""What factors are compared in: the levels of each by seed, and what each level lost.

A scientific level is read at its arm (`arms.py`), a nuisance level as the mean over the explored cells of all other
factors that every level has.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.findings import NUISANCE, POINTS_SEED, SCIENTIFIC, Arm
from analysis.grid import Cell, Exploration, ended_cells, level_order
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import EXPLORE
from analysis.repeats import RepeatNoise
from analysis.statistics import balanced_rows
from analysis.survivors import lost_in_confirmation, lost_in_exploration, others_of


@dataclass(frozen=True)
class Readings:
    """What the factors of one role are compared in.

    Attributes:
        phase: the phase whose runs are read.
        keys: (num_rows, num_factors) the level of each factor in each row.
        seeds: (num_seeds,)
        values: (num_rows, num_seeds) NaN where a run is missing.
        run_ids: (num_rows,) the runs behind each row.
        noise: what repeated cells of that phase show.
        tried: all rows that there might be, had every run run to its end.
        lost: (factor, levels) -> (num_levels,) what each level lost, so that it is read on survivors; empty text where
            nothing.
    """

    role: str
    phase: str
    keys: list[Cell]
    seeds: list[int]
    values: NDArray[np.float64]
    run_ids: list[list[str]]
    noise: RepeatNoise | None
    tried: list[Cell]
    lost: Callable[[int, list[Any]], list[str]]


@dataclass(frozen=True)
class Table:
    """Levels of one factor, `values` (num_levels, num_seeds): within each seed the mean over `num_cells` others.

    `lost` (num_levels,) says what each lost, so that it is read on survivors; it is empty where that is nothing. `over`
    says how many of the settings of the others the means are over: `all`, `1 of 3`.
    """

    name: str
    source: Readings
    levels: list[Any]
    values: NDArray[np.float64]
    num_cells: int
    run_ids: list[list[str]]
    lost: list[str]
    over: str


def scientific_tables(
    runs: StudyRuns, arms: list[Arm], phase: str, noise: RepeatNoise | None = None
) -> Iterator[Table]:
    """Each scientific factor at its arms' readings; of several, each as the mean over the levels of the others.

    But for draws of points: over these, the others are means, and there is no best one to look for.
    """
    keys = [tuple(arm.scientific.values()) for arm in arms]
    seeds = sorted({seed for arm in arms for seed in arm.seeds})
    read = [dict(zip(arm.seeds, arm.readings, strict=True)) for arm in arms]
    values = np.array([[each.get(seed, np.nan) for seed in seeds] for each in read])
    run_ids = [arm.run_ids for arm in arms]

    def lost(factor: int, levels: list[Any]) -> list[str]:
        return lost_in_confirmation(runs, arms, factor, levels)

    source = Readings(SCIENTIFIC, phase, keys, seeds, values, run_ids, noise, keys, lost)
    found = (_table(name, source, i) for i, name in enumerate(arms[0].scientific) if name != POINTS_SEED)
    yield from (table for table in found if table)


def nuisance_tables(
    runs: StudyRuns, exploration: Exploration, recommended: Arm, noise: RepeatNoise | None = None
) -> Iterator[Table]:
    """Each nuisance factor as the mean over the explored cells of all others; a caveat names those that do not compare.

    A factor that was searched in a range has no levels to compare, and draws of points have no best one.
    """
    grid, blocks = exploration.candidates, exploration.blocks
    run_ids = [[ids[i] for i in blocks if ids[i]] for ids in grid.run_ids]
    seeds = [grid.seeds[i] for i in blocks]
    explored = exploration.explored.cells
    tried = [*explored, *ended_cells(runs, EXPLORE)]

    def lost(factor: int, levels: list[Any]) -> list[str]:
        return lost_in_exploration(runs, factor, levels, explored)

    source = Readings(NUISANCE, EXPLORE, grid.cells, seeds, grid.values[:, blocks], run_ids, noise, tried, lost)
    left_out = {*recommended.scientific, *runs.search.ranges, POINTS_SEED}
    found = (_table(name, source, i) for i, name in enumerate(grid.names) if name not in left_out)
    yield from (table for table in found if table)


def _table(name: str, source: Readings, factor: int) -> Table | None:
    """None where the factor's levels never meet: at no setting of the others, or one of them at no seed."""
    levels = sorted({key[factor] for key in source.keys}, key=level_order)
    rows = balanced_rows(source.keys, factor, levels)
    means = np.array([source.values[row].mean(axis=0) for row in rows if row])
    if not means.size or np.isnan(means).all(axis=1).any():
        return None
    run_ids = [[run_id for i in row for run_id in source.run_ids[i]] for row in rows]
    settings = {others_of(cell, factor) for cell in source.tried}
    over = "all" if len(rows[0]) == len(settings) else f"{len(rows[0])} of {len(settings)}"
    return Table(name, source, levels, means, len(rows[0]), run_ids, source.lost(factor, levels), over)
