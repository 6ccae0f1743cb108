"""Interactions of focal gamma: with the learning rate, with how classes are balanced, and with how rare a class is.

An interaction is a difference of differences: what a step in gamma changes at one level of the other factor minus what
it changes at the next. Each is taken within a seed and a setting of all other factors, where all four cells have a run,
then averaged over those settings; intervals are Student's t over seeds. Steps go from each level to the next one, so
that every interaction is a sum of the ones here; those of one question hold together by Bonferroni over their number.

How rare a class is needs no further factor: what a step in gamma changes in the IoU of the rarer class minus what it
changes in that of the commoner one, after the last epoch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.curves import read_curves
from analysis.findings import Claim, Findings, Topic
from analysis.grid import Cell, level_order
from analysis.reading.runs import StudyRuns
from analysis.statistics import CONFIDENCE, mean_interval
from analysis.topics.readings import GAMMA, RATE, Values, described, jointly, seed_table, sign_of
from analysis.wording import level_text, listed, words
from trainable.config import TrainConfig

PARTNERS = (RATE, "class_weights", "point_strategy")
"""Factors that gamma may interact with; the last two change how classes are balanced."""

VERDICTS = {True: "interact", False: "no interaction shown"}
COLUMNS = {
    "subject": "step in gamma, step in the other factor",
    "with": "the other factor",
    "seeds": "seeds",
    "settings": "settings of all further factors",
}


@dataclass(frozen=True)
class _Cells:
    """The explored cells.

    Attributes:
        names: the parameters.
        keys: (num_cells,) the levels of each.
        values: (num_cells, num_seeds) NaN where a run is missing.
        run_ids: (num_cells,)
    """

    names: list[str]
    keys: list[Cell]
    values: Values
    run_ids: list[list[str]]


@dataclass(frozen=True)
class _Contrast:
    """One difference of differences: (num_settings, num_seeds), and the runs behind it."""

    subject: str
    partner: str
    values: Values
    run_ids: list[str]


def find_interactions(runs: StudyRuns, findings: Findings) -> Topic | None:
    """Every interaction of gamma that exploration tells of; None where gamma has no two levels that compare."""
    if GAMMA not in runs.parameters or GAMMA in runs.search.ranges or not findings.cells:
        return None
    cells = _Cells(
        list(runs.parameters),
        [tuple(cell.parameters.values()) for cell in findings.cells],
        seed_table(findings.cells),
        [cell.run_ids for cell in findings.cells],
    )
    partners = [name for name in PARTNERS if name in runs.parameters and name not in runs.search.ranges]
    questions = [list(_tetrads(cells, name)) for name in partners]
    questions.append(list(_class_contrasts(runs, findings, cells)))
    claims = [claim for question in questions for claim in _claims(question)]
    if not claims:
        return None
    return Topic(
        name="interactions",
        title="Interactions of focal gamma",
        unit=f"difference of differences in {runs.objective['metric']}, or in IoU between the classes",
        population="seeds",
        text=_text(claims),
        columns=COLUMNS,
        claims=claims,
    )


def _claims(contrasts: list[_Contrast]) -> Iterator[Claim]:
    """One question's contrasts; over settings the mean of those that a seed has, each of them complete in itself."""
    each = jointly(len(contrasts), CONFIDENCE)
    for contrast in contrasts:
        there = ~np.isnan(contrast.values)
        by_seed = contrast.values.sum(axis=0, where=there)[there.any(axis=0)] / there.sum(axis=0)[there.any(axis=0)]
        estimate = mean_interval(by_seed, each)
        values = {
            "with": contrast.partner,
            "seeds": estimate.num_seeds,
            "settings": int(there.any(axis=1).sum()),
        }
        yield Claim(contrast.subject, estimate, values, VERDICTS[sign_of(estimate) != 0], contrast.run_ids)


