"""What the mirror notes of a run in its trial's directory, once the run is in W&B as a whole."""

import hashlib
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.preparation import Work
from study.design import Trial
from trainable.sealed import take_sealed, write_sealed
from trainable.trial_files import read_result, read_rows, result_hash

MIRROR_FILE = "mirror.json"
SETTLE_S = 0.1
EMPTY_S = 30.0
MIN_RUN_BYTES = 100  # a run file starts with 7 bytes of header


@dataclass
class WrittenRun:
    """The file of a closed run, which W&B's service may go on writing to for an instant after `finish` returns.

    Attributes:
        end: how the trial ended; None where it has not.
        leftovers: folders of earlier runs of the trial, in whose place this one comes.
    """

    trial: Trial
    end: dict[str, Any] | None
    path: Path
    leftovers: Sequence[Path] = ()
    size: int = -1
    _finished: float = field(default_factory=time.monotonic)
    _seen: float = field(default_factory=time.monotonic)

    def has_settled(self) -> bool:
        """Whether the file has kept its size for a while.

        Raises:
            OSError: it is still empty after some seconds.
        """
        now, size = time.monotonic(), self.path.stat().st_size if self.path.is_file() else 0
        if size != self.size:
            self.size, self._seen = size, now
        if now - self._seen < SETTLE_S:
            return False
        if size < MIN_RUN_BYTES and now - self._finished > EMPTY_S:
            raise OSError(f"{self.path} is empty; is the disk full?")
        return size >= MIN_RUN_BYTES


def read_end(work: Work, trial: Trial, was_stopped: bool) -> dict[str, Any] | None:
    """How the trial ended, as its result says it, or would say it of a trial that was stopped; None while it runs."""
    folder = work.trial_folder(trial)
    result = read_result(folder)
    if result or not was_stopped:
        return result
    rows = read_rows(folder)
    time_s = rows[-1]["time/total_s"] if rows else 0.0
    return {"state": "stopped", "epochs": len(rows), "result_sha256": result_hash(rows), "time_s": time_s}


def is_mirrored(work: Work, trial: Trial, end: dict[str, Any] | None) -> bool:
    """Whether the trial's ended run lies in the study's W&B folder as it was written."""
    record = take_sealed(work.trial_folder(trial) / MIRROR_FILE) if end else None
    if not record or not end:
        return False
    wanted = (end["result_sha256"], end["state"], work.spec.tracking.mode)
    run_file = work.folder / record["file"]
    same_result = (record["result_sha256"], record["state"], record["mode"]) == wanted
    return same_result and run_file.is_file() and _sha256(run_file) == record["file_sha256"]


def forget_mirrored(work: Work, trials: Iterable[Trial]) -> None:
    """Has the runs of these trials written again, whatever their directories say of them."""
    for trial in trials:
        (work.trial_folder(trial) / MIRROR_FILE).unlink(missing_ok=True)


def settle(work: Work, written: WrittenRun) -> None:
    """Notes, in its trial's directory, that a run file is as W&B's service has finished it; earlier ones go only then.

    Whoever is interrupted before leaves two files of one run, which readers take for one.
    """
    if written.end:
        record = {
            "mode": work.spec.tracking.mode,
            "state": written.end["state"],
            "result_sha256": written.end["result_sha256"],
            "file": str(written.path.relative_to(work.folder)),
            "file_sha256": _sha256(written.path),
        }
        write_sealed(work.trial_folder(written.trial) / MIRROR_FILE, record)
    for leftover in written.leftovers:
        shutil.rmtree(leftover)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
