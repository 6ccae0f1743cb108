"""Findings -> what they lack: runs left out by rule, levels without a result, seeds, confirmation."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from analysis.arms import Confirmation, unconfirmed_levels
from analysis.findings import POINTS_SEED, SCIENTIFIC, Caveat, Findings
from analysis.grid import Cell, Exploration
from analysis.reading.completeness import DIVERGED, INCOMPLETE, STOPPED, kind_of
from analysis.reading.runs import StudyRuns
from analysis.statistics import direction
from analysis.survivors import lost_seeds
from analysis.wording import SAME_POINTS, first_of, level_text, listed, settings_text, words

MIN_SEEDS = 3
"""Below this many seed blocks a caveat says that intervals are wide or missing."""


def find_shortfalls(
    runs: StudyRuns, findings: Findings, exploration: Exploration, confirmation: Confirmation
) -> Iterator[Caveat]:
    """Every part of the study that the findings do without."""
    yield from exploration.caveats
    yield from _left_out(runs)
    yield from _levels_without_result(runs, findings)
    yield from _seeds(findings)
    yield from _not_compared(runs, findings)
    yield from _unconfirmed(runs, findings, exploration, confirmation)
    yield from _lost_in_confirmation(runs, findings)
    yield from _same_points(runs, findings)


def _left_out(runs: StudyRuns) -> Iterator[Caveat]:
    """Runs by kind. To stop early is what a scheduler is for, and that settings diverge is a result."""
    kinds = Counter(kind_of(reason) for _, reason in runs.excluded)
    texts = [f"{kinds[kind]} {kind}" for kind in (STOPPED, DIVERGED, INCOMPLETE) if kinds[kind]]
    if texts:
        noun = "run" if len(runs.excluded) == 1 else "runs"
        yield Caveat("excluded_runs", f"Left out: {listed(texts)} {noun}; the report gives each reason.")


def _levels_without_result(runs: StudyRuns, findings: Findings) -> Iterator[Caveat]:
    """Scientific levels that the study has and the findings lack."""
    found = [arm.scientific for arm in findings.arms]
    names = [name for name, role in runs.parameters.items() if role == SCIENTIFIC]
    tried = zip(*(runs.ended_early[name].tolist() for name in names), strict=True) if len(runs.ended_early) else ()
    levels = [*runs.search.levels, *(dict(zip(names, level, strict=True)) for level in dict.fromkeys(tried))]
    lost = {tuple(level.values()): level for level in levels if level not in found}
    reasons: dict[str, list[str]] = {}
    for level in lost.values():
        reasons.setdefault(_reason(runs.ended_early, level), []).append(settings_text(level))
    for reason, texts in reasons.items():
        yield Caveat("no_result", f"No result at {first_of(texts)}: {reason}.")


def _reason(ended_early: pd.DataFrame, level: dict[str, Any]) -> str:
    """Why a level has no result."""
    states = set()
    if not ended_early.empty:
        is_there = (ended_early[[*level]] == list(level.values())).all(axis=1)
        states = set(ended_early.loc[is_there, "state"])
    if states == {DIVERGED}:
        return "every setting diverged"
    return "no setting ran to its end at every seed" if states else "no run is complete"


def _seeds(findings: Findings) -> Iterator[Caveat]:
    fewest = min(arm.value.num_seeds for arm in findings.arms)
    if fewest < MIN_SEEDS:
        few = "one seed gives no interval" if fewest == 1 else "two seeds give very wide intervals"
        yield Caveat("few_seeds", f"Few seeds: {few}; run at least {MIN_SEEDS} seeds.")
    if any(arm.seeds != findings.arms[0].seeds for arm in findings.arms):
        yield Caveat("unequal_seeds", "Seeds differ between levels: each difference stands on those that both have.")


def _not_compared(runs: StudyRuns, findings: Findings) -> Iterator[Caveat]:
    """Factors whose levels never meet: for want of runs, or as they were searched at each level by itself."""
    missing = sorted(runs.parameters.keys() - {factor.name for factor in findings.factors} - {POINTS_SEED})
    is_searched = {name: not runs.search.is_grid and runs.parameters[name] != SCIENTIFIC for name in missing}
    if searched := [words(name) for name in missing if is_searched[name]]:
        verb, where = ("was" if len(searched) == 1 else "were"), _at_each_level(findings)
        yield Caveat("searched", f"Searched, not compared: {listed(searched)} {verb} tuned{where}.")
    for name in missing:
        if not is_searched[name]:
            yield Caveat("not_comparable", f"Not compared: {words(name)}, whose levels never meet; complete the study.")


def _at_each_level(findings: Findings) -> str:
    names = [words(name) for name in findings.recommended.scientific]
    return f" at each level of {listed(names)}" if names else ""


def _unconfirmed(
    runs: StudyRuns, findings: Findings, exploration: Exploration, confirmation: Confirmation
) -> Iterator[Caveat]:
    """The winner's curse, where confirmation seeds do not lift it; too well, not too high: of a loss, too low."""
    if findings.is_confirmed:
        yield from _incomplete_confirmation(runs, findings)
        yield from _overtaken(runs, findings, exploration)
    elif runs.search.confirm_seeds or confirmation.test.cells:
        levels = unconfirmed_levels(runs, exploration, confirmation)
        lacking = first_of(list(_named(findings, levels)))
        yield Caveat(
            "confirmation_incomplete",
            f"Confirmation incomplete: no run at {lacking}; read from exploration, so a bit too well.",
        )
    else:
        text = "Unconfirmed: values read a bit too well, chosen on the same seeds and images; try fresh seeds."
        yield Caveat("unconfirmed", text)


