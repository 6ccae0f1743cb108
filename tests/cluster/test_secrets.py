"""Canary secrets in the environment are found in nothing that is written, shown or served; nobody else is listened to.

What Ray keeps for itself is searched, too: its temporary folders with the logs of all its processes, and what its Jobs
API, its state API and its dashboard answer to whoever has the token. Ray needs to keep none of them.

Who listens: a Ray of our own on 127.0.0.1 alone. A cluster's gcs_server, raylets, agents and workers listen on all
interfaces of their node, whatever addresses they were given (Ray has no setting for it), and ask for the token.
"""

import secrets
import shutil
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

import canopoint
from bench.chaos_cluster import two_nodes
from bench.chaos_driver import Driver
from bench.chaos_study import NAME, Scale, StudyCopy
from bench.commands import Command, run
from bench.processes import Process, wait_for
from bench.s3_server import s3_server
from bench.traces import command_line, find_in_folder, find_secrets, listening
from cluster.manifests import KINDS

WAIT_S = 240
SERVED = [
    "/api/version", "/api/jobs/", f"/api/jobs/canopoint-{NAME}-1", f"/api/jobs/canopoint-{NAME}-1/logs",
    "/api/v0/actors?detail=1", "/api/v0/jobs?detail=1", "/api/v0/nodes?detail=1", "/api/v0/workers?detail=1",
    "/api/v0/tasks?detail=1", "/api/v0/runtime_envs?detail=1", "/api/v0/placement_groups?detail=1",
    "/api/v0/cluster_events?detail=1", "/nodes?view=summary", "/api/cluster_status", "/logical/actors",
]  # fmt: skip
"""What the Jobs API, the state API and the dashboard's pages are made of."""


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose name is short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="sc-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def canaries() -> dict[str, str]:
    """Secrets as an environment holds them; nobody else has these values."""
    return {
        "WANDB_API_KEY": secrets.token_hex(20),
        "AWS_ACCESS_KEY_ID": f"AKIA{secrets.token_hex(8).upper()}",
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
        "AWS_SESSION_TOKEN": secrets.token_urlsafe(60),
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "CANOPOINT_CANARY": secrets.token_hex(24),
    }


@pytest.fixture
def environment(scratch: Path, canaries: dict[str, str]) -> dict[str, str]:
    """All that is written to a home or a temporary folder lies in the scratch folder."""
    home = scratch / "home"
    home.mkdir()
    return {"TMPDIR": str(scratch), "HOME": str(home), **canaries}


def shown(processes: list[Process], canaries: dict[str, str]) -> list[str]:
    """What everybody on the machine can see of a process."""
    lines = [" ".join(command_line(each)) for each in processes]
    return [line for line in lines if find_secrets(line.encode(), canaries)]


class _Refusing(BaseHTTPRequestHandler):
    """A W&B that knows nobody; keeps the keys that it was asked with."""

    keys: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        self.keys.append(self.headers.get("Authorization", ""))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def refusing_wandb() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.cluster
def test_run_keeps_secrets_to_itself_and_listens_to_this_machine_alone(
    scratch: Path, environment: dict[str, str], canaries: dict[str, str], refusing_wandb: str
) -> None:
    """Tracking is online, so that W&B is asked with the key, and what it says to that is told."""
    study = Scale(num_seeds=1, epochs=15).study()
    copy = StudyCopy.make(scratch / "copy", {**study, "tracking": {"mode": "online"}})
    environment["WANDB_BASE_URL"] = refusing_wandb
    with Driver(copy, environment) as driver:
        wait_for(lambda: driver.has_ended or any(each.rows >= 2 for each in copy.unfinished()), WAIT_S, str(copy.log))
        processes = [driver.process, *driver.below()]
        addresses = listening(processes)
        assert len(processes) > 5, copy.log.read_text()
        assert shown(processes, canaries) == []
        driver.kill()  # Ray's own files stay
    assert list(scratch.glob("canopoint-*/r/session_2*/logs/*.log"))
    assert find_in_folder(scratch, canaries) == []
    assert list(addresses) == ["127.0.0.1"], addresses
    with Driver(copy, environment) as driver:
        driver.wait(WAIT_S)
    assert driver.popen.returncode == 3
    assert "not in W&B: " in copy.log.read_text()
    assert any(find_secrets(key.encode(), canaries) == {"WANDB_API_KEY"} for key in _Refusing.keys)
    assert find_in_folder(scratch, canaries) == []


