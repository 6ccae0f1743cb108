"""A canopoint command as a process whose output can be read meanwhile, and which leaves nothing behind."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from signal import Signals
from typing import Self

from bench.hosts import LOOPBACK, Host
from bench.processes import Process, descendants, kill_trees, process, wait_for

PROGRAM = Path(sys.executable).parent / "canopoint"


class Command:
    """A command from its start on; it is killed, and whatever it has started, where the block ends before it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *arguments: str, host: Host = LOOPBACK[0]) -> None:
        """Starts it.

        Args:
            folder: where it works; what it says is kept there, one file for each command.
            environment: beside our own; an empty value takes a variable away.
            arguments: as in `submit`, `demo`.
            host: on which it runs.
        """
        self.log = folder / f"said-{len(list(folder.glob('said-*')))}.txt"
        with self.log.open("w") as file:
            self._popen = subprocess.Popen(
                [*host.prefix, str(PROGRAM), *arguments],
                cwd=folder,
                env={name: value for name, value in {**os.environ, **environment}.items() if value},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._process = process(self._popen.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        kill_trees([self._process] if self._process else [])
        self._popen.wait()

    @property
    def said(self) -> str:
        """What it has said so far, standard output and errors together."""
        return self.log.read_text()

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self._popen.poll() is not None

    def processes(self) -> list[Process]:
        """It and what it has started, and what that has started, and so on."""
        return [self._process, *descendants(self._process)] if self._process else []

    def send(self, number: Signals) -> None:
        """Sends it a signal."""
        if self._process:
            self._process.send(number)

    def wait_until_it_says(self, text: str, within_s: float) -> None:
        """Waits until it has said that.

        Raises:
            TimeUpError: it did not, in that time.
            RuntimeError: it has ended before.
        """
        wait_for(lambda: text in self.said or self.has_ended, within_s, f"{text!r}; see {self.log}")
        if text not in self.said:
            raise RuntimeError(f"it ended without {text!r}: {self.said}")

    def wait(self, within_s: float) -> int:
        """Waits for its end; returns the exit code."""
        wait_for(lambda: self.has_ended, within_s, f"the end of the command; see {self.log}")
        return int(self._popen.returncode)


def run(folder: Path, environment: Mapping[str, str], *arguments: str, within_s: float = 60.0) -> tuple[int, str]:
    """A command from its start to its end; returns (exit code, what it said)."""
    with Command(folder, environment, *arguments) as command:
        return command.wait(within_s), command.said
