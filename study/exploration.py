"""Exploration: which trial comes next, and what is known of every setting. One search per scientific level.

A setting is run once at each seed, and its searcher is told the mean. A grid is listed from the start and runs seed
block by seed block; other settings are proposed when there is room for a trial, the levels taking turns.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from study.design import Cell, Trial, level_of, list_cells, list_levels, make_trial, nuisance_factors
from study.search import Outcome, Searcher, make_searcher
from study.space import Space
from study.spec import StudySpec

State = Literal["completed", "stopped", "infeasible", "failed"]


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended.

    Attributes:
        value: the objective; None unless completed.
        steps: (epoch, objective) of the epochs trained.
    """

    state: State
    value: float | None = None
    steps: tuple[tuple[int, float], ...] = ()


@dataclass
class Proposal:
    """One setting at one scientific level, with a trial for each seed."""

    level: Cell
    setting: Cell
    number: int
    trials: list[Trial]
    outcomes: dict[str, TrialOutcome] = field(default_factory=dict)
    is_settled: bool = False

    @property
    def cell(self) -> Cell:
        """All levels."""
        return self.trials[0].parameters

    @property
    def wanted(self) -> list[Trial]:
        """The trials to be run: a setting that a scheduler stopped at one seed cannot win, so others are spared."""
        if all(outcome.state != "stopped" for outcome in self.outcomes.values()):
            return self.trials
        return [trial for trial in self.trials if trial.trial_id in self.outcomes]

    @property
    def outcome(self) -> Outcome | None:
        """Over all seeds, as a searcher is told; None while trials are open."""
        if len(self.outcomes) < len(self.wanted):
            return None
        found = {outcome.state: outcome for outcome in reversed(self.outcomes.values())}
        for state in ("stopped", "failed", "infeasible"):
            if state in found:
                return Outcome(state, None, found[state].steps)
        return Outcome("completed", fmean(each.value for each in self.outcomes.values() if each.value is not None))