def _incomplete_confirmation(runs: StudyRuns, findings: Findings) -> Iterator[Caveat]:
    """Declared seeds that a confirmed level lacks: runs to come."""
    lacking = [
        f"{settings_text(arm.scientific)} at seed {listed(seeds)}"
        for arm, lost in zip(findings.arms, lost_seeds(runs, findings.arms), strict=True)
        if (seeds := [seed for seed in runs.search.confirm_seeds if seed not in (*arm.seeds, *lost)])
    ]
    if lacking:
        yield Caveat("confirmation_incomplete", f"Confirmation incomplete: it lacks {first_of(lacking)}.")


def _lost_in_confirmation(runs: StudyRuns, findings: Findings) -> Iterator[Caveat]:
    """Confirmed settings that diverge at some fresh seeds: to read them on the others flatters them."""
    lost = [
        f"{settings_text(arm.scientific)} at seed {first_of(list(map(str, seeds)), 5)}"
        for arm, seeds in zip(findings.arms, lost_seeds(runs, findings.arms), strict=True)
        if seeds
    ]
    if lost:
        text = "the other seeds read too well, and no level is called enough on them"
        yield Caveat("diverged_in_confirmation", f"Diverged in confirmation: {first_of(lost)}; {text}.")


def _overtaken(runs: StudyRuns, findings: Findings, exploration: Exploration) -> Iterator[Caveat]:
    """Levels at which exploration prefers another setting by now than the one that was confirmed."""
    sign = direction(runs.objective["mode"])
    grid, means = exploration.candidates, (sign * exploration.means).round(12)
    value = dict(zip(grid.cells, means, strict=True))
    best = {level: means[rows].max() for level, rows in grid.by_level(runs.parameters).items()}
    others = [
        settings_text(arm.scientific)
        for arm in findings.arms
        if (level := tuple(arm.scientific.values())) in best
        and value.get(tuple(arm.parameters.values())) != best[level]
    ]
    if others:
        yield Caveat("other_winner", f"Not the winner of exploration is what was confirmed at {first_of(others)}.")


def _same_points(runs: StudyRuns, findings: Findings) -> Iterator[Caveat]:
    """Where seeds do not draw the points anew, no interval speaks of other points."""
    recommended = findings.recommended
    draw = {**runs.training[recommended.trial_ids[0]], **recommended.parameters}.get(POINTS_SEED)
    if draw is None:
        return
    number = len({cell.parameters.get(POINTS_SEED) for cell in findings.cells})
    text = f"One draw of points (points seed {level_text(draw)}) at every seed"
    if runs.parameters.get(POINTS_SEED) == SCIENTIFIC:
        text = f"One draw of {number}: the recommended arm is that of points seed {level_text(draw)}"
    elif number > 1:
        text = f"The luckiest of {number} draws of points was chosen, so that values read too well"
    yield Caveat(SAME_POINTS, f"{text}; no interval speaks of other points.")


def _named(findings: Findings, levels: Iterable[Cell]) -> Iterator[str]:
    for level in levels:
        yield settings_text(dict(zip(findings.recommended.scientific, level, strict=True)))
