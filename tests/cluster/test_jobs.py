"""Submitting, following, leaving and stopping, against a real head; the jobs themselves are a shell's.

What a whole study does on a cluster is shown in test_jobs_end_to_end.py.
"""

import contextlib
import json
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGINT

import pytest

import cluster.jobs
from bench.chaos_cluster import TwoNodes, one_node
from bench.commands import Command, run
from bench.processes import wait_for
from cluster.head import Head
from cluster.job_logs import follow_log
from cluster.jobs import _ending, _exit_code, check_fits_now, job_text, live_job, next_submission_id, show_logs
from cluster.jobs_api import Job, folder_on_cluster
from cluster.resources import Node
from cluster.staging import STUDY_FILE, stage
from trainable.config import InputError

WAIT_S = 90.0
ANSWER_S = 15.0
NUM_LINES = 40
RAY = str(Path(sys.executable).parent / "ray")


def job(submission_id: str, **changes) -> Job:
    known = Job(submission_id, "tiny", "/shared/tiny", "", "RUNNING", "", None, 1e9, None)
    return replace(known, **changes)


def test_a_study_has_one_job_at_a_time_wherever_it_was_submitted_from(make_spec):
    ended, live = job("canopoint-tiny-1", state="STOPPED"), job("canopoint-tiny-2", state="PENDING")
    other = job("canopoint-tiny-3", folder="/elsewhere/tiny")
    assert live_job([ended, live, other], make_spec("/shared")) == live
    assert live_job([ended, live, other], make_spec("/shared//x/../")) == live
    assert live_job([ended, other], make_spec("/shared")) is None


@pytest.mark.parametrize("storage", ["s3://bucket/prefix", "s3://bucket/prefix/"])
def test_a_url_is_written_in_one_way(make_spec, storage):
    assert folder_on_cluster(make_spec(storage)) == "s3://bucket/prefix/tiny"


def test_the_next_job_of_a_study_has_the_next_number():
    names = [
        "canopoint-a-9",
        "canopoint-a-10",
        "canopoint-a-b-77",
        "canopoint-a-11-12",
        "canopoint-axb-50",
        "raysubmit_x",
    ]
    jobs = [job(name) for name in names]
    assert next_submission_id(jobs, "a") == "canopoint-a-11"
    assert next_submission_id(jobs, "a-b") == "canopoint-a-b-78"
    assert next_submission_id(jobs, "a.b") == "canopoint-a.b-1"
    assert next_submission_id([], "new") == "canopoint-new-1"


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0), ("FAILED", 3, 3), ("FAILED", 2, 2), ("FAILED", 1, 1), ("FAILED", 128, 1),
        ("FAILED", 137, 3), ("FAILED", -9, 3), ("FAILED", None, 3), ("STOPPED", None, 3),
    ],
)  # fmt: skip
def test_the_exit_code_is_that_of_the_jobs_own_run(state, code, expected):
    """Who was killed or never started is to be continued."""
    assert _exit_code(job("j", state=state, exit_code=code)) == expected


class LostHead:
    """Its jobs are known, and from then on it does not answer."""

    def __init__(self, address: str | None) -> None:
        self.head = Head(address or "", "2")
        self._known = [job("canopoint-tiny-1")]

    def find(self, name: str) -> Job:
        if not self._known:
            raise InputError("nothing answers there")
        return self._known.pop()

    def tail(self, submission_id: str):
        raise ConnectionError("refused")


@pytest.mark.parametrize(("code", "number"), [(137, 9), (-9, 9), (143, 15), (-2, 2)])
def test_a_driver_that_was_killed_is_to_be_continued(code, number):
    """Between Ray and the driver there may be a shell, which tells of the signal in its own way."""
    line = _ending(LostHead("http://h:8265"), job("j", state="FAILED", exit_code=code, message="Job failed"))
    assert line == f"job j FAILED: was killed (signal {number}); canopoint resume j --address http://h:8265 continues"


