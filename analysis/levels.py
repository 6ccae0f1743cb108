"""Every factor's levels against each other, with their verdicts.

A scientific level is read at its arm (`arms.py`), a nuisance level as the mean over the explored cells of all other
factors. Differences are paired by seed and simultaneous over all pairs of a factor's levels; of confirmed levels, which
`canopoint extend` may give further seeds, over all looks at them too (`looks.py`). Where no two levels share two seeds,
differences stand on the noise of the cells that were run more than once, if there are such (`repeats.py`), and settle
nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np

from analysis.arms import additions
from analysis.family import pair_confidence, paired_family
from analysis.findings import SCIENTIFIC, Arm, FactorFinding, LevelFinding
from analysis.grid import Exploration
from analysis.level_tables import Table, nuisance_tables, scientific_tables
from analysis.looks import num_looks
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import CONFIRM, is_number, metric_read
from analysis.repeats import (
    RepeatNoise,
    lacks_seeds,
    order_text,
    seeds_for_noise,
    unpaired_family,
    unpaired_value,
)
from analysis.sample_size import further_seeds, joint_power
from analysis.statistics import Estimate, Mode, Verdict, direction, judge_level, leader, mean_interval, rivals
from analysis.wording import factor_text, level_finding_text
from trainable.config import DENSE

AMOUNT_VERDICTS = {"within": "enough", "beyond": "not enough", "undecided": "undecided"}
"""Of a scientific factor whose levels are numbers, of which less may do."""
VERDICTS = {"within": "as good", "beyond": "worse", "undecided": "undecided"}
"""Of every other factor."""


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
    """Each scientific factor at its arms' readings, but for draws of points, of which none is better."""
    return [_factor(runs, table) for table in scientific_tables(runs, arms, phase, noise)]


def nuisance_factors(
    runs: StudyRuns, exploration: Exploration, recommended: Arm, noise: RepeatNoise | None = None
) -> list[FactorFinding]:
    """Each nuisance factor over the explored cells of all others; a caveat names those that do not compare."""
    tables = nuisance_tables(runs, exploration, recommended, noise)
    return [_factor(runs, table, recommended.parameters[table.name]) for table in tables]


def _compare(runs: StudyRuns, table: Table) -> _Compared:
    """The differences of all levels, on their seeds or, where these do not replicate, on the repeated cells' noise."""
    is_confirmed = table.source.phase == CONFIRM
    looks = additions(runs, table.source.seeds, table.values) if is_confirmed else None
    family = paired_family(table.values, additions=looks)
    noise = table.source.noise if lacks_seeds(table.values, family) else None
    if noise:
        family = unpaired_family(table.values, table.num_cells, noise, family)
    return _Compared(family, _leader(table, family, runs.objective["mode"]), looks, noise)


def _leader(table: Table, family: Mapping[tuple[int, int], Estimate], mode: Mode) -> int:
    """The level that leads among those that lost nothing, or among all where each did."""
    whole = [i for i, lost in enumerate(table.lost) if not lost] or list(range(len(table.levels)))
    between = {(a, b): family[i, j] for (a, i), (b, j) in permutations(enumerate(whole), 2)}
    return whole[leader(len(whole), between, mode)]


def _factor(runs: StudyRuns, table: Table, exported: Any = None) -> FactorFinding:
    """Every level against the best; `exported` is the chosen level where the factor is nuisance."""
    compared = _compare(runs, table)
    levels = list(_levels(runs, table, compared))
    role, phase, best_level = table.source.role, table.source.phase, table.levels[compared.best]
    recommended = _smallest_enough(levels) if role == SCIENTIFIC else exported
    text = factor_text(table.name, role, phase, best_level, recommended, levels, table.over)
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


def _levels(runs: StudyRuns, table: Table, compared: _Compared) -> Iterator[LevelFinding]:
    margin, mode = runs.objective["margin"], runs.objective["mode"]
    family, best, noise = compared.family, compared.best, compared.noise
    words = AMOUNT_VERDICTS if table.source.role == SCIENTIFIC and are_amounts(table.levels) else VERDICTS
    for i, level in enumerate(table.levels):
        there = np.flatnonzero(~np.isnan(table.values[i])).tolist()
        readings = table.values[i][there]
        verdict = words[_judge(runs, table, compared, i)] if i != best else "best"
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
            withheld=table.lost[i],
        )
        yield replace(finding, text=level_finding_text(finding, table.levels[best]))


def _judge(runs: StudyRuns, table: Table, compared: _Compared, level: int) -> Verdict:
    """Survivors may be called worse, and nothing better than undecided; against survivors nothing is decided."""
    verdict = judge_level(level, compared.best, compared.family, runs.objective["margin"], runs.objective["mode"])
    is_flattered = verdict == "within" and table.lost[level]
    return "undecided" if is_flattered or table.lost[compared.best] else verdict


def _seeds_needed(runs: StudyRuns, table: Table, compared: _Compared, level: int) -> int | None:
    """Further seeds that would decide an undecided level, against all rivals together, were things as they seem.

    A level that seems to lie beyond the margin needs to be told from the best alone, any other from every rival.
    """
    if table.lost[level] or table.lost[compared.best]:
        return None  # no further seed undoes that
    margin, mode = runs.objective["margin"], runs.objective["mode"]
    behind = compared.family[level, compared.best].value * direction(mode) < -margin
    faced = [compared.best] if behind else rivals(level, compared.family, margin, mode)
    needed: int | None = 2 if compared.noise else 1
    for rival in faced:
        if needed is not None:
            needed = _further(runs, table, compared, (level, rival), needed, joint_power(len(faced)))
    return needed


def _further(
    runs: StudyRuns, table: Table, compared: _Compared, pair: tuple[int, int], at_least: int, power: float
) -> int | None:
    """Further seeds that would decide one difference at the next look, as the spread is now, and at least so many."""
    margin, mode, num_levels = runs.objective["margin"], runs.objective["mode"], len(table.levels)
    difference = compared.family[pair]
    if compared.noise:
        return seeds_for_noise(difference, margin, mode, compared.noise, num_levels, at_least, power)
    shared = ~np.isnan(table.values[pair[0]] + table.values[pair[1]])
    look = None if compared.additions is None else num_looks(shared, compared.additions) + 1
    return further_seeds(difference, margin, mode, pair_confidence(num_levels, look), at_least, power)


def _smallest_enough(levels: list[LevelFinding]) -> Any:
    """The smallest number judged enough; among levels that are no numbers, where none is smaller, the best.

    `dense` is the largest point count there is.
    """
    accepted = ("best", "enough") if are_amounts([level.level for level in levels]) else ("best",)
    return next(level.level for level in levels if level.verdict in accepted)


def are_amounts(levels: Sequence[Any]) -> bool:
    """Whether levels are numbers, of which one is smaller than another, and no names or yes and no."""
    return all(level == DENSE or is_number(level) for level in levels)
