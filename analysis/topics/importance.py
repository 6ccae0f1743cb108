"""Which settings matter, and which cannot be told from noise: PED-ANOVA beside its permutation null.

What is ranked are settings, by their means over the seeds that most of them have: of the whole exploration, and at each
scientific level by itself. Runs are ranked at full budget alone: a setting that any seed saw stopped early is left out,
as its value is none that others reach; one that diverged ranks behind all others, as it does in the search.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.findings import SCIENTIFIC, Claim, Findings, Topic
from analysis.grid import Cell, level_order
from analysis.kept_numbers import Rows, kept_numbers
from analysis.ped_anova import (
    Axis,
    better_ones,
    better_share,
    importances,
    judge,
    level_axis,
    optuna_importances,
    range_axis,
)
from analysis.reading.completeness import DIVERGED, STOPPED
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import EXPLORE, Range
from analysis.statistics import CONFIDENCE, Estimate
from analysis.wording import counted, listed, settings_text, words

NUM_PERMUTATIONS = 199
MIN_SETTINGS = 16
"""Fewer leave less than eight to tell the better half by."""
MAX_SETTINGS = 500
"""More are sampled: what so many do not show is too small to matter."""
MAX_LEVELS = 10
"""Numbers with more values than these were searched in a range, where no study file says which."""
LOG_SPAN = 100
"""Positive numbers that span so much were searched on a logarithmic scale, where no study file says so."""
MATTERS, NOISE = "matters", "noise"
COLUMNS = {"null": "chance reaches", "p": "p, corrected", "settings": "settings"}


@dataclass(frozen=True)
class _Setting:
    """A cell of the exploration: what it lost by, infinite where it diverged, and the runs that say so."""

    parameters: dict[str, Any]
    loss: float
    run_ids: list[str]


@dataclass(frozen=True)
class _Group:
    """Settings that are ranked against each other; `level` is what they have in common.

    Attributes:
        axes: the parameters that vary.
        ranks: (num_settings,) as floats, the best first; equal for equals.
        share: of the settings that are the better ones.
    """

    level: dict[str, Any]
    settings: list[_Setting]
    axes: dict[str, Axis]
    ranks: NDArray[np.float64]
    share: float


def find_importance(runs: StudyRuns, findings: Findings) -> Topic | None:
    """Every parameter's importance; None where too few settings were tried to tell any from noise."""
    settings, num_seeds = _settings(runs, findings)
    groups = list(_groups(runs, settings))
    if not groups:
        return None
    observed, needed, p_values = _judged(groups, runs.cache_dir)
    names = [(group, name) for group in groups for name in group.axes]
    found = zip(names, observed, needed, p_values, strict=True)
    claims = [
        Claim(
            subject=_subject(group, name),
            estimate=Estimate(value, None, None, num_seeds, CONFIDENCE),
            values={"null": threshold, "p": p_value, "settings": len(group.settings)},
            verdict=MATTERS if value > threshold else NOISE,
            run_ids=[run_id for setting in group.settings for run_id in setting.run_ids],
        )
        for (group, name), value, threshold, p_value in found
    ]
    return Topic(
        name="importance",
        title="Which settings matter",
        unit="importance (PED-ANOVA)",
        population="permutations",
        text=_text(runs, groups[0], claims),
        columns=COLUMNS,
        claims=claims,
    )


def _judged(groups: list[_Group], cache_dir: Path | None) -> Rows:
    """Every importance, what it must exceed and its p value: (3, number of claims). Kept until the settings change."""
    digest = hashlib.sha256(f"{NUM_PERMUTATIONS} {np.__version__}".encode())
    for group in groups:
        digest.update(repr([(name, axis.size, axis.bounds, axis.is_log) for name, axis in group.axes.items()]).encode())
        for column in (*(axis.values for axis in group.axes.values()), group.ranks):
            digest.update(column.tobytes())
    path = cache_dir / "importance.json" if cache_dir else None
    shape = (3, sum(len(group.axes) for group in groups))
    return kept_numbers(path, digest.hexdigest(), shape, lambda: _judge(groups))