def test_who_follows_a_job_that_gets_out_of_sight_is_told_by_the_exit_code(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(cluster.jobs, "JobsApi", LostHead)
    monkeypatch.setattr(cluster.jobs, "follow_log", partial(follow_log, give_up_s=-1.0))
    assert show_logs("tiny", "http://h:8265", said.append, follow=True) == 3
    assert "is out of sight, and may go on" in said[-1]


def test_a_request_that_no_node_holds_is_refused_unless_nodes_come_and_go(make_spec):
    spec = make_spec("/shared", resources={"gpus_per_trial": 0.5})
    nodes = [Node("n", "host", {"CPU": 4.0})]
    with pytest.raises(InputError, match=r"gpus_per_trial=0"):
        check_fits_now(spec, nodes, may_grow=False)
    check_fits_now(spec, nodes, may_grow=True)


def test_a_jobs_status_is_shown_without_control_characters():
    described = {**vars(job("j")), "last_lines": ["a\x1b[31mb"], "next": "canopoint logs j"}
    text = job_text(described)
    assert "\x1b" not in text
    assert [line.split()[0] for line in text.splitlines()] == ["job", "study", "last", "next"]


# From here on with a real head.


@pytest.fixture(scope="module")
def head(scratch: Path) -> Iterator[TwoNodes]:
    with one_node(scratch / "ray", {"TMPDIR": str(scratch)}, has_jobs_api=True) as found:
        yield found


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Where commands are typed."""
    (tmp_path / "desk").mkdir()
    return tmp_path / "desk"


class Submitted:
    """A job of ours that runs a shell's command in the place of a study."""

    def __init__(self, head: TwoNodes, spec, command: str) -> None:
        self.name = f"canopoint-{spec.study}-1"
        metadata = {
            "canopoint_study": spec.study,
            "canopoint_folder": folder_on_cluster(spec),
            "canopoint_study_file": stage(spec).contents[STUDY_FILE].decode(),
        }
        arguments = ["--no-wait", "--submission-id", self.name, "--metadata-json", json.dumps(metadata)]
        ray_job(head, "submit", *arguments, "--", "sh", "-c", command)


def ray_job(head: TwoNodes, command: str, *arguments: str) -> str:
    """Ray's own command line."""
    environment = {**head.environment, "PATH": "/usr/bin:/bin", "RAY_API_SERVER_ADDRESS": head.jobs_url}
    ended = subprocess.run(
        [RAY, "job", command, *arguments], env=environment, capture_output=True, text=True, timeout=WAIT_S, check=True
    )
    return ended.stdout


def known(head: TwoNodes) -> tuple[list[str], int]:
    """(the head's jobs, packages that it was ever sent)."""
    log = head.folder / "session_latest" / "logs" / "dashboard_JobHead.log"
    ids = re.findall(r"submission_id='([^']+)'", ray_job(head, "list"))
    return sorted(ids), log.read_text().count("Uploading package")


def typed(desk: Path, head: TwoNodes, *arguments: str, **environment: str) -> Command:
    return Command(desk, {**head.environment, "RAY_ADDRESS": head.jobs_url, **environment}, *arguments)


@pytest.fixture
def write(make_spec, write_spec, desk):
    """Writes a study; returns (its file, itself)."""

    def make(name: str, **changes):
        spec = make_spec(desk.parent / "storage", study=name, **changes)
        return str(write_spec(spec, desk.parent / f"{name}.yaml")), spec

    return make


@pytest.mark.cluster
def test_submitting_a_running_study_follows_it_and_ends_with_its_exit_code(head, desk, write):
    """All at once, as each takes seconds."""
    codes = {"ends-0": 0, "ends-1": 1, "ends-2": 2, "ends-3": 3}
    with contextlib.ExitStack() as stack:
        commands = {}
        for name, code in codes.items():
            path, spec = write(name)
            Submitted(head, spec, f"while [ ! -e {desk}/go ]; do sleep 0.2; done; echo said by {name}; exit {code}")
            (desk / name).mkdir()
            commands[name] = stack.enter_context(typed(desk / name, head, "submit", path))
        for name, command in commands.items():
            command.wait_until_it_says(f"job canopoint-{name}-1 runs this study already", WAIT_S)
        (desk / "go").touch()
        assert {name: command.wait(WAIT_S) for name, command in commands.items()} == codes
    for name, command in commands.items():
        assert command.said.count(f"said by {name}\n") == 1
        assert (f"canopoint resume canopoint-{name}-1" in command.said.splitlines()[-1]) == bool(codes[name])
    assert "warning" not in commands["ends-0"].said


@pytest.mark.cluster
def test_of_two_that_submit_at_once_one_starts_the_job_and_both_follow_it(head, desk, write):
    path, _ = write("twice", training={"encoder": "resnet18", "weights": "none", "image_size": 32, "epochs": 500})
    folders = [desk / "a", desk / "b"]
    for folder in folders:
        folder.mkdir()
    with typed(folders[0], head, "submit", path) as a, typed(folders[1], head, "submit", path) as b:
        for command in (a, b):
            command.wait_until_it_says("Running entrypoint for job canopoint-twice-1", WAIT_S)
        assert sorted("is submitted" in each.said for each in (a, b)) == [False, True]
        assert sorted("runs this study already" in each.said for each in (a, b)) == [False, True]
        code, said = run_typed(desk, head, "submit", path, "--no-wait", "--set", "training.epochs=400")
        assert code == 0, said
        assert "warning: it runs other settings than these" in said
        code, said = run_typed(desk, head, "stop", "twice")
        assert code == 0, said
        assert "STOPPED" in said
        assert [each.wait(WAIT_S) for each in (a, b)] == [3, 3]
    jobs, num_packages = known(head)
    assert "canopoint-twice-2" not in jobs
    assert num_packages


def run_typed(desk: Path, head: TwoNodes, *arguments: str, **environment: str) -> tuple[int, str]:
    with typed(desk, head, *arguments, **environment) as command:
        return command.wait(WAIT_S), command.said


@pytest.mark.cluster
def test_leaving_a_job_does_not_end_it_and_says_how_to_go_on(head, desk, write):
    path, spec = write("left")
    submitted = Submitted(head, spec, "printf '\\033[31mred\\trose\\n'; echo begun; exec sleep 300")
    with typed(desk, head, "submit", path) as command:
        command.wait_until_it_says("begun", WAIT_S)
        command.send(SIGINT)
        assert command.wait(ANSWER_S) == 3
    for use in ("logs", "status", "stop", "resume"):
        assert f"canopoint {use} {submitted.name} --address {head.jobs_url}" in command.said
    with typed(desk, head, "logs", "left", "--follow") as command:
        command.wait_until_it_says("begun", WAIT_S)
        command.send(SIGINT)
        assert command.wait(ANSWER_S) == 0
    code, said = run_typed(desk, head, "status", submitted.name)
    assert code == 0
    assert "RUNNING" in said
    assert "last line    begun" in said
    code, said = run_typed(desk, head, "stop", "left", "--no-wait")
    assert (code, len(said.splitlines())) == (0, 1)
    assert f"which works in {spec.folder}, is interrupted" in said
    code, said = run_typed(desk, head, "stop", "left")
    assert code == 0
    assert re.search(rf"{submitted.name} STOPPED: incomplete; canopoint resume {submitted.name}", said)
    code, said = run_typed(desk, head, "logs", "left")
    assert code == 0
    assert "begun" in said.splitlines()  # the last line, or Ray's own, which it writes without a hurry
    assert " [31mred        rose\n" in said  # a terminal would have turned red


class Cable:
    """A connection to the head that can be cut: a real one, byte for byte, until then."""

    def __init__(self, url: str) -> None:
        self._target = ("127.0.0.1", int(url.rpartition(":")[2]))
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Breaks all connections, and every new one."""
        self.is_cut = True
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Lets new connections through."""
        self.is_cut = False

    def close(self) -> None:
        self.cut()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                if self.is_cut:
                    near.close()
                    continue
                far = socket.create_connection(self._target)
                self._open |= {near, far}
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source:  # each is the source of one thread
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.mark.cluster
def test_a_log_goes_on_where_the_connection_broke_and_no_line_is_lost_or_said_twice(head, desk, write):
    _, spec = write("cut")
    count = f"i=0; while [ $i -lt {NUM_LINES} ]; do i=$((i+1)); echo line $i; printf half; sleep 0.3; echo way; done"
    Submitted(head, spec, count)
    cable = Cable(head.jobs_url)
    with contextlib.closing(cable), typed(desk, head, "logs", "cut", "--follow", "--address", cable.url) as command:
        for at in (5, 15, 25):
            command.wait_until_it_says(f"line {at}\n", WAIT_S)
            cable.cut()
            time.sleep(1 if at == 5 else 3)
            cable.mend()
        assert command.wait(WAIT_S) == 0
    said = re.sub(r"Running entrypoint for job .*\n", "", command.said, count=1)  # Ray's, late: in the midst of a line
    lines = [line for line in said.splitlines() if line.startswith(("line", "half"))]
    assert lines == [line for number in range(1, NUM_LINES + 1) for line in (f"line {number}", "halfway")]
    assert "SUCCEEDED" in command.said.splitlines()[-1]


@pytest.mark.cluster
def test_a_dry_run_says_everything_and_hands_nothing_over(head, desk, write):
    path, spec = write("dry")
    before = known(head)
    code, said = run_typed(desk, head, "submit", path, "--dry-run")
    assert code == 0, said
    for text in ("canopoint.py", "study/catalog/demo.yaml", "study.yaml", "files, ", "a trial gets 1 CPU, 0 GPUs",
                 "start canopoint-dry-1", "Ray 2.", "is not seen from here"):  # fmt: skip
        assert text in said
    Path(spec.storage).mkdir()
    code, said = run_typed(desk, head, "submit", path, "--dry-run")
    assert code == 0, said
    for text in ("explore      2 trials", "GPU-hours", "nothing was uploaded or started"):
        assert text in said
    assert known(head) == before
    assert list(Path(spec.storage).iterdir()) == []


@pytest.mark.cluster
def test_other_peoples_jobs_are_not_ours_to_stop(head, desk):
    partly_ours = ("--metadata-json", '{"canopoint_study": "somebodys"}')
    ray_job(head, "submit", "--no-wait", "--submission-id", "somebodys", *partly_ours, "--", "sleep", "300")
    for command in ("stop", "resume", "logs", "status"):
        code, said = run_typed(desk, head, command, "somebodys")
        assert (code, len(said.splitlines())) == (2, 1), said
        assert "somebodys: no such job" in said
    assert "was stopped" in ray_job(head, "stop", "somebodys")  # it ran until now


TOKENS = {
    "none": ({"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": ""}, "asks for a token"),
    "the mode alone": ({"RAY_AUTH_TOKEN": ""}, "couldn't find an authentication token"),
    "a wrong one": ({"RAY_AUTH_TOKEN": secrets.token_hex(32)}, "does not accept our token"),
    "a file that is not there": ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "/nowhere"}, "cannot be opened"),
}


@pytest.mark.cluster
@pytest.mark.parametrize("case", TOKENS)
def test_a_driver_without_the_right_token_is_refused_in_one_line_and_writes_nothing(head, desk, write, case):
    changes, reason = TOKENS[case]
    path, spec = write("refused")
    environment = {**head.environment, "HOME": str(desk), **changes}  # a token may lie at home, too
    for address in (head.address, head.jobs_url):
        started = time.monotonic()
        command = "run" if address == head.address else "submit"
        code, said = run(desk, environment, command, path, "--address", address)
        assert (code, len(said.splitlines())) == (2, 1), said
        assert reason in said
        assert "RAY_AUTH_TOKEN_PATH" in said
        assert time.monotonic() - started < ANSWER_S
    assert not Path(spec.storage).exists()


@pytest.mark.cluster
def test_a_driver_joins_by_the_flag_or_by_the_environment(head, desk, write):
    path, spec = write("joined")
    with Command(desk, {**head.environment, "RAY_ADDRESS": head.address}, "run", path) as command:
        command.wait_until_it_says(f"joining Ray at {head.address}", WAIT_S)
        wait_for(lambda: (spec.folder / "ledger.jsonl").exists(), WAIT_S, "the study")
