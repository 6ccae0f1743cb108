"""Optuna's TPE: settings like the good ones so far and unlike the others; for one objective or for two.

The factors are modelled jointly (`multivariate`): learning rate and focal gamma interact. Not in groups:
none of them is there only for some values of another. NSGA-II, which is made for two objectives, needs several
generations of fifty settings; a study has some dozens.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from study.effort import setting_seconds
from study.search import Outcome
from study.search_memory import Memory
from study.search_random import draw_settings
from study.sections import Effort
from study.space import Axis, Choice, Setting

NUM_PROBES = 4  # TPE repeats itself in small spaces of values, and each probe costs a look at all that was told


@dataclass(frozen=True)
class Goal:
    """What is optimised.

    Attributes:
        directions: of each objective.
        values: (setting, mean of the metric) -> the objectives.
    """

    directions: Sequence[Literal["minimize", "maximize"]]
    values: Callable[[Setting, float], Sequence[float]]


metric_alone = Goal(["maximize"], lambda setting, value: [value])


def against_effort(effort: Effort) -> Goal:
    """The metric against the seconds that an image takes; where the number of images is searched too, all of them."""
    return Goal(["maximize", "minimize"], lambda setting, value: [value, setting_seconds(setting, effort)])


class OptunaSearcher:
    """An Optuna study in memory, rebuilt from what was asked and told.

    Args:
        memory: of the search.
        goal: what is optimised.
        seed: (number of the proposal, attempt) -> seed. Every draw has a sampler of its own, so that nothing but asked
            and told settings is carried from one proposal to the next.
    """

    def __init__(self, memory: Memory, goal: Goal, seed: Callable[[int, int], int]) -> None:
        self._memory, self._goal, self._seed = memory, goal, seed
        self._distributions = {name: _to_distribution(axis) for name, axis in memory.space.axes.items()}
        self._settings: list[Setting] = []
        self._outcomes: dict[tuple[object, ...], Outcome] = {}
        self._begin()

    def ask(self) -> Setting | None:
        """See `Searcher`."""
        setting = self._memory.choose(self._candidates(self._memory.number))
        if setting is not None:
            self._settings.append(setting)
            self._register(setting)
        return setting

    def replay(self, setting: Setting) -> None:
        """See `Searcher`."""
        if self._memory.add(setting):
            self._settings.append(setting)
            self._register(setting)

    def tell(self, setting: Setting, outcome: Outcome) -> None:
        """See `Searcher`."""
        self._memory.require(setting)
        if not self._memory.space.contains(setting):
            return
        key = self._memory.key(setting)
        before = self._outcomes.get(key)
        self._outcomes[key] = outcome
        if before is None:
            self._finish(setting, outcome)
        elif before != outcome:  # Optuna keeps no second outcome: a trial that failed was run again
            self._begin()

    def _begin(self) -> None:
        """A new Optuna study of everything that was asked and told."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(directions=self._goal.directions)
        self._trials: dict[tuple[object, ...], optuna.Trial] = {}
        for setting in self._settings:
            self._register(setting)
            if outcome := self._outcomes.get(self._memory.key(setting)):
                self._finish(setting, outcome)

    def _candidates(self, number: int) -> Iterator[Setting]:
        for attempt in range(NUM_PROBES):
            yield self._probe(self._seed(number, attempt))
        yield from draw_settings(self._memory.space, self._seed(number, NUM_PROBES))

    def _probe(self, seed: int) -> Setting:
        """What TPE would try next. Its trial is given up: the one that counts has rounded numbers, as in the ledger."""
        self._study.sampler = _Sampler(self._distributions, seed)
        trial = self._study.ask(self._distributions)
        self._study.tell(trial, state=TrialState.FAIL)
        return self._memory.space.rounded(trial.params)

    def _register(self, setting: Setting) -> None:
        """Makes the setting a running trial, which TPE takes for a bad one until its outcome is told."""
        self._study.enqueue_trial(dict(setting))
        self._trials[self._memory.key(setting)] = self._study.ask(self._distributions)

    def _finish(self, setting: Setting, outcome: Outcome) -> None:
        trial = self._trials[self._memory.key(setting)]
        if outcome.value is not None:
            self._study.tell(trial, list(self._goal.values(setting, outcome.value)))
            return
        # TPE passes over failed trials, which say nothing about the setting. It ranks pruned ones below all complete
        # ones: first those with values, the longest first; then those without, which here are the diverged.
        if outcome.state == "stopped" and len(self._goal.directions) == 1:  # of two objectives it knows no steps
            for epoch, value in outcome.steps:
                trial.report(value, epoch)
        self._study.tell(trial, state=TrialState.FAIL if outcome.state == "failed" else TrialState.PRUNED)


class _Sampler(TPESampler):
    """TPE of a space that is known: by itself it would infer it anew, for each proposal, from all trials."""

    def __init__(self, distributions: dict[str, BaseDistribution], seed: int) -> None:
        super().__init__(seed=seed, multivariate=True)
        self._known_space = {name: each for name, each in distributions.items() if not each.single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See `TPESampler`."""
        return self._known_space


def _to_distribution(axis: Axis) -> BaseDistribution:
    if isinstance(axis, Choice):
        return CategoricalDistribution(axis.levels)
    # Integers too: they are rounded here, and Optuna's own are ten times slower.
    return FloatDistribution(*axis.bounds, log=axis.is_log)