def _judge(groups: list[_Group]) -> Rows:
    stream = np.random.default_rng(0)
    observed = [optuna_importances(list(group.axes.values()), group.ranks, group.share) for group in groups]
    null = [_null(group, stream) for group in groups]
    needed, p_values = judge(np.concatenate(observed), np.concatenate(null, axis=1))
    return [np.concatenate(observed).tolist(), needed.tolist(), p_values.tolist()]


def _settings(runs: StudyRuns, findings: Findings) -> tuple[list[_Setting], int]:
    """The settings that can be ranked, and how many seeds each was read at."""
    sign = 1 if findings.objective["mode"] == "max" else -1
    ended = _ended(runs)
    whole = [cell for cell in findings.cells if tuple(cell.parameters.values()) not in ended]
    if not whole:
        return [], 0
    seeds = list(Counter(tuple(cell.seeds) for cell in whole).most_common(1)[0][0])
    kept = [cell for cell in whole if cell.seeds == seeds]
    ranked = [_Setting(cell.parameters, -sign * cell.value.value, cell.run_ids) for cell in kept]
    diverged = [
        _Setting(dict(zip(runs.parameters, cell, strict=True)), np.inf, run_ids)
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


def _groups(runs: StudyRuns, settings: list[_Setting]) -> Iterator[_Group]:
    """All settings, and those of each scientific level where there are several; only groups that can tell anything."""
    scientific = [name for name, role in runs.parameters.items() if role == SCIENTIFIC]
    levels: dict[Cell, list[_Setting]] = {}
    for setting in settings:
        levels.setdefault(tuple(setting.parameters[name] for name in scientific), []).append(setting)
    by_level = [
        (dict(zip(scientific, level, strict=True)), levels[level])
        for level in sorted(levels, key=lambda level: [level_order(each) for each in level])
    ]
    for level, members in [({}, settings), *(by_level if len(levels) > 1 else [])]:
        if group := _group(runs, level, members):
            yield group


def _group(runs: StudyRuns, level: dict[str, Any], settings: list[_Setting]) -> _Group | None:
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
    return _Group(level, settings, axes, ranks, share)


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


def _null(group: _Group, stream: np.random.Generator) -> NDArray[np.float64]:
    """(NUM_PERMUTATIONS, num_parameters) importances where outcomes are dealt to settings by chance."""
    dealt = stream.permuted(np.tile(group.ranks, (NUM_PERMUTATIONS, 1)), axis=1)
    return importances(list(group.axes.values()), dealt, group.share)


def _subject(group: _Group, name: str) -> str:
    return words(name) + (f" ({settings_text(group.level)})" if group.level else "")


def _text(runs: StudyRuns, largest: _Group, claims: list[Claim]) -> str:
    """What matters, what cannot be told from noise, and what the method does not see."""
    real = [claim.subject for claim in claims if claim.verdict == MATTERS]
    noise = [claim.subject for claim in claims[: len(largest.axes)] if claim.verdict == NOISE]
    matters = f"beyond chance {'matters' if len(real) == 1 else 'matter'} {listed(real)}"
    first = matters if real else "nothing matters beyond chance"
    first += f"; {listed(noise)} cannot be told from noise" if noise else ""
    texts = [f"{first[0].upper()}{first[1:]}."]
    texts.append(
        f"Held against {NUM_PERMUTATIONS} permutations of the outcomes of {counted(len(largest.settings), 'setting')},"
        f" corrected over all rows. What matters only in combination with another setting is not seen."
    )
    if number := sum(np.isinf(setting.loss) for setting in largest.settings):
        texts.append(f"{counted(number, 'setting')} that diverged rank last.")
    if not runs.ended_early.empty and (runs.ended_early["state"] == STOPPED).any():
        texts.append("Settings that were stopped early are left out.")
    return " ".join(texts)
