"""A driver at work: what it does with every event of a trial, whoever runs the trials.

It writes each event to the ledger before it acts on it, asks the agenda what comes next, and shows what happens in the
terminal, in W&B and in Optuna's journal.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cluster.interrupts import Interrupts
from cluster.limits import Limits
from cluster.optuna_journal import Entry, OptunaJournal
from cluster.preparation import Work, find_outcome
from cluster.progress import Progress
from study.design import Trial
from study.exploration import Proposal, TrialOutcome
from trainable.trial_files import Row, read_result, read_rows

STUCK = "W&B"
"""Named in place of a trial where the mirror did not end in time."""


class StopRunError(Exception):
    """The run ends before the study is done."""


class Shown(Protocol):
    """Where trials are shown besides the terminal."""

    def update(self, trial: Trial, *, was_stopped: bool = False) -> None:
        """The trial has new rows, or has ended."""


@dataclass
class Session:
    """One driver's run of a study.

    Attributes:
        append: writes events to the ledger.
        num_at_once: trials that may run at the same time.
        failures: trial name and reason, for those that failed for good.
        live: trial id -> trial, of those that run or wait for a node.
    """

    work: Work
    append: Callable[..., None]
    limits: Limits
    progress: Progress
    mirror: Shown
    interrupts: Interrupts
    num_at_once: int
    journal: OptunaJournal
    failures: list[str] = field(default_factory=list)
    live: dict[str, Trial] = field(default_factory=dict)

    def next_trial(self) -> Trial | None:
        """The next trial to start; None while there is no room, or nothing to start."""
        if len(self.live) >= self.num_at_once or not self.limits.allows_another_trial:
            return None
        trial = self.work.agenda.next_trial()
        if trial:
            self.append({"event": "trial_started", "trial_id": trial.trial_id, "phase": trial.phase})
            self.limits.trial_chosen(trial.trial_id)
            if proposal := self._proposal(trial):
                self.journal.started(proposal.level, proposal.number)
            self.live[trial.trial_id] = trial
        return trial

    @property
    def is_over(self) -> bool:
        """Whether no trial runs or waits; then a `next_trial` that gives none means that none will come."""
        return not self.live

    def started(self, trial: Trial) -> None:
        """A trial has got a node."""
        self.limits.trial_started(trial.trial_id)

    def paused(self, trial: Trial) -> None:
        """A trial has lost its node, or failed, and waits to go on."""
        self.limits.trial_paused(trial.trial_id)

    def epoch(self, trial: Trial, row: Row) -> None:
        """A trial has finished an epoch."""
        if self.work.remote:
            self.work.remote.pull_rows(trial.trial_id)
        self.mirror.update(trial)
        self.progress.epoch(trial, row)
        proposal = self._proposal(trial)
        if proposal and trial == proposal.trials[0]:  # the first seed stands for the setting while it runs
            metric = self.work.spec.objective.metric
            self.journal.epoch(proposal.level, proposal.number, int(row["epoch"]), row[metric])

    def ended(self, trial: Trial, *, stopped_at: int | None = None) -> None:
        """A trial has reached its end: its own, or the one that a scheduler set after that epoch."""
        self._fetch(trial)
        metric = self.work.spec.objective.metric
        outcome = find_outcome(self.work.trial_folder(trial), metric, was_stopped=stopped_at is not None)
        if outcome is None:
            self.failed(trial, "it ended without a result")
            return
        rows = read_rows(self.work.trial_folder(trial))
        self._settle(trial, outcome, rows)
        self.mirror.update(trial, was_stopped=outcome.state == "stopped")
        self.progress.ended(trial, outcome.state, rows)

    def failed(self, trial: Trial, reason: str) -> None:
        """A trial has failed for good."""
        self._fetch(trial)
        self.failures.append(f"{trial.name}: {reason}")
        self._settle(trial, TrialOutcome("failed"), read_rows(self.work.trial_folder(trial)), reason)
        self.mirror.update(trial)
        self.progress.failure(trial, reason)

    def check(self) -> None:
        """Ends the run where a signal or a limit asks for it.

        Raises:
            StopRunError: says why.
        """
        if reason := self.interrupts.received or self.work.trouble or self.limits.reached():
            raise StopRunError(reason)

    def _fetch(self, trial: Trial) -> None:
        """Brings the files of a trial that has ended to where they are read."""
        if self.work.remote:
            self.work.remote.pull_trial(trial.trial_id)

    def _settle(self, trial: Trial, outcome: TrialOutcome, rows: list[Row], reason: str = "") -> None:
        self.append(ended_event(trial, outcome, rows, reason))
        self.live.pop(trial.trial_id, None)
        self.limits.trial_ended(trial.trial_id, reason)
        settled = self.work.agenda.ended(trial, outcome)
        if settled and settled.outcome:
            why = reason or infeasible_reason(self.work, settled)
            self.journal.ended(settled.level, settled.number, settled.outcome, why)

    def _proposal(self, trial: Trial) -> Proposal | None:
        return self.work.agenda.exploration.proposal_of(trial.trial_id)


def journal_entries(work: Work) -> list[Entry]:
    """Every setting as Optuna's journal shows it."""
    return [_entry(work, proposal) for proposal in work.agenda.exploration.proposals]


def _entry(work: Work, proposal: Proposal) -> Entry:
    metric = work.spec.objective.metric
    rows = read_rows(work.trial_folder(proposal.trials[0]))
    return Entry(
        level=proposal.level,
        number=proposal.number,
        setting=proposal.setting,
        trial_ids=[trial.trial_id for trial in proposal.trials],
        steps=[(int(row["epoch"]), row[metric]) for row in rows],
        outcome=proposal.outcome,
        reason=infeasible_reason(work, proposal),
    )


def infeasible_reason(work: Work, proposal: Proposal) -> str:
    """Why a setting diverged, at the first seed that did; empty where none did."""
    results = [read_result(work.trial_folder(trial)) for trial in proposal.trials]
    return next((result["reason"] for result in results if result and result["reason"]), "")


def ended_event(trial: Trial, outcome: TrialOutcome, rows: list[Row], reason: str = "") -> dict[str, Any]:
    """What the ledger keeps of a trial's end."""
    return {
        "event": "trial_ended",
        "trial_id": trial.trial_id,
        "phase": trial.phase,
        "state": outcome.state,
        "epochs": len(rows),
        "value": outcome.value,
        "time_s": rows[-1]["time/total_s"] if rows else 0.0,
        "reason": reason,
    }
