"""Who works on a study in an object store: a lease that is renewed, as such a store has no locks.

It is an object that names its holder. It is made only where there is none and changed only by who knows its present
state, so that of several drivers one has it. One that was not renewed for a minute, by the store's own clock, is dead;
where its holder ran on this machine and is gone, at once. Who finds one of another machine waits to see which it is.
"""

import errno
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainable.config import InputError
from trainable.holder import Holder
from trainable.object_store import ObjectStore

LEASE_FILE = "holder.json"
RENEW_AFTER_S, DEAD_AFTER_S = 10.0, 60.0
LOOK_EVERY_S = 1.0
MAX_TRIES = 5


class LeaseLostError(OSError):
    """Another driver has taken over, as this one was not heard of for too long."""


class Lease:
    """This process's claim to a study."""

    def __init__(self, store: ObjectStore, dead_after_s: float = DEAD_AFTER_S) -> None:
        self._store = store
        self._dead_after_s = dead_after_s
        self._token = uuid.uuid4().hex
        self._tag = ""
        self._renewed = 0.0

    def check(self, say: Callable[[str], None]) -> None:
        """Refuses where another driver is at work; waits where one may have been killed, until that is known.

        Args:
            say: is told what is waited for, and how long.

        Raises:
            InputError: says which driver. At once where it is on this machine; else with its next renewal.
        """
        found = self._read()
        left_s = self._left_s(found)
        if not left_s:
            return
        holder = holder_of(found)
        who = f"{self._store.url}: {holder or f'another driver ({LEASE_FILE} does not say which)'} is"
        lives = holder is not None and _is_here(found)
        if not lives:
            say(f"{who} at work, or was killed; waiting up to {left_s:.0f} s for a sign of it")
        if lives or not self._is_silent(found, left_s):
            stop = f" on that host (kill -INT {holder.pid})" if holder else ""
            raise InputError(f"{who} working here; wait for it or end it{stop}")

    def take(self, say: Callable[[str], None]) -> None:
        """Takes the lease, if need be from a dead driver; waits as `check` does.

        Raises:
            InputError: another driver has it.
        """
        for _ in range(MAX_TRIES):
            tag = self._store.tag(LEASE_FILE)  # before the look at it: what has changed since is not put aside
            self.check(say)
            started = time.time()
            if self._store.swap(LEASE_FILE, self._content(), tag) if tag else self._create():
                self._note(started)
                return
        raise InputError(f"{self._store.url}: several drivers start here at once; run one of them")

    def renew(self) -> None:
        """Says that this driver lives.

        Raises:
            LeaseLostError: another one has taken over.
        """
        started = time.time()
        self._store.swap(LEASE_FILE, self._content(), self._tag)  # where it was the answer that got lost, in vain
        self._note(started)

    def find_holder(self) -> tuple[bool, Holder | None]:
        """Whether a driver is at work, and which, as far as that is known. Writes nothing: our own clock counts."""
        found = self._read()
        if not found or self._is_gone(found) or time.time() - self._store.modified(LEASE_FILE) > self._dead_after_s:
            return False, None
        return True, holder_of(found)

    @property
    def age_s(self) -> float:
        """Seconds since it was renewed. By a clock that goes on while a machine sleeps."""
        return abs(time.time() - self._renewed)

    def release(self) -> None:
        """Gives the lease back."""
        if self._is_mine():
            self._store.delete(LEASE_FILE)

    def _create(self) -> bool:
        return self._store.create(LEASE_FILE, self._content())

    def _note(self, renewed: float) -> None:
        """Finds the state that the next renewal goes on from, which is ours if what it says afterwards still is."""
        tag = self._store.tag(LEASE_FILE)
        if not self._is_mine():
            raise LeaseLostError(
                errno.EIO,
                f"{self._store.url}: another driver has taken over, as this one was not heard of for"
                f" {self._dead_after_s:g} s; leave the study to it",
            )
        self._tag, self._renewed = tag, renewed

    def _is_mine(self) -> bool:
        return self._read().get("token") == self._token

    def _read(self) -> dict[str, Any]:
        return parse_lease(self._store.read(LEASE_FILE))

    def _content(self) -> bytes:
        known = {"token": self._token, "machine": _machine(), "renewed": time.time()}
        return json.dumps({**asdict(Holder.of_this_process()), **known}).encode()

    def _left_s(self, found: dict[str, Any]) -> float:
        """Seconds that a lease lives on if it is not renewed; 0 of a dead one, or none."""
        if not found or self._is_gone(found):
            return 0.0
        return max(0.0, self._dead_after_s - (self._store.clock() - self._store.modified(LEASE_FILE)))

    def _is_silent(self, found: dict[str, Any], for_s: float) -> bool:
        """Waits so long and a little more, or until the lease is renewed or given back; whether it was not renewed."""
        until = time.monotonic() + for_s + LOOK_EVERY_S
        while (now := self._read()) == found and time.monotonic() < until:
            time.sleep(LOOK_EVERY_S)
        return now in ({}, found)

    def _is_gone(self, found: dict[str, Any]) -> bool:
        """Whether the holder ran on this machine and has ended."""
        holder = holder_of(found)
        return holder is not None and _is_here(found) and holder.seems_dead


def parse_lease(content: bytes | None) -> dict[str, Any]:
    """What a lease says; empty where there is none. One that makes no sense is held by nobody that is known."""
    if content is None:
        return {}
    try:
        return {"token": "", **json.loads(content)}
    except (ValueError, TypeError, RecursionError):
        return {"token": ""}


def holder_of(lease: dict[str, Any]) -> Holder | None:
    """The process that a lease names."""
    fields = {name: value for name, value in lease.items() if name in Holder.__dataclass_fields__}
    return Holder.parse(json.dumps(fields).encode())


def _is_here(lease: dict[str, Any]) -> bool:
    """Whether the holder of a lease runs, or ran, on this machine."""
    return lease.get("machine") == _machine() != ""


def _machine() -> str:
    """Stands for this machine since it started, and this container of it: host names are not unique."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot} {os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:16]
    except OSError:
        return ""
