"""What annotation buys: hours and money of every arm, and which arms no other one beats without more effort.

An arm is dominated where another one of no more effort is better. Surely so, where the simultaneous paired interval of
their difference says so; and surely on the front, where the arm is better than every other one of no more effort.

Where points or images are searched and not compared (a search against effort), there is one arm for all of them. The
cells stand in its place: all that were confirmed, else the explored ones that no other beats on average.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from analysis.arms import additions
from analysis.costs import IMAGES, POINTS, Cost, Row, cost_of
from analysis.family import paired_family
from analysis.findings import SCIENTIFIC, Arm, Claim, Findings, Topic
from analysis.reading.runs import StudyRuns
from analysis.statistics import Estimate, direction
from analysis.topics.readings import named, seed_table
from analysis.wording import counted, listed, settings_text

ON_FRONT, DOMINATED, UNDECIDED = "on the front", "dominated", "undecided"

Family = dict[tuple[int, int], Estimate]


@dataclass(frozen=True)
class Priced:
    """Rows with their costs, the least effort first.

    Attributes:
        gains: (i, j) -> by how much row i is better than row j, simultaneous over all pairs, and over all looks at
            confirmed rows.
    """

    rows: list[Row]
    costs: list[Cost]
    gains: Family

    def cheaper(self, row: int) -> list[int]:
        """The other rows of no more effort."""
        return [j for j, cost in enumerate(self.costs) if j != row and cost.hours <= self.costs[row].hours]

    def is_on_front(self, row: int) -> bool:
        """Whether no other row is on average at least as good for less, or better for as much."""
        saves = [self.costs[j].hours < self.costs[row].hours for j in self.cheaper(row)]
        leads = [self.gains[j, row].value for j in self.cheaper(row)]
        return not any(lead > 0 or (lead == 0 and saving) for lead, saving in zip(leads, saves, strict=True))

    def verdict(self, row: int) -> str:
        """Whether the row is surely on the front, surely dominated, or neither."""
        if any(_is_gain(self.gains[j, row]) for j in self.cheaper(row)):
            return DOMINATED
        return ON_FRONT if all(_is_gain(self.gains[row, j]) for j in self.cheaper(row)) else UNDECIDED


def find_effort(runs: StudyRuns, findings: Findings) -> Topic | None:
    """Effort against the metric; None where it is not known what was labelled."""
    priced = price(runs, findings, compared_rows(runs, findings))
    if priced is None:
        return None
    front = [row for row in range(len(priced.rows)) if priced.is_on_front(row)]
    return Topic(
        name="effort",
        title="Annotation effort",
        unit=findings.metric,
        population="seeds",
        text=_text(runs, findings, priced, front),
        columns=_columns(runs),
        claims=[_claim(runs, priced, row, front) for row in range(len(priced.rows))],
    )


def price(runs: StudyRuns, findings: Findings, rows: list[Row]) -> Priced | None:
    """Rows with what they cost and how they compare; None where none has a cost."""
    found = [(row, cost) for row in rows if (cost := cost_of(runs, row))]
    if not found:
        return None
    found.sort(key=lambda pair: pair[1].hours)
    kept = [row for row, _ in found]
    sign = direction(findings.objective["mode"])
    table = sign * seed_table(kept)
    seeds = sorted({seed for row in kept for seed in row.seeds})
    looks = additions(runs, seeds, table) if findings.is_confirmed else None
    return Priced(kept, [cost for _, cost in found], paired_family(table, additions=looks))


def compared_rows(runs: StudyRuns, findings: Findings) -> list[Row]:
    """What stands for an effort each: the arms, or cells where points or images are searched; else one arm alone."""
    varied = [name for name in (POINTS, IMAGES) if name in runs.parameters]
    if not varied:
        return [findings.recommended]
    if all(runs.parameters[name] == SCIENTIFIC for name in varied):
        return list(findings.arms)
    if findings.is_confirmed:
        return list(findings.confirmed)
    return _front_by_mean(runs, findings)


def _front_by_mean(runs: StudyRuns, findings: Findings) -> list[Row]:
    """The explored cells that no other one beats on average without more effort, of those with the most seeds."""
    most = max(cell.value.num_seeds for cell in findings.cells)
    sign = direction(findings.objective["mode"])
    priced = [(cost.hours, -sign * cell.value.value, cell) for cell in findings.cells if (cost := cost_of(runs, cell))]
    front: list[Row] = []
    least = inf
    for _, loss, cell in sorted(priced, key=lambda each: each[:2]):
        if cell.value.num_seeds == most and loss < least:
            least = loss
            front.append(cell)
    return front


def _claim(runs: StudyRuns, priced: Priced, row: int, front: list[int]) -> Claim:
    found, cost = priced.rows[row], priced.costs[row]
    values = {
        "points": cost.points,
        "images": cost.images,
        "hours": cost.hours,
        "money": cost.money,
        "on_front": row in front,
        **dict(_marginal(priced, row, front)),
    }
    names = found.scientific if isinstance(found, Arm) else found.parameters
    verdict = priced.verdict(row) if len(priced.rows) > 1 else ""
    return Claim(settings_text(names), found.value, values, verdict, found.run_ids)


def _marginal(priced: Priced, row: int, front: list[int]) -> Iterator[tuple[str, Any]]:
    """What the row gains over the next cheaper one on the front, and the hours that a hundredth of it takes."""
    before = [j for j in front if priced.costs[j].hours < priced.costs[row].hours]
    if row not in front or not before:
        return
    hours = priced.costs[row].hours - priced.costs[before[-1]].hours
    gain = priced.gains[row, before[-1]]
    yield "further_hours", hours
    yield from named("gain", gain).items()
    if gain.value > 0:
        yield "hours_per_hundredth", hours / (100 * gain.value)


def _columns(runs: StudyRuns) -> dict[str, str]:
    money = {"money": f"cost, {runs.effort.currency}"} if runs.effort.currency else {}
    return {
        "subject": "setting",
        "points": "points per image",
        "images": "images",
        "hours": "hours of annotation",
        **money,
        "further_hours": "hours more than the next cheaper one on the front",
        "gain": "gain over that one",
        "gain_low": "from",
        "gain_high": "to",
        "hours_per_hundredth": "hours for each .01 of that gain",
    }


def _text(runs: StudyRuns, findings: Findings, priced: Priced, front: list[int]) -> str:
    """What the recommended arm costs, what is surely wasted, what is open, and what is not counted."""
    (own,) = [i for i, row in enumerate(priced.rows) if row.parameters == findings.recommended.parameters][:1] or [0]
    texts = [f"{_subject(priced.rows[own])}: {_cost_text(runs, priced.costs[own])}."]
    verdicts = {row: priced.verdict(row) for row in range(len(priced.rows))}
    wasted = [_subject(priced.rows[row]) for row, verdict in verdicts.items() if verdict == DOMINATED]
    if wasted:
        texts.append(f"Surely dominated, as something better takes no more effort: {listed(wasted)}.")
    if number := sum(verdict == UNDECIDED for verdict in verdicts.values()):
        texts.append(f"Of {counted(len(verdicts), 'setting')}, {number} may or may not be on the front.")
    if runs.data.get("annotations") == "points":
        texts.append("Counted as if every image held all the points asked for.")
    texts.append("Images that validate and test are labelled besides, once for all.")
    return " ".join(texts)


def _subject(row: Row) -> str:
    text = settings_text(row.scientific if isinstance(row, Arm) else row.parameters)
    return f"{text[0].upper()}{text[1:]}"


def _cost_text(runs: StudyRuns, cost: Cost) -> str:
    money = f" ({cost.money:,.0f} {runs.effort.currency})" if cost.money is not None else ""
    return f"{cost.hours:.3g} hours of annotation{money} for {counted(cost.images, 'image')}"


def _is_gain(gain: Estimate) -> bool:
    return gain.low is not None and gain.low > 0
