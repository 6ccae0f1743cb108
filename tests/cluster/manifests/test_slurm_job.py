"""The batch script with a real Ray on two nodes and a real study, which is interrupted and comes back."""

import os
import signal
import time
from pathlib import Path

import pytest

from bench.processes import descendants, kill_trees, process
from cluster.manifests import render

pytestmark = pytest.mark.cluster


def rows(storage: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in storage.glob("tiny/trials/*/metrics.jsonl"))


def wait_for_rows(storage: Path, job) -> None:
    for _ in range(600):
        if rows(storage) >= 2 or job.poll() is not None:
            return
        time.sleep(0.2)


def command_lines() -> list[str]:
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts.append(path.read_text().replace("\0", " "))
        except OSError:  # it has ended meanwhile
            continue
    return texts


def test_a_study_is_interrupted_near_the_end_of_its_time_and_comes_back(make_spec, slurm):
    storage = slurm.folder / "out"
    training = {"encoder": "resnet18", "weights": "none", "image_size": 32, "epochs": 60, "batch_size": 4}
    script = render("slurm", make_spec(storage, training=training))

    job = slurm.start(script)
    try:
        wait_for_rows(storage, job)
        work = slurm.folder / f".canopoint-{slurm.job_id}"
        token = (work / "token").read_text()
        started = [each.pid for each in descendants(process(job.pid))]
        assert not any(token in text for text in command_lines())
        assert not any(token in (work / f"node-{node}.log").read_text() for node in (0, 1))
        job.send_signal(signal.SIGUSR1)
        begun = time.monotonic()
        output, _ = job.communicate(timeout=100)
        assert job.returncode == 3, output
        assert time.monotonic() - begun < 60
        assert slurm.said[-1] == f"scontrol requeue {slurm.job_id}"
        assert token not in output + (slurm.folder / "environment").read_text()
        assert not [pid for pid in started if os.path.exists(f"/proc/{pid}")]
        assert not [text for text in command_lines() if slurm.job_id in text]

        before = rows(storage)
        job = slurm.start(script, SLURM_RESTART_COUNT="1")
        output, _ = job.communicate(timeout=200)
        assert job.returncode == 0, output
        assert len(list(storage.glob("tiny/trials/*/result.json"))) == 2
        assert 2 <= before < rows(storage) == 120
        assert not work.exists()
    finally:
        if found := process(job.pid):
            kill_trees([found])
