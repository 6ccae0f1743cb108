"""Every factor's levels against each other, with their verdicts.

A scientific level is read at its arm (`arms.py`), a nuisance level as the mean over the explored cells of all other
factors. Differences are paired by seed and simultaneous over all pairs of a factor's levels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.findings import NUISANCE, SCIENTIFIC, Arm, FactorFinding, LevelFinding
from analysis.grid import Cell, Exploration, level_order
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import EXPLORE, metric_read
from analysis.statistics import Estimate, balanced_rows, judge_level, leader, mean_interval, paired_family, rivals
from analysis.wording import factor_text, level_finding_text
from trainable.config import DENSE

VERDICTS = {
    SCIENTIFIC: {"within": "enough", "beyond": "not enough", "undecided": "undecided"},
    NUISANCE: {"within": "as good", "beyond": "worse", "undecided": "undecided"},
}


@dataclass(frozen=True)
class _Readings:
    """What the factors of one role are compared in.

    Attributes:
        phase: the phase whose runs are read.
        keys: (num_rows, num_factors) the level of each factor in each row.
        seeds: (num_seeds,)
        values: (num_rows, num_seeds) NaN where a run is missing.
        run_ids: (num_rows,) the runs behind each row.
    """

    role: str
    phase: str
    keys: list[Cell]
    seeds: list[int]
    values: NDArray[np.float64]
    run_ids: list[list[str]]


@dataclass(frozen=True)
class _Table:
    """Levels of one factor, `values` (num_levels, num_seeds): within each seed the mean over all other factors."""

    name: str
    source: _Readings
    levels: list[Any]
    values: NDArray[np.float64]
    run_ids: list[list[str]]


def scientific_factors(runs: StudyRuns, arms: list[Arm], phase: str) -> list[FactorFinding]:
    """Each scientific factor at its arms' readings; of several, each as the mean over the levels of the others."""
    keys = [tuple(arm.scientific.values()) for arm in arms]
    seeds = sorted({seed for arm in arms for seed in arm.seeds})
    read = [dict(zip(arm.seeds, arm.readings, strict=True)) for arm in arms]
    values = np.array([[each.get(seed, np.nan) for seed in seeds] for each in read])
    source = _Readings(SCIENTIFIC, phase, keys, seeds, values, [arm.run_ids for arm in arms])
    tables = (_table(name, source, i) for i, name in enumerate(arms[0].scientific))
    return [_factor(runs, table) for table in tables if table]


def nuisance_factors(runs: StudyRuns, exploration: Exploration, recommended: Arm) -> list[FactorFinding]:
    """Each nuisance factor as the mean over the explored cells of all others; a caveat names those that do not compare.

    A factor that was searched in a range has no levels to compare.
    """
    grid, blocks = exploration.candidates, exploration.blocks
    run_ids = [[ids[i] for i in blocks if ids[i]] for ids in grid.run_ids]
    seeds = [grid.seeds[i] for i in blocks]
    source = _Readings(NUISANCE, EXPLORE, grid.cells, seeds, grid.values[:, blocks], run_ids)
    compared = [name not in recommended.scientific and name not in runs.search.ranges for name in grid.names]
    tables = (_table(name, source, i) for i, name in enumerate(grid.names) if compared[i])
    return [_factor(runs, table, recommended.parameters[table.name]) for table in tables if table]


def _table(name: str, source: _Readings, factor: int) -> _Table | None:
    """None where the factor's levels never meet: at no setting of the others, or one of them at no seed."""
    levels = sorted({key[factor] for key in source.keys}, key=level_order)
    rows = balanced_rows(source.keys, factor, levels)
    means = np.array([source.values[row].mean(axis=0) for row in rows if row])
    if not means.size or np.isnan(means).all(axis=1).any():
        return None
    return _Table(name, source, levels, means, [[run_id for i in row for run_id in source.run_ids[i]] for row in rows])


def _factor(runs: StudyRuns, table: _Table, exported: Any = None) -> FactorFinding:
    """Every level against the best; `exported` is the chosen level where the factor is nuisance."""
    family = paired_family(table.values)
    best = leader(len(table.levels), family, runs.objective["mode"])
    levels = list(_levels(runs, table, family, best))
    role, phase = table.source.role, table.source.phase
    recommended = _smallest_enough(levels) if role == SCIENTIFIC else exported
    return FactorFinding(
        name=table.name,
        role=role,
        metric=metric_read(runs.objective["metric"], phase),
        best_level=table.levels[best],
        recommended_level=recommended,
        provisional=len(levels) > 1 and all(level.verdict in ("best", "undecided") for level in levels),
        levels=levels,
        text=factor_text(table.name, role, phase, table.levels[best], recommended, levels),
    )


def _levels(
    runs: StudyRuns, table: _Table, family: Mapping[tuple[int, int], Estimate], best: int
) -> Iterator[LevelFinding]:
    margin, mode = runs.objective["margin"], runs.objective["mode"]
    for i, level in enumerate(table.levels):
        there = np.flatnonzero(~np.isnan(table.values[i])).tolist()
        readings = table.values[i][there]
        verdict = VERDICTS[table.source.role][judge_level(i, best, family, margin, mode)] if i != best else "best"
        finding = LevelFinding(
            level=level,
            value=mean_interval(readings),
            seeds=[table.source.seeds[seed] for seed in there],
            readings=readings.tolist(),
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
