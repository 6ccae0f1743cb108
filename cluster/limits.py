"""When a study must stop before it is done: its budget is used up, or trials fail one after another."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from study.agenda import Event
from study.spec import StudySpec


@dataclass
class Limits:
    """What was used of a study's budget, in all its sessions.

    Attributes:
        trained: ids of the trials that were trained to an end of any kind, or are about to be.
        wall_s: seconds that drivers were at work before this session.
        trial_s: seconds that trials trained before this session, by the epochs on disk.
    """

    spec: StudySpec
    trained: set[str] = field(default_factory=set)
    wall_s: float = 0.0
    trial_s: float = 0.0
    _started: float = field(default_factory=time.monotonic)
    _live: dict[str, float] = field(default_factory=dict)
    _failures: list[str] = field(default_factory=list)

    def trial_chosen(self, trial_id: str) -> None:
        """A trial counts, though it may still wait for a node."""
        self.trained.add(trial_id)

    def trial_started(self, trial_id: str) -> None:
        """A trial begins to use GPU-hours."""
        self._live[trial_id] = time.monotonic()

    def trial_paused(self, trial_id: str) -> None:
        """A trial has left its node, for another one or to be tried again, or never had one."""
        now = time.monotonic()
        self.trial_s += now - self._live.pop(trial_id, now)

    def trial_ended(self, trial_id: str, failure: str = "") -> None:
        """A trial has ended; `failure` says why, where it failed for good."""
        self.trial_paused(trial_id)
        self._failures = [*self._failures, failure] if failure else []

    @property
    def used_s(self) -> float:
        """Wall-clock seconds of all sessions."""
        return self.wall_s + time.monotonic() - self._started

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all sessions."""
        now = time.monotonic()
        live_s = sum(now - started for started in self._live.values())
        return (self.trial_s + live_s) * self.spec.resources.gpus_per_trial / 3600

    @property
    def allows_another_trial(self) -> bool:
        """Whether the budget of trials has room for one more."""
        most = self.spec.budget.trials
        return most is None or len(self.trained) < most

    def reached(self) -> str:
        """The limit that ends the run now, or nothing. That of trials does not: those that run may finish."""
        budget, failures = self.spec.budget, self.spec.failures
        if budget.hours is not None and self.used_s >= budget.hours * 3600:
            return f"budget.hours: {budget.hours:g} used up"
        if budget.gpu_hours is not None and self.gpu_hours >= budget.gpu_hours:
            return f"budget.gpu_hours: {budget.gpu_hours:g} used up"
        if len(self._failures) >= failures.stop_after:
            cause, count = Counter(self._failures[-failures.stop_after :]).most_common(1)[0]
            return f"{len(self._failures)} trials failed in a row, {count} of them with: {cause}"
        return ""

    def exhausted(self) -> str:
        """The limit that lets no further trial start, or nothing."""
        if not self.allows_another_trial:
            return f"budget.trials: {self.spec.budget.trials} used up"
        return self.reached()

    @property
    def failed_in_a_row(self) -> bool:
        """Whether it is failures that end the run."""
        return len(self._failures) >= self.spec.failures.stop_after


def limits_so_far(spec: StudySpec, events: Iterable[Event], trial_s: float = 0.0) -> Limits:
    """What earlier sessions used. One that was killed ended, as far as is known, with its last event.

    Args:
        spec: the study.
        events: its ledger's.
        trial_s: seconds that all trials of its folder trained.
    """
    limits, times = Limits(spec), dict[str, float]()
    session_started, last = None, 0.0
    for event in events:
        if event["event"] == "session_started":
            limits.wall_s += last - session_started if session_started is not None else 0.0
            session_started = event["time"]
        elif event["event"] == "trial_ended":
            limits.trained.add(event["trial_id"])
            times[event["trial_id"]] = event["time_s"]  # of its whole life: one that failed may have gone on since
        last = event["time"]
        if event["event"] == "session_ended" and session_started is not None:
            limits.wall_s += last - session_started
            session_started = None
    limits.wall_s += last - session_started if session_started is not None else 0.0
    limits.trial_s = max(trial_s, sum(times.values()))
    return limits
