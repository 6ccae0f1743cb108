"""How a study stands as one picture for a terminal, of as many lines and columns as it has."""

from dataclasses import dataclass, field

from cluster.progress import duration
from cluster.status import Status, score_line
from cluster.tally import DONE, PhaseTally
from cluster.terminal import inert
from cluster.trial_states import TrialState
from cluster.watch_table import Table
from study.spec import StudySpec

BAR = 20
MAX_LINES = 6
"""Of one kind: the best settings, failures, GPUs."""
PHASES = ("explore", "confirm")


@dataclass(frozen=True)
class Picture:
    """A study at a moment.

    Attributes:
        trials: all that are known.
        gpus: a line for each GPU.
        hints: where to see more: (what it is, how to get there).
        trouble: why this picture is not of now; empty where it is.
    """

    spec: StudySpec
    status: Status
    trials: list[TrialState]
    gpus: list[str]
    hints: list[tuple[str, str]]
    trouble: str = ""
    tables: dict[str, Table] = field(init=False)

    def __post_init__(self) -> None:
        tables = {phase: Table.of_phase(self.spec, phase, self.trials) for phase in PHASES}
        object.__setattr__(self, "tables", tables)

    @property
    def num_missing(self) -> int:
        """Trials that are still to run."""
        return sum(phase.num_missing for phase in self.status.phases.values())

    @property
    def is_complete(self) -> bool:
        """Whether all trials reached their end; a study whose trials nobody has listed yet has none."""
        return bool(self.trials) and not self.num_missing

    def lines(self, width: int, height: int) -> list[str]:
        """The picture in at most so many columns and lines."""
        above, below = self._above(), [*self._below(), *self._hints(width)]
        room = height - len(above) - len(below) - len(PHASES)
        first = self.tables["confirm"]  # few, and later than what they confirm
        confirming = first.lines(width, min(len(first.rows) + 1, max(2, room // 2)))
        exploring = self.tables["explore"].lines(width, room - len(confirming))
        lines = [*above]
        for name, table in zip(PHASES, (exploring, confirming), strict=True):
            lines += [*phase_lines(name, self.status.phases[name]), *table]
        return [inert(line)[:width] for line in [*lines, *below]][:height]

    def _above(self) -> list[str]:
        status = self.status
        left = f"; about {duration(status.expected_s)} of work left" if status.expected_s is not None else ""
        lines = [f"{status.study}: {status.session}{left}"]
        return [*lines, f"NOT OF NOW   {self.trouble}"] if self.trouble else lines

    def _below(self) -> list[str]:
        return [
            *(score_line("best so far", score) for score in self.status.best[:MAX_LINES]),
            *(score_line("confirmed", score) for score in self.status.confirmed[:MAX_LINES]),
            *failure_lines(self.status)[:MAX_LINES],
            *(f"{'GPU':<12} {line}" for line in self.gpus[:MAX_LINES]),
        ]

    def _hints(self, width: int) -> list[str]:
        """Whole, as they are to be typed or clicked."""
        lines = [f"{label:<12} {inert(text)}" for label, text in self.hints]
        return [line[at : at + width] for line in lines for at in range(0, len(line), width)]


def phase_lines(name: str, phase: PhaseTally) -> list[str]:
    """How far a phase is; nothing of one that the study does not have."""
    total = phase.num_trials + phase.to_come
    if not total:
        return []
    done = total - phase.num_missing
    counts = [f"{phase.counts[state]} {state.replace('_', ' ')}" for state in sorted(phase.counts)]
    counts = [text for text in counts if not text.endswith(DONE[0])]
    counts += [f"{phase.to_come} yet to be chosen"] if phase.to_come else []
    filled = "=" * (BAR * done // total)
    return [f"{name:<12} [{filled:<{BAR}}] {done} of {total} done{''.join(f', {each}' for each in counts)}"]


def failure_lines(status: Status) -> list[str]:
    """A line for each reason for which trials failed or diverged."""
    kinds = (("failed", status.failures), ("diverged", status.diverged))
    return [
        f"{name:<12} {len(ids)} trial{'s' * (len(ids) != 1)}: {reason}"
        for name, reasons in kinds
        for reason, ids in reasons.items()
    ]
