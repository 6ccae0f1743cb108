"""Watching a study from its files alone: live in a terminal, in lines elsewhere, until nobody works on it any more."""

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from cluster.gpu_use import GpuUse
from cluster.interrupts import Interrupts
from cluster.preparation import Say
from cluster.remote_study import RemoteStudy
from cluster.status import Status, read_status, status_text
from cluster.terminal import COMPLETE, INCOMPLETE, inert, program
from cluster.tracking_address import read_address
from cluster.trial_states import TrialState
from cluster.watch_log import ChangeLog
from cluster.watch_picture import Picture
from cluster.watch_screen import Screen, opened_screen
from study.spec import StudySpec, load_study
from trainable.config import InputError
from trainable.holder import Holder
from trainable.storage_url import is_url

SHORTEST_S, LONGEST_S = 0.2, 3600.0
MAX_SHARE = 0.25
"""Of the time that looking may take: a study of very many trials is looked at less often."""
MAX_FAILED_LOOKS = 20
TICK_S = 0.2


def watch_study(name: str, say: Say, *, every_s: float = 5.0) -> int:
    """Shows a study until its driver has ended. Changes nothing in it; an interrupt ends the watching alone.

    Args:
        name: the study's folder, or its URL.
        say: takes lines.
        every_s: seconds between two looks.

    Returns:
        0 where the study is complete, 3 where trials are still to run.

    Raises:
        InputError: there is no study, it cannot be read, or `every_s` makes no sense.
    """
    if not SHORTEST_S <= every_s <= LONGEST_S:
        raise InputError(f"--every {every_s:g}: must be between {SHORTEST_S:g} and {LONGEST_S:g} seconds; give 5")
    looks = Looks(name)
    picture = looks.first()
    with Interrupts().installed():
        try:
            with _form(say) as form:
                picture = _follow(looks, picture, form, every_s)
        except KeyboardInterrupt:
            say("no longer watched; the study itself goes on")
            return INCOMPLETE
    for line in _last_words(picture, in_full=isinstance(form, Screen)):  # a screen took its pictures with it
        say(inert(line))
    return COMPLETE if picture.is_complete else INCOMPLETE


def _last_words(picture: Picture, *, in_full: bool) -> Iterator[str]:
    status = picture.status
    if in_full:
        yield from status_text(status).splitlines()[:-1]
        yield from (f"{label:<12} {text}" for label, text in picture.hints)
    if picture.is_complete:
        yield f"{status.study} is complete"
    else:
        left = f"; trials still to run: {picture.num_missing}" if picture.num_missing else ""
        yield f"{status.study}: nobody works on it any more{left}"
    yield f"next         {status.next_command}"


class Form(Protocol):
    """A way to show pictures."""

    def show(self, picture: Picture) -> None:
        """Shows how the study stands now."""

    def tick(self) -> None:
        """Gets a moment while nothing happens."""


class Looks:
    """Reads a study again and again.

    Attributes:
        name: as it was given.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._remote = RemoteStudy(name) if is_url(name) else None
        self._gpus = GpuUse()

    def first(self) -> Picture:
        """The first look, which raises what is wrong."""
        driver: tuple[bool, Holder | None] | None = None
        if self._remote:
            self._remote.pull()
            driver = self._remote.find_driver()
        folder = self._remote.folder if self._remote else Path(self.name)
        trials: list[TrialState] = []
        status = read_status(folder, trials.append, driver)
        spec = load_study(str(folder / "study.yaml"), [])
        return Picture(spec, status, trials, self._gpus.read(), hints(spec, status))

    def again(self, last: Picture, num_failed: int) -> Picture:
        """A later look; a store or a file that cannot be read now may be so again soon."""
        try:
            return self.first()
        except InputError as error:
            if num_failed >= MAX_FAILED_LOOKS:
                raise
            return Picture(last.spec, last.status, last.trials, last.gpus, last.hints, str(error))


def hints(spec: StudySpec, status: Status) -> list[tuple[str, str]]:
    """Where to see the runs' curves and the search: (what it is, its address or the command)."""
    folder = shlex.quote(str(status.folder))
    found = [("search", f"{program('optuna-dashboard')} {folder}/optuna.journal")]
    if spec.tracking.mode == "offline":
        return [("curves", f"{program('wandb')} leet {folder}/wandb"), *found]
    return [("W&B", read_address(status.folder) or f"project {spec.tracking.project}, from its first run on"), *found]


def _follow(looks: Looks, picture: Picture, form: Form, every_s: float) -> Picture:
    """Shows one picture after the other; returns the last one, in which nobody is at work."""
    num_failed, took_s = 0, 0.0
    while True:
        form.show(picture)
        if not (picture.status.is_at_work or picture.trouble):
            return picture
        _wait(max(every_s - took_s, took_s * (1 / MAX_SHARE - 1)), form)
        started = time.monotonic()
        picture = looks.again(picture, num_failed)
        num_failed = num_failed + 1 if picture.trouble else 0
        took_s = time.monotonic() - started


def _wait(seconds: float, form: Form) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, TICK_S))
        form.tick()


@contextmanager
def _form(say: Say) -> Iterator[Form]:
    """A picture that is drawn anew in a terminal that can, lines elsewhere."""
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        with opened_screen(sys.stdout) as screen:
            yield screen
    else:
        yield Lines(say)


class Lines:
    """What has changed, as lines."""

    def __init__(self, say: Say) -> None:
        self._say, self._log = say, ChangeLog()

    def show(self, picture: Picture) -> None:
        """Says what is new."""
        for line in self._log.lines(picture):
            self._say(line)

    def tick(self) -> None:
        """Nothing changes between two looks."""
