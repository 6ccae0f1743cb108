"""Points x images: at a budget, rather many images with few points or few images with many?

A budget is what some arm costs. Each number of images takes part with as many points as the budget pays for, if they
use at least half of it: what is far cheaper answers another question. All differences among the splits of a budget hold
simultaneously over all pairs of arms, so whichever budgets are asked about.
"""

from dataclasses import dataclass
from typing import Any

from analysis.costs import IMAGES, POINTS, Row
from analysis.findings import SCIENTIFIC, Claim, Findings, Topic
from analysis.reading.runs import StudyRuns
from analysis.statistics import leader
from analysis.topics.effort import Priced, price
from analysis.topics.readings import named
from analysis.wording import counted, points_text, settings_text

LEAST_SHARE = 0.5
"""Of a budget that a split must use."""
AHEAD, UNDECIDED = "surely best", "undecided"

COLUMNS = {
    "subject": "budget, hours of annotation",
    "images": "best split: images",
    "points": "best split: points per image",
    "spent_hours": "hours that it takes",
    "next_images": "next best split: images",
    "next_points": "next best split: points per image",
    "gain": "best ahead of next best by",
    "gain_low": "from",
    "gain_high": "to",
    "splits": "splits compared",
}


@dataclass(frozen=True)
class _Budget:
    """Splits of one budget: rows of the priced table, the fewest images first."""

    hours: float
    splits: list[int]


def find_budget(runs: StudyRuns, findings: Findings) -> Topic | None:
    """The best split of each budget; None where points and images do not both vary, or no budget has two splits."""
    if any(runs.parameters.get(name) != SCIENTIFIC for name in (POINTS, IMAGES)):
        return None
    series: dict[tuple[Any, ...], list[Row]] = {}
    for arm in findings.arms:
        others = tuple(level for name, level in arm.scientific.items() if name not in (POINTS, IMAGES))
        series.setdefault(others, []).append(arm)
    priced = [each for rows in series.values() if (each := price(runs, findings, rows))]
    claims = [_claim(findings, each, budget) for each in priced for budget in _budgets(each)]
    if not claims:
        return None
    return Topic(
        name="budget",
        title="Points x images at a fixed budget",
        unit=findings.metric,
        population="seeds",
        text=_text(claims),
        columns=COLUMNS,
        claims=claims,
    )


def _budgets(priced: Priced) -> list[_Budget]:
    """Every budget at which two splits or more compete, the smallest that pays for just these."""
    found: dict[tuple[int, ...], _Budget] = {}
    for cost in priced.costs:
        splits = _splits(priced, cost.hours)
        if len(splits) > 1:
            found.setdefault(tuple(splits), _Budget(cost.hours, splits))
    return list(found.values())


def _splits(priced: Priced, hours: float) -> list[int]:
    """For each number of images the row of the most points that the budget pays for."""
    dearest = {cost.images: row for row, cost in enumerate(priced.costs) if cost.hours <= hours}
    return [row for _, row in sorted(dearest.items()) if priced.costs[row].hours >= LEAST_SHARE * hours]


def _claim(findings: Findings, priced: Priced, budget: _Budget) -> Claim:
    """The best split, and by how much it is ahead of the one that comes nearest."""
    rows = budget.splits
    family = {(i, j): priced.gains[a, b] for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j}
    best = rows[leader(len(rows), family, "max")]
    second = min((row for row in rows if row != best), key=lambda row: priced.gains[best, row].value)
    leads = [priced.gains[best, row] for row in rows if row != best]
    cost, other, gain = priced.costs[best], priced.costs[second], priced.gains[best, second]
    values = {
        "images": cost.images,
        "points": cost.points,
        "spent_hours": cost.hours,
        "next_images": other.images,
        "next_points": other.points,
        **named("gain", gain),
        "splits": len(rows),
    }
    is_ahead = all(lead.low is not None and lead.low > 0 for lead in leads)
    found = priced.rows[best]
    run_ids = [run_id for row in sorted(rows) for run_id in priced.rows[row].run_ids]
    return Claim(_subject(findings, found, budget), found.value, values, AHEAD if is_ahead else UNDECIDED, run_ids)


def _subject(findings: Findings, row: Row, budget: _Budget) -> str:
    others = {
        name: level
        for name, level in row.parameters.items()
        if name in findings.recommended.scientific and name not in (POINTS, IMAGES)
    }
    return f"{budget.hours:.3g} h" + (f" ({settings_text(others)})" if others else "")


def _text(claims: list[Claim]) -> str:
    """What is settled, at which budgets, and what the comparison rests on."""
    settled = [claim for claim in claims if claim.verdict == AHEAD]
    first = f"Points x images: at {len(settled)} of {counted(len(claims), 'budget')} one split is surely best"
    if settled:
        shown = settled[-1]
        first += f"; for {shown.subject} it is {_split_text(shown.values)}"
    return (
        f"{first}. Each number of images takes part with as many points as the budget pays for. Where all"
        f" train for as many epochs, fewer images are fewer steps, too."
    )


def _split_text(values: dict[str, Any]) -> str:
    return f"{counted(values['images'], 'image')} with {points_text(values['points'])} each"
