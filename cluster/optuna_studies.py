"""A study's settings as Optuna studies, in whatever storage: one study per scientific level, one trial per setting."""

import hashlib
import json
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.design import Cell, level_name
from study.search import Outcome
from study.search_optuna import against_effort, metric_alone
from study.space import Axis, Choice, Setting, Space
from study.spec import StudySpec

EFFORT_PER_IMAGE, EFFORT = "annotation_s_per_image", "annotation_s"
VERSION = "study_file"
STATES = {
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,  # without a value, as it is never compared with one that reached its end
    "infeasible": TrialState.FAIL,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Entry:
    """A setting that was proposed, as the study's own records have it.

    Attributes:
        number: of the proposal at its level, from 0 without gaps.
        trial_ids: one per seed.
        steps: (epoch, objective) of the first seed.
        outcome: over all seeds; None while trials are open.
        reason: why it failed or diverged.
    """

    level: Cell
    number: int
    setting: Setting
    trial_ids: Sequence[str]
    steps: Sequence[tuple[int, float]] = ()
    outcome: Outcome | None = None
    reason: str = ""


class OptunaStudies:
    """Writes settings to a storage. What is there already is not written again."""

    def __init__(self, spec: StudySpec, storage: BaseStorage) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", ".*set_metric_names is experimental", ExperimentalWarning)
        self._spec = spec
        self._version = hashlib.sha256(json.dumps(spec.to_mapping(), sort_keys=True).encode()).hexdigest()[:12]
        self._storage = storage
        self._goal = against_effort(spec.effort) if spec.search.method == "optuna_pareto" else metric_alone
        self._distributions = {name: _to_distribution(axis) for name, axis in Space(spec.parameters).axes.items()}
        self._studies = {name: optuna.load_study(study_name=name, storage=storage) for name in _study_names(storage)}
        self._trial_ids = {(name, trial.number): trial._trial_id for name in self._studies for trial in self._of(name)}

    def bring_to(self, history: Iterable[Entry]) -> None:
        """Writes what the history holds and the storage does not."""
        for entry in history:
            self.propose(entry)
            for epoch, value in entry.steps:
                self.report(entry.level, entry.number, epoch, value)
            if entry.outcome:
                self.end(entry.level, entry.number, entry.outcome, entry.reason)

    def propose(self, entry: Entry) -> None:
        """Adds a setting as a trial that waits."""
        name = self._name(entry.level)
        study = self._study(name)
        if (name, entry.number) not in self._trial_ids:
            trial = create_trial(
                state=TrialState.WAITING,
                params=dict(entry.setting),
                distributions=self._distributions,
                user_attrs={"trial_ids": list(entry.trial_ids)},
            )
            trial_id = self._storage.create_new_trial(study._study_id, trial)
            self._trial_ids[name, self._storage.get_trial(trial_id).number] = trial_id

    def start(self, level: Cell, number: int) -> None:
        """Marks a setting as running."""
        trial = self._trial(level, number)
        if trial.state == TrialState.WAITING:
            self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)

    def report(self, level: Cell, number: int, epoch: int, value: float) -> None:
        """Adds an epoch of a running setting; a value that is no number cannot be drawn."""
        self.start(level, number)
        trial = self._trial(level, number)
        if not trial.state.is_finished() and epoch not in trial.intermediate_values and math.isfinite(value):
            self._storage.set_trial_intermediate_value(trial._trial_id, epoch, value)

    def end(self, level: Cell, number: int, outcome: Outcome, reason: str = "") -> None:
        """Sets a setting's end, after which Optuna lets nothing of it be changed."""
        self.start(level, number)
        trial = self._trial(level, number)
        if trial.state.is_finished():
            return
        for name, text in {"state": outcome.state, "reason": reason}.items():
            if text:
                self._storage.set_trial_user_attr(trial._trial_id, name, text)
        values = None if outcome.value is None else self._goal.values(trial.params, outcome.value)
        self._storage.set_trial_state_values(trial._trial_id, STATES[outcome.state], values)

    def is_outdated(self, wanted: "OptunaStudies") -> bool:
        """Whether all must be written anew, though nothing is wrong.

        Nothing is here, or it is of an earlier version of the study file, or there is what Optuna cannot take back: a
        trial that failed and was run again.
        """
        if any(study.user_attrs.get(VERSION, self._version) != self._version for study in self._studies.values()):
            return True
        pairs = [pair for name in self._studies for pair in zip(self._of(name), wanted._of(name), strict=False)]
        return not pairs or any(_failed(trial) and not _failed(theirs) for trial, theirs in pairs)

    def difference(self, wanted: "OptunaStudies") -> str:
        """What here contradicts the others, or stands here alone. Empty: nothing does, though some may be missing."""
        for name, study in self._studies.items():
            other = wanted._studies.get(name)
            if other is None or study.directions != other.directions:
                return f"the study has no level {name!r} with these objectives"
            if study.metric_names not in (None, other.metric_names):
                return f"the objectives of {name!r} have other names"
            trials, others = self._of(name), wanted._of(name)
            if len(trials) > len(others):
                return f"{name!r} has more trials than the study"
            for trial, theirs in zip(trials, others, strict=False):
                if not _may_become(trial, theirs):
                    return f"trial {trial.number} of {name!r} is not as the study has it"
        return ""

    def _study(self, name: str) -> optuna.Study:
        if name not in self._studies:
            directions = [StudyDirection[each.upper()] for each in self._goal.directions]
            self._studies[name] = optuna.create_study(study_name=name, storage=self._storage, directions=directions)
        study = self._studies[name]
        if study.metric_names is None:  # always, or it was created by a driver that was killed just then
            study.set_user_attr(VERSION, self._version)
            effort = EFFORT if "train_images" in self._distributions else EFFORT_PER_IMAGE
            study.set_metric_names([self._spec.objective.metric, effort][: len(self._goal.directions)])
        return study

    def _name(self, level: Cell) -> str:
        return f"{self._spec.study} {level_name(level)}".strip()

    def _of(self, name: str) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._studies[name]._study_id, deepcopy=False)

    def _trial(self, level: Cell, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._trial_ids[self._name(level), number])


def _study_names(storage: BaseStorage) -> list[str]:
    return [study.study_name for study in storage.get_all_studies()]


def _to_distribution(axis: Axis) -> BaseDistribution:
    if isinstance(axis, Choice):
        return CategoricalDistribution(axis.levels)
    if axis.is_integer:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.is_log)
    return FloatDistribution(axis.low, axis.high, log=axis.is_log)


def _failed(trial: FrozenTrial) -> bool:
    return trial.user_attrs.get("state") == "failed"


def _may_become(trial: FrozenTrial, other: FrozenTrial) -> bool:
    """Whether nothing of a trial contradicts the other, which may have more epochs or have ended since."""
    if (trial.params, trial.distributions) != (other.params, other.distributions):
        return False
    told, theirs = dict(trial.user_attrs), dict(other.user_attrs)
    if "reason" not in told.keys() & theirs.keys():  # not every record of an end knows why
        for each in (told, theirs):
            each.pop("reason", None)
    if trial.state.is_finished():
        same_end = (trial.state, trial.values, told) == (other.state, other.values, theirs)
    else:
        same_end = trial.values is None and told.items() <= theirs.items()
    ours, others = trial.intermediate_values, other.intermediate_values
    # A killed driver may have shown an epoch whose row is being redone; once a trial has ended, all rows are there.
    epochs = ours.keys() if other.state.is_finished() else ours.keys() & others.keys()
    return same_end and all(ours[epoch] == others.get(epoch) for epoch in epochs)