class Exploration:
    """All proposals of a study and their outcomes."""

    def __init__(self, spec: StudySpec, fingerprint: str) -> None:
        self.spec, self.fingerprint = spec, fingerprint
        self.proposals: list[Proposal] = []
        self._by_trial: dict[str, Proposal] = {}
        self._levels = [_Level(level) for level in list_levels(spec)]
        self._space = Space(nuisance_factors(spec))
        self._queue: deque[Trial] = deque()
        if spec.search.method == "grid":
            self._list_grid()
        else:
            for each in self._levels:
                each.searcher = make_searcher(spec, each.level)

    def replay(self, level: Cell, setting: Cell, trial_ids: list[str]) -> None:
        """Takes up what an earlier session proposed, where it is part of the study as it stands."""
        found = next((each for each in self._levels if each.level == level), None)
        is_known = found is None or any(each.setting == setting for each in found.proposals)
        if found is None or is_known or not self._space.contains(setting):
            return
        trials = self._trials(level, setting)
        if found.searcher and any(trial.trial_id in trial_ids for trial in trials):  # else of other fixed settings
            found.searcher.replay(setting)
            self._add(found, setting, trials)

    def adopt(self, found: Iterable[tuple[str, Cell]]) -> list[Proposal]:
        """Takes up (trial id, cell) of trials that exist without a record of who proposed them; returns what is new."""
        known = len(self.proposals)
        for trial_id, cell in found:
            level = level_of(self.spec, cell)
            self.replay(level, {name: value for name, value in cell.items() if name not in level}, [trial_id])
        return self.proposals[known:]

    def ended(self, trial_id: str, outcome: TrialOutcome) -> Proposal | None:
        """Notes a trial's end and tells the searcher once its setting is settled.

        Returns:
            The proposal, where this settled it.
        """
        proposal = self._by_trial[trial_id]
        proposal.outcomes[trial_id] = outcome
        settled = proposal.outcome
        if settled is None or proposal.is_settled:
            return None
        proposal.is_settled = True
        searcher = next(each.searcher for each in self._levels if each.level == proposal.level)
        if searcher:
            searcher.tell(proposal.setting, settled)
        return proposal

    def proposal_of(self, trial_id: str) -> Proposal | None:
        """The proposal that a trial belongs to, where it is part of the exploration."""
        return self._by_trial.get(trial_id)

    def __contains__(self, trial_id: str) -> bool:
        return trial_id in self._by_trial

    def drop_surplus(self) -> None:
        """Forgets proposals beyond `trials_per_level`, which may have been lowered, of which no trial has ended."""
        most = self.spec.search.trials_per_level
        for each in self._levels:
            surplus = [p for p in each.proposals[most:] if not p.outcomes] if most is not None else []
            for proposal in surplus:
                each.proposals.remove(proposal)
                self.proposals.remove(proposal)
                for trial in proposal.trials:
                    del self._by_trial[trial.trial_id]
                    self._queue.remove(trial)

    def next_trial(self) -> Trial | None:
        """The next trial to start. None: nothing is left to start."""
        while self._queue:
            trial = self._queue.popleft()
            if self._is_open(trial):
                return trial
        return self.next_trial() if self.propose() else None

    def propose(self) -> Proposal | None:
        """Asks the level with the fewest proposals for a further one. None: all searches are exhausted."""
        for each in sorted(self._levels, key=lambda each: len(each.proposals)):
            if each.searcher and not each.is_exhausted:
                setting = each.searcher.ask()
                if setting is not None:
                    return self._add(each, setting, self._trials(each.level, setting))
                each.is_exhausted = True
        return None

    @property
    def trials(self) -> list[Trial]:
        """Every known trial that counts."""
        return [trial for proposal in self.proposals for trial in proposal.wanted]

    @property
    def num_to_propose(self) -> int:
        """Settings that the searches may yet propose."""
        if self.spec.search.method == "grid":
            return 0
        wanted = self.spec.search.trials_per_level or 0
        most = wanted if self._space.size is None else min(wanted, self._space.size)
        return sum(max(0, most - len(each.proposals)) for each in self._levels if not each.is_exhausted)

    def _is_open(self, trial: Trial) -> bool:
        proposal = self._by_trial[trial.trial_id]
        return trial.trial_id not in proposal.outcomes and trial in proposal.wanted

    def _list_grid(self) -> None:
        by_level = {tuple(each.level.items()): each for each in self._levels}
        for cell in list_cells(self.spec):
            level = level_of(self.spec, cell)
            setting = {name: value for name, value in cell.items() if name not in level}
            self._add(by_level[tuple(level.items())], setting, self._trials(level, setting))
        # Seed block by seed block: a study stopped early still holds whole blocks. Within one the levels take turns.
        order = sorted(self.proposals, key=lambda each: each.number)
        self._queue = deque(trial for block in zip(*(each.trials for each in order), strict=True) for trial in block)

    def _add(self, level: "_Level", setting: Cell, trials: list[Trial]) -> Proposal:
        proposal = Proposal(level.level, setting, len(level.proposals), trials)
        level.proposals.append(proposal)
        self.proposals.append(proposal)
        self._by_trial.update({trial.trial_id: proposal for trial in trials})
        self._queue.extend(trials)
        return proposal

    def _trials(self, level: Mapping[str, object], setting: Cell) -> list[Trial]:
        both = {**level, **setting}
        cell = {name: both[name] for name in self.spec.parameters}  # in the order of the file
        return [make_trial(self.spec, self.fingerprint, cell, seed) for seed in self.spec.search.seeds]  # type: ignore


@dataclass
class _Level:
    """One scientific level: its searcher, which a grid does without, and what was proposed."""

    level: Cell
    searcher: Searcher | None = None
    is_exhausted: bool = False
    proposals: list[Proposal] = field(default_factory=list)
