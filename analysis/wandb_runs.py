"""The only reader of W&B: offline run files -> one WandbRun each.

A run file `run-<id>.wandb` is a leveldb log (wandb 0.31): a 7-byte header, then blocks of 32 KiB that hold chunks of a
4-byte checksum (plain CRC-32 of type and payload, unmasked, unlike leveldb's own), a 2-byte length, a 1-byte type and
the payload. One record is one FULL chunk, or FIRST, any number of MIDDLE, LAST; it is a protobuf `Record`. The rules
for damage are those of the public reader, `wandb leet inspect`, and every use of them is named in `problems`.

Run files come from other machines: none of them can raise anything but an InputError that names it.
"""

import json
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

from trainable.config import InputError

HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
"""First bytes of every run file: name, magic number, version."""

BLOCK_SIZE = 32 * 1024
CHUNK_HEADER = struct.Struct("<IHB")
"""Checksum, length of the payload, type."""

FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
DAMAGED, TORN = -1, -2  # ours: what a block holds where it holds no readable chunk

MAX_NESTING = 32
"""Deepest JSON or nested key that is read. Ours has 4 levels; hostile ones exhaust the stack."""


@dataclass(frozen=True)
class WandbRun:
    """What W&B holds of one run, without W&B's own keys (those that start with an underscore).

    Attributes:
        run_id: the run's id; the one in the file's name where the file ends before the run is named.
        group: the run's group, the study; empty where there is none.
        name: what the user interface shows.
        config: nested, the last state in the file. W&B stores NaN in it as null.
        history: the logged rows in order; a nested key is one key with dots, as W&B shows it.
        summary: nested, the last state in the file.
        exit_code: 0 for success; None where the file has no exit record.
        path: the file; of several, the latest.
        problems: what the reader met: torn or damaged bytes, a missing exit record, no rows, several files.
    """

    run_id: str
    group: str
    name: str
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    exit_code: int | None
    path: Path
    problems: tuple[str, ...]


def read_runs(folder: Path) -> list[WandbRun]:
    """Every run below `folder/offline-run-*`, sorted by run id; none where there is no such folder.

    A run id met in several folders (resumed, interrupted or mirrored again) is one run: its rows are the union by
    epoch, and where two files disagree the later one wins (W&B puts the time, then a counter, in the folder's name).

    Raises:
        InputError: a file that is no run file, cannot be read, or lies outside the folder behind a symlink.
    """
    runs: dict[str, list[WandbRun]] = {}
    for path in sorted(folder.glob("offline-run-*/run-*.wandb"), key=_natural_order):
        _check_inside(path, folder)
        run = read_run(path)
        runs.setdefault(run.run_id, []).append(run)
    return [reduce(_merge, files) for _, files in sorted(runs.items())]


def read_run(path: Path) -> WandbRun:
    """One run file.

    Raises:
        InputError: the file cannot be read, or is no W&B run file of the known version.
    """
    draft = _Draft(run_id=path.stem.removeprefix("run-"))
    for payload in iter_frames(path, draft.problems):
        try:
            record = Record.FromString(payload)
        except DecodeError:
            draft.note("a record that is no W&B record, left out")
            continue
        apply = _HANDLERS.get(record.WhichOneof("record_type"))
        if apply:
            apply(draft, record)
    return draft.finish(path)


def iter_frames(path: Path, problems: list[str]) -> Iterator[bytes]:
    """Yield the whole record payloads of a run file, in order, with one block at a time in memory.

    A record cut off by the end of the file ends the reading: "torn at byte N", N being its first byte. A bad checksum,
    length or type costs the rest of its 32 KiB block and the record that is open there ("damaged at byte N"); reading
    goes on with the first record that begins in a later block, as in `wandb leet inspect`.

    Args:
        path: the run file.
        problems: what is met is appended to it.

    Raises:
        InputError: the file cannot be read, or is no W&B run file of the known version.
    """
    try:
        with path.open("rb") as file:
            yield from _join(_chunks(file, path, problems), problems)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error


Chunk = tuple[int, int, bytes]
"""Byte position in the file, type, payload."""


