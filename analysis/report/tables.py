"""The tables of a report: findings -> rows of cells."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from analysis.findings import CellFinding, Claim, FactorFinding, Findings, Topic
from analysis.reading.study_terms import is_number
from analysis.report.document import Cell, Runs, Table
from analysis.statistics import CONFIDENCE, Estimate, number_text
from analysis.wording import (
    counted,
    level_text,
    num_seeds_text,
    percent,
    rivals_text,
    seeds_needed_text,
    settings_text,
    words,
)

GOOD = ("best", "enough", "as good", "beats", "within the margin", "on the front", "surely best", "recommended")
BAD = ("worse", "not enough", "does not beat", "beyond the margin", "dominated", "diverged", "read too well")
SUBJECT = "subject"
"""The key of a topic's columns that names the first one, in which claims say what they are about."""
FROM, TO = "from", "to"
"""Headings of a column's ends, which follow it: all three are shown as one."""
MAX_UNFOLDED = 24


def level_table(factor: FactorFinding, number: int) -> Table:
    """The levels of one factor; `number` is its place in findings.json."""
    rows = [
        (
            Cell(level_text(level.level), order=_order(level.level)),
            _verdict(
                level.verdict,
                "; ".join(filter(None, [rivals_text(level, factor.best_level), seeds_needed_text(level)])),
            ),
            _estimate(level.value, counted(level.value.num_seeds, "seed")),
            _estimate(level.difference, "", "+"),
            _runs(level.run_ids, f"factors[{number}].levels[{i}].run_ids"),
        )
        for i, level in enumerate(factor.levels)
    ]
    head = (words(factor.name), "verdict", factor.metric, f"difference to {level_text(factor.best_level)}", "runs")
    seeds = num_seeds_text([level.value for level in factor.levels])
    return _table(f"{factor.metric} by {words(factor.name)}, {seeds}", head, rows)


def floor_table(findings: Findings) -> Table:
    """The recommended configuration against every floor."""
    rows = [
        (
            Cell(words(floor.name)),
            _verdict(floor.verdict),
            Cell(number_text(floor.floor), order=floor.floor),
            _estimate(floor.value, counted(floor.value.num_seeds, "seed")),
            _runs(floor.run_ids, f"floors[{i}].run_ids"),
        )
        for i, floor in enumerate(findings.floors)
    ]
    head = ("floor", "verdict", f"floor's {findings.metric}", "networks", "runs")
    return _table("The recommended configuration against the floors", head, rows)


def confirmation_table(findings: Findings) -> Table:
    """What exploration had read of each level, and what fresh seeds read."""
    val = findings.objective["metric"]
    rows = [
        (
            Cell(settings_text(arm.scientific)),
            _estimate(arm.explored) if arm.explored else Cell("not explored"),
            _estimate(arm.val),
            _estimate(arm.value, counted(arm.value.num_seeds, "seed")),
            _runs(arm.run_ids, f"arms[{i}].run_ids"),
        )
        for i, arm in enumerate(findings.arms)
    ]
    head = ("level", f"explored: {val}", f"fresh seeds: {val}", f"fresh seeds: {findings.metric}", "runs")
    return Table("What exploration had read, and what fresh seeds read", head, rows)


def cell_table(caption: str, metric: str, cells: Sequence[CellFinding], where: str) -> Table:
    """Cells with their runs, in the order of the seeds; `where` names them in findings.json."""
    differ = any(cell.difference for cell in cells)
    rows = [
        (
            Cell(settings_text(cell.parameters)),
            _estimate(cell.value, counted(cell.value.num_seeds, "seed")),
            *([_estimate(cell.difference, "", "+")] if differ else []),
            _runs(cell.run_ids, f"{where}[{i}].run_ids"),
        )
        for i, cell in enumerate(cells)
    ]
    head = ("cell", metric, *(["difference to the one read at its level"] if differ else []), "runs")
    return _table(caption, head, rows)


def topic_table(topic: Topic, number: int) -> Table:
    """A topic's claims; columns that would be empty throughout are left out."""
    estimated, judged = any(c.estimate for c in topic.claims), any(c.verdict for c in topic.claims)
    columns = _spans({key: title for key, title in topic.columns.items() if key != SUBJECT})
    titles = [topic.columns[key] for key, *_ in columns]
    head = [
        topic.columns.get(SUBJECT, "what"),
        *([topic.unit] if estimated else []),
        *titles,
        *(["verdict"] if judged else []),
        "runs",
    ]
    rows = [
        (
            Cell(claim.subject),
            *([_estimate(claim.estimate, _n_text(topic, claim))] if estimated else []),
            *(_values([claim.values.get(key) for key in keys]) for keys in columns),
            *([_verdict(claim.verdict)] if judged else []),
            _runs(claim.run_ids, f"topics[{number}].claims[{i}].run_ids"),
        )
        for i, claim in enumerate(topic.claims)
    ]
    return _table(f"{topic.unit or topic.title}{_intervals_text(topic)}", head, rows)


