"""What the trials of a study add up to: how many stand how, what they reached, what failed, and how much is left."""

import math
from dataclasses import dataclass, field
from statistics import fmean

from cluster.trial_states import TrialState
from study.design import Cell, level_of, longest_training, nuisance_factors
from study.space import Space
from study.spec import StudySpec, Value

DONE = ("completed", "stopped", "infeasible")
Key = tuple[tuple[str, Value], ...]


@dataclass
class PhaseTally:
    """The trials of one phase.

    Attributes:
        counts: state -> number of trials (`trial_states.State`).
        to_come: trials that are yet to be proposed, or confirm winners that are not known yet.
        under_way: running and interrupted trials -> epochs trained, and of a whole run where that is known.
    """

    counts: dict[str, int] = field(default_factory=dict)
    to_come: int = 0
    under_way: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    @property
    def num_trials(self) -> int:
        """Known trials."""
        return sum(self.counts.values())

    @property
    def num_missing(self) -> int:
        """Trials that are still to run."""
        return self.num_trials - sum(self.counts.get(state, 0) for state in DONE) + self.to_come


@dataclass(frozen=True)
class Score:
    """What a cell reached: the mean over the seeds at which it ran to its end."""

    level: Cell
    setting: Cell
    metric: str
    mean: float
    num_seeds: int


@dataclass
class Tally:
    """The trials of a study, added one by one; of each only numbers are kept.

    Attributes:
        failures: reason -> ids of the trials that failed for it; `diverged` likewise, of infeasible ones.
        damaged: files that are not as they were written.
    """

    spec: StudySpec
    phases: dict[str, PhaseTally] = field(default_factory=lambda: {"explore": PhaseTally(), "confirm": PhaseTally()})
    failures: dict[str, list[str]] = field(default_factory=dict)
    diverged: dict[str, list[str]] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    _values: dict[str, dict[Key, list[float]]] = field(default_factory=lambda: {"explore": {}, "confirm": {}})
    _trained: tuple[float, int] = (0.0, 0)  # seconds and epochs, of trials of any state
    _epochs_left: int = 0

    def add(self, trial: TrialState) -> None:
        """Counts one more trial."""
        name = "confirm" if trial.phase == "confirm" else "explore"
        phase = self.phases[name]
        phase.counts[trial.state] = phase.counts.get(trial.state, 0) + 1
        self.damaged += trial.damaged
        self._trained = self._trained[0] + trial.time_s, self._trained[1] + trial.epoch * (trial.time_s > 0)
        if trial.state not in DONE:
            self._epochs_left += max(0, (trial.epochs or longest_training(self.spec)) - trial.epoch)
        if trial.state in ("running", "unfinished"):
            phase.under_way[trial.trial_id] = trial.epoch, trial.epochs
        elif trial.state == "completed":
            self._score(trial, name)
        elif trial.state in ("failed", "infeasible"):
            reasons = self.failures if trial.state == "failed" else self.diverged
            reasons.setdefault(trial.reason or "no reason is known", []).append(trial.trial_id)

    def expect(self, num_settings: int) -> None:
        """Takes into account what is yet to be listed, where `num_settings` were proposed so far."""
        search, confirm = self.spec.search, self.spec.confirm
        scientific = [each for each in self.spec.parameters.values() if each.role == "scientific"]
        num_levels = math.prod(len(each.values or ()) for each in scientific)
        if search.method != "grid":
            size = Space(nuisance_factors(self.spec)).size
            wanted = min(search.trials_per_level or 0, size if size is not None else search.trials_per_level or 0)
            self.phases["explore"].to_come = max(0, num_levels * wanted - num_settings) * len(search.seeds)
        if confirm and not self.phases["confirm"].num_trials:
            self.phases["confirm"].to_come = num_levels * len(confirm.seeds)
        num_to_come = sum(phase.to_come for phase in self.phases.values())
        self._epochs_left += num_to_come * longest_training(self.spec)

    @property
    def num_missing(self) -> int:
        """Trials that are still to run, of both phases."""
        return sum(phase.num_missing for phase in self.phases.values())

    @property
    def best(self) -> list[Score]:
        """The best setting so far of each scientific level: the first of those that ran at the most seeds."""
        best: dict[Key, Score] = {}
        for score in self._scores("explore"):
            level = tuple(score.level.items())
            if level not in best or _rank(score) > _rank(best[level]):
                best[level] = score
        return list(best.values())

    @property
    def confirmed(self) -> list[Score]:
        """What was confirmed, on the test split."""
        return self._scores("confirm")

    def work_left_s(self) -> float | None:
        """Seconds of training that are left, at the pace so far; None where nothing was trained, or nothing is left."""
        seconds, epochs = self._trained
        return self._epochs_left * seconds / epochs if epochs and self._epochs_left else None

    def _score(self, trial: TrialState, phase: str) -> None:
        value = (trial.metrics or {}).get(self._metrics[phase])
        if trial.cell and isinstance(value, float) and math.isfinite(value):
            self._values[phase].setdefault(tuple(trial.cell.items()), []).append(value)

    @property
    def _metrics(self) -> dict[str, str]:
        objective = self.spec.objective.metric
        return {"explore": objective, "confirm": f"test/{objective.removeprefix('val/')}"}

    def _scores(self, phase: str) -> list[Score]:
        """Of every cell, in the order of the levels in the study file."""
        scores = []
        for key, values in self._values[phase].items():
            level = level_of(self.spec, dict(key))
            setting = {name: value for name, value in key if name not in level}
            scores.append(Score(level, setting, self._metrics[phase], fmean(values), len(values)))
        order = {name: each.values or [] for name, each in self.spec.parameters.items() if each.role == "scientific"}
        return sorted(scores, key=lambda score: [_place(order[name], value) for name, value in score.level.items()])


def _rank(score: Score) -> tuple[int, float]:
    return score.num_seeds, score.mean


def _place(values: list[Value], value: Value) -> int:
    return values.index(value) if value in values else len(values)
