"""What a study still has to do: explore, then confirm. It knows neither Ray nor files, and says what to write down.

Whoever drives it starts the trials that `next_trial` gives, and says how each `ended`. What must not be forgotten goes
to `record`, as ledger events, before it is acted upon.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from study.confirmation import confirmation_trials, find_winners, levels_without_winner
from study.design import Cell, Trial
from study.exploration import Exploration, Proposal, TrialOutcome
from study.spec import StudySpec

Event = dict[str, Any]
Lookup = Callable[[Trial, bool], TrialOutcome | None]
"""(trial, whether a scheduler stopped it) -> how it ended by its own directory; None where it must (still) be run."""


class Agenda:
    """The trials of a study, known and to come.

    Attributes:
        outcomes: trial id -> how it ended, of both phases.
        record: takes ledger events; whoever only plans leaves it as it is.
        explores: whether exploration is to be run.
        confirms_winners: whether the winners of exploration are to be confirmed.
    """

    def __init__(self, spec: StudySpec, fingerprint: str, events: Iterable[Event], lookup: Lookup) -> None:
        self.spec, self.fingerprint, self.lookup = spec, fingerprint, lookup
        self.exploration = Exploration(spec, fingerprint)
        self.outcomes: dict[str, TrialOutcome] = {}
        self.record: Callable[[Event], None] = lambda event: None
        self.explores = self.confirms_winners = True
        self._given: list[Cell] = []
        self._extra_seeds: list[tuple[Cell, list[int]]] = []
        self._confirming: dict[str, Trial] = {}
        self._queue: deque[Trial] = deque()
        self._only: set[str] | None = None
        self._are_winners_listed = False
        for event in events:
            self._replay(event)
        self._look_up(self.exploration.trials)
        self.exploration.drop_surplus()
        self._confirm(self._given)
        self.list_winners()

    def adopt(self, found: Iterable[tuple[str, Cell]]) -> list[Proposal]:
        """Takes up (trial id, cell) of explored trials that are on disk and no event speaks of; returns what is new."""
        adopted = self.exploration.adopt(found)
        self._look_up([trial for each in adopted for trial in each.trials])
        self.list_winners()
        return adopted

    def confirm_alone(self, cells: list[Cell]) -> None:
        """No exploration any more: confirms these cells, whatever exploration says, or without any the winners."""
        self.explores = False
        if cells:
            self.confirms_winners = False
            self.record({"event": "confirming", "cells": cells, "given": True})
            self._give(cells)
            wanted = self._confirm(cells)
            self._queue = deque(trial for trial in wanted if not self.is_done(trial))
            self._only = {trial.trial_id for trial in wanted}

    def extend(self, levels: list[Cell], seeds: list[int]) -> None:
        """Further confirmation seeds at some scientific levels."""
        for level in levels:
            self.record({"event": "extended", "phase": "confirm", "level": level, "seeds": seeds})
            self._extra_seeds.append((level, seeds))
        self._are_winners_listed = False
        self._confirm(self._given)
        self.list_winners()

    def next_trial(self) -> Trial | None:
        """The next trial to start. None: there is nothing to start now; more may come when a live trial has ended."""
        if self.explores and (trial := self._next_exploration()):
            return trial
        if not self._queue and self.confirms_winners:
            self.list_winners()
        return self._queue.popleft() if self._queue else None

    def ended(self, trial: Trial, outcome: TrialOutcome) -> Proposal | None:
        """Notes how a trial ended; returns the proposal that this settled."""
        self.outcomes[trial.trial_id] = outcome
        return self.exploration.ended(trial.trial_id, outcome) if trial.trial_id in self.exploration else None

    @property
    def exploration_is_complete(self) -> bool:
        """Whether every setting that is wanted was tried, and none failed."""
        open_ones = [t for t in self.exploration.trials if not self.is_done(t)]
        return not open_ones and not self.exploration.num_to_propose

    def list_winners(self) -> None:
        """Lists the confirmation trials of the winners, once exploration is complete and where the study wants them."""
        if self._are_winners_listed or not self.spec.confirm or not self.exploration_is_complete:
            return
        self._are_winners_listed = True
        winners = find_winners(self.spec, self.exploration)
        trials = self._confirm(winners)
        if not all(self.is_done(trial) for trial in trials):
            self.record({"event": "confirming", "cells": winners, "trials": [trial.trial_id for trial in trials]})

    @property
    def trials(self) -> list[Trial]:
        """Every known trial of the study as it stands, exploration first."""
        return [*self.exploration.trials, *self._confirming.values()]

    @property
    def extensions(self) -> list[list[int]]:
        """The seeds of each addition to confirmation; one addition to several levels is one."""
        return [list(seeds) for seeds in dict.fromkeys(tuple(seeds) for _, seeds in self._extra_seeds)]

    @property
    def missing(self) -> list[Trial]:
        """Known trials that are not done and that this agenda is to run."""
        return [trial for trial in self.trials if not self.is_done(trial) and self.is_wanted(trial)]

    def is_wanted(self, trial: Trial) -> bool:
        """Whether the trial is to be run where it is not done: all are, unless cells are confirmed alone."""
        if trial.phase == "explore":
            return self.explores
        return self._only is None or trial.trial_id in self._only

    @property
    def are_winners_to_come(self) -> bool:
        """Whether winners are to be confirmed that are not known yet."""
        return bool(self.spec.confirm) and self.confirms_winners and not self._are_winners_listed

    @property
    def problems(self) -> list[str]:
        """What no further trial would mend."""
        if not self.spec.confirm or not self.exploration_is_complete:
            return []
        return [
            f"{level}: no setting ran to its end: nothing to confirm"
            for level in levels_without_winner(self.exploration)
        ]

    def is_done(self, trial: Trial) -> bool:
        """Whether the trial needs no more running."""
        outcome = self.outcomes.get(trial.trial_id)
        return outcome is not None and outcome.state != "failed"

    def _next_exploration(self) -> Trial | None:
        known = len(self.exploration.proposals)
        trial = self.exploration.next_trial()
        for proposal in self.exploration.proposals[known:]:
            self.record(proposed_event(proposal))
        return trial

    def _give(self, cells: list[Cell]) -> None:
        for cell in cells:
            if cell not in self._given:
                self._given.append(cell)

    def _confirm(self, cells: list[Cell]) -> list[Trial]:
        """Lists the confirmation of these cells, and queues what of it is new; returns all of it."""
        trials = confirmation_trials(self.spec, self.fingerprint, cells, self._extra_seeds)
        by_id = {trial.trial_id: trial for trial in trials}  # a seed may have been given twice
        new = [trial for trial_id, trial in by_id.items() if trial_id not in self._confirming]
        self._confirming |= {trial.trial_id: trial for trial in new}
        self._look_up(new)
        self._queue.extend(trial for trial in new if not self.is_done(trial))
        return list(by_id.values())

    def _look_up(self, trials: Iterable[Trial]) -> None:
        for trial in trials:
            if trial.trial_id not in self.outcomes and (outcome := self.lookup(trial, False)):
                self.ended(trial, outcome)

    def _replay(self, event: Event) -> None:
        kind = event["event"]
        if kind == "proposed":
            self.exploration.replay(event["level"], event["setting"], event["trials"])
        elif kind == "trial_ended" and event["phase"] == "explore":
            self._replay_end(event)
        elif kind == "confirming" and event.get("given"):
            self._give([cell for cell in event["cells"] if self._is_ours(cell)])
        elif kind == "extended":
            self._extra_seeds.append((event["level"], event["seeds"]))

    def _replay_end(self, event: Event) -> None:
        """A searcher learns of the ends in the order in which they came; the trial's own directory says what came."""
        proposal = self.exploration.proposal_of(event["trial_id"])
        if proposal is None or event["trial_id"] in self.outcomes:
            return
        (trial,) = (each for each in proposal.trials if each.trial_id == event["trial_id"])
        was_stopped = event["state"] == "stopped" and self.spec.search.scheduler != "none"
        if outcome := self.lookup(trial, was_stopped):
            self.ended(trial, outcome)

    def _is_ours(self, cell: Mapping[str, object]) -> bool:
        return cell.keys() == self.spec.parameters.keys()


def proposed_event(proposal: Proposal) -> Event:
    """What the ledger keeps of a proposal."""
    trials = [trial.trial_id for trial in proposal.trials]
    return {
        "event": "proposed",
        "level": proposal.level,
        "setting": proposal.setting,
        "number": proposal.number,
        "trials": trials,
    }
