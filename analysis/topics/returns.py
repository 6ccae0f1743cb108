"""Diminishing returns: what each further step in points per image gains, per doubling and per hour of annotation.

Neighbouring counts alone are compared, each at its arm, paired by seed; they are named by the study and not chosen from
its results, so that all steps hold together by Bonferroni over their number.
"""

from math import log2
from typing import Any

from analysis.costs import POINTS, cost_of
from analysis.findings import Arm, Claim, Findings, Topic
from analysis.reading.runs import StudyRuns
from analysis.statistics import Estimate, direction, paired_difference
from analysis.topics.readings import Series, claim_confidence, named, point_series, scaled, seed_table, sign_of
from analysis.wording import first_of, level_text, listed

VERDICTS = {1: "gains", 0: "no gain shown", -1: "loses"}
COMPARED = {"gains": "are better than", "no gain shown": "are not shown to be better than", "loses": "are worse than"}
COLUMNS = {
    "subject": "points per image",
    "gain": "gain of the step",
    "gain_low": "from",
    "gain_high": "to",
    "hours": "further hours of annotation",
    "per_hour": "gain per hour of annotation",
    "per_hour_low": "from",
    "per_hour_high": "to",
    "seeds": "seeds",
}

_Step = tuple[Series, Arm, Arm]


def find_returns(runs: StudyRuns, findings: Findings) -> Topic | None:
    """Every step between neighbouring point counts; None where fewer than two counts are numbers."""
    steps = [
        (series, few, many)
        for series in point_series(runs, findings)
        for few, many in zip(series.numbered, series.numbered[1:], strict=False)
    ]
    if not steps:
        return None
    claims = [
        _step(runs, series, few, many, claim_confidence(runs, findings, [few, many], len(steps)))
        for series, few, many in steps
    ]
    return Topic(
        name="returns",
        title="Diminishing returns of further points",
        unit=f"{findings.metric} per doubling",
        population="seeds",
        text=_text(runs, findings, steps, claims),
        columns=COLUMNS,
        claims=claims,
    )


def _step(runs: StudyRuns, series: Series, few: Arm, many: Arm, confidence: float) -> Claim:
    """One step; a gain is an improvement, whether large or small is good."""
    sign = direction(runs.objective["mode"])
    more, fewer = seed_table([many, few])
    gain = scaled(paired_difference(more, fewer, confidence), sign)
    counts = (few.scientific[POINTS], many.scientific[POINTS])
    values: dict[str, Any] = {"seeds": gain.num_seeds, **named("gain", gain)}
    cost, further = cost_of(runs, few), cost_of(runs, many)
    if cost and further and further.hours > cost.hours:
        hours = further.hours - cost.hours
        values |= {"hours": hours, **named("per_hour", scaled(gain, 1 / hours))}
    return Claim(
        subject=series.subject(" to ".join(level_text(count) for count in counts)),
        estimate=scaled(gain, 1 / log2(counts[1] / counts[0])),
        values=values,
        verdict=VERDICTS[sign_of(gain)],
        run_ids=[*few.run_ids, *many.run_ids],
    )


def _text(runs: StudyRuns, findings: Findings, steps: list[_Step], claims: list[Claim]) -> str:
    """Which steps gain, what these gain per hour, and which surely gain less than the margin."""
    texts = []
    for verdict in VERDICTS.values():
        if said := [
            _step_text(*step, verdict) for step, claim in zip(steps, claims, strict=True) if claim.verdict == verdict
        ]:
            texts.append(first_of(said, 3))
    margin = runs.objective["margin"]
    parts = [_sentence("; ".join(texts))]
    gains = [claim for claim in claims if claim.verdict == "gains" and "per_hour" in claim.values]
    if gains:
        hourly = [f"{claim.values['per_hour']:.4f} from {claim.subject}" for claim in gains]
        parts.append(f"In {findings.metric}, an hour of annotation gains {listed(hourly)}.")
    small = [claim.subject for claim in claims if _surely_below(claim.estimate, margin)]
    if small:
        parts.append(f"A doubling gains less than the margin of {margin:g} for sure from {listed(small)}.")
    return " ".join(parts)


def _step_text(series: Series, few: Arm, many: Arm, verdict: str) -> str:
    fewer, more = (level_text(arm.scientific[POINTS]) for arm in (few, many))
    return series.subject(f"{more} points {COMPARED[verdict]} {fewer}")


def _surely_below(estimate: Estimate | None, margin: float) -> bool:
    return estimate is not None and estimate.high is not None and estimate.high < margin


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
