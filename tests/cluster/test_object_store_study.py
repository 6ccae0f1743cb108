"""Studies in an object store through the command that a user types: moto's S3 server on loopback, killed drivers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.chaos_driver import Driver, run_undisturbed
from bench.chaos_study import NAME, Scale, StudyCopy
from bench.processes import wait_for
from bench.s3_server import S3Server, s3_server
from cluster.lease import LEASE_FILE

WAIT_S, ANSWER_S = 180.0, 15.0
PREFIX = f"lab/studies/{NAME}"
STUDY = Scale(num_seeds=1, epochs=8).study()
STUDY["training"] |= {"encoder": "mobilenet_v2"}  # the smallest checkpoints


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as started:
        yield started


class Machine:
    """A machine that has the study's file and nothing else, until it works."""

    def __init__(self, scratch: Path, name: str, server: S3Server) -> None:
        self.copy = StudyCopy.make(scratch / name, STUDY)
        self.cache = scratch / name / "cache"
        self.environment = {**server.environment, "TMPDIR": str(scratch), "CANOPOINT_CACHE": str(self.cache)}
        self.storage = ("--set", f"storage=s3://{server.bucket}/lab/studies")

    def driver(self) -> Driver:
        return Driver(self.copy, self.environment, *self.storage)

    def refused(self, *arguments: str, **environment: str) -> str:
        """What the command says that ends with 2 in time, in its one line."""
        command = [str(Path(sys.executable).parent / "canopoint"), "run", "study.yaml", *self.storage, *arguments]
        everything = {**os.environ, **self.environment, **environment}
        started = time.monotonic()
        ended = subprocess.run(
            command, cwd=self.copy.folder, env=everything, capture_output=True, text=True, timeout=90
        )
        assert ended.returncode == 2, ended.stdout + ended.stderr
        assert time.monotonic() - started < ANSWER_S
        assert ended.stderr.count("\n") == 1, ended.stderr
        assert "starting Ray" not in ended.stdout
        return ended.stderr


def num_rows(server: S3Server) -> int:
    names = [name for name in server.names(f"{PREFIX}/trials/") if name.endswith("/metrics.jsonl")]
    return sum(server.get(name).count(b"\n") for name in names)


def hashes(server: S3Server) -> dict[str, str]:
    results = [name for name in server.names(f"{PREFIX}/trials/") if name.endswith("/result.json")]
    return {name.split("/")[-2]: json.loads(server.get(name))["result_sha256"] for name in results}


@pytest.mark.cluster
def test_a_study_goes_on_on_another_machine_and_comes_out_as_on_a_disk(scratch: Path, server: S3Server) -> None:
    undisturbed = run_undisturbed(StudyCopy.make(scratch / "disk", STUDY), {"TMPDIR": str(scratch)})

    first, second = (Machine(scratch, name, server) for name in ("first", "second"))
    with first.driver() as driver:
        wait_for(lambda: num_rows(server) >= 4 or driver.has_ended, WAIT_S, "some epochs")
        assert f"canopoint run (pid {driver.process.pid} " in second.refused()
        driver.kill()
    assert len(hashes(server)) < 2
    assert f"{PREFIX}/{LEASE_FILE}" in server.names()
    shutil.rmtree(first.cache)

    lease = json.loads(server.get(f"{PREFIX}/{LEASE_FILE}"))
    server.put(f"{PREFIX}/{LEASE_FILE}", json.dumps({**lease, "host": "lost", "machine": "lost"}).encode())
    server.age(f"{PREFIX}/{LEASE_FILE}", 50)
    with second.driver() as driver:
        driver.run_to_end()
    assert re.search(r"on host lost, .* is at work, or was killed; waiting up to \d+ s", second.copy.log.read_text())
    assert hashes(server) == undisturbed
    assert len(undisturbed) == 2
    attempts = [name for name in server.names(PREFIX) if name.endswith("/attempts.jsonl")]
    assert max(server.get(name).count(b"\n") for name in attempts) == 2  # it went on, and did not begin anew

    outside = [path for _, path in server.requests if "/lab/studies/" not in path and "prefix=lab/studies/" not in path]
    assert outside == []
    assert f"{PREFIX}/{LEASE_FILE}" not in server.names()
    assert not [*(second.cache / "running").iterdir()]
    with first.driver() as driver:
        driver.run_to_end()  # all is there: nothing to train
    assert "all 2 trials are done" in first.copy.log.read_text()
    assert secrets_in(scratch, server) == []


def secrets_in(scratch: Path, server: S3Server) -> list[str]:
    """Files of all machines and objects in which a key stands."""
    keys = [server.environment[name].encode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    files = [path for path in scratch.rglob("*") if path.is_file() and not path.is_symlink()]
    contents = {str(path): path.read_bytes() for path in files} | {name: server.get(name) for name in server.names()}
    assert len(contents) > 50
    return [name for name, content in contents.items() if any(key in content for key in keys)]


@pytest.mark.cluster
def test_an_interrupted_driver_leaves_a_store_that_any_machine_takes_up_at_once(
    scratch: Path, server: S3Server
) -> None:
    server.clear()
    first, second = (Machine(scratch, name, server) for name in ("third", "fourth"))
    with first.driver() as driver:
        wait_for(lambda: num_rows(server) >= 2 or driver.has_ended, WAIT_S, "two epochs")
        ending = driver.end(signal.SIGINT, 2 * ANSWER_S)
    assert ending.exit_code == 3, first.copy.log.read_text()
    assert ending.took_s < ANSWER_S
    assert f"{PREFIX}/{LEASE_FILE}" not in server.names()
    assert b'"session_ended"' in server.get(f"{PREFIX}/ledger.jsonl")
    assert not [*(first.cache / "running").glob("*/checkpoint/*")]
    with second.driver() as driver:
        driver.run_to_end()
    assert len(hashes(server)) == 2


@pytest.mark.slow
def test_a_wrong_place_ends_with_one_line_in_time_and_nothing_is_started(scratch: Path, server: S3Server) -> None:
    machine = Machine(scratch, "fifth", server)
    server.clear()
    unreachable = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    said = machine.refused(**unreachable)
    assert "no good answer from http://127.0.0.1:9" in said
    assert "check the network and AWS_ENDPOINT_URL" in said
    assert "no such bucket" in machine.refused("--set", "storage=s3://no-such-bucket/studies")
    assert "no credentials found; set AWS_ACCESS_KEY_ID" in machine.refused(
        AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""
    )
    with server.asking_for_keys("") as wrong:
        assert "these credentials may not" in machine.refused(**wrong)
    with server.asking_for_keys("s3:ListBucket s3:GetObject") as reader:
        assert "these credentials may not write" in machine.refused(**reader)
    assert "a-secret" not in machine.refused("--set", "storage=s3://key:a-secret@bucket/studies")
    assert "two slashes" in machine.refused("--set", "storage=s3:/bucket/studies")
    assert server.names() == []
    assert not [*machine.cache.rglob("*/trials")]
