"""Preflight on real clusters of two nodes: one that is well, and one whose second node is not."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import torch

from bench.chaos_cluster import TwoNodes, two_nodes
from bench.commands import Command
from bench.hosts import LOOPBACK
from bench.s3_server import S3Server, s3_server
from cluster.node_checks import PACKAGES
from study.ledger import read_ledger

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parent.parent.parent
REFUSED_WITHIN_S = 15.0
SHORT = {"encoder": "resnet18", "weights": "none", "image_size": 32, "epochs": 1, "batch_size": 4}
WAIT_S = 120.0

HANG = """
import json, os, signal, sys, time
from cluster.local_ray import connected_ray
from cluster.node_tasks import ask
from cluster.resources import cluster_nodes
address, *pids = sys.argv[1:]
def greet(): return "hello"
def fail(): raise ValueError("no luck")
with connected_ray(address):
    nodes = cluster_nodes()
    print(json.dumps({each.name: answer.problem for each, answer in ask(nodes, fail, lambda node: (), 30).items()}))
    for pid in map(int, pids):
        os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    answers = ask(nodes, greet, lambda node: (), 3.0)
    took_s = time.monotonic() - started
    for pid in map(int, pids):
        os.kill(pid, signal.SIGCONT)
print(json.dumps({each.name: answer.value or answer.problem for each, answer in answers.items()}))
print(took_s)
"""

NAP = """
import json, sys, time
from pathlib import Path
import ray
from bench.driver_trainable import TrivialTrainable
from cluster.tuner import Wishes, run_study
from study.spec import load_study
class Napping(TrivialTrainable):
    def step(self):
        started = time.time()
        time.sleep(2)
        where = ray.get_runtime_context()
        nap = {"span": [started, time.time()], "node": where.get_node_id(), "gpus": ray.get_gpu_ids(),
               "got": where.get_assigned_resources()}
        row = super().step()
        Path(self.trial["folder"], "nap.json").write_text(json.dumps(nap))
        return row