def _join(chunks: Iterable[Chunk], problems: list[str]) -> Iterator[bytes]:
    """Chunks -> whole records; `parts` holds the record that has begun and not ended."""
    parts: list[bytes] | None = None
    start = 0
    for position, kind, payload in chunks:
        if kind in (FULL, FIRST):
            if parts is not None:
                problems.append(f"record without its end at byte {start}, left out")
            start, parts = position, []
        if kind == TORN:
            start = position if parts is None else start
            problems.append(f"torn at byte {start}")
        if parts is None or kind in (DAMAGED, TORN):
            parts = None  # a MIDDLE or LAST without its FIRST is what is left of a record that was damaged before
            continue
        parts.append(payload)
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = None
    if parts is not None:
        problems.append(f"torn at byte {start}")


def _chunks(file: BinaryIO, path: Path, problems: list[str]) -> Iterator[Chunk]:
    """Yield the chunks of all blocks; the file's header counts into the first block."""
    offset = 0
    while block := file.read(BLOCK_SIZE):
        if offset == 0 and not block.startswith(HEADER):
            _check_header(block, path)
            yield 0, TORN, b""
            return
        yield from _block_chunks(block, offset, problems)
        if len(block) < BLOCK_SIZE:  # the end; a live run may grow behind it, out of step with the blocks
            return
        offset += BLOCK_SIZE
    if offset == 0:
        yield 0, TORN, b""


def _block_chunks(block: bytes, offset: int, problems: list[str]) -> Iterator[Chunk]:
    """Yield the chunks of one block, which begins at byte `offset` of the file. DAMAGED or TORN is its last."""
    position = len(HEADER) if offset == 0 else 0
    while position + CHUNK_HEADER.size <= len(block):
        checksum, length, kind = CHUNK_HEADER.unpack_from(block, position)
        payload_start = position + CHUNK_HEADER.size
        end = payload_start + length
        if len(block) < end <= BLOCK_SIZE:
            break
        if not FULL <= kind <= LAST or end > BLOCK_SIZE or checksum != zlib.crc32(block[payload_start - 1 : end]):
            problems.append(f"damaged at byte {offset + position}, rest of the block left out")
            yield offset + position, DAMAGED, b""
            return
        yield offset + position, kind, block[payload_start:end]
        position = end
    if position < len(block) < BLOCK_SIZE:  # a full block is padded where no chunk header fits
        yield offset + position, TORN, b""


def _check_header(block: bytes, path: Path) -> None:
    """Lets pass what could be the beginning of a run file; refuses the rest."""
    if HEADER.startswith(block):
        return
    if block.startswith(HEADER[:-1]):
        version = block[len(HEADER) - 1]
        raise InputError(f"{path}: run file of version {version}, but only version 0 is known; update canopoint")
    raise InputError(f"{path}: not a W&B run file, it begins with {block[:7]!r}; move it out of the folder")


@dataclass
class _Draft:
    """A run while its records are read."""

    run_id: str
    group: str = ""
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    problems: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        """Once each: a hostile file must not make a long list of them."""
        if problem not in self.problems:
            self.problems.append(problem)

    def add_run(self, record: Any) -> None:
        """Take the names and the config; the record comes again when a name changes."""
        self.run_id = record.run.run_id or self.run_id
        self.group = record.run.run_group or self.group
        self.name = record.run.display_name or self.name
        self._update_config(record.run.config)

    def add_config(self, record: Any) -> None:
        self._update_config(record.config)

    def _update_config(self, change: Any) -> None:
        """Merge mappings key by key, as the public reader does, and replace anything else."""
        for keys, value in self._values(change.update):
            _assign(self.config, keys, value, merge=True)
        for item in change.remove:
            _remove(self.config, _keys(item))

    def add_summary(self, record: Any) -> None:
        """Replace values by later ones, mappings too."""
        for keys, value in self._values(record.summary.update):
            _assign(self.summary, keys, value, merge=False)
        for item in record.summary.remove:
            _remove(self.summary, _keys(item))

    def add_row(self, record: Any) -> None:
        """One logged row; rows that hold W&B's own keys only are left out."""
        row = {".".join(keys): value for keys, value in self._values(record.history.item)}
        if row:
            self.history.append(row)

    def add_exit(self, record: Any) -> None:
        self.exit_code = int(record.exit.exit_code)

    def _values(self, items: Iterable[Any]) -> Iterator[tuple[list[str], Any]]:
        """Key path and decoded value of each item that is the user's."""
        for item in items:
            keys = _keys(item)
            if keys[0].startswith("_"):
                continue
            try:
                yield keys, _decode(keys, item.value_json)
            except ValueError:
                self.note(f"an unreadable value of {keys[0][:80]!r}, left out")

    def finish(self, path: Path) -> WandbRun:
        if self.exit_code is None:
            self.note("no exit record")
        if not self.history:
            self.note("no rows")
        return WandbRun(**{**vars(self), "problems": tuple(self.problems)}, path=path)


