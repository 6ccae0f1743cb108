"""Every topic that a study has something to say about, in the order in which a reader meets them."""

from collections.abc import Callable

from analysis.findings import Findings, Topic
from analysis.reading.runs import StudyRuns
from analysis.topics.budget import find_budget
from analysis.topics.curse import find_curse
from analysis.topics.dense import find_dense
from analysis.topics.effort import find_effort
from analysis.topics.importance import find_importance
from analysis.topics.interactions import find_interactions
from analysis.topics.power import find_power
from analysis.topics.returns import find_returns
from analysis.topics.scenes import find_scenes
from analysis.topics.stability import find_stability
from analysis.topics.variance import find_variance

TOPICS: tuple[Callable[[StudyRuns, Findings], Topic | None], ...] = (
    find_power,
    find_returns,
    find_dense,
    find_stability,
    find_interactions,
    find_variance,
    find_scenes,
    find_curse,
    find_importance,
    find_effort,
    find_budget,
)
"""Each returns None where the study does not bear on it: no guess, no empty table."""


def find_topics(runs: StudyRuns, findings: Findings) -> list[Topic]:
    """The topics of a study whose arms and factors are found."""
    return [topic for find_topic in TOPICS if (topic := find_topic(runs, findings))]
