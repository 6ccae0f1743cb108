"""One makes it and the others wait; with real processes that are really killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trainable.shared_folder import find_damage, make_once

MAKER = """
import sys, time
from pathlib import Path
from trainable.shared_folder import make_once

target, go = Path(sys.argv[1]), Path(sys.argv[2])
def make(scratch):
    (scratch / "half").write_text("half")
    print("making", flush=True)
    while not go.exists():
        time.sleep(0.01)
    (scratch / "whole").write_text("whole")
print("started", flush=True)
make_once(target, make)
print("there" if (target / "whole").is_file() else "missing", flush=True)
"""


def start(target: Path, go: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAKER, str(target), str(go)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def content(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_one_makes_it_and_the_others_wait(tmp_path: Path) -> None:
    target, go = tmp_path / "cache" / "store", tmp_path / "go"
    first = start(target, go)
    assert [said(first), said(first)] == ["started", "making"]
    others = [start(target, go) for _ in range(2)]
    assert [said(other) for other in others] == ["started"] * 2
    time.sleep(0.2)
    assert [other.poll() for other in others] == [None, None]  # they wait
    assert not target.exists()
    go.touch()
    assert [process.communicate(timeout=30)[0] for process in (first, *others)] == [
        "there\n"
    ] * 3  # made by none of them
    assert content(tmp_path / "cache") == ["store", "store/checksums.json", "store/half", "store/whole"]


def test_a_killed_maker_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    target, go = tmp_path / "cache" / "store", tmp_path / "go"
    killed = start(target, go)
    assert [said(killed), said(killed)] == ["started", "making"]
    waiting = start(target, go)
    assert said(waiting) == "started"
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.communicate(timeout=30)[0] == ""
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    go.touch()
    assert waiting.communicate(timeout=30)[0] == "making\nthere\n"
    assert content(tmp_path / "cache") == ["store", "store/checksums.json", "store/half", "store/whole"]


def make_two(scratch: Path) -> None:
    (scratch / "inner").mkdir()
    (scratch / "file").write_text("whole")
    (scratch / "inner" / "file").write_text("whole")


def test_what_is_there_is_not_made(tmp_path: Path) -> None:
    make_once(tmp_path / "store", make_two)
    (tmp_path / "store" / "desktop.ini").touch()  # what came later does not matter
    make_once(tmp_path / "store", lambda scratch: pytest.fail("made again"))
    assert find_damage(tmp_path / "store") == ""


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])


@pytest.mark.parametrize("name", ["file", "inner/file", "checksums.json"])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_one_is_set_aside_and_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None]
) -> None:
    for aside in ("store.damaged", "store.damaged-2"):
        make_once(tmp_path / "store", make_two)
        damage(tmp_path / "store" / name)
        make_once(tmp_path / "store", make_two)
        assert find_damage(tmp_path / "store") == ""
        assert find_damage(tmp_path / aside) != ""
        assert caplog.messages[-1].startswith(f"{tmp_path / 'store'} is damaged (")
        assert name in caplog.messages[-1]
        assert caplog.messages[-1].endswith(f"set aside as {aside}")


def test_of_two_that_find_it_damaged_one_makes_it_anew(tmp_path: Path) -> None:
    target, go = tmp_path / "store", tmp_path / "go"
    target.mkdir()
    first = start(target, go)
    assert [said(first), said(first)] == ["started", "making"]
    go.touch()
    second = start(target, go)
    assert said(second) == "started"
    assert [process.communicate(timeout=30)[0] for process in (first, second)] == ["there\n"] * 2
    assert content(tmp_path) == [
        "go", "store", "store.damaged", "store/checksums.json", "store/half", "store/whole"
    ]  # fmt: skip


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_neither_folder_nor_parents(tmp_path: Path, error: type[BaseException]) -> None:
    def make(scratch: Path) -> None:
        (scratch / "half").write_text("half")
        raise error

    with pytest.raises(error):
        make_once(tmp_path / "new" / "cache" / "store", make)
    assert content(tmp_path) == []


def test_a_failure_leaves_what_others_have_put_there(tmp_path: Path) -> None:
    def make(scratch: Path) -> None:
        (tmp_path / "new" / "other").mkdir()
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        make_once(tmp_path / "new" / "store", make)
    assert content(tmp_path) == ["new", "new/other"]


def test_a_waiter_takes_over_after_a_failure(tmp_path: Path) -> None:
    # The failing holder removes the lock file that the waiter holds open: it must not take that for the lock.
    target, go = tmp_path / "store", tmp_path / "go"
    waiting: list[subprocess.Popen[str]] = []

    def make(scratch: Path) -> None:
        waiting.append(start(target, go))
        assert said(waiting[0]) == "started"
        time.sleep(0.2)
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        make_once(target, make)
    assert said(waiting[0]) == "making"
    assert (tmp_path / "store.lock").exists()
    third = start(target, go)
    assert said(third) == "started"
    time.sleep(0.2)
    assert content(tmp_path) == [".making-store", ".making-store/half", "store.lock"]  # nobody else is making
    go.touch()
    assert [process.communicate(timeout=30)[0] for process in (waiting[0], third)] == ["there\n"] * 2
    assert content(tmp_path) == ["go", "store", "store/checksums.json", "store/half", "store/whole"]
