"""Every topic that a study has something to say about, in the order in which a reader meets them."""

from collections.abc import Callable

from analysis.findings import Findings, Topic
from analysis.reading.runs import StudyRuns

TOPICS: tuple[Callable[[StudyRuns, Findings], Topic | None], ...] = ()
"""Each returns None where the study does not bear on it: no guess, no empty table."""


def find_topics(runs: StudyRuns, findings: Findings) -> list[Topic]:
    """The topics of a study whose arms and factors are found."""
    return [topic for find_topic in TOPICS if (topic := find_topic(runs, findings))]
