"""What a person sees while trials run: a line per finished trial, and a live bar where there is a terminal."""

import sys
import time
from dataclasses import dataclass, field

from tqdm import tqdm

from cluster.preparation import Say
from study.design import Trial
from study.exploration import State
from study.plan import Plan
from study.spec import Objective
from trainable.trial_files import Row

REPORT_EVERY_S = 20.0  # a log that says nothing for longer looks like a hang


@dataclass
class Progress:
    """Counts epochs and trials against what is to be run."""

    total: int
    num_epochs: int
    objective: Objective
    say: Say
    finished: int = 0
    failed: int = 0
    epochs_done: int = 0
    _started: float = field(default_factory=time.monotonic)
    _last_said: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        live = sys.stderr.isatty()
        self._bar = tqdm(total=self.num_epochs, unit="epoch", disable=not live, leave=False, dynamic_ncols=True)

    def epoch(self, trial: Trial, row: Row) -> None:
        """One trial has finished an epoch."""
        self.epochs_done += 1
        self._bar.update()
        self._bar.set_postfix_str(self._score(row))
        if self._bar.disable and time.monotonic() - self._last_said > REPORT_EVERY_S:
            self._say(f"  ... epoch {row['epoch']}/{trial.config.epochs} of {trial.name}: {self._score(row)}")

    def ended(self, trial: Trial, state: State, rows: list[Row]) -> None:
        """One trial has reached its end."""
        self.finished += 1
        if state == "stopped":
            self.num_epochs -= trial.config.epochs - len(rows)
            how = f"stopped early after {len(rows)} of {trial.config.epochs} epochs at {self._score(rows[-1])}"
        elif state == "infeasible":
            how = "DIVERGED"
        else:
            how = f"{self._score(rows[-1])} in {rows[-1]['time/total_s']:.0f} s"
        self._say(f"{self._count()} {_phase(trial)}{trial.name}: {how}; {self._remaining()}")

    def failure(self, trial: Trial, reason: str) -> None:
        """One trial has failed for good."""
        self.failed += 1
        self._say(f"{self._count()} {_phase(trial)}{trial.name}: FAILED: {reason}")

    def note(self, line: str) -> None:
        """Says something beside what becomes of the trials."""
        self._say(line)

    def close(self) -> None:
        """Removes the live bar."""
        self._bar.close()

    def _say(self, line: str) -> None:
        self._last_said = time.monotonic()
        with tqdm.external_write_mode(file=sys.stdout):  # keeps the bar below the lines
            self.say(line)

    def _count(self) -> str:
        width = len(str(self.total))
        return f"[{self.finished + self.failed:{width}}/{self.total}]"

    def _score(self, row: Row) -> str:
        return f"{self.objective.metric} {row[self.objective.metric]:.3f}"

    def _remaining(self) -> str:
        if self.finished + self.failed == self.total:
            return "all trials done"
        left = max(1, self.num_epochs - self.epochs_done)  # a failed trial's epochs never come
        seconds = (time.monotonic() - self._started) / max(1, self.epochs_done) * left
        return f"about {duration(seconds)} left"


def _phase(trial: Trial) -> str:
    return "confirm " if trial.phase == "confirm" else ""


def duration(seconds: float) -> str:
    """A time as people say it: 45 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plan_text(plan: Plan) -> str:
    """The plan for a person."""
    lines = [f"study        {plan.study}: {plan.method} over {_count(plan.num_levels, 'scientific level')}"]
    for phase in plan.phases:
        if phase.num_trials:
            seeds = f"{_count(len(phase.seeds), 'seed')}"
            reused = f"{phase.num_done} reused, {phase.num_missing} to run"
            # How many settings no other one beats is known at the end.
            is_open = plan.method == "optuna_pareto" and phase.name == "confirm" and phase.num_missing
            trials = f"{'at least ' if is_open else ''}{_count(phase.num_trials, 'trial')}"
            lines.append(f"{phase.name:<12} {trials} at {seeds}: {reused}")
    lines += [
        f"to run       {plan.num_missing}, {plan.num_concurrent} at a time",
        f"time         about {duration(plan.expected_s)} ({plan.basis})",
        f"GPU-hours    {plan.gpu_hours:.1f}",
    ]
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
