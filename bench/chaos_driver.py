"""`canopoint run` as a process that can be watched, interrupted and killed with everything it has started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.chaos_study import StudyCopy
from bench.processes import Process, TimeUpError, descendants, kill_trees, process, wait_for

END_WITHIN_S = 1800.0
"""Longest time that a run may take to its end."""
TIDY_WITHIN_S = 5.0
"""Time that a run's helpers get to end after it."""


class RunFailedError(RuntimeError):
    """The command ended otherwise than it had to; says what it said last."""


@dataclass(frozen=True)
class Ending:
    """How a driver took a signal that asks it to end.

    Attributes:
        exit_code: 3 as it should be; -9 where it had to be killed.
        took_s: from the signal to its end.
        left_behind: processes of its that ran on, and were ended.
    """

    exit_code: int
    took_s: float
    left_behind: int


class Driver:
    """The command on a copy of the study; it is killed, and whatever it has started, where the block ends before it.

    Attributes:
        started: when the command was given, unix seconds.
        popen: the process; its exit code once it has ended.
    """

    def __init__(self, copy: StudyCopy, environment: Mapping[str, str], *arguments: str) -> None:
        self.copy = copy
        self._seen: set[Process] = set()
        command = [str(Path(sys.executable).parent / "canopoint"), "run", "study.yaml", *arguments]
        with copy.log.open("a") as log:
            log.write(f"\n$ canopoint {' '.join(command[1:])}\n")
            log.flush()
            self.started = time.time()
            self.popen = subprocess.Popen(
                command,
                cwd=copy.folder,
                env={**os.environ, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt at the terminal is not for it
            )
        found = process(self.popen.pid)
        self.process = found or Process(self.popen.pid, 0)  # gone already

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self.popen.poll() is not None

    def below(self) -> list[Process]:
        """What it has started, and what that has started, and so on."""
        found = descendants(self.process)
        self._seen.update(found)
        return found

    def kill(self) -> None:
        """Kills it and all below it at one stroke."""
        kill_trees([self.process, *self._seen])
        self.popen.wait()

    def end(self, number: signal.Signals, within_s: float) -> Ending:
        """Sends a signal and, where the driver is still there after that time, kills it and all below it."""
        self.below()
        sent = time.monotonic()
        self.process.send(number)
        try:
            self.wait(within_s)
        except TimeUpError:
            self.kill()
        took_s = time.monotonic() - sent
        return Ending(self.popen.returncode, took_s, self._end_helpers())

    def run_to_end(self) -> None:
        """Waits for its end.

        Raises:
            RunFailedError: it did not end with 0.
            TimeUpError: it did not end at all.
        """
        self.wait(END_WITHIN_S)
        if self.popen.returncode:
            last = "\n".join(self.copy.log.read_text().strip().splitlines()[-8:])
            raise RunFailedError(f"canopoint run ended with {self.popen.returncode}; {self.copy.log} ends with\n{last}")
        self._end_helpers()

    def wait(self, within_s: float) -> None:
        """Waits for its end, whatever the exit code, and keeps an eye on what it starts."""

        def ended() -> bool:
            self.below()
            return self.has_ended

        wait_for(ended, within_s, f"the end of canopoint run; see {self.copy.log}")

    def _end_helpers(self) -> int:
        """Gives the helpers of a driver that has ended time to end, too; returns how many had to be killed."""
        try:
            wait_for(lambda: not any(each.lives for each in self._seen), TIDY_WITHIN_S, "its helpers")
        except TimeUpError:
            return len(kill_trees(each for each in self._seen if each.lives))
        return 0


def run_undisturbed(copy: StudyCopy, environment: Mapping[str, str]) -> dict[str, str]:
    """Runs the study to its end and returns its result hashes, by trial id."""
    with Driver(copy, environment) as driver:
        driver.run_to_end()
    hashes = copy.hashes()
    assert sorted(hashes) == sorted(copy.trial_ids()), "a complete study has the results of all its trials"
    return hashes
