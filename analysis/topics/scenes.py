"""Other scenes: how far the arms and their differences would move on other scenes like the ones that were read."""

from dataclasses import replace
from typing import Any

from analysis.family import paired_family
from analysis.findings import Arm, Claim, Findings, Topic
from analysis.reading.runs import StudyRuns
from analysis.scenes import MIN_SCENES, scenes_by_arm
from analysis.statistics import Estimate, judge, mean_interval
from analysis.wording import first_of, settings_text

VERDICTS = {"within": "within the margin", "beyond": "beyond the margin", "undecided": "undecided"}
COLUMNS = {
    "subject": "level",
    "difference": "difference to the recommended level",
    "low": "from",
    "high": "to",
    "scenes": "scenes",
    "seeds": "seeds",
}


def find_scenes(runs: StudyRuns, findings: Findings) -> Topic | None:
    """Every arm, and its difference to the recommended one, paired by scene; None where no counts are at hand.

    Differences hold for all pairs of arms together, as the recommended one is chosen from the same data.
    """
    found = scenes_by_arm(runs, findings)
    if found is None:
        return None
    family = paired_family(found.values)
    chosen = findings.arms.index(findings.recommended)
    num_scenes = len(found.scenes)
    claims = [
        _claim(runs, arm, mean_interval(found.values[i]), family.get((i, chosen)), num_scenes)
        for i, arm in enumerate(findings.arms)
    ]
    return Topic(
        name="scenes",
        title="On other scenes",
        unit=findings.metric,
        population="scenes",
        text=_text(findings, claims[chosen], claims, num_scenes),
        columns=COLUMNS,
        claims=claims,
    )


def _claim(runs: StudyRuns, arm: Arm, value: Estimate, difference: Estimate | None, num_scenes: int) -> Claim:
    values: dict[str, Any] = {"scenes": num_scenes, "seeds": len(arm.seeds)}
    verdict = "recommended"
    if difference is not None:
        values |= {"difference": difference.value, "low": difference.low, "high": difference.high}
        verdict = VERDICTS[judge(difference, runs.objective["margin"], runs.objective["mode"])]
    if num_scenes < MIN_SCENES:
        verdict = "too few scenes"
    return Claim(
        subject=settings_text(arm.scientific),
        estimate=replace(value, num_seeds=len(arm.seeds)),
        values=values,
        verdict=verdict,
        run_ids=arm.run_ids,
    )


def _text(findings: Findings, recommended: Claim, claims: list[Claim], num_scenes: int) -> str:
    if num_scenes < MIN_SCENES:
        return (
            f"Too few scenes: {num_scenes} were read, and below {MIN_SCENES} nothing is claimed of others; the"
            f" intervals are shown all the same."
        )
    assert recommended.estimate is not None
    interval = recommended.estimate.text()
    text = f"On other scenes like these {num_scenes}, the recommended settings read {findings.metric} {interval}."
    if beyond := [claim.subject for claim in claims if claim.verdict == "beyond the margin"]:
        text += f" Worse by more than the margin there, too: {first_of(beyond)}."
    if undecided := [claim.subject for claim in claims if claim.verdict == "undecided"]:
        text += f" Not settled by so many scenes: {first_of(undecided)}."
    return text
