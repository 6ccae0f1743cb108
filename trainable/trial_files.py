"""The files of a trial's directory, for whoever reads them without training: no torch here.

config.json      the TrainConfig and the trainer's version; sealed
metrics.jsonl    a line an epoch
checkpoint/      state after the latest epoch, and a copy of the files beside it; after the last one, no optimizer
counts.npz       counts per validation image after the latest epoch (evaluation.py)
counts_test.npz  counts per test image, where the trial opened that split
attempts.jsonl   a line each time that training started or went on; each with its checksum
result.json      written last: the mark of done; sealed, and holds the checksums of the others

A file that is not as it was written is set aside as `*.damaged`, with a warning, and built again from the checkpoint.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainable.atomic import write_atomically
from trainable.sealed import DamagedError, read_sealed, sealed_line, set_aside, unseal_line, write_sealed

logger = logging.getLogger(__name__)

CONFIG, ROWS, RESULT, ATTEMPTS = "config.json", "metrics.jsonl", "result.json", "attempts.jsonl"
COUNTS = {"val": "counts.npz", "test": "counts_test.npz"}

Row = dict[str, float]
Files = dict[str, bytes]
"""Name -> content of the small files that belong to a checkpoint."""


def read_rows(folder: Path) -> list[Row]:
    """The rows of `metrics.jsonl`; a torn last line, which a killed writer leaves, does not count.

    Of a damaged file the rows before the damage count, with a warning: whoever opens the trial rebuilds it.
    """
    path = folder / ROWS
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    rows: list[Row] = []
    for line in lines:
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            logger.warning("%s is damaged in line %d; the lines before it count", path, len(rows) + 1)
            break
    return rows


def parse_rows(content: bytes) -> list[Row]:
    """The rows that `rows_content` gave."""
    return [json.loads(line) for line in content.splitlines()]


def rows_content(rows: list[Row]) -> bytes:
    """What `metrics.jsonl` holds."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read_result(folder: Path) -> dict[str, Any] | None:
    """What `result.json` says, or None while the trial is not done. Changes nothing."""
    try:
        return read_sealed(folder / RESULT)
    except DamagedError:
        logger.warning("%s is damaged; the trial counts as not done and is continued", folder / RESULT)
        return None


def check_trial(folder: Path) -> list[str]:
    """What is damaged in the directory of a finished trial; `run_trial` repairs it, mostly without training.

    Not the weights: the result stays valid without them, and to read them of every trial would take minutes.

    Returns:
        A line for each file; none where all are as they were written, or where the trial is not finished.
    """
    try:
        result = read_sealed(folder / RESULT)
    except DamagedError as error:
        return [str(error)]
    return damaged_files(folder, result) if result else []


def damaged_files(folder: Path, result: Mapping[str, Any]) -> list[str]:
    """A line for each file that does not have the checksum that the result says."""
    problems = []
    for name, checksum in result["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path}: absent")
        elif checksums({name: path.read_bytes()})[name] != checksum:
            problems.append(f"{path}: damaged (its checksum differs from the one in {RESULT})")
    return problems


def checksums(files: Mapping[str, bytes]) -> dict[str, str]:
    """Name -> SHA-256 of the content."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def restore_files(folder: Path, files: Files, *, final: bool) -> None:
    """Brings the files to where the checkpoint stands that holds these copies of them.

    Args:
        folder: the trial's.
        files: the copies.
        final: whether no epoch follows. Before, files that are further on belong to an epoch that is about to be
            redone; other ones are damaged.
    """
    for name, content in files.items():
        path = folder / name
        found = path.read_bytes() if path.is_file() else None
        if found == content:
            continue
        is_further_on = not final and (name in COUNTS.values() or (found or b"").startswith(content))
        if found is not None and not is_further_on:
            set_aside(path, "it differs from the checkpoint's copy, which takes its place")
        if found is None and content:
            logger.warning("%s is gone; the checkpoint's copy takes its place", path)
        write_atomically(path, content)


def result_hash(rows: list[Row]) -> str:
    """SHA-256 over every metric of every epoch, wall-clock times apart: equal hashes mean equal bits."""
    timeless = [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]
    return hashlib.sha256(json.dumps(timeless, sort_keys=True).encode()).hexdigest()


def to_json(value: object) -> str:
    """Readable JSON of one of our files."""
    return json.dumps(value, indent=2) + "\n"


def append_row(folder: Path, row: Row) -> None:
    """Adds an epoch's row; it is on disk when this returns."""
    _append(folder / ROWS, rows_content([row]))


def append_attempt(folder: Path, num_rows: int, from_epoch: int) -> None:
    """Notes that training starts, or goes on.

    Args:
        folder: the trial's.
        num_rows: rows found; those beyond `from_epoch` are of epochs that are trained again.
        from_epoch: the epoch that it goes on after; 0 for a start.
    """
    record = {"time": time.time(), "pid": os.getpid(), "rows": num_rows, "from_epoch": from_epoch}
    path = folder / ATTEMPTS
    is_torn = path.is_file() and not path.read_bytes().endswith(b"\n")
    _append(path, b"\n" * is_torn + sealed_line(record).encode())


def read_attempts(folder: Path) -> list[dict[str, Any]]:
    """The lines of `attempts.jsonl`; damaged ones, and the one that a killed writer left, do not count."""
    path = folder / ATTEMPTS
    lines = path.read_bytes().splitlines() if path.is_file() else []
    attempts = [unseal_line(line) for line in lines]
    if None in attempts:
        logger.warning("%s is damaged in line %d; such lines do not count", path, attempts.index(None) + 1)
    return [attempt for attempt in attempts if attempt is not None]


def write_result(
    folder: Path,
    rows: list[Row],
    environment: dict[str, str],
    infeasible: str = "",
    diverged_at: dict[str, int | None] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Marks the trial as done: completed, or infeasible for the reason given, at that epoch and step.

    Args:
        folder: the trial's.
        rows: of all its epochs.
        environment: what the bits of the result depend on beside the config.
        infeasible: the reason, for a trial that diverged.
        diverged_at: epoch and step, likewise.
        files: name -> content of the trial's other files; `metrics.jsonl` alone unless given.
    """
    result = {
        "state": "infeasible" if infeasible else "completed",
        "reason": infeasible,
        "diverged_at": diverged_at,
        "epochs": len(rows),
        "metrics": rows[-1] if rows else {},
        "result_sha256": result_hash(rows),
        "time_s": rows[-1]["time/total_s"] if rows else 0.0,
        "environment": environment,
        "files": checksums(files or {ROWS: rows_content(rows)}),
        "finished_at": time.time(),
    }
    write_sealed(folder / RESULT, result)


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
