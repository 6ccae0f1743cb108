"""Every factor's levels against each other, with their verdicts.

A scientific level is read at its arm (`arms.py`), a nuisance level as the mean over the explored cells of all other
factors. Differences are paired by seed and simultaneous over all pairs of a factor's levels; of confirmed levels, which
`canopoint extend` may give further seeds, over all looks at them too (`looks.py`). Where no two levels share two seeds,
differences stand on the noise of the cells that were run more than once, if there are such (`repeats.py`), and settle
nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.family import pair_confidence, paired_family
from analysis.findings import NUISANCE, SCIENTIFIC, Arm, FactorFinding, LevelFinding
from analysis.grid import Cell, Exploration, level_order
from analysis.looks import additions_of, num_looks
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import CONFIRM, EXPLORE, metric_read
from analysis.repeats import (
    RepeatNoise,
    lacks_seeds,
    order_text,
    seeds_for_noise,
    unpaired_family,
    unpaired_value,
)
from analysis.sample_size import further_seeds
from analysis.statistics import Estimate, balanced_rows, judge_level, leader, mean_interval, rivals
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
        noise: what repeated cells of that phase show.
    """

    role: str
    phase: str
    keys: list[Cell]
    seeds: list[int]
    values: NDArray[np.float64]
    run_ids: list[list[str]]
    noise: RepeatNoise | None


@dataclass(frozen=True)
class _Table:
    """Levels of one factor, `values` (num_levels, num_seeds): within each seed the mean over `num_cells` others."""

    name: str
    source: _Readings
    levels: list[Any]
    values: NDArray[np.float64]
    num_cells: int
    run_ids: list[list[str]]


@dataclass(frozen=True)
class _Compared:
    """All differences of a table's levels.

    Attributes:
        family: (i, j) -> level i - level j.
        best: the level that leads.
        additions: columns of each addition of seeds; None where there is one look alone.
        noise: what repeated cells show, where the differences stand on that.
    """

    family: Mapping[tuple[int, int], Estimate]
    best: int
    additions: list[list[int]] | None
    noise: RepeatNoise | None


def scientific_factors(
    runs: StudyRuns, arms: list[Arm], phase: str, noise: RepeatNoise | None = None
) -> list[FactorFinding]:
    """Each scientific factor at its arms' readings; of several, each as the mean over the levels of the others."""
    keys = [tuple(arm.scientific.values()) for arm in arms]
    seeds = sorted({seed for arm in arms for seed in arm.seeds})
    read = [dict(zip(arm.seeds, arm.readings, strict=True)) for arm in arms]
    values = np.array([[each.get(seed, np.nan) for seed in seeds] for each in read])
    source = _Readings(SCIENTIFIC, phase, keys, seeds, values, [arm.run_ids for arm in arms], noise)
    tables = (_table(name, source, i) for i, name in enumerate(arms[0].scientific))
    return [_factor(runs, table) for table in tables if table]


def nuisance_factors(
    runs: StudyRuns, exploration: Exploration, recommended: Arm, noise: RepeatNoise | None = None
) -> list[FactorFinding]:
    """Each nuisance factor as the mean over the explored cells of all others; a caveat names those that do not compare.

    A factor that was searched in a range has no levels to compare.
    """
    grid, blocks = exploration.candidates, exploration.blocks
    run_ids = [[ids[i] for i in blocks if ids[i]] for ids in grid.run_ids]
    seeds = [grid.seeds[i] for i in blocks]
    source = _Readings(NUISANCE, EXPLORE, grid.cells, seeds, grid.values[:, blocks], run_ids, noise)
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
    run_ids = [[run_id for i in row for run_id in source.run_ids[i]] for row in rows]
    return _Table(name, source, levels, means, len(rows[0]), run_ids)


def _compare(runs: StudyRuns, table: _Table) -> _Compared:
    """The differences of all levels, on their seeds or, where these do not replicate, on the repeated cells' noise."""
    additions = _additions(runs, table) if table.source.phase == CONFIRM else None
    family = paired_family(table.values, additions=additions)
    noise = table.source.noise if lacks_seeds(table.values, family) else None
    if noise:
        family = unpaired_family(table.values, table.num_cells, noise, family)
    return _Compared(family, leader(len(table.levels), family, runs.objective["mode"]), additions, noise)


