"""Killed workers, failing trials and interrupts, through the command a user types."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.preparation import prepare
from trainable.trial_files import read_result, read_rows

pytestmark = pytest.mark.cluster
WAIT_S = 120


@pytest.fixture
def start(tmp_path, make_spec, write_spec):
    """Starts `canopoint run` on a study; ended, by its own process id, when the test ends."""
    started = []

    def run(**changes) -> tuple[subprocess.Popen[str], Path]:
        spec = make_spec(tmp_path / "storage", **changes)
        command = [str(Path(sys.executable).parent / "canopoint"), "run", str(write_spec(spec, tmp_path / "tiny.yaml"))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
        started.append(process)
        return process, spec.folder

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


LONG = {"encoder": "resnet18", "weights": "none", "image_size": 32, "epochs": 40, "batch_size": 4}


def wait_for_epoch(process: subprocess.Popen[str], folder: Path, epoch: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        if any(len(read_rows(trial)) >= epoch for trial in folder.glob("trials/*")):
            return
        time.sleep(0.1)
    pytest.fail(f"no trial reached epoch {epoch} in {WAIT_S} s (exit code {process.poll()})")


def worker_pids(driver: int) -> list[int]:
    """Processes below the driver that train; found by their parents, not by name alone."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    below, todo = [], [driver]
    while todo:
        found = children.get(todo.pop(), [])
        below += found
        todo += found
    return [pid for pid in below if b"ray::ResourceTrainable" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def results(folder: Path) -> dict[str, str]:
    trial_ids = json.loads((folder / "trials.json").read_text())
    return {each: read_result(folder / "trials" / each)["result_sha256"] for each in trial_ids}


def test_a_killed_worker_comes_back_and_the_results_are_the_undisturbed_ones(start, tmp_path, make_spec):
    process, folder = start(training=LONG)
    wait_for_epoch(process, folder, 3)
    pids = worker_pids(process.pid)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, output
    disturbed = results(folder)
    (folder / "trials.json").unlink()
    folder.rename(tmp_path / "disturbed")
    process, folder = start(training=LONG)
    process.communicate(timeout=WAIT_S)
    assert results(folder) == disturbed


def test_an_interrupt_exits_with_3_and_the_same_command_continues(start):
    process, folder = start(training=LONG)
    wait_for_epoch(process, folder, 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 3, output
    assert "the same command continues" in output
    before = {path.name: read_rows(path) for path in folder.glob("trials/*")}
    assert any(before.values())
    process, folder = start(training=LONG)
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, output
    for name, rows in before.items():
        assert read_rows(folder / "trials" / name)[: len(rows) - 1] == rows[:-1]  # continued, not begun anew
    runs = list(folder.glob("wandb/offline-run-*"))
    assert len(runs) == 2


def test_a_failing_trial_is_counted_and_named_and_the_others_end(start, tmp_path, make_spec):
    """A trial whose folder holds another trial's config refuses to train, however often it is tried."""
    work = prepare(make_spec(tmp_path / "storage"))
    foreign = work.trial_folder(work.trials[0])
    foreign.mkdir(parents=True)
    (foreign / "config.json").write_text("{}")
    process, _ = start()
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 3, output
    assert f"failed: {work.trials[0].name}" in output
    assert "holds a trial with other settings" in output
    assert "1 of 2 trials are not done" in output
    assert [bool(read_result(work.trial_folder(trial))) for trial in work.trials] == [False, True]
