"""What has happened in a study: one file, one event a line, appended by one process, never lost without saying so.

    {"seq": 0, "time": 1763856605.123, "event": "session_started", "pid": 123, ..., "sha256": "0123456789abcdef"}

`seq` counts the lines from 0; `sha256` holds the first 16 hex digits of the SHA-256 over the line without it. A line
that was being written when the power went is cut when the ledger is next opened; damage elsewhere sets the whole file
aside, and the lines that verify make the new one, numbered anew. Both are told, in the log and by an event:

    {"event": "repaired", "reason": str, "lost": number of events known to be gone, "file": what was set aside, or null,
     "trials": ids of trials that had begun and that no event names}
"""

import hashlib
import io
import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from trainable.atomic import open_regular, publish, scratch_file, write_atomically

logger = logging.getLogger(__name__)

LEDGER_FILE = "ledger.jsonl"
MAX_LINE_BYTES = 2**22  # the ids of a hundred thousand trials are less than half of it
STAMPS = ("seq", "time", "sha256")
_START, _SEAL = b'{"seq": ', b', "sha256": "'

Event = dict[str, Any]
"""`seq`, `time` (unix seconds), `event` (its kind) and the fields of that kind."""


class Ledger:
    """The open ledger of a study.

    Attributes:
        events: the history as it was found, oldest first; what is appended afterwards is not added to it.
    """

    def __init__(self, path: Path, file: io.FileIO, events: list[Event]) -> None:
        self.path = path
        self.events = events
        self._file = file
        self._end = (os.fstat(file.fileno()).st_size, len(events))  # bytes and lines

    def append(self, *events: Event) -> None:
        """Adds events, each with its kind under `event`; all are on disk when this returns. Not for signal handlers.

        Raises:
            ValueError, TypeError: an event is no plain JSON (a NaN is none), or absurdly long; nothing was written.
            OSError: the disk is full or gone. Nothing half is left: the ledger stands as before the call.
        """
        size, num_lines = self._end
        data = b"".join(_to_line(_stamped(seq, event)) for seq, event in enumerate(events, start=num_lines))
        try:
            view = memoryview(data)
            while view:  # a full disk may take a part
                view = view[self._file.write(view) :]
            os.fsync(self._file.fileno())
            self._end = (size + len(data), num_lines + len(events))
        except BaseException as error:  # an interrupt too leaves all or nothing
            self._file.truncate(self._end[0])
            if not isinstance(error, OSError):
                raise
            problem = f"{error.strerror}: the study's events cannot be written; mend that and run again, it goes on"
            raise OSError(error.errno, problem, str(self.path)) from error


@contextmanager
def open_ledger(folder: Path, begun: Collection[str] = ()) -> Iterator[Ledger]:
    """Opens a study's ledger, mended where that is needed. Only for who holds the folder (`atomic.sole_user`).

    Args:
        folder: the study's.
        begun: ids of the trials that have a directory. Where no event names one, the ledger is gone, or has lost its
            end at a line break: that alone no reader of the ledger can see.

    Raises:
        InputError: what is there is no file, or may not be opened.
    """
    path = folder / LEDGER_FILE
    for abandoned in folder.glob(f".{LEDGER_FILE}-[0-9]*"):  # by a killed writer
        abandoned.unlink()
    found = _read(path)
    if not os.path.lexists(path):
        write_atomically(path, b"")
    if found.is_torn or found.is_damaged:
        found = _rebuild(path, found)
    with open_regular(path, os.O_RDWR | os.O_APPEND) as file:
        ledger = Ledger(path, file, found.events)
        if unknown := sorted(set(begun) - _named_trials(found.events)):
            ledger.append(_report(path, "it is new, or has lost its end: no event names the trials", trials=unknown))
            ledger.events = read_ledger(folder)
        yield ledger


def read_ledger(folder: Path) -> list[Event]:
    """All events that verify, oldest first; changes nothing and needs no lock. Empty where there is no ledger."""
    return list(iter_events(folder))


def iter_events(folder: Path) -> Iterator[Event]:
    """Like `read_ledger`, one event after the other: a thousand trials take no more memory than one.

    Raises:
        InputError: what is there is no file, or may not be opened.
    """
    for line in _lines(folder / LEDGER_FILE):
        event = _parse(line.removesuffix(b"\n"))
        yield from [event] if event else _salvage(line)


