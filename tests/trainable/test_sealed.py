import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from trainable.config import InputError
from trainable.sealed import (
    DamagedError,
    read_sealed,
    sealed_line,
    set_aside,
    take_sealed,
    unseal,
    unseal_line,
    write_sealed,
)

CONTENT: dict[str, Any] = {"name": "Wäldchen", "share": 0.1 + 0.2, "epochs": [1, 2], "inner": {"nothing": None}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "result.json"


def test_what_is_written_is_read_again(path: Path) -> None:
    assert read_sealed(path) is None
    for content in (CONTENT, {}, {"b": 1, "a": (1.0, float("inf"))}):
        write_sealed(path, content)
        assert read_sealed(path) == json.loads(json.dumps(content))
    assert [each.name for each in path.parent.iterdir()] == ["result.json"]


def test_the_file_is_plain_json_and_its_checksum_can_be_computed_anywhere(path: Path) -> None:
    write_sealed(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1, "sha256": hashlib.sha256(b'{"a": 1}').hexdigest()}


def test_every_truncation_is_noticed(path: Path) -> None:
    write_sealed(path, CONTENT)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError, match=r"result\.json: damaged"):
            read_sealed(path)


def test_every_flipped_bit_is_noticed(path: Path) -> None:
    # Of a digit that no float holds, of a space and of the checksum itself, too.
    write_sealed(path, CONTENT)
    whole = path.read_bytes()
    assert unseal(whole) == CONTENT
    for place in range(len(whole)):
        for bit in range(8):
            with pytest.raises(DamagedError):
                unseal(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])


@pytest.mark.parametrize("text", ["[1]", "3", '"a"', "null", "{}", '{"a": 1}', '{"sha256": null}', "[" * 100_000])
def test_what_was_never_sealed_is_refused_in_one_line(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(InputError, match=r"result\.json: damaged \(.+\); remove it and run again$") as caught:
        read_sealed(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_set_aside_and_named(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, name in enumerate(("result.json.damaged", "result.json.damaged-2", "result.json.damaged-3")):
        text = f'{{"half": {number}'
        path.write_text(text)
        assert take_sealed(path) is None
        assert not path.exists()
        assert path.with_name(name).read_text() == text
        assert f"{path} is damaged" in caplog.messages[-1]
        assert caplog.messages[-1].endswith(f"set aside as {name}")
    assert take_sealed(path) is None  # absent, and nothing more is said
    assert len(caplog.messages) == 3
    write_sealed(path, CONTENT)
    assert take_sealed(path) == CONTENT


def test_a_line_is_read_again_or_not_at_all() -> None:
    line = sealed_line(CONTENT).encode()
    assert line.count(b"\n") == 1
    assert unseal_line(line) == unseal_line(line[:-1]) == CONTENT
    for place in range(len(line) - 1):
        assert unseal_line(line[:place]) is None
        for bit in range(8):
            assert unseal_line(line[:place] + bytes([line[place] ^ 1 << bit]) + line[place + 1 :]) is None
    for never_sealed in (b"", b"{}", b"3", b"[1]", b'{"a": 1}', b"\xff", b"[" * 100_000):
        assert unseal_line(never_sealed) is None


def test_folders_are_set_aside_too(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "images.npy").write_text("damaged")
    aside = set_aside(tmp_path / "store", "its checksum does not match")
    assert aside == tmp_path / "store.damaged"
    assert (aside / "images.npy").read_text() == "damaged"


def test_a_checksum_among_the_content_is_our_own_mistake(path: Path) -> None:
    with pytest.raises(AssertionError):
        write_sealed(path, {"sha256": "0"})
