import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from bench.processes import Process, TimeUpError, descendants, kill_trees, process, wait_for, wait_gone

SLEEP = "import time; time.sleep(60)"
# A child that starts two of its own and waits; they inherit nothing that ties them to it.
FAMILY = f"import subprocess, sys; [subprocess.Popen([sys.executable, '-c', {SLEEP!r}]) for _ in range(2)]; {SLEEP}"
WAIT_S = 20


@pytest.fixture
def family() -> Iterator[Process]:
    with subprocess.Popen([sys.executable, "-c", FAMILY]) as popen:
        parent = process(popen.pid)
        assert parent
        wait_for(lambda: len(descendants(parent)) == 2, WAIT_S, "two children")
        yield parent
        kill_trees([parent])


def test_this_process_is_the_parent_of_what_it_starts(family: Process) -> None:
    own = process(os.getpid())
    assert own
    assert own.lives
    found = descendants(own)
    assert {family, *descendants(family)} <= set(found)
    assert own not in found


def test_a_tree_is_killed_with_its_children_and_nobody_else(family: Process) -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as popen:
        stranger = process(popen.pid)
        assert stranger
        children = descendants(family)
        assert set(kill_trees([family])) == {family, *children}
        assert not any(each.lives for each in (family, *children))
        assert stranger.lives
        kill_trees([stranger])


def test_children_are_ended_with_a_parent_that_is_gone_already(family: Process) -> None:
    children = descendants(family)
    family.send(signal.SIGKILL)
    wait_gone([family])
    assert descendants(family) == []
    kill_trees([family, *children])
    assert not any(each.lives for each in children)


def test_a_later_process_of_the_same_number_is_somebody_else(family: Process) -> None:
    earlier = Process(family.pid, family.start - 1)
    assert not earlier.lives
    earlier.send(signal.SIGKILL)
    kill_trees([earlier])
    time.sleep(0.1)
    assert family.lives


def test_a_process_that_is_gone_takes_no_signal() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as popen:
        found = process(popen.pid)
    assert process(popen.pid) is None
    if found:  # it may have ended before it was looked at
        found.send(signal.SIGKILL)
        assert not found.lives


def test_a_wait_has_an_end() -> None:
    with pytest.raises(TimeUpError, match=r"^waited 0.2 s for a miracle$"):
        wait_for(lambda: False, 0.2, "a miracle")
    assert wait_for(lambda: True, 0.2, "nothing") < 0.1
