"""W&B's run files: bytes -> the payload of each record.

A run file `run-<id>.wandb` is a leveldb log (wandb 0.31): a 7-byte header, then blocks of 32 KiB that hold chunks of a
4-byte checksum (plain CRC-32 of type and payload, unmasked, unlike leveldb's own), a 2-byte length, a 1-byte type and
the payload. One record is one FULL chunk, or FIRST, any number of MIDDLE, LAST.

The rules for damage are those of the public reader, `wandb leet inspect`, and every use of them is named in `problems`.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from trainable.config import InputError

HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
"""First bytes of every run file: name, magic number, version."""

BLOCK_SIZE = 32 * 1024
CHUNK_HEADER = struct.Struct("<IHB")
"""Checksum, length of the payload, type."""

FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
DAMAGED, TORN = -1, -2  # ours: what a block holds where it holds no readable chunk

Chunk = tuple[int, int, bytes]
"""Byte position in the file, type, payload."""


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