def excluded_table(excluded: Sequence[Sequence[str]]) -> Table:
    """What was left out, by reason: reasons that differ in their numbers alone are one row, the commonest first."""
    groups: dict[str, list[tuple[int, str, str]]] = {}
    for place, (run_id, reason) in enumerate(excluded):
        groups.setdefault(re.sub(r"\S*\d\S*", "#", reason), []).append((place, run_id, reason))
    rows = [
        (
            Cell(_reason(group)),
            Cell(str(len(group)), order=len(group)),
            _runs([run_id for _, run_id, _ in group], "excluded, by this reason"),
        )
        for group in sorted(groups.values(), key=lambda group: (-len(group), group[0][0]))
    ]
    return Table("Left out", ("reason", "how many", "runs"), rows)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """Rows that each end with their runs; where these are the same ones, the table names them once."""
    folded = len(rows) > MAX_UNFOLDED
    behind = [row[-1].runs for row in rows]
    if len(rows) > 1 and all(each and behind[0] and each.run_ids == behind[0].run_ids for each in behind):
        return Table(caption, head[:-1], [row[:-1] for row in rows], folded, behind[0])
    return Table(caption, head, rows, folded)


def _reason(group: list[tuple[int, str, str]]) -> str:
    reasons = list(dict.fromkeys(reason for *_, reason in group))
    return reasons[0] if len(reasons) == 1 else f"{reasons[0]}; or with other numbers"


def pairs_table(caption: str, rows: Sequence[tuple[str, str]]) -> Table:
    """Names and values."""
    return Table(caption, (), [(Cell(name), Cell(value)) for name, value in rows])


def _runs(run_ids: Sequence[str], where: str) -> Cell:
    return Cell("", order=len(run_ids), runs=Runs(run_ids, where))


def _estimate(estimate: Estimate | None, note: str = "", sign: Any = "") -> Cell:
    return Cell(estimate.text(sign), note, order=estimate.value) if estimate else Cell("")


def _n_text(topic: Topic, claim: Claim) -> str:
    """What stands behind the estimate: `8 runs`, where its interval is over runs, else its seeds."""
    over = topic.population.partition(";")[0]
    if (number := claim.values.get(over)) is not None:
        return counted(number, over.removesuffix("s"))
    return counted(claim.estimate.num_seeds, "seed") if claim.estimate else ""


def _intervals_text(topic: Topic) -> str:
    """Over what intervals are, and whether they hold together; empty where there are none."""
    confidences = [each.estimate.confidence for each in topic.claims if each.estimate and each.estimate.low is not None]
    if not confidences or not topic.population:
        return ""
    is_joint = max(confidences) > CONFIDENCE
    return f"; intervals over {topic.population}" + (
        f", {percent(CONFIDENCE)} for all rows together" if is_joint else ""
    )


def _verdict(verdict: str, note: str = "") -> Cell:
    return Cell(verdict, note, "good" if verdict in GOOD else "bad" if verdict in BAD else "")


def _spans(columns: Mapping[str, str]) -> list[list[str]]:
    """Keys by the column that shows them: a value, or a value with its two ends."""
    spans: list[list[str]] = []
    for key, title in columns.items():
        if spans and title == (FROM, TO, None)[len(spans[-1]) - 1]:
            spans[-1].append(key)
        else:
            spans.append([key])
    return spans


def _values(values: Sequence[Any]) -> Cell:
    """A value, with its interval where it has one."""
    first, *ends = map(_value, values)
    if len(ends) != 2 or not all(end.text for end in ends):
        return first
    return replace(first, text=f"{first.text} [{ends[0].text}, {ends[1].text}]")


def _value(value: Any) -> Cell:
    """A claim's further value: a number as people write it, a name as it is."""
    if value is None:
        return Cell("")
    if isinstance(value, list | tuple):
        return Cell(", ".join(_value(item).text for item in value))
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, int | float):
        return Cell(f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.3g}", order=value)
    return Cell(str(value))


def _order(level: Any) -> float | None:
    return float(level) if is_number(level) else None
