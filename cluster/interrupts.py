"""Signals that end a run cleanly: SIGINT and SIGTERM mean the same, and a second one no longer waits."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """What was asked of this process by signals.

    Outside of `deferred` a signal raises KeyboardInterrupt at once. Inside it is only noted, because half a ledger line
    or half of Ray's bookkeeping would be worse than a tenth of a second's wait; a second signal raises all the same.
    """

    def __init__(self) -> None:
        self.received = ""
        self._is_deferred = False

    @contextmanager
    def installed(self) -> Iterator["Interrupts"]:
        """Handles both signals while the block runs."""
        before = {each: signal.getsignal(each) for each in SIGNALS}
        self.install()
        try:
            yield self
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def install(self) -> None:
        """Takes both signals; again after `ray.init`, whose own handler of SIGTERM aborts the process."""
        for each in SIGNALS:
            signal.signal(each, self._handle)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only notes the first signal; whoever works here looks at `received` often."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_first = not self.received
        self.received = signal.Signals(number).name
        if not (self._is_deferred and is_first):
            raise KeyboardInterrupt
