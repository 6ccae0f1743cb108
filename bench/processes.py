"""Processes found by who started them, never by name, and ended by number. Linux: everything is read from /proc."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.1
GONE_WITHIN_S = 30.0
MAX_PASSES = 50


class TimeUpError(RuntimeError):
    """Something did not happen in the time it was given."""


@dataclass(frozen=True, order=True)
class Process:
    """A process, told from a later one of the same number by its start.

    Attributes:
        start: clock ticks from the system's start to the process's.
    """

    pid: int
    start: int

    @property
    def lives(self) -> bool:
        """Whether it runs, or is suspended; one that is dying or waits to be reaped does not."""
        found = _read(self.pid)
        return found is not None and found[1] == self

    def send(self, number: int) -> None:
        """Sends a signal to this process and to no other; none where it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)  # stands for one process, whoever gets its number later
        except ProcessLookupError:
            return
        try:
            if self.lives:
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)


def process(pid: int) -> Process | None:
    """The process of that number; None where there is none, or it is dying."""
    found = _read(pid)
    return found[1] if found else None


def descendants(root: Process) -> list[Process]:
    """What a living process has started, and what that has started, and so on; those that lost a parent apart."""
    children: dict[int, list[Process]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if found := _read(int(entry.name)):
            children.setdefault(found[0], []).append(found[1])
    below: list[Process] = []
    todo = [root] if root.lives else []
    while todo:
        found_below = children.get(todo.pop().pid, [])
        below += found_below
        todo += found_below
    return below


def kill_trees(roots: Iterable[Process]) -> list[Process]:
    """Ends processes and all below them at one stroke, without a chance to tidy up; returns them when they are gone.

    All are suspended first: whoever still ran could start another, and whose parent has ended is not found any more.
    """
    roots = list(roots)
    stopped: set[Process] = set()
    for _ in range(MAX_PASSES):
        found = {*roots, *(each for root in roots for each in descendants(root))} - stopped
        if not found:
            break
        for each in found:
            each.send(signal.SIGSTOP)
        stopped |= found
    for each in stopped:
        each.send(signal.SIGKILL)
    wait_gone(stopped)
    return sorted(stopped)


def wait_gone(processes: Iterable[Process], within_s: float = GONE_WITHIN_S) -> None:
    """Waits until none of them lives.

    Raises:
        TimeUpError: one still does.
    """
    wait_for(lambda: not any(each.lives for each in processes), within_s, f"the end of {processes}", poll_s=0.01)


def wait_for(condition: Callable[[], bool], within_s: float, what: str, poll_s: float = POLL_S) -> float:
    """Waits until the condition holds and returns the seconds it took.

    Raises:
        TimeUpError: it did not hold within that time; `what` says what was waited for.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > within_s:
            raise TimeUpError(f"waited {within_s:g} s for {what}")
        time.sleep(poll_s)
    return time.monotonic() - started


def _read(pid: int) -> tuple[int, Process] | None:
    """(number of the parent, process), or None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:  # gone meanwhile
        return None
    return None if fields[0] in b"ZXx" else (int(fields[1]), Process(pid, int(fields[19])))
