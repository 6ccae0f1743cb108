"""Which settings of the exploration are ranked against each other, and by what.

What is ranked are settings, by their means over the seeds that most of them have: of the whole exploration, and at each
scientific level by itself. Runs are ranked at full budget alone: a setting that any seed saw stopped early is left out,
as its value is none that others reach; one that diverged ranks behind all others, as it does in the search.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.findings import SCIENTIFIC, Findings
from analysis.grid import Cell, level_order
from analysis.ped_anova import Axis, better_ones, better_share, level_axis, range_axis
from analysis.reading.completeness import DIVERGED, STOPPED
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import EXPLORE, Range
from analysis.statistics import direction

MIN_SETTINGS = 16
"""Fewer leave less than eight to tell the better half by."""
MAX_SETTINGS = 500
"""More are sampled: what so many do not show is too small to matter."""
MAX_LEVELS = 10
"""Numbers with more values than these were searched in a range, where no study file says which."""
LOG_SPAN = 100
"""Positive numbers that span so much were searched on a logarithmic scale, where no study file says so."""


@dataclass(frozen=True)
class Setting:
    """A cell of the exploration: what it lost by, infinite where it diverged, and the runs that say so."""

    parameters: dict[str, Any]
    loss: float
    run_ids: list[str]


@dataclass(frozen=True)
class Group:
    """Settings that are ranked against each other; `level` is what they have in common.

    Attributes:
        axes: the parameters that vary.
        ranks: (num_settings,) as floats, the best first; equal for equals.
        share: of the settings that are the better ones.
    """

    level: dict[str, Any]
    settings: list[Setting]
    axes: dict[str, Axis]
    ranks: NDArray[np.float64]
    share: float


def ranked_settings(runs: StudyRuns, findings: Findings) -> tuple[list[Setting], int]:
    """The settings that can be ranked, and how many seeds each was read at."""
    sign = direction(findings.objective["mode"])
    ended = _ended(runs)
    whole = [cell for cell in findings.cells if tuple(cell.parameters.values()) not in ended]
    if not whole:
        return [], 0
    seeds = list(Counter(tuple(cell.seeds) for cell in whole).most_common(1)[0][0])
    kept = [cell for cell in whole if cell.seeds == seeds]
    ranked = [Setting(cell.parameters, -sign * cell.value.value, cell.run_ids) for cell in kept]
    diverged = [
        Setting(dict(zip(runs.parameters, cell, strict=True)), np.inf, run_ids)
        for cell, (state, run_ids) in ended.items()
        if state == DIVERGED
    ]
    return ranked + diverged, len(seeds)


def _ended(runs: StudyRuns) -> dict[Cell, tuple[str, list[str]]]:
    """Cells of which a run was stopped early or diverged, with these runs; what diverged at any seed diverged."""
    if runs.ended_early.empty:
        return {}
    rows = runs.ended_early[runs.ended_early["phase"] == EXPLORE]
    columns = [rows[name].tolist() for name in [*runs.parameters, "state", "run_id"]]
    found: dict[Cell, tuple[str, list[str]]] = {}
    for *cell, state, run_id in zip(*columns, strict=True):
        before, run_ids = found.get(tuple(cell), (STOPPED, []))
        found[tuple(cell)] = (DIVERGED if DIVERGED in (before, state) else STOPPED, [*run_ids, str(run_id)])
    return found


def ranked_groups(runs: StudyRuns, settings: list[Setting]) -> Iterator[Group]:
    """All settings, and those of each scientific level where there are several; only groups that can tell anything."""
    scientific = [name for name, role in runs.parameters.items() if role == SCIENTIFIC]
    levels: dict[Cell, list[Setting]] = {}
    for setting in settings:
        levels.setdefault(tuple(setting.parameters[name] for name in scientific), []).append(setting)
    by_level = [
        (dict(zip(scientific, level, strict=True)), levels[level])
        for level in sorted(levels, key=lambda level: [level_order(each) for each in level])
    ]
    for level, members in [({}, settings), *(by_level if len(levels) > 1 else [])]:
        if group := _group(runs, level, members):
            yield group


def _group(runs: StudyRuns, level: dict[str, Any], settings: list[Setting]) -> Group | None:
    """None where there are too few settings, of which enough ended, or none of their parameters varies."""
    if len(settings) > MAX_SETTINGS:
        kept = np.random.default_rng(0).choice(len(settings), MAX_SETTINGS, replace=False)
        settings = [settings[i] for i in np.sort(kept).tolist()]
    losses = np.array([setting.loss for setting in settings])
    num_ranked = int(np.isfinite(losses).sum())
    varied = [name for name in runs.parameters if len({setting.parameters[name] for setting in settings}) > 1]
    if len(settings) < MIN_SETTINGS or num_ranked < MIN_SETTINGS // 2 or not varied:
        return None
    axes = {name: _axis(runs, name, [setting.parameters[name] for setting in settings]) for name in varied}
    ranks = np.unique(losses, return_inverse=True)[1].astype(np.float64)
    share = better_share(len(settings), num_ranked)
    if better_ones(ranks[None], share).all():
        return None  # so many are equally good that there is no better part
    return Group(level, settings, axes, ranks, share)


def _axis(runs: StudyRuns, name: str, values: Sequence[Any]) -> Axis:
    """A range as the study file has it; without one, many different numbers are a range, anything else levels."""
    levels = sorted(set(values), key=level_order)
    is_number = all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
    declared = runs.search.ranges.get(name)
    if is_number and (declared or len(levels) > MAX_LEVELS):
        least, most = levels[0], levels[-1]
        span = declared or Range(least, most, is_log=least > 0 and most / least >= LOG_SPAN)
        # Settings of an earlier version of the study may lie outside.
        low, high = min(span.low, least), max(span.high, most)
        return range_axis(values, low, high, is_log=span.is_log and low > 0)
    number = {level: i for i, level in enumerate(levels)}
    return level_axis([number[value] for value in values])