def _additions(runs: StudyRuns, table: _Table) -> list[list[int]]:
    """Where nothing says which seeds were planned, those that every level has were."""
    seeds, in_all = table.source.seeds, ~np.isnan(table.values.sum(axis=0))
    planned = runs.search.confirm_seeds or [seed for seed, is_there in zip(seeds, in_all, strict=True) if is_there]
    return additions_of(seeds, planned, runs.search.extensions)


def _factor(runs: StudyRuns, table: _Table, exported: Any = None) -> FactorFinding:
    """Every level against the best; `exported` is the chosen level where the factor is nuisance."""
    compared = _compare(runs, table)
    levels = list(_levels(runs, table, compared))
    role, phase, best_level = table.source.role, table.source.phase, table.levels[compared.best]
    recommended = _smallest_enough(levels) if role == SCIENTIFIC else exported
    text = factor_text(table.name, role, phase, best_level, recommended, levels)
    if compared.noise:
        text = f"{text} {order_text(table.levels, table.values, compared.noise)}"
    return FactorFinding(
        name=table.name,
        role=role,
        metric=metric_read(runs.objective["metric"], phase),
        best_level=best_level,
        recommended_level=recommended,
        provisional=bool(compared.noise) or not _is_any_settled(levels),
        levels=levels,
        text=text,
    )


def _is_any_settled(levels: list[LevelFinding]) -> bool:
    return len(levels) == 1 or any(level.verdict not in ("best", "undecided") for level in levels)


def _levels(runs: StudyRuns, table: _Table, compared: _Compared) -> Iterator[LevelFinding]:
    margin, mode = runs.objective["margin"], runs.objective["mode"]
    family, best, noise = compared.family, compared.best, compared.noise
    for i, level in enumerate(table.levels):
        there = np.flatnonzero(~np.isnan(table.values[i])).tolist()
        readings = table.values[i][there]
        verdict = VERDICTS[table.source.role][judge_level(i, best, family, margin, mode)] if i != best else "best"
        finding = LevelFinding(
            level=level,
            value=unpaired_value(readings, table.num_cells, noise) if noise else mean_interval(readings),
            seeds=[table.source.seeds[seed] for seed in there],
            readings=readings.tolist(),
            difference=family.get((i, best)),  # none for the best itself
            verdict=verdict,
            rivals=[table.levels[j] for j in rivals(i, family, margin, mode)],
            run_ids=table.run_ids[i],
            text="",
            seeds_needed=_seeds_needed(runs, table, compared, i) if verdict == "undecided" else None,
        )
        yield replace(finding, text=level_finding_text(finding, table.levels[best]))


def _seeds_needed(runs: StudyRuns, table: _Table, compared: _Compared, level: int) -> int | None:
    """Further seeds that would decide an undecided level against the rival that needs most, were things as they seem.

    A level that seems to lie beyond the margin needs to be told from the best alone, any other from every rival.
    """
    margin, mode = runs.objective["margin"], runs.objective["mode"]
    behind = compared.family[level, compared.best].value * (1 if mode == "max" else -1) < -margin
    faced = [compared.best] if behind else rivals(level, compared.family, margin, mode)
    needed: int | None = 2 if compared.noise else 1
    for rival in faced:
        if needed is not None:
            needed = _further(runs, table, compared, (level, rival), needed)
    return needed


def _further(runs: StudyRuns, table: _Table, compared: _Compared, pair: tuple[int, int], at_least: int) -> int | None:
    """Further seeds that would decide one difference at the next look, as the spread is now, and at least so many."""
    margin, mode, num_levels = runs.objective["margin"], runs.objective["mode"], len(table.levels)
    difference = compared.family[pair]
    if compared.noise:
        return seeds_for_noise(difference, margin, mode, compared.noise, num_levels, at_least)
    shared = ~np.isnan(table.values[pair[0]] + table.values[pair[1]])
    look = None if compared.additions is None else num_looks(shared, compared.additions) + 1
    return further_seeds(difference, margin, mode, pair_confidence(num_levels, look), at_least)


def _smallest_enough(levels: list[LevelFinding]) -> Any:
    """The smallest number judged enough; among levels that are no numbers, where none is smaller, the best.

    `dense` is the largest point count there is.
    """
    is_ordered = all(level.level == DENSE or not isinstance(level.level, str) for level in levels)
    accepted = ("best", "enough") if is_ordered else ("best",)
    return next(level.level for level in levels if level.verdict in accepted)
