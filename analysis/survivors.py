"""Levels that are read on survivors: what diverged or was stopped is in no mean, so that their means read too well.

A level that lost runs which other levels kept cannot be called best, enough or as good on what is left of it. That it
is surely worse, even so, stands.
"""

from collections.abc import Sequence
from typing import Any

from analysis.findings import Arm
from analysis.grid import Cell, ended_cells
from analysis.reading.completeness import DIVERGED
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import CONFIRM, EXPLORE
from analysis.wording import counted


def lost_seeds(runs: StudyRuns, arms: Sequence[Arm]) -> list[list[int]]:
    """(num_arms,) the confirmation seeds, ascending, at which each arm's own setting did not run to its end."""
    ended = ended_cells(runs, CONFIRM)
    return [sorted(ended.get(tuple(arm.parameters[name] for name in runs.parameters), ())) for arm in arms]


def lost_in_confirmation(runs: StudyRuns, arms: Sequence[Arm], factor: int, levels: Sequence[Any]) -> list[str]:
    """(num_levels,) what each level of a scientific factor lost in confirmation; empty where that is nothing."""
    numbers = dict.fromkeys(levels, 0)
    for arm, seeds in zip(arms, lost_seeds(runs, arms), strict=True):
        numbers[list(arm.scientific.values())[factor]] += len(seeds)
    return [f"{counted(number, 'confirmation run')} diverged" if number else "" for number in numbers.values()]


def lost_in_exploration(runs: StudyRuns, factor: int, levels: Sequence[Any], explored: Sequence[Cell]) -> list[str]:
    """What each level of a factor lost of the settings of the other factors, but for those that every level lost.

    Args:
        runs: the study's.
        factor: its column in a cell.
        levels: of it, that are compared.
        explored: cells with a complete run.

    Returns:
        (num_levels,) in words; empty where nothing was lost.
    """
    ended = ended_cells(runs, EXPLORE)
    settings = {others_of(cell, factor) for cell in ended}
    by_all = {each for each in settings if all((*each[:factor], level, *each[factor:]) in ended for level in levels)}
    tried: dict[Any, set[Cell]] = {level: set() for level in levels}
    for cell in (*explored, *ended):
        if cell[factor] in tried:
            tried[cell[factor]].add(cell)
    lost = [[cell for cell in tried[level] & ended.keys() if others_of(cell, factor) not in by_all] for level in levels]
    states = [{state for cell in cells for state in ended[cell].values()} for cells in lost]
    return [
        f"{len(cells)} of its {counted(len(tried[level]), 'setting')} {_how(said)}" if cells else ""
        for level, cells, said in zip(levels, lost, states, strict=True)
    ]


def _how(states: set[str]) -> str:
    return "diverged" if states == {DIVERGED} else "diverged or were stopped early"


def others_of(cell: Cell, factor: int) -> Cell:
    """The cell without its level of one factor."""
    return (*cell[:factor], *cell[factor + 1 :])
