"""Run files made by hand, chunk by chunk; real ones are read in test_wandb_runs.py."""

import os
import zlib
from pathlib import Path

import pytest

from analysis.reading.run_files import BLOCK_SIZE, HEADER, iter_frames
from trainable.config import InputError


def chunk(kind: int, payload: bytes) -> bytes:
    """Checksum, length, type, payload, little-endian. The checksum is zlib's CRC-32 of type and payload."""
    checksum = zlib.crc32(bytes([kind]) + payload)
    return checksum.to_bytes(4, "little") + len(payload).to_bytes(2, "little") + bytes([kind]) + payload


def write_file(folder: Path, *parts: bytes) -> Path:
    path = folder / "run-hand.wandb"
    path.write_bytes(HEADER + b"".join(parts))
    return path


def frames(path: Path) -> tuple[list[bytes], list[str]]:
    problems: list[str] = []
    return list(iter_frames(path, problems)), problems


def block_of(payload_byte: bytes, room: int = BLOCK_SIZE) -> bytes:
    """One FULL chunk that fills `room` bytes."""
    return chunk(1, payload_byte * (room - 7))


def test_header_is_the_one_wandb_writes() -> None:
    assert HEADER == b":W&B\xe1\xbe\x00"  # name, magic number 0xBEE1 and version 0, little-endian


def test_chunks_join_to_records(tmp_path: Path) -> None:
    path = write_file(tmp_path, chunk(1, b"one"), chunk(2, b"t"), chunk(3, b"w"), chunk(4, b"o"), chunk(1, b""))
    assert frames(path) == ([b"one", b"two", b""], [])


def test_a_block_ends_in_padding_where_no_header_fits(tmp_path: Path) -> None:
    room = BLOCK_SIZE - len(HEADER) - 6
    path = write_file(tmp_path, block_of(b"a", room), bytes(6), chunk(1, b"next"))
    assert frames(path) == ([b"a" * (room - 7), b"next"], [])


@pytest.mark.parametrize(
    ("damage", "found", "problem"),
    [
        (chunk(1, b"bad")[:-1] + b"!", [b"one", b"ok"], "damaged at byte 17"),  # checksum: 7 + (7 + 3) = 17
        (bytes(40), [b"one", b"ok"], "damaged at byte 17"),  # zeroed by a power cut
        (b"\0\0\0\0\xff\xff\x01", [b"one", b"ok"], "damaged at byte 17"),  # longer than a block
        (chunk(9, b"what"), [b"one", b"ok"], "damaged at byte 17"),  # no such type
        (chunk(2, b"open") + b"\xff" * 40, [b"one", b"ok"], "damaged at byte 28"),  # takes the open record with it
    ],
)
def test_damage_costs_the_rest_of_its_block(damage: bytes, found: list[bytes], problem: str, tmp_path: Path) -> None:
    first = HEADER + chunk(1, b"one") + damage + chunk(1, b"lost")
    rest = bytes(BLOCK_SIZE - len(first)) + chunk(3, b"of the lost") + chunk(4, b"record") + chunk(1, b"ok")
    path = write_file(tmp_path, first.removeprefix(HEADER), rest)
    assert frames(path) == (found, [f"{problem}, rest of the block left out"])


def test_a_record_that_never_ends_is_named(tmp_path: Path) -> None:
    assert frames(write_file(tmp_path, chunk(2, b"a"), chunk(1, b"b"))) == (
        [b"b"],
        ["record without its end at byte 7, left out"],
    )
    assert frames(write_file(tmp_path, chunk(1, b"b"), chunk(2, b"a"))) == ([b"b"], ["torn at byte 15"])
    assert frames(write_file(tmp_path, chunk(2, b"b"), chunk(3, b"cut")[:-1])) == ([], ["torn at byte 7"])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x89PNG\r\n\x1a\n", "not a W&B run file"), (HEADER[:-1] + b"\x01", "of version 1")],
)
def test_other_files_are_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run-other.wandb"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"run-other.wandb: .*{message}"):
        frames(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = write_file(tmp_path)
    path.chmod(0)
    with pytest.raises(InputError, match=r"run-hand.wandb: cannot be read \(Permission denied\)"):
        frames(path)
