"""Real Ray, real training, real W&B files: one tiny study, run once for all tests of this module."""

import os
import shutil
from pathlib import Path

import pytest

from cluster.tuner import Outcome, run_study
from study.ledger import read_ledger
from trainable.atomic import sole_user
from trainable.config import InputError
from trainable.sealed import read_sealed
from trainable.trial_files import read_result, read_rows

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, make_spec) -> tuple[Outcome, list[str]]:
    said: list[str] = []
    return run_study(make_spec(tmp_path_factory.mktemp("storage")), said.append), said


@pytest.fixture
def folder(first_run) -> Path:
    return first_run[0].folder


def trial_ids(folder: Path) -> list[str]:
    listed = read_sealed(folder / "trials.json")
    assert listed
    return listed["trials"]


def test_every_trial_reaches_its_end(first_run, folder):
    outcome, said = first_run
    assert (outcome.num_trials, outcome.num_trained, outcome.num_missing, outcome.failures) == (2, 2, 0, [])
    assert outcome.complete
    for trial_id in trial_ids(folder):
        assert [row["epoch"] for row in read_rows(folder / "trials" / trial_id)] == [1, 2]
        assert read_result(folder / "trials" / trial_id)["state"] == "completed"
    assert any(line.startswith("[2/2]") for line in said)


def test_every_wandb_run_holds_exactly_the_epochs_of_its_metrics_file(folder, public_history):
    run_files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert sorted(path.name for path in run_files) == sorted(f"run-tiny-{each}.wandb" for each in trial_ids(folder))
    for path in run_files:
        rows = read_rows(folder / "trials" / path.stem.removeprefix("run-tiny-"))
        assert public_history(path) == rows
        assert len(rows) == 2


def test_the_ledger_says_what_happened(folder):
    events = [event for event in read_ledger(folder) if event["seq"] < 6]
    assert events[0]["event"] == "session_started"
    assert [event["event"] for event in events].count("trial_started") == 2
    ended = [event for event in read_ledger(folder) if event["event"] == "trial_ended"]
    assert {event["trial_id"]: event["value"] for event in ended} == {
        each: read_result(folder / "trials" / each)["metrics"]["val/miou"] for each in trial_ids(folder)
    }
    first_end = next(event for event in read_ledger(folder) if event["event"] == "session_ended")
    assert first_end["reason"] == "complete"


def test_run_again_trains_nothing_and_starts_no_ray(first_run, folder, make_spec):
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")}
    said: list[str] = []
    outcome = run_study(make_spec(folder.parent), said.append)
    assert outcome.complete
    assert outcome.num_trained == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")} == before
    assert "all 2 trials are done: nothing to train" in said
    assert not any("Ray" in line for line in said)


def test_a_lost_mirror_is_caught_up_without_training(first_run, folder, make_spec, public_history):
    shutil.rmtree(folder / "wandb")
    outcome = run_study(make_spec(folder.parent), lambda line: None)
    assert outcome.complete
    run_files = list(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(run_files) == 2
    for path in run_files:
        assert public_history(path) == read_rows(folder / "trials" / path.stem.removeprefix("run-tiny-"))


def test_a_torn_run_file_is_written_again(first_run, folder, make_spec, public_history):
    path = min(folder.glob("wandb/offline-run-*/run-*.wandb"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    outcome = run_study(make_spec(folder.parent), lambda line: None)
    assert outcome.complete
    (path,) = folder.glob(f"wandb/offline-run-*/{path.name}")
    assert public_history(path) == read_rows(folder / "trials" / path.stem.removeprefix("run-tiny-"))


def test_a_second_driver_is_refused(first_run, folder, make_spec):
    with sole_user(folder), pytest.raises(InputError, match=rf"\(pid {os.getpid()} on host .*\) is working here"):
        run_study(make_spec(folder.parent), lambda line: None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resources": {"cpus_per_trial": 1000}}, r"^resources.cpus_per_trial: 1000 asked for, but this machine has"),
        ({"resources": {"gpus_per_trial": 64.0}}, r"^resources.gpus_per_trial: 64 asked for, but torch sees \d+ GPUs"),
        ({"tracking": {"mode": "online"}}, r"^tracking.mode: online needs a W&B key for api.wandb.ai"),
        ({"data": {"root": "absent"}}, r"^data.root: absent: no such folder"),
    ],
)
def test_what_cannot_run_is_refused_and_nothing_is_written(tmp_path, monkeypatch, make_spec, changes, message):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    with pytest.raises(InputError, match=message):
        run_study(make_spec(tmp_path / "storage", **changes), lambda line: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
def test_an_extended_study_trains_what_is_new_alone_and_a_lost_trial_comes_out_the_same(folder, make_spec):
    lost, kept = trial_ids(folder)
    hashes = {each: read_result(folder / "trials" / each)["result_sha256"] for each in (lost, kept)}
    shutil.rmtree(folder / "trials" / lost)
    before = (folder / "trials" / kept / "result.json").stat().st_mtime_ns
    outcome = run_study(make_spec(folder.parent, search={"method": "grid", "seeds": [0, 1]}), lambda line: None)
    assert (outcome.num_trials, outcome.num_trained, outcome.num_missing) == (4, 3, 0)
    assert (folder / "trials" / kept / "result.json").stat().st_mtime_ns == before
    assert {each: read_result(folder / "trials" / each)["result_sha256"] for each in (lost, kept)} == hashes
    assert len(list(folder.glob("wandb/offline-run-*"))) == 4