@pytest.mark.cluster
def test_a_submitted_study_keeps_secrets_to_itself(
    scratch: Path, environment: dict[str, str], canaries: dict[str, str]
) -> None:
    """They are in the environment of the nodes, where they belong, and of whoever submits; they open the storage."""
    folder = scratch / "copy"
    StudyCopy.make(folder, Scale(num_seeds=1, epochs=4).study())
    with s3_server() as s3, two_nodes(scratch / "ray", {**s3.environment, **environment}, has_jobs_api=True) as cluster:
        address = ("--address", cluster.jobs_url)
        url = f"s3://{s3.bucket}/studies"
        with Command(
            folder, cluster.environment, "submit", "study.yaml", "--set", f"storage={url}", *address
        ) as submit:
            wait_for(lambda: submit.has_ended or bool(s3.names(f"studies/{NAME}/trials")), WAIT_S, f"see {submit.log}")
            assert shown([*submit.processes(), *cluster.processes], canaries) == []
            assert submit.wait(WAIT_S) == 0, submit.said
        for command in (("status", NAME, *address), ("logs", NAME, *address), ("status", f"{url}/{NAME}")):
            code, said = run(folder, cluster.environment, *command)
            assert code == 0, said
        answers = {path: served(cluster.jobs_url + path, canaries["RAY_AUTH_TOKEN"]) for path in SERVED}
        for name in s3.names():
            path = scratch / "s3" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(s3.get(name))
    assert b"ResourceTrainable" in answers["/api/v0/actors?detail=1"]
    assert b"trials to train" in answers[f"/api/jobs/canopoint-{NAME}-1/logs"]
    assert [path for path, answer in answers.items() if find_secrets(answer, canaries)] == []
    assert (scratch / "s3" / "studies" / NAME / "analysis" / "report.html").is_file()
    assert list(scratch.glob("ray/session_2*/runtime_resources/working_dir_files/*/study.yaml"))
    assert find_in_folder(scratch, canaries) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_keeps_secrets_to_itself(
    canaries: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    for name, value in canaries.items():
        monkeypatch.setenv(name, value)
    scheme = "gs" if kind == "ray-gcp" else "s3"
    assert canopoint.main(["manifest", kind, "demo", "--set", f"storage={scheme}://bucket/studies"]) == 0
    text = capsys.readouterr().out
    assert len(text) > 1000
    assert find_secrets(text.encode(), canaries) == set()


ADDRESSES = [
    ("run", "demo", "--address", "me:hunter2@127.0.0.1:9"),
    ("run", "demo", "--address", "ray://me:hunter2@127.0.0.1:9"),
    ("cluster", "check", "demo", "--address", "me:hunter2@127.0.0.1:9"),
    ("logs", "demo", "--address", "http://me:hunter2@127.0.0.1:9"),
    ("status", "s3://me:hunter2@bucket/studies/demo"),
    ("analyze", "s3://me:hunter2@bucket/studies/demo"),
    ("watch", "s3://me:hunter2@bucket/studies/demo"),
]


@pytest.mark.parametrize("command", ADDRESSES, ids=" ".join)
def test_an_address_with_a_password_is_refused_and_not_shown(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert canopoint.main([*command]) == 2
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err
    assert len(captured.err.splitlines()) == 1


def served(url: str, token: str) -> bytes:
    """What the head answers to whoever has its token; to others, nothing."""
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, timeout=10)
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())