assert run_study(load_study(sys.argv[1], []), print, Wishes(address=sys.argv[2]), trainable=Napping).complete
"""

THREADS = """
import json, os, sys
from pathlib import Path
from cluster.tuner import Wishes, run_study
from study.spec import load_study
from study.ledger import read_ledger
from trainable.tune_trainable import Trainable
class Watched(Trainable):
    def step(self):
        import torch
        row = super().step()
        found = {"torch": torch.get_num_threads(), "OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}
        Path(self.trial["folder"], "threads.json").write_text(json.dumps(found))
        return row
    def setup(self, config):
        super().setup(config)
        self.trial = config["trial"]
assert run_study(load_study(sys.argv[1], []), print, Wishes(address=sys.argv[2]), trainable=Watched).complete
"""


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose name is short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="pf-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def well(store: S3Server) -> Iterator[TwoNodes]:
    """Two nodes that both claim two cores and a GPU, and find `bench` and an object store."""
    folder = Path(tempfile.mkdtemp(prefix="pf-"))
    environment = {"PYTHONPATH": str(ROOT), "CANOPOINT_CACHE": str(folder / "cache"), **store.environment}
    with two_nodes(folder / "ray", environment, num_cpus=2, num_gpus=1) as cluster:
        yield cluster
    shutil.rmtree(folder)


@pytest.fixture
def run_script(scratch: Path) -> Callable[..., str]:
    """Runs a script in a process of its own, as Ray keeps what it once heard of tokens."""

    def run(script: str, cluster: TwoNodes, *arguments: str) -> str:
        environment = {**os.environ, **cluster.environment}
        path = scratch / "script.py"
        path.write_text(script)
        done = subprocess.run(
            [sys.executable, str(path), *arguments],
            env=environment,
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def write_study(scratch: Path, make_spec: Any, write_spec: Any) -> Callable[..., Path]:
    return lambda **changes: write_spec(make_spec(scratch / "storage", **changes), scratch / "study.yaml")


def refused(scratch: Path, cluster: TwoNodes, study: Path, within_s: float = REFUSED_WITHIN_S) -> str:
    """The one line by which a run is refused, in time."""
    started = monotonic()
    with Command(scratch, cluster.environment, "run", str(study), "--address", cluster.address) as command:
        code = command.wait(WAIT_S)
        took_s = monotonic() - started
        lines = [line for line in command.said.splitlines() if line.startswith("canopoint: ")]
    assert code == 2, command.said
    assert took_s < within_s, command.said
    assert len(lines) == 1, command.said
    return lines[0]


@pytest.mark.parametrize("kind", ["folder", "object store"])
def test_a_cluster_that_is_well_passes_and_nothing_stays(
    scratch: Path, well: TwoNodes, store: S3Server, write_study: Callable[..., Path], kind: str
) -> None:
    arguments = ["--address", well.address]
    if kind == "object store":
        arguments += ["--set", f"storage=s3://{store.bucket}/studies"]
    with Command(scratch, well.environment, "cluster", "check", str(write_study()), *arguments) as command:
        code = command.wait(WAIT_S)
        lines = [line for line in command.said.splitlines() if "packing" not in line and "packed" not in line]
    assert code == 0, command.said
    assert lines[0].split()[0] == "node"
    for line in lines[1:3]:
        assert " ".join(line.split()[2:]) == "ok ok ok ok - ok ok - ok -", command.said
    assert " ".join(lines[3].split()[-2:]) == "- offline"
    left = {key.split("/")[1] for key in store.names()} or {path.name for path in (scratch / "storage").iterdir()}
    assert left == {".cache"}


def test_a_node_that_hangs_or_fails_is_named_and_not_waited_for(well: TwoNodes, run_script: Callable[..., str]) -> None:
    pids = [str(each.pid) for each in well.workers]
    failed, hung, took_s = map(json.loads, run_script(HANG, well, well.address, *pids).splitlines())
    assert set(failed.values()) == {"cannot be asked (ValueError: no luck)"}
    assert {name.rpartition("(")[2]: answer for name, answer in hung.items() if answer != "hello"} == {
        f"{LOOPBACK[1].address})": "gave no answer within 3 s"
    }
    assert list(hung.values()).count("hello") == 1
    assert took_s < 8.0


def test_two_trials_run_on_half_a_gpu_each_at_the_same_time(
    scratch: Path, well: TwoNodes, run_script: Callable[..., str], write_study: Callable[..., Path]
) -> None:
    study = write_study(resources={"gpus_per_trial": 0.5}, search={"method": "grid", "seeds": [0, 1]}, training=SHORT)
    run_script(NAP, well, str(study), well.address)
    naps = [json.loads(path.read_text()) for path in (scratch / "storage").glob("tiny/trials/*/nap.json")]
    assert len(naps) == 4
    assert {(nap["got"]["CPU"], nap["got"]["GPU"]) for nap in naps} == {(1.0, 0.5)}
    by_gpu: dict[tuple[str, ...], list[list[float]]] = {}
    for nap in naps:
        by_gpu.setdefault((nap["node"], *map(str, nap["gpus"])), []).append(nap["span"])
    assert len(by_gpu) == 2
    for one, other in by_gpu.values():
        assert max(one[0], other[0]) < min(one[1], other[1])


def test_threads_of_a_trial_are_the_cpus_it_was_given(
    scratch: Path, well: TwoNodes, run_script: Callable[..., str], write_study: Callable[..., Path]
) -> None:
    run_script(THREADS, well, str(write_study(resources={"cpus_per_trial": 2}, training=SHORT)), well.address)
    found = [json.loads(path.read_text()) for path in (scratch / "storage").glob("tiny/trials/*/threads.json")]
    assert found == 2 * [{"torch": 2, "OMP_NUM_THREADS": "2"}]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine's GPUs do work")
def test_a_gpu_that_is_claimed_and_does_not_work_is_named(
    scratch: Path, well: TwoNodes, write_study: Callable[..., Path]
) -> None:
    line = refused(scratch, well, write_study(resources={"gpus_per_trial": 0.5}), WAIT_S)  # both nodes import torch
    assert "GPU: it claims a GPU, and torch" in line
    assert "start its Ray with --num-gpus=0" in line
    assert not list((scratch / "storage").glob("tiny/trials/*"))


@pytest.fixture(scope="module")
def ill() -> Iterator[tuple[TwoNodes, Path]]:
    """A cluster whose second node has other sources of ours, and cannot see a folder, which is given too."""
    folder = Path(tempfile.mkdtemp(prefix="pf-"))
    hidden = folder / "hidden"
    hidden.mkdir()
    if os.getuid() or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("mounts of one's own are not allowed here, so storage cannot be hidden from a node")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / "other" / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "other" / "trainable" / "loss.py").open("a") as file:
        file.write("# another version")
    second = LOOPBACK[1].without(hidden)
    second = replace(second, prefix=("env", f"PYTHONPATH={folder / 'other'}", *second.prefix))
    with two_nodes(folder / "ray", {}, hosts=(LOOPBACK[0], second)) as cluster:
        yield cluster, hidden
    shutil.rmtree(folder)


def test_other_sources_and_unshared_storage_are_refused_with_the_node(
    scratch: Path, ill: tuple[TwoNodes, Path], make_spec: Any, write_spec: Any
) -> None:
    cluster, hidden = ill
    study = write_spec(make_spec(hidden / "storage"), scratch / "study.yaml")
    line = refused(scratch, cluster, study)
    first, second = line.removeprefix("canopoint: cluster: ").split(" | ")
    node = f"({LOOPBACK[1].address}): "
    assert f"{node}storage: the driver's {hidden}/storage/tiny/.preflight-" in first
    assert first.endswith("or set storage to a URL such as s3://BUCKET/PREFIX")
    assert f"{node}versions: canopoint's sources " in second
    assert "submit takes our own code along" in second
    assert not list((hidden / "storage" / "tiny").glob("trials/*"))
    assert not list((hidden / "storage" / "tiny").glob(".preflight*"))
    last = read_ledger(hidden / "storage" / "tiny")[-1]
    assert (last["event"], last["reason"]) == ("session_ended", "incomplete")
    assert last["detail"] in line


def test_a_gpu_request_on_a_cpu_cluster_is_refused_and_nothing_is_written(
    scratch: Path, ill: tuple[TwoNodes, Path], write_study: Callable[..., Path]
) -> None:
    line = refused(scratch, ill[0], write_study(resources={"gpus_per_trial": 1}))
    assert line == (
        "canopoint: resources: a trial asks for 1 CPUs, 1 GPUs, and no node has that; the cluster's 2 nodes have:"
        " 2 x 1 CPUs, 0 GPUs; add a GPU node, or run on the CPU with --set resources.gpus_per_trial=0"
    )
    assert not (scratch / "storage").exists()
