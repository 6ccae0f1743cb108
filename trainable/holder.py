"""Which process works in a folder, as its lock file says, and whether that process still lives."""

import getpass
import json
import os
import re
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """The process that works in a folder.

    Attributes:
        start: clock ticks from the system's start to the process's: tells it from a later one of the same number.
            None where the system does not say (no /proc).
        command: program and sub-command alone; other arguments may be secret.
        since: when it took the folder, unix seconds.
    """

    host: str
    pid: int
    start: int | None
    user: str
    command: str
    since: float

    @classmethod
    def of_this_process(cls) -> "Holder":
        """Whoever asks."""
        pid = os.getpid()
        return cls(os.uname().nodename, pid, _process(pid)[1], _user(), _command(), time.time())

    @classmethod
    def parse(cls, content: bytes) -> "Holder | None":
        """What a lock file says; None where it is empty or makes no sense, as it may be anyone's."""
        try:
            holder = cls(**json.loads(content))
            time.localtime(holder.since)
        except (ValueError, TypeError, OverflowError, OSError, RecursionError):
            return None
        numbers = (holder.pid, holder.start or 0)
        texts = (holder.host, holder.user, holder.command)
        is_sound = all(type(each) is int for each in numbers) and all(isinstance(each, str) for each in texts)
        return holder if is_sound and holder.pid > 0 else None

    def to_bytes(self) -> bytes:
        """What `parse` reads: JSON, and a person too."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this host."""
        return self.host == os.uname().nodename

    @property
    def seems_dead(self) -> bool:
        """Whether it is gone from this host or dying, or its number is another process's by now."""
        return self.is_here and self.start is not None and _process(self.pid)[1] != self.start

    @property
    def is_suspended(self) -> bool:
        """Whether it was stopped, as by Ctrl-Z."""
        return self.is_here and _process(self.pid)[0] == "T"

    def __str__(self) -> str:
        is_today = time.strftime("%F", time.localtime(self.since)) == time.strftime("%F")
        when = time.strftime("%T" if is_today else "%F %T", time.localtime(self.since))
        owner = "" if self.user == _user() else f" of {self.user}"
        return f"{self.command} (pid {self.pid}{owner} on host {self.host}, since {when})"


def _process(pid: int) -> tuple[str, int | None]:
    """State letter and start (clock ticks since the system's) of a process; ("", None) of one that is gone or dying."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return "", None
    return ("", None) if fields[0] in b"ZXx" else (fields[0].decode(), int(fields[19]))


def _command() -> str:
    words = [word for word in sys.argv[1:2] if re.fullmatch("[a-z]{1,20}", word)]
    program = Path(sys.argv[0]).stem
    return " ".join(["python" if program in ("", "-", "-c") else program, *words])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as containers have them
        return f"user {os.getuid()}"
