"""What topics share: readings as a table of seeds, and estimates in another unit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.arms import additions
from analysis.costs import POINTS
from analysis.findings import SCIENTIFIC, Arm, CellFinding, Findings
from analysis.grid import level_order
from analysis.looks import num_looks, share_of_error
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import is_number
from analysis.statistics import CONFIDENCE, Estimate
from analysis.wording import settings_text
from trainable.config import DENSE

RATE, GAMMA = "learning_rate", "focal_gamma"

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """The arms that differ in points per image alone.

    Attributes:
        others: the levels of the other scientific factors.
        arms: ascending; `dense`, every pixel labelled, is the last.
    """

    others: dict[str, Any]
    arms: list[Arm]

    @property
    def numbered(self) -> list[Arm]:
        """Those with a number of points."""
        return [arm for arm in self.arms if is_number(arm.scientific[POINTS]) and arm.scientific[POINTS] > 0]

    @property
    def dense(self) -> Arm | None:
        """The one with every pixel labelled."""
        return next((arm for arm in self.arms if arm.scientific[POINTS] == DENSE), None)

    def subject(self, text: str) -> str:
        """A claim's subject, with the other levels where there are any."""
        return f"{text} ({settings_text(self.others)})" if self.others else text


def point_series(runs: StudyRuns, findings: Findings) -> list[Series]:
    """One series for every combination of the other scientific levels; none where points per image do not vary."""
    if runs.parameters.get(POINTS) != SCIENTIFIC:
        return []
    series: dict[tuple[Any, ...], Series] = {}
    for arm in sorted(findings.arms, key=lambda arm: level_order(arm.scientific[POINTS])):
        others = {name: level for name, level in arm.scientific.items() if name != POINTS}
        series.setdefault(tuple(others.values()), Series(others, [])).arms.append(arm)
    return list(series.values())


def seed_table(rows: Sequence[Arm | CellFinding]) -> Values:
    """(num_rows, num_seeds) readings, one column a seed that any row has; NaN where a row lacks it."""
    seeds = {seed: i for i, seed in enumerate(sorted({seed for row in rows for seed in row.seeds}))}
    table = np.full((len(rows), len(seeds)), np.nan)
    for i, row in enumerate(rows):
        table[i, [seeds[seed] for seed in row.seeds]] = row.readings
    return table


def jointly(num_claims: int, confidence: float) -> float:
    """Coverage of each interval so that all of so many hold together with this confidence (Bonferroni)."""
    return 1 - (1 - confidence) / max(num_claims, 1)


def claim_confidence(runs: StudyRuns, findings: Findings, pair: Sequence[Arm], num_claims: int) -> float:
    """Coverage of one difference, so that all claims hold jointly, over all looks at a study that was extended.

    Args:
        runs: the study's.
        findings: of which the arms carry the claims.
        pair: the two arms that are compared.
        num_claims: that are to hold together.
    """
    each = jointly(num_claims, CONFIDENCE)
    if not findings.is_confirmed:
        return each
    seeds = findings.seeds
    shared = [all(seed in arm.seeds for arm in pair) for seed in seeds]
    look = num_looks(np.array(shared), additions(runs, seeds, seed_table(findings.arms)))
    return 1 - (1 - each) * share_of_error(look)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """The estimate in another unit; a negative factor turns its interval round."""
    ends = sorted(end * factor for end in (estimate.low, estimate.high) if end is not None)
    low, high = ends or (None, None)
    return replace(estimate, value=estimate.value * factor, low=low, high=high)


def named(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """An estimate among a claim's values: itself and the ends of its interval; nothing where there is none."""
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def described(runs: StudyRuns, *names: str) -> float | None:
    """A number in the data's description, which anyone may have written; None where there is none."""
    found: Any = runs.data
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return float(found) if is_number(found) else None


def sign_of(estimate: Estimate) -> int:
    """1 or -1 where the whole interval lies on one side of 0; else 0, as for a single seed."""
    if estimate.low is None or estimate.high is None:
        return 0
    return int(estimate.low > 0) - int(estimate.high < 0)