_HANDLERS: dict[str | None, Callable[[_Draft, Any], None]] = {
    "run": _Draft.add_run,
    "config": _Draft.add_config,
    "summary": _Draft.add_summary,
    "history": _Draft.add_row,
    "exit": _Draft.add_exit,
}
"""Type of record -> what it adds to the run; all other types (telemetry, files, ...) hold nothing of ours."""


def _keys(item: Any) -> list[str]:
    return list(item.nested_key) or [item.key]


def _decode(keys: list[str], text: str) -> Any:
    """W&B's JSON, which writes NaN and Infinity bare.

    Raises:
        ValueError: not JSON, nested too deep, or half a surrogate pair in a string, which nothing could print.
    """
    if len(keys) > MAX_NESTING or (text[:1] in ("[", "{") and len(keys) + _nesting(text) > MAX_NESTING):
        raise ValueError(f"nested deeper than {MAX_NESTING}")
    value = json.loads(text)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _nesting(text: str) -> int:
    """Depth of a JSON text, before parsing. Brackets within strings count: no value of ours has 32 unclosed ones."""
    steps = (1 if bracket.group() in "[{" else -1 for bracket in re.finditer(r"[\[\]{}]", text))
    return max(accumulate(steps), default=0)


def _assign(target: dict[str, Any], keys: list[str], value: Any, *, merge: bool) -> None:
    """Set `value` at the path `keys`, making the mappings on the way."""
    for key in keys[:-1]:
        inner = target.get(key)
        if not isinstance(inner, dict):
            inner = target[key] = {}
        target = inner
    if merge and isinstance(value, dict) and isinstance(target.get(keys[-1]), dict):
        for key, inner in value.items():
            _assign(target[keys[-1]], [key], inner, merge=True)
    else:
        target[keys[-1]] = value


def _remove(target: dict[str, Any], keys: list[str]) -> None:
    """Take the path `keys` out; nothing where it is not there."""
    for key in keys[:-1]:
        inner = target.get(key)
        if not isinstance(inner, dict):
            return
        target = inner
    target.pop(keys[-1], None)


def _merge(earlier: WandbRun, later: WandbRun) -> WandbRun:
    """Two files of one run id -> one run, whose problems name their file's folder."""
    rows = {_row_key(row, index): row for index, row in enumerate([*earlier.history, *later.history])}
    note = f"merged from {earlier.path.parent.name} and {later.path.parent.name}"
    return replace(
        later,
        group=later.group or earlier.group,
        name=later.name or earlier.name,
        config={**earlier.config, **later.config},
        history=sorted(rows.values(), key=_epoch_order),
        summary={**earlier.summary, **later.summary},
        exit_code=earlier.exit_code if later.exit_code is None else later.exit_code,
        problems=(*_placed_problems(earlier), note, *_placed_problems(later)),
    )


def _placed_problems(run: WandbRun) -> tuple[str, ...]:
    """Name the folder in each problem, where a merge has not done so."""
    place = f"{run.path.parent.name}: "
    if any(problem.startswith("merged from ") for problem in run.problems):
        return run.problems
    return tuple(place + problem for problem in run.problems)


def _row_key(row: dict[str, Any], index: int) -> tuple[str, Any]:
    """Equal for rows of the same epoch; a row without a number for an epoch equals none."""
    epoch = row.get("epoch")
    return ("epoch", epoch) if isinstance(epoch, int | float) else ("row", index)


def _epoch_order(row: dict[str, Any]) -> float:
    """Rows without an epoch last; the sort is stable, so in the order they were read."""
    epoch = row.get("epoch")
    return epoch if isinstance(epoch, int | float) and epoch == epoch else float("inf")


def _natural_order(path: Path) -> list[str | int]:
    """Sorts `run-10` after `run-2`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.parent.name)]


def _check_inside(path: Path, folder: Path) -> None:
    """Refuses what a hostile folder could point at: files elsewhere, and pipes or devices, which block a reader."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise InputError(f"{path}: is a symlink out of {folder}; copy the run into the folder instead")
    if not real.is_file():
        raise InputError(f"{path}: must be a regular file; remove it from the folder")
