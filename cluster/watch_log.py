"""What becomes of a study as lines for a log: how it stands at first, and then only what has changed."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from cluster.progress import duration
from cluster.status import score_line
from cluster.terminal import inert
from cluster.trial_states import TrialState
from cluster.watch_picture import Picture, failure_lines, phase_lines
from study.design import level_name

MAX_NAMED = 20
"""Trials of one look that are named one by one; more are counted."""
QUIET_S = 60.0
"""Time after which progress within trials is told, though none has ended."""


@dataclass
class ChangeLog:
    """Remembers what was told.

    Attributes:
        told: trial id -> the state in which it was told of.
    """

    told: dict[str, str] | None = None
    _session: str = ""
    _best: set[str] = field(default_factory=set)
    _trouble: str = ""
    _epochs: int = 0
    _last: float = 0.0

    def lines(self, picture: Picture) -> list[str]:
        """What is new in this picture, with the time of day."""
        is_first = self.told is None
        fresh = [*self._news(picture)]
        if fresh or self._is_progress(picture):
            fresh += self._summary(picture)
            self._last, self._epochs = time.monotonic(), _epochs(picture)
        fresh += self._hints(picture) if is_first else []
        return [f"{time.strftime('%T')} {inert(line)}" for line in fresh]

    def _news(self, picture: Picture) -> Iterator[str]:
        if picture.trouble != self._trouble:
            yield picture.trouble or "the study can be read again"
            self._trouble = picture.trouble
        if picture.status.session != self._session:
            self._session = picture.status.session
            yield f"{picture.status.study}: {self._session}"
        yield from self._changed_trials(picture)
        best = [score_line("best so far", score) for score in picture.status.best]
        best += [score_line("confirmed", score) for score in picture.status.confirmed]
        yield from (line for line in best if line not in self._best)
        self._best = {*best}

    def _changed_trials(self, picture: Picture) -> Iterator[str]:
        """Trials that began, went on or ended since the last look; at the first one, what failed is summed up."""
        before = self.told
        self.told = {trial.trial_id: trial.state for trial in picture.trials}
        if before is None:
            yield from failure_lines(picture.status)
            return
        changed = [each for each in picture.trials if before.get(each.trial_id, "not_started") != each.state]
        for state in dict.fromkeys(trial.state for trial in changed):
            those = [trial for trial in changed if trial.state == state]
            if len(those) > MAX_NAMED:
                yield f"{len(those)} trials: {state.replace('_', ' ')}"
            else:
                yield from (_line(trial, picture) for trial in those)

    def _is_progress(self, picture: Picture) -> bool:
        return _epochs(picture) != self._epochs and time.monotonic() - self._last > QUIET_S

    def _summary(self, picture: Picture) -> list[str]:
        lines = [line for name, phase in picture.status.phases.items() for line in phase_lines(name, phase)]
        lines += [f"{'GPU':<12} {line}" for line in picture.gpus]
        left = picture.status.expected_s
        return [*lines, *([f"{'left':<12} about {duration(left)} of work"] if left is not None else [])]

    def _hints(self, picture: Picture) -> list[str]:
        return [f"{label:<12} {text}" for label, text in picture.hints]


def _line(trial: TrialState, picture: Picture) -> str:
    name = level_name(trial.cell) if trial.cell else trial.trial_id
    seed = f" seed={trial.seed}" if trial.seed is not None else ""
    table = picture.tables["confirm" if trial.phase == "confirm" else "explore"]
    value = (trial.metrics or {}).get(table.metric)
    reached = f": {table.metric} {value:.3f}" if isinstance(value, float) else ""
    epochs = f" after {trial.epoch} of {trial.epochs or '?'} epochs" if trial.state in ("stopped", "unfinished") else ""
    reason = f": {trial.reason}" if trial.reason else ""
    return f"{trial.state.replace('_', ' '):<12} {name}{seed}{epochs}{reached}{reason}"


def _epochs(picture: Picture) -> int:
    return sum(trial.epoch for trial in picture.trials)
