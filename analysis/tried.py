"""How many settings the winner of a level was chosen among, and what that does to verdicts that nobody confirmed.

The more settings exploration tried at a level, the more the best of them is flattered by the seeds that chose it. Where
one level has a clear winner and the other ties, nominal 95 % intervals over 8 seeds miss in up to 9 % of simulated
studies with six settings tied, in some 18 % with 20, and in some 26 % with 50.
"""

from analysis.findings import FactorFinding
from analysis.grid import Exploration
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import EXPLORE

MOST_TRIED = 6
"""Of more settings at a level than these, verdicts on the same seeds are provisional."""


def too_many_tried(runs: StudyRuns, exploration: Exploration, phase: str, scientific: list[FactorFinding]) -> str:
    """Why verdicts on scientific levels stay provisional until fresh seeds confirm them; empty where they need not."""
    tried = max((len(rows) for rows in exploration.candidates.by_level(runs.parameters).values()), default=0)
    if phase != EXPLORE or tried <= MOST_TRIED or not any(len(factor.levels) > 1 for factor in scientific):
        return ""
    return f"chosen among {tried} settings on the same seeds, and not confirmed"
