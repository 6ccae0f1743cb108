"""The winner's curse: what exploration had read of the settings that it chose, beside what fresh seeds read.

Both on the validation split, by the objective. The seeds are other ones, so the difference is not paired: Welch's t
interval. What chance alone would add is the expected best of as many equal settings: the expected maximum of K standard
normal numbers times the noise of a setting's mean that settings of one seed do not share. It is the most to be
expected: where settings truly differ, the best one is chosen for its merits too.

Source: Welch 1947; David and Nagaraja 2003, "Order statistics".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np
from scipy import special

from analysis.findings import Arm, CellFinding, Claim, Findings, Topic
from analysis.reading.runs import StudyRuns
from analysis.statistics import CONFIDENCE, Estimate, direction
from analysis.topics.readings import Values, jointly, scaled, seed_table, sign_of
from analysis.wording import counted, first_of, settings_text

VERDICTS = {1: "read too well", 0: "no flattery shown", -1: "read too low"}
COLUMNS = {
    "subject": "level",
    "explored": "read in exploration",
    "fresh": "read on fresh seeds",
    "expected": "chance alone would add at most",
    "settings": "settings tried",
    "seeds": "exploration seeds",
    "fresh_seeds": "fresh seeds",
}
OVERALL = "mean over the levels"


@dataclass(frozen=True)
class _Chosen:
    """A level's chosen setting: the arm, its explored cell, its fresh readings, what chance may have added."""

    arm: Arm
    cell: CellFinding
    fresh: CellFinding
    num_settings: int
    expected: float | None


def find_curse(runs: StudyRuns, findings: Findings) -> Topic | None:
    """Every level that was explored and confirmed; None where there is none."""
    chosen = _chosen(runs, findings)
    if not chosen:
        return None
    each = jointly(len(chosen), CONFIDENCE)
    claims = [_claim(runs, [one], settings_text(one.arm.scientific), each) for one in chosen]
    if len(chosen) > 1:
        claims.append(_claim(runs, chosen, OVERALL, CONFIDENCE))
    return Topic(
        name="curse",
        title="The winner's curse",
        unit=f"{runs.objective['metric']} by which exploration read better than fresh seeds",
        population="seeds",
        text=_text(runs, claims),
        columns=COLUMNS,
        claims=claims,
    )


def _chosen(runs: StudyRuns, findings: Findings) -> list[_Chosen]:
    arms = [arm for arm in findings.arms if arm.explored and arm.val]
    if not arms:
        return []
    levels = {id(arm): _cells_at(arm, findings) for arm in arms}
    noise = _own_noise([seed_table(cells) for cells in levels.values()])
    val = dict(zip(runs.trials["run_id"], runs.trials["objective"], strict=True))
    result = []
    for arm in arms:
        cell = next(cell for cell in levels[id(arm)] if cell.parameters == arm.parameters)
        rivals = sum(len(other.seeds) == len(cell.seeds) for other in levels[id(arm)])
        fresh = replace(cell, seeds=arm.seeds, readings=[val[run_id] for run_id in arm.run_ids], run_ids=arm.run_ids)
        expected = None if noise is None else expected_maximum(rivals) * noise / sqrt(len(cell.seeds))
        result.append(_Chosen(arm, cell, fresh, rivals, expected))
    return result


def _cells_at(arm: Arm, findings: Findings) -> list[CellFinding]:
    """The explored cells at the arm's scientific levels."""
    return [cell for cell in findings.cells if cell.parameters.items() >= arm.scientific.items()]


def _own_noise(tables: Sequence[Values]) -> float | None:
    """The standard deviation of one reading beside what all settings of a seed share; None where nothing tells."""
    squares, dof = 0.0, 0
    for table in tables:
        rows = table[~np.isnan(table).any(axis=1)]
        own = rows - rows.mean(axis=1, keepdims=True) if rows.size else rows
        own = own - own.mean(axis=0) if rows.size else own
        squares += float((own**2).sum())
        dof += max(len(rows) - 1, 0) * max(table.shape[1] - 1, 0)
    return sqrt(squares / dof) if dof else None


