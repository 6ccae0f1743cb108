"""The dense reference: which share of what labelling every pixel reaches each point count reaches.

The share is the ratio of the two means, with Fieller's interval: the ratios that a paired t test of `values - ratio *
dense` does not reject. It covers as claimed for normal noise, whatever the ratio; a mean of ratios would not be one.
Every count is held against one named reference, so that all hold together by Bonferroni over their number; of a study
that was extended, over all looks at it.

Source: Fieller 1954, "Some problems in interval estimation".
"""

from math import sqrt

import numpy as np

from analysis.costs import POINTS
from analysis.findings import Arm, Claim, Findings, Topic
from analysis.reading.runs import StudyRuns
from analysis.statistics import Estimate, judge, paired_difference, t_quantile
from analysis.topics.readings import Series, Values, claim_confidence, point_series, seed_table
from analysis.wording import listed, percent, points_text

VERDICTS = {"within": "within the margin", "beyond": "beyond the margin", "undecided": "undecided"}
COLUMNS = {
    "subject": "labels",
    "difference": "difference to dense labels",
    "low": "from",
    "high": "to",
    "seeds": "seeds that both have",
}


def find_dense(runs: StudyRuns, findings: Findings) -> Topic | None:
    """Every point count against the dense arm; None where there is none, or nothing to hold against it."""
    pairs = [
        (series, arm, series.dense)
        for series in point_series(runs, findings)
        if series.dense
        for arm in series.numbered
    ]
    if not pairs:
        return None
    claims = [
        _against_dense(runs, series, arm, dense, claim_confidence(runs, findings, [arm, dense], len(pairs)))
        for series, arm, dense in pairs
    ]
    return Topic(
        name="dense",
        title="Against labelling every pixel",
        unit=f"share of the {findings.metric} of dense labels",
        population="seeds",
        text=_text(claims, runs.objective["margin"]),
        columns=COLUMNS,
        claims=claims,
    )


def paired_ratio(values: Values, reference: Values, confidence: float) -> Estimate | None:
    """Ratio of two means, paired by seed, with Fieller's interval. Population: seeds, not scenes.

    Args:
        values: (num_seeds,) NaN where there is none.
        reference: (num_seeds,) the same seeds in the same order.
        confidence: coverage, in (0, 1).

    Returns:
        Without interval where fewer than two seeds have both, or where the reference may be 0, as it then has no ends;
        None where it is 0.
    """
    shared = ~(np.isnan(values) | np.isnan(reference))
    y, x = values[shared], reference[shared]
    n = int(shared.sum())
    if not n:
        y, x = values[~np.isnan(values)], reference[~np.isnan(reference)]
    mean_y, mean_x = float(y.mean()), float(x.mean())
    if n < 2 or not mean_x:
        return Estimate(mean_y / mean_x, None, None, n, confidence) if mean_x else None
    # (mean_y - r mean_x)^2 <= t^2 var(y - r x) / n, a quadratic in r.
    share = t_quantile(confidence, n - 1) ** 2 / n
    (var_y, cov), (_, var_x) = np.cov(y, x).tolist()
    a, b, c = mean_x**2 - share * var_x, mean_y * mean_x - share * cov, mean_y**2 - share * var_y
    if a <= 0:
        return Estimate(mean_y / mean_x, None, None, n, confidence)
    half_width = sqrt(max(b**2 - a * c, 0.0))
    return Estimate(mean_y / mean_x, (b - half_width) / a, (b + half_width) / a, n, confidence)


def _against_dense(runs: StudyRuns, series: Series, arm: Arm, dense: Arm, confidence: float) -> Claim:
    values, reference = seed_table([arm, dense])
    difference = paired_difference(values, reference, confidence)
    return Claim(
        subject=series.subject(points_text(arm.scientific[POINTS])),
        estimate=paired_ratio(values, reference, confidence),
        values={
            "difference": difference.value,
            "low": difference.low,
            "high": difference.high,
            "seeds": difference.num_seeds,
        },
        verdict=VERDICTS[judge(difference, runs.objective["margin"], runs.objective["mode"])],
        run_ids=[*arm.run_ids, *dense.run_ids],
    )


def _text(claims: list[Claim], margin: float) -> str:
    shares = [f"{claim.subject} {_verb(claim)} {_percent(claim.estimate)}" for claim in claims if claim.estimate]
    close = [claim.subject for claim in claims if claim.verdict == "within the margin"]
    end = f"Within {margin:g} of it for sure: {listed(close) or 'none'}."
    return f"Of what labelling every pixel reaches, {listed(shares)}. {end}"


def _verb(claim: Claim) -> str:
    return "reaches" if claim.subject.partition(" (")[0] == "1 point" else "reach"


def _percent(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return percent(estimate.value, 1)
    return f"{percent(estimate.value, 1)} [{percent(estimate.low, 1)}, {percent(estimate.high, 1)}]"
