"""A second node that is taken away in the middle of a study, in three ways; no failure would be tried again."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.chaos_cluster import TwoNodes, two_nodes
from bench.chaos_driver import Driver, run_undisturbed
from bench.chaos_study import Scale, StudyCopy
from bench.processes import Process, wait_for
from study.ledger import read_ledger
from trainable.trial_files import read_attempts

pytestmark = pytest.mark.cluster
WAIT_S = 120
STUDY = {**Scale(num_seeds=1, epochs=8).study(), "failures": {"retries": 0}}


@pytest.fixture(scope="module")
def environment(scratch: Path) -> dict[str, str]:
    return {"TMPDIR": str(scratch)}


@pytest.fixture(scope="module")
def undisturbed(scratch: Path, environment: dict[str, str]) -> dict[str, str]:
    return run_undisturbed(StudyCopy.make(scratch / "undisturbed", STUDY), environment)


def command_line(found: Process) -> list[str]:
    return Path(f"/proc/{found.pid}/cmdline").read_bytes().decode().split("\0")


def raylet(cluster: TwoNodes) -> Process:
    """Of the second node."""
    return next(each for each in cluster.workers if command_line(each)[0].endswith("raylet/raylet"))


def drained(cluster: TwoNodes) -> None:
    """As by a cloud's notice, or an autoscaler."""
    words = command_line(raylet(cluster))
    node_id = next(word.partition("=")[2] for word in words if word.startswith("--node_id="))
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", cluster.address]
    command += ["--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    environment = {**os.environ, **cluster.environment}
    subprocess.run([*command, "--deadline-remaining-seconds=60"], env=environment, check=True, timeout=60)


def told_to_end(cluster: TwoNodes) -> None:
    """As a pod that is deleted: Ray drains the node itself."""
    cluster._started[-1].send_signal(signal.SIGTERM)


def raylet_ended(cluster: TwoNodes) -> None:
    """As a machine that shuts down without a notice."""
    raylet(cluster).send(signal.SIGTERM)


def lost_epochs(copy: StudyCopy) -> list[int]:
    """Of every trial that went on elsewhere, the epochs that it trained again."""
    attempts = [read_attempts(path) for path in copy.trial_folders()]
    return [each["rows"] - each["from_epoch"] for tries in attempts for each in tries[1:]]


def num_rows_there(copy: StudyCopy, cluster: TwoNodes) -> int:
    """Epochs of the trial that the second node trains."""
    live = copy.live(cluster.workers)
    return max((each.rows for each in copy.unfinished() if each.trial_id in live), default=0)


@pytest.mark.parametrize("leave", [drained, told_to_end, raylet_ended])
def test_trials_of_a_node_that_is_taken_away_go_on_elsewhere(
    scratch: Path,
    environment: dict[str, str],
    undisturbed: dict[str, str],
    leave: Callable[[TwoNodes], None],
) -> None:
    copy = StudyCopy.make(scratch / leave.__name__, STUDY)
    with (
        two_nodes(scratch / f"ray-{leave.__name__}", environment) as cluster,
        Driver(copy, cluster.environment, "--address", cluster.address) as driver,
    ):
        wait_for(lambda: num_rows_there(copy, cluster) >= 2 or driver.has_ended, WAIT_S, "two epochs there")
        leave(cluster)
        driver.run_to_end()
    said = copy.log.read_text()
    assert copy.hashes() == undisturbed
    (lost,) = lost_epochs(copy)  # of the one trial that moved
    assert lost <= (leave is raylet_ended), said
    told = re.findall(r"node \S+ \(127[\d.]+\) (is being|was) taken away.*: its trials go on elsewhere", said)
    assert len(told) == 1, said
    assert "tried again" not in said
    ends = [event["state"] for event in read_ledger(copy.study_folder) if event["event"] == "trial_ended"]
    assert ends == ["completed"] * 2