@dataclass
class _Found:
    """What the file of a ledger holds.

    Attributes:
        is_torn: its last line has no end, as of a writer that was killed.
        is_damaged: another line does not verify, or one is missing.
        num_unread: lines after the last event that do not verify.
    """

    events: list[Event] = field(default_factory=list)
    is_torn: bool = False
    is_damaged: bool = False
    num_unread: int = 0

    def add(self, line: bytes) -> None:
        self.is_torn = not line.endswith(b"\n")
        event = _parse(line.removesuffix(b"\n"))
        found = [event] if event else _salvage(line)
        if event:
            self.is_damaged |= event["seq"] != len(self.events)
        else:
            self.is_damaged |= bool(found) or not self.is_torn
        self.num_unread = 0 if found else self.num_unread + 1
        self.events += found

    @property
    def num_lost(self) -> int:
        numbers = {event["seq"] for event in self.events}
        return max(numbers, default=-1) + 1 - len(numbers) + self.num_unread


def _read(path: Path) -> _Found:
    found = _Found()
    for line in _lines(path):
        found.add(line)
    return found


def _lines(path: Path) -> Iterator[bytes]:
    """The file's lines with their ends; of one that is absurdly long only something that is no event."""
    if not os.path.lexists(path):
        return
    with open_regular(path, os.O_RDONLY) as raw, io.BufferedReader(raw) as file:
        while line := file.readline(MAX_LINE_BYTES):
            rest = line
            while len(rest) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(MAX_LINE_BYTES)
            yield line if rest is line else b"too long" + rest[-1:]


def _rebuild(path: Path, found: _Found) -> _Found:
    """Writes the ledger anew from the events that verify; a damaged file is kept beside it."""
    aside = _set_aside(path) if found.is_damaged else None
    report = _report(path, "damaged lines" if aside else "a last line without its end", found.num_lost, aside)
    kept = list({json.dumps(event): event for event in found.events}.values())  # a line that stands twice counts once
    events = [{**event, "seq": seq} for seq, event in enumerate(kept)]
    events.append(_stamped(len(events), report))
    write_atomically(path, b"".join(map(_to_line, events)))
    return _Found(events)


def _set_aside(path: Path) -> str:
    """Copies the file, so that at no moment there is no ledger; returns the copy's name."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.stem}.damaged-{number}.jsonl")):
        number += 1
    scratch = path.with_name(f".{path.name}-{os.getpid()}")
    with scratch_file(scratch) as copy, path.open("rb") as file:
        shutil.copyfileobj(file, copy)
    publish(scratch, aside)
    return aside.name


def _report(path: Path, reason: str, lost: int = 0, file: str | None = None, trials: Collection[str] = ()) -> Event:
    """Says in the log what was found, and returns the event that says it for good."""
    named = f" {', '.join([*trials][:5])}{', ...' if len(trials) > 5 else ''}" if trials else f"; events lost: {lost}"
    kept = f"; the damaged file is kept as {file}" if file else ""
    logger.warning("%s: %s%s%s", path, reason, named, kept)
    return {"event": "repaired", "reason": reason, "lost": lost, "file": file, "trials": [*trials]}


def _named_trials(events: list[Event]) -> set[str]:
    """Ids that stand under `trial_id` or `trials` of any event."""
    named = {str(event.get("trial_id")) for event in events}
    return named.union(*(map(str, event["trials"]) for event in events if isinstance(event.get("trials"), list)))


def _stamped(seq: int, event: Event) -> Event:
    if wrong := [name for name in STAMPS if name in event]:
        raise ValueError(f"an event has no {wrong[0]} of its own")
    if not isinstance(event.get("event"), str):
        raise ValueError(f"an event says its kind under `event`, got {event.get('event')!r}")
    return {"seq": seq, "time": round(time.time(), 3), **event}


def _to_line(event: Event) -> bytes:
    line = _sealed(json.dumps(event, allow_nan=False).encode()) + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"a {event['event']} event of {len(line)} bytes; at most {MAX_LINE_BYTES}")
    return line


def _sealed(body: bytes) -> bytes:
    return body[:-1] + _SEAL + hashlib.sha256(body).hexdigest()[:16].encode() + b'"}'


def _parse(line: bytes) -> Event | None:
    """The event of a line without its end, or None where the line does not verify."""
    body = line.rpartition(_SEAL)[0] + b"}"
    if line != _sealed(body):
        return None
    try:
        event = _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        return None
    is_event = isinstance(event, dict) and type(event.get("seq")) is int and event["seq"] >= 0
    is_event = is_event and type(event.get("time")) in (int, float) and isinstance(event.get("event"), str)
    # A hundred thousand events share the names of their fields: half the memory.
    return {sys.intern(name): value for name, value in event.items()} if is_event else None


def _salvage(line: bytes) -> list[Event]:
    """The events in a damaged line that verify: two lines may have become one."""
    parts = (_START + part[: part.rfind(b'"}') + 2] for part in line.split(_START)[1:])
    return [event for part in parts if (event := _parse(part))]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(text)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
