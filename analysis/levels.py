"""Levels against the best: arms, and every factor's levels with their verdicts.

A scientific level is read at its own best nuisance setting, a nuisance level as the mean over the cells of all other
factors. Differences are paired by seed block and simultaneous over all pairs of a factor's levels.

The setting is chosen and read on the same seeds, so its value is that of the exported cell, and flattered (the winner's
curse). At 3 to 8 seeds, equal noise and up to six tied settings a level, nominal 95 % intervals of differences miss in
1 to 9 % of studies for that; tests/analysis/test_calibration.py. To choose for each seed on the others is no way out:
the readings then share choices, so are dependent, and intervals miss in up to a fifth of studies.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.findings import NUISANCE, SCIENTIFIC, Arm, FactorFinding, LevelFinding
from analysis.grid import Cell, Grid, level_order
from analysis.runs import StudyRuns
from analysis.statistics import (
    balanced_rows,
    best_index,
    judge_level,
    mean_interval,
    paired_family,
    rivals,
)
from analysis.wording import factor_text, level_finding_text
from trainable.config import DENSE

VERDICTS = {
    SCIENTIFIC: {"within": "enough", "beyond": "not enough", "undecided": "undecided"},
    NUISANCE: {"within": "as good", "beyond": "worse", "undecided": "undecided"},
}


def find_arms(runs: StudyRuns, grid: Grid) -> list[Arm]:
    """One arm for every combination of scientific levels, in ascending order."""
    positions = [i for i, name in enumerate(grid.names) if runs.parameters[name] == SCIENTIFIC]
    keys = [tuple(cell[i] for i in positions) for cell in grid.cells]
    return [_arm(runs, grid, positions, [i for i, k in enumerate(keys) if k == key]) for key in dict.fromkeys(keys)]


def _arm(runs: StudyRuns, grid: Grid, positions: list[int], rows: list[int]) -> Arm:
    values, mode = grid.values[rows], runs.objective["mode"]
    best = rows[best_index(values.mean(axis=1), mode)]
    return Arm(
        scientific={grid.names[i]: grid.cells[best][i] for i in positions},
        parameters=grid.named(grid.cells[best]),
        value=mean_interval(grid.values[best]),
        readings=grid.values[best].tolist(),
        run_ids=grid.run_ids[best],
    )


def scientific_factors(runs: StudyRuns, arms: list[Arm]) -> list[FactorFinding]:
    """Each scientific factor at its arms' readings; of several, each as the mean over the levels of the others."""
    keys = [tuple(arm.scientific.values()) for arm in arms]
    values, run_ids = np.array([arm.readings for arm in arms]), [arm.run_ids for arm in arms]
    tables = {name: _table(keys, values, run_ids, i) for i, name in enumerate(arms[0].scientific)}
    return [_factor(runs, name, SCIENTIFIC, table) for name, table in tables.items() if table.levels]


def nuisance_factors(runs: StudyRuns, grid: Grid, recommended: Arm) -> list[FactorFinding]:
    """Each nuisance factor as the mean over the cells of all others; a caveat names those that do not compare."""
    positions = [i for i, name in enumerate(grid.names) if name not in recommended.scientific]
    tables = {grid.names[i]: _table(grid.cells, grid.values, grid.run_ids, i) for i in positions}
    chosen = recommended.parameters
    return [_factor(runs, name, NUISANCE, table, chosen[name]) for name, table in tables.items() if table.levels]


@dataclass(frozen=True)
class _Table:
    """Levels of one factor, `values` (num_levels, num_seeds): within each seed the mean over all other factors."""

    levels: list[Any]
    values: NDArray[np.float64]
    run_ids: list[list[str]]


def _table(keys: list[Cell], values: NDArray[np.float64], run_ids: list[list[str]], factor: int) -> _Table:
    levels = sorted({key[factor] for key in keys}, key=level_order)
    rows = balanced_rows(keys, factor, levels)
    if not rows[0]:
        return _Table([], values[:0], [])
    means = np.array([values[row].mean(axis=0) for row in rows])
    return _Table(levels, means, [[run_id for i in row for run_id in run_ids[i]] for row in rows])


def _factor(runs: StudyRuns, name: str, role: str, table: _Table, recommended: Any = None) -> FactorFinding:
    """Every level against the best; `recommended` is the exported level where the factor is nuisance."""
    best = best_index(table.values.mean(axis=1), runs.objective["mode"])
    levels = list(_levels(runs, role, table, best))
    if role == SCIENTIFIC:
        recommended = _smallest_enough(levels)
    provisional = len(levels) > 1 and all(level.verdict in ("best", "undecided") for level in levels)
    text = factor_text(name, role, table.levels[best], recommended, levels)
    return FactorFinding(name, role, table.levels[best], recommended, provisional, levels, text)


def _levels(runs: StudyRuns, role: str, table: _Table, best: int) -> Iterator[LevelFinding]:
    family = paired_family(table.values)
    margin, mode = runs.objective["margin"], runs.objective["mode"]
    for i, level in enumerate(table.levels):
        verdict = "best" if i == best else VERDICTS[role][judge_level(i, best, family, margin, mode)]
        finding = LevelFinding(
            level=level,
            value=mean_interval(table.values[i]),
            readings=table.values[i].tolist(),
            difference=family.get((i, best)),  # none for the best itself
            verdict=verdict,
            rivals=[table.levels[j] for j in rivals(i, family, margin, mode)],
            run_ids=table.run_ids[i],
            text="",
        )
        yield replace(finding, text=level_finding_text(finding, table.levels[best]))


def _smallest_enough(levels: list[LevelFinding]) -> Any:
    """The smallest number judged enough; among levels that are no numbers, where none is smaller, the best.

    `dense` is the largest point count there is.
    """
    is_ordered = all(level.level == DENSE or not isinstance(level.level, str) for level in levels)
    accepted = ("best", "enough") if is_ordered else ("best",)
    return next(level.level for level in levels if level.verdict in accepted)
