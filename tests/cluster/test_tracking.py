"""The mirror against a W&B server of ours: what it sends, how it goes on, and what it says where the server is away."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from bench.made_study import make_study, write_trial
from bench.wandb_server import ENTITY, KEY, WandbServer
from cluster import tracking
from cluster.preparation import Work
from cluster.tracking import Mirror
from cluster.tracking_address import note_address, read_address, read_project
from cluster.tracking_record import WrittenRun, is_mirrored, read_end
from study.design import Trial
from trainable.trial_files import read_rows

ONLINE: dict[str, Any] = {
    "search": {"method": "grid", "seeds": [0]},
    "confirm": None,
    "tracking": {"project": "made", "mode": "online"},
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "ANSWER_S", 3.0)


def show(work: Work, *trials: Trial) -> dict[str, str]:
    """Shows these trials; returns what went wrong."""
    mirror = Mirror(work)
    for trial in trials:
        mirror.update(trial)
    mirror.close()
    return mirror.problems


def steps(server: WandbServer, work: Work, trial: Trial) -> list[int]:
    return [row["_step"] for row in server.runs[f"{work.spec.study}-{trial.trial_id}"].rows()]


def is_shown(work: Work, trial: Trial) -> bool:
    return is_mirrored(work, trial, read_end(work, trial, was_stopped=False))


def test_a_run_is_sent_with_its_config_rows_summary_and_end(server: WandbServer, tmp_path: Path) -> None:
    work = make_study(tmp_path, **ONLINE)
    trial = work.agenda.trials[0]
    assert show(work, trial) == {}
    run = server.runs[f"made-{trial.trial_id}"]
    assert (run.display_name, run.group, run.project, run.entity) == (trial.name, "made", "made", ENTITY)
    assert (run.state, run.exit_code, run.summary["state"]) == ("finished", 0, "completed")
    assert run.config["training"]["value"]["points_per_image"] == trial.config.points_per_image
    sent = [{name: value for name, value in row.items() if name[0] != "_"} for row in run.rows()]
    assert all(row.pop("val/boundary_f1") != 0.0 for row in sent)  # NaN, as it was logged
    own = [{k: v for k, v in row.items() if k != "val/boundary_f1"} for row in read_rows(work.trial_folder(trial))]
    assert sent == own
    assert is_shown(work, trial)
    assert read_project(work.folder) == f"{ENTITY}/made"


def test_no_secret_lies_in_the_study(server: WandbServer, tmp_path: Path) -> None:
    work = make_study(tmp_path, **ONLINE)
    assert show(work, *work.agenda.trials) == {}
    assert not [path for path in work.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_run_that_was_interrupted_goes_on_where_it_stands(server: WandbServer, tmp_path: Path) -> None:
    work = make_study(tmp_path, **ONLINE)
    trial = work.agenda.trials[0]
    shutil.rmtree(work.trial_folder(trial))
    write_trial(work, trial, num_epochs=2)
    assert show(work, trial) == {}
    assert steps(server, work, trial) == [1, 2]
    assert server.runs[f"made-{trial.trial_id}"].state == "failed"
    shutil.rmtree(work.trial_folder(trial))
    write_trial(work, trial)
    assert show(work, trial) == {}
    assert steps(server, work, trial) == [1, 2, 3, 4]
    assert server.runs[f"made-{trial.trial_id}"].state == "finished"


def test_a_run_goes_on_where_more_seeds_were_declared_since(server: WandbServer, tmp_path: Path) -> None:
    """What its config says of the plan changes, and W&B's service takes that."""
    work = make_study(tmp_path, **ONLINE)
    trial = work.agenda.trials[0]
    shutil.rmtree(work.trial_folder(trial))
    write_trial(work, trial, num_epochs=2)
    assert show(work, trial) == {}
    shutil.rmtree(work.trial_folder(trial))
    write_trial(work, trial)
    work.agenda.extend([{"points_per_image": 10}, {"points_per_image": 50}], [7, 8])
    assert show(work, trial) == {}
    assert server.runs[f"made-{trial.trial_id}"].config["plan"]["value"]["extensions"] == [[7, 8]]
    assert steps(server, work, trial) == [1, 2, 3, 4]


@pytest.mark.parametrize("num_epochs", [2, 4])
def test_an_earlier_run_goes_only_when_the_new_one_has_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_epochs: int
) -> None:
    work = make_study(tmp_path, search=ONLINE["search"], confirm=None)
    trial = work.agenda.trials[0]
    shutil.rmtree(work.trial_folder(trial))
    write_trial(work, trial, num_epochs=2)
    assert show(work, trial) == {}
    (earlier,) = work.folder.glob("wandb/offline-run-*")
    before = {path: path.read_bytes() for path in earlier.glob("*.wandb")}
    shutil.rmtree(work.trial_folder(trial))
    write_trial(work, trial, num_epochs=num_epochs)
    with monkeypatch.context() as patch:
        patch.setattr(WrittenRun, "has_settled", _never)
        assert show(work, trial).keys() == {trial.name}
    assert {path: path.read_bytes() for path in earlier.glob("*.wandb")} == before
    assert not is_shown(work, trial)
    assert show(work, trial) == {}
    (later,) = work.folder.glob("wandb/offline-run-*")
    assert later != earlier
    assert is_shown(work, trial) == (num_epochs == 4)


def _never(written: WrittenRun) -> bool:
    raise OSError(f"{written.path} is empty; is the disk full?")


def test_a_run_that_was_sent_is_not_sent_again(server: WandbServer, tmp_path: Path) -> None:
    work = make_study(tmp_path, **ONLINE)
    assert show(work, *work.agenda.trials) == {}
    server.asked.clear()
    assert show(work, *work.agenda.trials) == {}
    assert server.asked == []


def test_a_service_that_is_away_is_asked_once_and_said_in_one_line(server: WandbServer, tmp_path: Path) -> None:
    """Eight trials, one patience: the next run catches up, and the trials do not wait for W&B."""
    work = make_study(tmp_path, **ONLINE)
    started = time.monotonic()
    with server.away():
        problems = show(work, *work.agenda.trials)
    assert time.monotonic() - started < 2 * tracking.ANSWER_S + 3
    assert problems.keys() == {trial.name for trial in work.agenda.trials}
    assert not any("\n" in problem or KEY in problem for problem in problems.values())
    assert not any(is_shown(work, trial) for trial in work.agenda.trials)
    assert show(work, *work.agenda.trials) == {}
    assert all(is_shown(work, trial) for trial in work.agenda.trials)


@pytest.mark.slow
def test_a_run_that_could_not_be_sent_in_time_does_not_count_as_shown(server: WandbServer, tmp_path: Path) -> None:
    work = make_study(tmp_path, **ONLINE)
    trial = work.agenda.trials[0]
    server.leave_after("UpsertBucket", 1)
    assert "Timed out" in show(work, trial)[trial.name]
    assert not is_shown(work, trial)
    server.start(int(server.url.rpartition(":")[2]))
    assert show(work, trial) == {}
    assert steps(server, work, trial) == [1, 2, 3, 4]
    assert is_shown(work, trial)


@pytest.mark.parametrize(
    ("address", "project"),
    [("https://wandb.ai/me/forest", "me/forest"), ("http://127.0.0.1:8080/a/b/", "a/b"), (None, "")],
)
def test_the_project_of_a_study_is_known_by_its_address(tmp_path: Path, address: str | None, project: str) -> None:
    note_address(tmp_path, address)
    assert read_address(tmp_path) == (address or "")
    assert read_project(tmp_path) == project