def expected_maximum(number: int) -> float:
    """The expected maximum of so many independent standard normal numbers; 0 of one."""
    x = (np.arange(4000) - 1999.5) / 200  # the middles of steps from -10 to 10
    below = special.ndtr(x)
    # The integral of 1 - F^K above 0, minus that of F^K below.
    return float(np.where(x > 0, 1 - below**number, -(below**number)).sum() / 200)


def unpaired_difference(first: Values, second: Values, confidence: float) -> Estimate:
    """Mean of the first minus mean of the second, of other seeds, with Welch's interval. Population: seeds.

    Args:
        first: (num_first,) at least one.
        second: (num_second,) at least one.
        confidence: coverage, in (0, 1).

    Returns:
        Without interval where one of them is a single reading; its number of seeds is that of the fewer.
    """
    difference, fewest = float(first.mean() - second.mean()), min(len(first), len(second))
    if fewest < 2:
        return Estimate(difference, None, None, fewest, confidence)
    errors = np.array([each.var(ddof=1) / len(each) for each in (first, second)])
    dofs = np.array([len(first) - 1, len(second) - 1])
    if not errors.any():
        return Estimate(difference, difference, difference, fewest, confidence)
    dof = errors.sum() ** 2 / (errors**2 / dofs).sum()
    half_width = float(special.stdtrit(dof, 0.5 + confidence / 2)) * sqrt(errors.sum())
    return Estimate(difference, difference - half_width, difference + half_width, fewest, confidence)


def _claim(runs: StudyRuns, chosen: list[_Chosen], subject: str, confidence: float) -> Claim:
    """One level, or the mean over several: over the seeds that all of them have."""
    explored, fresh = (_by_seed(rows) for rows in ([one.cell for one in chosen], [one.fresh for one in chosen]))
    values: dict[str, Any] = {"settings": max(one.num_settings for one in chosen)}
    if all(one.expected is not None for one in chosen):
        values["expected"] = sum(one.expected or 0.0 for one in chosen) / len(chosen)
    values |= {"seeds": len(explored), "fresh_seeds": len(fresh)}
    run_ids = [run_id for one in chosen for run_id in (*one.cell.run_ids, *one.arm.run_ids)]
    if not len(explored) or not len(fresh):
        return Claim(subject, None, values, "", run_ids)
    sign = direction(runs.objective["mode"])
    difference = scaled(unpaired_difference(explored, fresh, confidence), sign)
    values |= {"explored": float(explored.mean()), "fresh": float(fresh.mean())}
    return Claim(subject, difference, values, VERDICTS[sign_of(difference)], run_ids)


def _by_seed(rows: list[CellFinding]) -> Values:
    """(num_seeds,) the mean over the rows at each seed that all have."""
    means: Values = seed_table(rows).mean(axis=0)
    return np.asarray(means[~np.isnan(means)])


def _text(runs: StudyRuns, claims: list[Claim]) -> str:
    whole, metric = claims[-1], runs.objective["metric"]
    if whole.estimate is None:
        return f"Exploration and fresh seeds are shown by level; no seed has all levels in {metric}."
    value = whole.estimate
    compared = f"{abs(value.value):.3f} {'better' if value.value > 0 else 'worse'} than fresh seeds do"
    interval = "" if value.low is None else f" ({value.text('+')}: {whole.verdict})"
    text = f"Exploration read {metric} of the chosen settings {compared}{interval}."
    if "expected" in whole.values:
        tried = counted(whole.values["settings"], "setting")
        expected = f"{whole.values['expected']:.3f}"
        text += f" Were the {tried} of a level all equally good, the best would read {expected} too well by chance."
    if flattered := [claim.subject for claim in claims[:-1] if claim.verdict == "read too well"]:
        text += f" It shows at {first_of(flattered)}."
    return text
