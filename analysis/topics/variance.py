"""What makes one reading differ from the next: points, weights and scenes, each with its standard deviation.

Points and weights come apart where the study varies `points_seed`, so that the same points meet several weights and the
other way round: two crossed random effects, by the mean squares of Henderson's first method (balanced: of the analysis
of variance). What is left is their interaction and all that no seed decides. Otherwise a seed draws both, and they
count as one. Only the settings of the arms are read. They share their draws and seeds, so that several count as one in
degrees of freedom: intervals cover as claimed, or more.

Scenes: the standard deviation of the recommended arm's reading over other scenes, as many as were read, by the
jackknife (`scenes.py`). Scenes are unequal, and no interval of a variance holds exactly then: nominal 95 % ones cover
89 to 96 % in simulated data of 6 to 38 scenes (tests/analysis/test_variances.py).

Sources: Henderson 1953; Searle, Casella and McCulloch 1992.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.findings import POINTS_SEED, Claim, Findings, Topic
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import CONFIRM, EXPLORE, metric_read
from analysis.scenes import MIN_SCENES, scenes_by_arm
from analysis.statistics import CONFIDENCE, Estimate
from analysis.topics.readings import Values, jointly, seed_table
from analysis.variances import MeanSquare, component_interval, spread_interval, sum_interval, tailed_interval
from analysis.wording import counted, listed, percent

COLUMNS = {"subject": "source", "share": "share of the variance", "levels": "how many were drawn"}


@dataclass(frozen=True)
class _Crossing:
    """Readings of settings at which every draw of points met every seed.

    Attributes:
        phase: whose runs.
        values: (num_settings, num_draws, num_seeds)
        run_ids: of all of them.
    """

    phase: str
    values: NDArray[np.float64]
    run_ids: list[str]


@dataclass(frozen=True)
class _Part:
    """One source of variance: how its interval comes about, once it is known how many hold together."""

    subject: str
    estimate: Estimate
    levels: str
    run_ids: list[str]


def find_variance(runs: StudyRuns, findings: Findings) -> Topic | None:
    """The parts of the variance; None where there are no two to tell apart."""
    crossing = _crossing(findings)
    scenes = _scenes(runs, findings, crossing)
    each = jointly((3 if crossing else 1) + (scenes is not None), CONFIDENCE)
    parts = _crossed_parts(crossing, each) if crossing else _seed_part(findings, each)
    if scenes is not None:
        estimate = tailed_interval(scenes, len(findings.recommended.seeds), each)
        parts.append(_Part("scenes", estimate, counted(len(scenes), "scene"), findings.recommended.run_ids))
    if len(parts) < 2:
        return None
    phase = crossing.phase if crossing else findings.phase
    return Topic(
        name="variance",
        title="Where the variance comes from",
        unit=f"standard deviation of {metric_read(runs.objective['metric'], phase)}",
        population="seeds, draws of points and scenes, each of its own part",
        text=_text(parts, is_crossed=crossing is not None),
        columns=COLUMNS,
        claims=_claims(parts),
    )


def _crossing(findings: Findings) -> _Crossing | None:
    """The settings of the arms at all draws of points that the study crosses with seeds; None where it does not."""
    wanted = [_without_draw(arm.parameters) for arm in findings.arms]
    for phase, cells in ((CONFIRM, findings.confirmed if findings.is_confirmed else []), (EXPLORE, findings.cells)):
        crossed = [cell for cell in cells if POINTS_SEED in cell.parameters]
        settings = [[cell for cell in crossed if _without_draw(cell.parameters) == each] for each in _distinct(wanted)]
        tables = [(seed_table(setting), setting) for setting in settings if len(setting) > 1]
        whole = [(table, setting) for table, setting in tables if table.shape[1] > 1 and not np.isnan(table).any()]
        same = [(table, setting) for table, setting in whole if table.shape == whole[0][0].shape]
        if same:
            run_ids = [run_id for _, setting in same for cell in setting for run_id in cell.run_ids]
            return _Crossing(phase, np.array([table for table, _ in same]), run_ids)
    return None


def _without_draw(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: level for name, level in parameters.items() if name != POINTS_SEED}


def _distinct(settings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for i, each in enumerate(settings) if each not in settings[:i]]


def _crossed_parts(crossing: _Crossing, confidence: float) -> list[_Part]:
    points, weights, rest = mean_squares(crossing.values)
    num_draws, num_seeds = crossing.values.shape[1:]
    draws, seeds = counted(num_draws, "draw"), counted(num_seeds, "seed")
    found = {
        "points": (component_interval(points, rest, num_seeds, num_draws, confidence), draws),
        "weights and order": (component_interval(weights, rest, num_draws, num_seeds, confidence), seeds),
        "interaction and chance": (sum_interval([rest], num_seeds, confidence), f"{draws} x {seeds}"),
    }
    return [_Part(subject, estimate, levels, crossing.run_ids) for subject, (estimate, levels) in found.items()]


def mean_squares(values: Values) -> tuple[MeanSquare, MeanSquare, MeanSquare]:
    """Of rows, of columns and of the rest, each as the mean over the tables.

    Args:
        values: (num_tables, num_rows, num_columns) the same rows and columns in each, at least two of either. Tables
            may rise and fall together, so that degrees of freedom are those of one alone.
    """
    _, num_rows, num_columns = values.shape
    mean = values.mean(axis=(1, 2), keepdims=True)
    rows, columns = values.mean(axis=2, keepdims=True) - mean, values.mean(axis=1, keepdims=True) - mean
    rest = values - mean - rows - columns
    dofs = (num_rows - 1, num_columns - 1, (num_rows - 1) * (num_columns - 1))
    sums = (num_columns * (rows**2).sum(), num_rows * (columns**2).sum(), (rest**2).sum())
    squares = [MeanSquare(float(each) / dof / len(values), dof) for each, dof in zip(sums, dofs, strict=True)]
    return squares[0], squares[1], squares[2]


def _seed_part(findings: Findings, confidence: float) -> list[_Part]:
    spread = spread_interval(seed_table(findings.arms), confidence)
    run_ids = [run_id for arm in findings.arms for run_id in arm.run_ids]
    subject = "seeds: points and weights together"
    return [_Part(subject, spread, counted(spread.num_seeds, "seed"), run_ids)] if spread else []


def _scenes(runs: StudyRuns, findings: Findings, crossing: _Crossing | None) -> Values | None:
    """The recommended arm by scene; None where there are too few, or where seeds are told apart on another split."""
    found = scenes_by_arm(runs, findings) if crossing is None or crossing.phase == findings.phase else None
    if found is None or len(found.scenes) < MIN_SCENES:
        return None
    return np.asarray(found.values[findings.arms.index(findings.recommended)])


def _claims(parts: list[_Part]) -> list[Claim]:
    total = sum(part.estimate.value**2 for part in parts)
    return [
        Claim(
            subject=part.subject,
            estimate=part.estimate,
            values={"share": part.estimate.value**2 / total if total else 0.0, "levels": part.levels},
            verdict="largest" if _is_largest(part, parts) else "",
            run_ids=part.run_ids,
        )
        for part in parts
    ]


def _is_largest(part: _Part, parts: list[_Part]) -> bool:
    """Whether the whole interval lies above that of every other part."""
    ends = [other.estimate.high for other in parts if other is not part]
    return part.estimate.low is not None and all(part.estimate.low > (inf if end is None else end) for end in ends)


def _text(parts: list[_Part], *, is_crossed: bool) -> str:
    claims = sorted(_claims(parts), key=lambda claim: -claim.values["share"])
    shares = listed([f"{claim.subject} {percent(claim.values['share'])}" for claim in claims])
    settled = [claim.subject for claim in claims if claim.verdict == "largest"]
    second = f"That {settled[0]} hold most is settled." if settled else "Which holds most is not settled."
    remedy = "" if is_crossed else " To tell points from weights, vary points_seed beside the seeds."
    return f"Of the variance of one reading: {shares}. {second}{remedy}"
