import os
import signal

import pytest

from cluster.interrupts import Interrupts


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_outside_of_a_run_either_signal_interrupts_at_once(number: signal.Signals) -> None:
    with Interrupts().installed() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            send(number)
        assert interrupts.received == number.name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_a_run_the_first_signal_is_noted_and_the_second_interrupts(number: signal.Signals) -> None:
    with Interrupts().installed() as interrupts, interrupts.deferred():
        send(number)
        assert interrupts.received == number.name
        with pytest.raises(KeyboardInterrupt):
            send(number)


def test_the_handlers_of_before_come_back_and_those_that_took_over_go() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts().installed() as interrupts, interrupts.deferred():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as ray.init does with its own
        interrupts.install()
        send(signal.SIGTERM)
        assert interrupts.received == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before
