"""Diminishing returns: what each further step in points per image gains, per doubling and per hour of annotation.

Neighbouring counts alone are compared, each at its arm, paired by seed; they are named by the study and not chosen from
its results, so that all steps hold together by Bonferroni over their number.
"""

from math import log2
from typing import Any

from analysis.findings import Arm, Claim, Findings, Topic
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import is_number
from analysis.statistics import CONFIDENCE, Estimate, paired_difference
from analysis.topics.readings import POINTS, Series, described, jointly, point_series, scaled, seed_table, sign_of
from analysis.wording import level_text, listed
from study.effort import annotation_hours

VERDICTS = {1: "gains", 0: "no gain shown", -1: "loses"}
COLUMNS = {
    "gain": "gain of the step",
    "gain_low": "from",
    "gain_high": "to",
    "hours": "further hours of annotation",
    "per_hour": "gain per hour",
    "per_hour_low": "from",
    "per_hour_high": "to",
    "seeds": "seeds",
}


def find_returns(runs: StudyRuns, findings: Findings) -> Topic | None:
    """Every step between neighbouring point counts; None where fewer than two counts are numbers."""
    steps = [
        (series, few, many)
        for series in point_series(runs, findings)
        for few, many in zip(series.numbered, series.numbered[1:], strict=False)
    ]
    if not steps:
        return None
    each = jointly(len(steps), CONFIDENCE)
    claims = [_step(runs, series, few, many, each) for series, few, many in steps]
    return Topic(
        name="returns",
        title="Diminishing returns of further points",
        unit=f"{findings.metric} per doubling",
        population="seeds",
        text=_text(runs, findings, claims),
        columns=COLUMNS,
        claims=claims,
    )


def _step(runs: StudyRuns, series: Series, few: Arm, many: Arm, confidence: float) -> Claim:
    """One step; a gain is an improvement, whether large or small is good."""
    sign = 1 if runs.objective["mode"] == "max" else -1
    more, fewer = seed_table([many, few])
    gain = scaled(paired_difference(more, fewer, confidence), sign)
    counts = (few.scientific[POINTS], many.scientific[POINTS])
    hours = _hours(runs, many) - _hours(runs, few)
    values: dict[str, Any] = {"seeds": gain.num_seeds, **_named("gain", gain)}
    if hours > 0:
        values |= {"hours": hours, **_named("per_hour", scaled(gain, 1 / hours))}
    return Claim(
        subject=series.subject(" to ".join(level_text(count) for count in counts)),
        estimate=scaled(gain, 1 / log2(counts[1] / counts[0])),
        values=values,
        verdict=VERDICTS[sign_of(gain)],
        run_ids=[*few.run_ids, *many.run_ids],
    )


def _named(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _hours(runs: StudyRuns, arm: Arm) -> float:
    """Hours to label the images that the arm trains on; 0 where their number is not known."""
    asked = runs.training[arm.trial_ids[0]].get("train_images")
    images = asked if is_number(asked) else described(runs, "splits", "train", "num_images")
    return annotation_hours(arm.scientific[POINTS], int(images), runs.effort) if images else 0.0


def _text(runs: StudyRuns, findings: Findings, claims: list[Claim]) -> str:
    """Which steps gain, what these gain per hour, and which surely gain less than the margin."""
    texts = []
    for verdict, words in (
        ("gains", "More points gain from {}"),
        ("no gain shown", "no gain is shown from {}"),
        ("loses", "more points lose from {}"),
    ):
        if steps := [claim.subject for claim in claims if claim.verdict == verdict]:
            texts.append(words.format(listed(steps)))
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


def _surely_below(estimate: Estimate | None, margin: float) -> bool:
    return estimate is not None and estimate.high is not None and estimate.high < margin


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
