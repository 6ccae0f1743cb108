"""The Optuna journal: every setting of a study, as `optuna-dashboard STUDY/optuna.journal` shows it live.

It is a mirror that the driver writes and never reads as truth: one Optuna study per scientific level, one Optuna trial
per setting. It works in a thread of its own, so training does not notice its troubles; at the next start it is brought
to where the study stands, or written anew.
"""

import json
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileSymlinkLock

from cluster.optuna_studies import Entry, OptunaStudies
from study.design import Cell
from study.search import Outcome
from study.space import Setting
from study.spec import StudySpec
from trainable.atomic import write_atomically
from trainable.sealed import set_aside

__all__ = ["Entry", "OptunaJournal"]

LOCK_S = 3  # how long a dashboard that was killed while it wrote a note can hold us up; Optuna's default is 30


class OptunaJournal:
    """Takes the events of a study and returns at once.

    Attributes:
        problem: why the journal is not whole; empty while it is. The next `sync` mends it.
    """

    def __init__(self, path: Path, spec: StudySpec) -> None:
        self.problem = ""
        self._path = path
        self._spec = spec
        self._studies = OptunaStudies(spec, JournalStorage(_Lines()))  # until it is brought to a file
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="optuna-journal", daemon=True)
        self._thread.start()

    def sync(self, history: Iterable[Entry]) -> None:
        """Brings the journal to where the study stands; the first thing to do in a session."""
        self._queue.put(partial(self._sync, list(history)))

    def proposed(self, level: Cell, number: int, setting: Setting, trial_ids: Sequence[str]) -> None:
        """A setting is to be tried."""
        self._queue.put(lambda: self._studies.propose(Entry(level, number, setting, trial_ids)))

    def started(self, level: Cell, number: int) -> None:
        """A first trial of the setting has started."""
        self._queue.put(lambda: self._studies.start(level, number))

    def epoch(self, level: Cell, number: int, epoch: int, value: float) -> None:
        """The setting's trial at the first seed has finished an epoch."""
        self._queue.put(lambda: self._studies.report(level, number, epoch, value))

    def ended(self, level: Cell, number: int, outcome: Outcome, reason: str = "") -> None:
        """All trials of the setting have ended."""
        self._queue.put(lambda: self._studies.end(level, number, outcome, reason))

    def close(self) -> None:
        """Writes what is still waiting."""
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (write := self._queue.get()) is not None:
            if self.problem:
                continue  # after a line that was torn, as on a full disk, a further one makes all unreadable
            try:
                write()
            except Exception as error:  # whatever it is, it is told at the end and ends no training
                self.problem = f"{self._path}: {type(error).__name__}: {error}"

    def _sync(self, history: list[Entry]) -> None:
        for lock in self._path.parent.glob(f"{self._path.name}.lock*"):
            lock.unlink(missing_ok=True)  # a killed driver's: no other writes here, as the study's own lock is held
        lines = _Lines()
        wanted = OptunaStudies(self._spec, JournalStorage(lines))
        wanted.bring_to(history)
        found = self._take(wanted)
        if found is None:
            write_atomically(self._path, lines.text)
            found = self._read()
        self._studies = found
        self._studies.bring_to(history)

    def _take(self, wanted: OptunaStudies) -> OptunaStudies | None:
        """The journal as it is, where it can be continued; one that is damaged or of something else is set aside."""
        if not self._path.exists():
            return None
        try:
            found = self._read()
            is_outdated = found.is_outdated(wanted)
            reason = "" if is_outdated else found.difference(wanted)
        except Exception as error:  # any, as a damaged file may say anything
            reason = f"{type(error).__name__}: {error}"
        if reason:
            set_aside(self._path, reason)
            return None
        return None if is_outdated else found

    def _read(self) -> OptunaStudies:
        """What a fresh reader finds in the journal."""
        *lines, rest = self._path.read_bytes().split(b"\n")
        for line in [*lines, rest] if rest else lines:
            json.loads(
                line
            )  # Optuna passes over a damaged last line, and can read nothing of what is written behind it
        if rest:
            raise ValueError("its last line is torn")
        path = str(self._path.resolve())  # the lock is a link, which must not be relative
        lock = JournalFileSymlinkLock(path, grace_period=LOCK_S)
        return OptunaStudies(self._spec, JournalStorage(JournalFileBackend(path, lock)))


class _Lines(BaseJournalBackend):
    """A journal in memory, to be written to a file in one go."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    @property
    def text(self) -> str:
        """The file's content."""
        return "".join(f"{line}\n" for line in self._lines)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds lines, as Optuna's file does."""
        self._lines += [json.dumps(log, separators=(",", ":")) for log in logs]

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The lines from a number on."""
        return [json.loads(line) for line in self._lines[log_number_from:]]
