"""Early stopping of exploration, by Ray's own rules: ASHA and median stopping.

Tune takes one scheduler per experiment, but trials may be compared within their group alone (one scientific level, one
seed block). So there is one of Ray's schedulers per group behind a single one, which also keeps from them what they are
not made for: an epoch reported twice, a result without a metric, a trial that goes on in a later session.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from study.sections import Objective, Search

EPOCH = "epoch"
MIN_SAMPLES = 3  # other trials at an epoch before their median says anything; Ray's default
NEVER = math.inf  # not merely a large number: Ray counts from minus infinity to a trial's first pause

CONTINUE, STOP = str(TrialScheduler.CONTINUE), str(TrialScheduler.STOP)


def make_scheduler(search: Search, objective: Objective, num_epochs: int) -> "GroupScheduler | None":
    """The scheduler that a study asks for; None where every trial runs to its end.

    Args:
        search: the rule and its settings.
        objective: the metric that is compared.
        num_epochs: epochs of the longest trial, more than `search.grace_epochs`.
    """
    if search.scheduler == "none":
        return None
    given: dict[str, Any] = {
        "time_attr": EPOCH,
        "metric": objective.metric,
        "mode": objective.mode,
        "grace_period": search.grace_epochs,
    }

    def asha() -> TrialScheduler:
        return AsyncHyperBandScheduler(**given, max_t=num_epochs, reduction_factor=search.reduction_factor)

    def median() -> TrialScheduler:
        return _MedianRule(**given, min_samples_required=MIN_SAMPLES, min_time_slice=NEVER, hard_stop=True)

    return GroupScheduler({"asha": asha, "median": median}[search.scheduler], objective.metric)


class GroupScheduler(FIFOScheduler):
    """Routes every result to the rule of its trial's group, `trial.config["trial"]["group"]`; "" is never stopped.

    A trial that diverged counts with the epochs it reported and not beyond, like one that was stopped: a rung holds the
    trials that came so far. Entered as the worst, it would lower the bar for the others.
    """

    # `metric` stays None: were it set, Tune would refuse the result of a diverged trial, which holds no metric.

    def __init__(self, make_rule: Callable[[], TrialScheduler], objective: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._make_rule = make_rule
        self._objective = objective
        self._groups: dict[str, _Group] = {}

    def replay(self, group: str, trial_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Enters the rows of an earlier session, so that later decisions are those of an uninterrupted one.

        The order of the trials does not matter. Nothing is decided on these rows: whether their trial was stopped is
        known already, and one that was not goes on.
        """
        for row in rows if group else ():
            self._group(group).count(trial_id, row)

    def on_trial_result(self, tune_controller: object, trial: Any, result: Mapping[str, Any]) -> str:
        """Decides whether the trial goes on after this epoch."""
        ours = trial.config["trial"]
        return self._group(ours["group"]).decide(ours["trial_id"], result) if ours["group"] else CONTINUE

    def on_trial_complete(self, tune_controller: object, trial: Any, result: Mapping[str, Any]) -> None:
        """Counts a trial's last epoch: Tune shows a result that is "done" here alone."""
        ours = trial.config["trial"]
        self.replay(ours["group"], ours["trial_id"], [result])

    def _group(self, name: str) -> "_Group":
        if name not in self._groups:
            self._groups[name] = _Group(self._make_rule(), self._objective)
        return self._groups[name]


class _MedianRule(MedianStoppingRule):
    """Ray's rule, which takes the means of all trials anew for every result; here each is taken once."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._means: dict[tuple[_Ours, float], Any] = {}

    def _running_mean(self, trial: Any, time: float) -> Any:
        # Only asked of trials that came to `time`, and epochs come in order: nothing is added to it later.
        if (trial, time) not in self._means:
            self._means[trial, time] = super()._running_mean(trial, time)
        return self._means[trial, time]


@dataclass(frozen=True)
class _Ours:
    """What Ray's rules need of a trial: its name, which is ours, as Tune's changes from session to session."""

    trial_id: str


@dataclass
class _Group:
    """Trials that are compared with each other; each epoch of each counts once.

    Attributes:
        rule: Ray's scheduler, which never sees Tune's own trials or its controller.
        last_epochs: trial id -> the last epoch that was counted.
        stopped: ids of the trials that the rule has stopped.
    """

    rule: Any
    objective: str
    last_epochs: dict[str, int] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)

    def decide(self, trial_id: str, result: Mapping[str, Any]) -> str:
        """Counts a row and decides on it; for a row that was counted before, the trial goes on as it did then."""
        if trial_id in self.stopped:
            return STOP
        row = self._new_row(trial_id, result)
        if row is None:
            return CONTINUE
        trial = _Ours(trial_id)
        self.rule.on_trial_add(None, trial)
        decision = str(self.rule.on_trial_result(None, trial, row))
        if decision == STOP:
            self.stopped.add(trial_id)
        return decision

    def count(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Counts a row without a decision, which is what Ray's rules do with the last one of a trial."""
        row = self._new_row(trial_id, result)
        if row is not None:
            trial = _Ours(trial_id)
            self.rule.on_trial_add(None, trial)
            self.rule.on_trial_complete(None, trial, row)

    def _new_row(self, trial_id: str, result: Mapping[str, Any]) -> dict[str, Any] | None:
        """Epoch and objective alone, as the rules keep what they get; None where there is nothing new to compare."""
        epoch, value = result.get(EPOCH), result.get(self.objective)
        if epoch is None or epoch <= self.last_epochs.get(trial_id, 0):
            return None
        self.last_epochs[trial_id] = epoch
        return {EPOCH: epoch, self.objective: value} if value is not None and math.isfinite(value) else None
