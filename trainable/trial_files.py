"""The files of a trial's directory, for whoever reads them without training: no torch here.

config.json     the TrainConfig and the trainer's version
metrics.jsonl   a line an epoch
checkpoint/     state after the latest epoch; after the last one, the weights alone
counts.npz      counts per validation image after the latest epoch (evaluation.py)
result.json     written last, atomically: the mark of done
"""

import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from trainable.atomic import write_atomically

logger = logging.getLogger(__name__)

Row = dict[str, float]


def read_rows(folder: Path) -> list[Row]:
    """The rows of `metrics.jsonl`; a torn last line, which a killed writer leaves, does not count."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def read_result(folder: Path) -> dict[str, Any] | None:
    """What `result.json` says, or None while the trial is not done."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except ValueError:
        logger.warning("%s is damaged; the trial counts as not done and is continued", path)
        return None
    return result


def result_hash(rows: list[Row]) -> str:
    """SHA-256 over every metric of every epoch, wall-clock times apart: equal hashes mean equal bits."""
    timeless = [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]
    return hashlib.sha256(json.dumps(timeless, sort_keys=True).encode()).hexdigest()


def to_json(value: object) -> str:
    """Readable JSON of one of our files."""
    return json.dumps(value, indent=2) + "\n"


def append_row(folder: Path, row: Row) -> None:
    """Adds an epoch's row; it is on disk when this returns."""
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def rewrite_rows(folder: Path, rows: list[Row]) -> None:
    """Replaces all rows."""
    write_atomically(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def write_result(
    folder: Path,
    rows: list[Row],
    environment: dict[str, str],
    infeasible: str = "",
    diverged_at: dict[str, int | None] | None = None,
) -> None:
    """Marks the trial as done: completed, or infeasible for the reason given, at that epoch and step."""
    result = {
        "state": "infeasible" if infeasible else "completed",
        "reason": infeasible,
        "diverged_at": diverged_at,
        "epochs": len(rows),
        "metrics": rows[-1] if rows else {},
        "result_sha256": result_hash(rows),
        "time_s": rows[-1]["time/total_s"] if rows else 0.0,
        "environment": environment,
        "finished_at": time.time(),
    }
    write_atomically(folder / "result.json", to_json(result))