def _tetrads(cells: _Cells, partner: str) -> Iterator[_Contrast]:
    """Steps of gamma across steps of the partner, in every setting of the other factors that has all four cells."""
    rows = _rows_by_levels(cells, (GAMMA, partner))
    gammas, others = (sorted({levels[i] for levels in rows}, key=level_order) for i in (0, 1))
    if isinstance(others[0], str):  # names have no order: each against the one that is usual
        usual = getattr(TrainConfig(), partner)
        first = usual if usual in others else others[0]
        steps = [(first, other) for other in others if other != first]
    else:
        steps = list(pairwise(others))
    for low, high in pairwise(gammas):
        for one, two in steps:
            corners = [rows.get(levels, {}) for levels in ((high, two), (low, two), (high, one), (low, one))]
            contrast = _contrast(cells, corners, (1, -1, -1, 1))
            if contrast is not None:
                subject = f"gamma {level_text(low)} to {level_text(high)}, {level_text(one)} to {level_text(two)}"
                yield _Contrast(subject, words(partner), *contrast)


def _rows_by_levels(cells: _Cells, factors: tuple[str, ...]) -> dict[Cell, dict[Cell, int]]:
    """Levels of these factors -> setting of all others -> row."""
    inside = [cells.names.index(name) for name in factors]
    outside = [i for i in range(len(cells.names)) if i not in inside]
    rows: dict[Cell, dict[Cell, int]] = {}
    for row, key in enumerate(cells.keys):
        rows.setdefault(tuple(key[i] for i in inside), {})[tuple(key[i] for i in outside)] = row
    return rows


def _contrast(
    cells: _Cells, corners: list[dict[Cell, int]], signs: tuple[int, ...]
) -> tuple[NDArray[np.float64], list[str]] | None:
    """(num_settings, num_seeds) in the settings that all corners have, and the runs; None where no seed has all."""
    settings = [each for each in corners[0] if all(each in corner for corner in corners)]
    rows = [[corner[each] for each in settings] for corner in corners]
    values = sum(sign * cells.values[row] for sign, row in zip(signs, rows, strict=True)) if settings else None
    if values is None or np.isnan(values).all():
        return None
    return np.asarray(values), [run_id for row in rows for i in row for run_id in cells.run_ids[i]]


def _class_contrasts(runs: StudyRuns, findings: Findings, cells: _Cells) -> Iterator[_Contrast]:
    """Steps of gamma in the IoU of the rarer class minus that of the commoner one; none where classes are equal."""
    share = described(runs, "forest_share", "val") or 0.5
    rare, common = ("forest", "background") if share < 0.5 else ("background", "forest")
    curves = [read_curves(runs, f"val/iou_{name}") for name in (rare, common)]
    if share == 0.5 or curves[0] is None or curves[1] is None:
        return
    gap = curves[0].values[curves[0].lasts] - curves[1].values[curves[1].lasts]
    gaps = dict(zip(curves[0].run_ids.tolist(), gap.tolist(), strict=True))
    values = np.full_like(cells.values, np.nan)
    there = ~np.isnan(cells.values)
    values[there] = [gaps[run_id] for run_ids in cells.run_ids for run_id in run_ids]
    by_class = _Cells(cells.names, cells.keys, values, cells.run_ids)
    rows = _rows_by_levels(by_class, (GAMMA,))
    for (low,), (high,) in pairwise(sorted(rows, key=lambda levels: level_order(levels[0]))):
        contrast = _contrast(by_class, [rows[high,], rows[low,]], (1, -1))
        if contrast is not None:
            subject = f"gamma {level_text(low)} to {level_text(high)}, {rare} against {common}"
            yield _Contrast(subject, "class", *contrast)


def _text(claims: list[Claim]) -> str:
    """Which questions show an interaction, and which do not."""
    asked: dict[str, list[Claim]] = {}
    for claim in claims:
        asked.setdefault(_noun(claim.values["with"]), []).append(claim)
    found = [noun for noun, each in asked.items() if any(claim.verdict == "interact" for claim in each)]
    rest = [noun for noun in asked if noun not in found]
    texts = [f"What gamma does depends on {listed(found)}"] if found else []
    texts += [f"{'no' if found else 'No'} interaction of gamma with {listed(rest)} is shown"] if rest else []
    return "; ".join(texts) + "."


def _noun(partner: Any) -> str:
    return "the rarity of a class" if partner == "class" else f"the {partner}"
