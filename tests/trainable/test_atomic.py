"""The lock of a folder, with real processes. `write_atomically` and its kin are shown by those who use them."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainable import atomic
from trainable.atomic import DYING_S, LOCK_FILE, open_regular, read_holder, sole_user
from trainable.config import InputError

HOLD = """
import os, subprocess, sys, time
from pathlib import Path
from trainable.atomic import sole_user
sys.argv = ["/somewhere/canopoint", "run", "--token=secret"]
with sole_user(Path(os.environ["FOLDER"])):
    INSIDE
    print("held", flush=True)
    time.sleep(60)
"""
ASK = """
import sys, time
from pathlib import Path
from trainable.atomic import read_holder
while True:
    read_holder(Path(sys.argv[1]))
    time.sleep(0.001)
"""
FORK = "child = os.fork() or time.sleep(60)"
LEAVE_TO_A_PROGRAM = """
    (lock,) = [fd for fd in os.listdir("/proc/self/fd") if os.path.realpath("/proc/self/fd/" + fd).endswith(".lock")]
    os.set_inheritable(int(lock), True)
    subprocess.Popen(["sleep", "SECONDS"], close_fds=False)
"""

Process = subprocess.Popen[str]
Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process, in a group of its own, that holds `tmp_path` before this returns; ended with the test."""
    started = []

    def hold(inside: str = "pass") -> Process:
        command = [sys.executable, "-c", HOLD.replace("INSIDE", inside)]
        environment = {**os.environ, "FOLDER": str(tmp_path)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        with contextlib.suppress(ProcessLookupError):  # it and all that it started are gone
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught, sole_user(folder):
        pass
    message = str(caught.value)
    assert message.startswith(f"{folder}: ")
    assert "\n" not in message
    return message.removeprefix(f"{folder}: ")


def test_a_second_driver_is_refused_and_told_who_works_here_and_how_to_end_it(start: Start, tmp_path: Path) -> None:
    process = start()
    record = (tmp_path / LOCK_FILE).read_bytes()
    started = time.monotonic()
    message = refusal(tmp_path)
    assert time.monotonic() - started < 1  # a living holder is not waited for
    assert message.startswith(f"canopoint run (pid {process.pid} on host {os.uname().nodename}, since ")
    assert message.endswith(f") is working here; wait for it or end it (kill -INT {process.pid})")
    assert (tmp_path / LOCK_FILE).read_bytes() == record  # the refused one has written nothing
    assert b"secret" not in record


def test_the_lock_is_free_again_when_its_holder_leaves_or_fails(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError), sole_user(folder):
            assert read_holder(folder)[0]
            raise ZeroDivisionError
    assert read_holder(folder) == (False, None)


def test_the_lock_of_a_killed_holder_is_taken(start: Start, tmp_path: Path) -> None:
    process = start()
    started = time.monotonic()
    process.kill()  # and not waited for: it may still be dying, and is a zombie then
    with sole_user(tmp_path):
        assert time.monotonic() - started < DYING_S
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_what_a_dead_holder_left_behind_is_waited_for(start: Start, tmp_path: Path) -> None:
    process = start(LEAVE_TO_A_PROGRAM.replace("SECONDS", "1"))
    process.kill()
    with sole_user(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_but_not_for_ever(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "DYING_S", 0.5)
    process = start(LEAVE_TO_A_PROGRAM.replace("SECONDS", "60"))
    process.kill()
    message = refusal(tmp_path)
    assert f"canopoint run (pid {process.pid} " in message
    assert f"has ended, but a process that it left holds the lock; end that one (fuser {tmp_path}/.lock" in message


def test_a_suspended_holder_is_alive_and_its_folder_is_not_taken(start: Start, tmp_path: Path) -> None:
    process = start()
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    message = refusal(tmp_path)
    assert message.startswith(f"canopoint run (pid {process.pid} ")
    assert f"is suspended here; continue it (kill -CONT {process.pid}) or end it" in message


def test_a_forked_child_does_not_hold_its_dead_parent_s_folder(start: Start, tmp_path: Path) -> None:
    process = start(FORK)
    assert f"pid {process.pid} " in refusal(tmp_path)  # the child's end of it took nothing from its parent
    process.kill()
    process.wait()
    started = time.monotonic()
    with sole_user(tmp_path):
        assert time.monotonic() - started < 1
    os.killpg(process.pid, 0)  # while the child is still there


def test_programs_that_the_holder_starts_do_not_get_the_lock(tmp_path: Path) -> None:
    with open_regular(tmp_path / LOCK_FILE, os.O_RDWR | os.O_CREAT) as file:
        assert fcntl.fcntl(file, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_a_reused_process_number_is_not_the_holder(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "DYING_S", 0.5)
    start()
    record = json.loads((tmp_path / LOCK_FILE).read_text())
    (tmp_path / LOCK_FILE).write_text(json.dumps({**record, "start": record["start"] - 1}))
    assert read_holder(tmp_path)[1].seems_dead
    started = time.monotonic()
    assert "has ended, but" in refusal(tmp_path)  # the lock decides, and it is held
    assert 0.5 <= time.monotonic() - started < 1.5


def test_a_holder_on_another_host_is_believed_alive(start: Start, tmp_path: Path) -> None:
    start()
    record = json.loads((tmp_path / LOCK_FILE).read_text())
    changed = {**record, "host": "node7", "user": "anna", "pid": 2**30, "since": 86400 * 365.0}
    (tmp_path / LOCK_FILE).write_text(json.dumps(changed))
    message = refusal(tmp_path)
    assert message.startswith("canopoint run (pid 1073741824 of anna on host node7, since 1971-01-01 ")
    assert message.endswith("is working here; wait for it or end it on that host (kill -INT 1073741824)")


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"{}", b"[1]", b"[" * 4096, b'{"pid": 1', b"\xff\xfe"])
def test_a_lock_file_that_says_nothing_still_locks(start: Start, tmp_path: Path, content: bytes) -> None:
    start()
    (tmp_path / LOCK_FILE).write_bytes(content)
    assert read_holder(tmp_path) == (True, None)
    assert refusal(tmp_path) == (
        f"another canopoint is working here ({tmp_path}/.lock does not say which); wait for it or end it"
    )
    assert (tmp_path / LOCK_FILE).read_bytes() == content


def test_asking_who_works_here_disturbs_nobody(start: Start, tmp_path: Path) -> None:
    assert read_holder(tmp_path) == (False, None)
    assert list(tmp_path.iterdir()) == []
    process = start()
    is_held, holder = read_holder(tmp_path)
    assert is_held
    assert (holder.pid, holder.command) == (process.pid, "canopoint run")


def test_who_asks_at_that_instant_keeps_nobody_out(tmp_path: Path) -> None:
    asking = "while True: read_holder(Path(sys.argv[1])); time.sleep(0.001)"
    command = [
        sys.executable,
        "-c",
        f"import sys, time; from pathlib import Path; from trainable.atomic import *\n{asking}",
    ]
    with sole_user(tmp_path):
        process = subprocess.Popen([*command, str(tmp_path)])
    try:
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            with sole_user(tmp_path):
                pass
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_storage_without_locks_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file system here lacks them, so that the system's answer is put in its place."""
    for code in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):

        def no_locks(descriptor: object, operation: int, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(fcntl, "flock", no_locks)
        message = refusal(tmp_path)
        assert message.startswith(f"this file system has no locks ({os.strerror(code)})")
        assert "use another storage (--set storage=" in message


@pytest.mark.parametrize("use", [lambda folder: sole_user(folder).__enter__(), read_holder])
def test_what_is_no_file_of_ours_is_refused_and_left_alone(tmp_path: Path, use: Callable[[Path], object]) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    lock = tmp_path / LOCK_FILE
    lock.symlink_to(precious)
    with pytest.raises(InputError, match=r"\.lock: cannot be opened: is a link; "):
        use(tmp_path)
    assert precious.read_text() == "mine"
    lock.unlink()
    lock.symlink_to(tmp_path / "absent")
    with pytest.raises(InputError, match=r"is a link"):
        use(tmp_path)
    lock.unlink()
    lock.mkdir()
    with pytest.raises(InputError, match=r"Is a directory|must be a file"):
        use(tmp_path)
    lock.rmdir()
    os.mkfifo(lock)
    with pytest.raises(InputError, match=r"\.lock: must be a file"):
        use(tmp_path)
