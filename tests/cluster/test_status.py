import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.status import describe_status, read_status, status_text
from study.design import Trial, make_trial
from study.ledger import Event, open_ledger
from study.spec import StudySpec
from study.yaml_file import to_yaml
from trainable.atomic import sole_user
from trainable.config import InputError
from trainable.sealed import write_sealed
from trainable.trial_files import append_row, write_result

FINGERPRINT = "0" * 64
GRID = {
    "parameters": {
        "points_per_image": {"role": "scientific", "values": [20, 2]},
        "learning_rate": {"role": "nuisance", "values": [1e-3, 1e-2]},
    },
    "search": {"method": "grid", "seeds": [0, 1]},
}
RANDOM = {
    **GRID,
    "search": {"method": "random", "trials_per_level": 2, "seeds": [0, 1], "scheduler": "asha"},
    "confirm": {"seeds": [7, 8, 9]},
}


class Study:
    """A study's folder, written as a driver writes it."""

    def __init__(self, spec: StudySpec) -> None:
        self.spec, self.folder = spec, spec.folder
        self.folder.mkdir(parents=True)
        (self.folder / "study.yaml").write_text(to_yaml(spec.to_mapping()))

    def trial(self, points: int, rate: float, seed: int, phase: Any = "explore") -> Trial:
        return make_trial(self.spec, FINGERPRINT, {"points_per_image": points, "learning_rate": rate}, seed, phase)

    def grid(self) -> list[Trial]:
        return [self.trial(points, rate, seed) for seed in (0, 1) for points in (20, 2) for rate in (1e-3, 1e-2)]

    def list_trials(self, trials: list[Trial]) -> None:
        write_sealed(self.folder / "trials.json", {"trials": [trial.trial_id for trial in trials]})

    def log(self, *events: Event) -> None:
        with sole_user(self.folder), open_ledger(self.folder) as ledger:
            ledger.append(*events)

    def start(self, trial: Trial, num_rows: int = 0) -> Path:
        folder = self.folder / "trials" / trial.trial_id
        folder.mkdir(parents=True)
        write_sealed(folder / "config.json", {"training": trial.config.to_mapping()})
        for epoch in range(1, num_rows + 1):
            append_row(folder, {"epoch": epoch, "time/total_s": 3.0 * epoch})
        return folder

    def finish(self, trial: Trial, value: float, **arguments: Any) -> None:
        name = "test/miou" if trial.phase == "confirm" else "val/miou"
        rows = [{"epoch": epoch, name: value, "time/total_s": 5.0 * epoch} for epoch in (1, 2)]
        write_result(self.start(trial), rows, {}, **arguments)


STARTED = {"event": "session_started", "host": "h", "pid": 7, "trainer_version": "3", "fingerprint": FINGERPRINT}
COMPLETE = {"event": "session_ended", "reason": "complete", "detail": "", "wall_s": 1.0, "gpu_hours": 0.0}


def started(trial: Trial) -> Event:
    return {"event": "trial_started", "trial_id": trial.trial_id, "phase": trial.phase}


def ended(trial: Trial, state: str, time_s: float = 10.0, reason: str = "") -> Event:
    told = {"trial_id": trial.trial_id, "phase": trial.phase, "state": state, "epochs": 2, "value": None}
    return {"event": "trial_ended", **told, "time_s": time_s, "reason": reason}


def ended_session(reason: str, detail: str = "") -> Event:
    return {**COMPLETE, "reason": reason, "detail": detail}


@pytest.fixture
def make_study(tmp_path: Path, make_spec: Callable[..., StudySpec]) -> Callable[..., Study]:
    return lambda **changes: Study(make_spec(tmp_path / "storage", **{**GRID, **changes}))


@pytest.fixture
def finished(make_study: Callable[..., Study]) -> Study:
    """A confirmed grid. The rate of 1e-2 has the better single trial, 1e-3 the better mean, at 20 points alone."""
    study = make_study(confirm={"seeds": [7, 8]})
    for trial in study.grid():
        is_20, rate = trial.parameters["points_per_image"] == 20, trial.parameters["learning_rate"]
        values = {(True, 1e-3): (0.6, 0.7), (True, 1e-2): (0.8, 0.3), (False, 1e-3): (0.1, 0.1)}.get((is_20, rate))
        study.finish(trial, (values or (0.4, 0.5))[trial.config.seed])
    winners = [
        study.trial(points, rate, seed, "confirm") for seed in (7, 8) for points, rate in ((20, 1e-3), (2, 1e-2))
    ]
    for trial in winners:
        study.finish(trial, 0.5 + trial.config.seed / 100)
    study.list_trials([*study.grid(), *winners])
    study.log(STARTED, *(ended(trial, "completed") for trial in [*study.grid(), *winners]), COMPLETE)
    return study


def test_a_finished_study_tells_what_was_found_and_what_to_do_next(finished: Study) -> None:
    status = read_status(finished.folder)
    assert {name: dict(phase.counts) for name, phase in status.phases.items()} == {
        "explore": {"completed": 8},
        "confirm": {"completed": 4},
    }
    assert [(each.level, each.setting, each.num_seeds) for each in status.best] == [
        ({"points_per_image": 20}, {"learning_rate": 1e-3}, 2),  # the levels as the study file has them
        ({"points_per_image": 2}, {"learning_rate": 1e-2}, 2),
    ]
    assert [each.mean for each in status.best] == pytest.approx([0.65, 0.45])
    assert [(each.metric, round(each.mean, 6)) for each in status.confirmed] == [("test/miou", 0.575)] * 2
    assert status.used["trials"] == (12, None)
    assert (status.is_at_work, status.driver, status.expected_s, status.notes) == (False, None, None, [])
    text = status_text(status)
    assert "explore      8 trials: 8 completed\nconfirm      4 trials: 4 completed\n" in text
    assert "best so far  points_per_image=20: val/miou 0.650 at learning_rate=0.001 (2 seeds)\n" in text
    assert "confirmed    points_per_image=2: test/miou 0.575 at learning_rate=0.01 (2 seeds)\n" in text
    assert text.endswith(f"\nnext         canopoint analyze {finished.folder}")
    assert ": complete\n" in text


@pytest.fixture
def driver(make_study: Callable[..., Study]) -> Iterator[tuple[Study, int]]:
    """A study in whose folder a process works, and that process; one trial is done, one runs, one was interrupted."""
    study = make_study(resources={"gpus_per_trial": 0.5})
    trials = study.grid()
    study.list_trials(trials)
    study.finish(trials[0], 0.5)
    study.start(trials[1], num_rows=1)
    study.start(trials[2], num_rows=1)
    study.log(STARTED, started(trials[0]), ended(trials[0], "completed"), started(trials[1]), started(trials[2]))
    study.log(STARTED, started(trials[1]))
    hold = "import sys, time; from pathlib import Path; from trainable.atomic import sole_user\n"
    hold += "with sole_user(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", hold, str(study.folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield study, process.pid
    process.kill()
    process.communicate()


def test_a_driver_at_work_is_named_and_what_runs_is_told_by_the_epoch(driver: tuple[Study, int]) -> None:
    study, pid = driver
    running, interrupted = (trial.trial_id for trial in study.grid()[1:3])
    status = read_status(study.folder)
    assert status.is_at_work
    assert status.driver.pid == pid
    phase = status.phases["explore"]
    assert phase.counts == {"completed": 1, "running": 1, "unfinished": 1, "not_started": 5}
    assert phase.under_way == {running: (1, 2), interrupted: (1, 2)}
    assert phase.num_missing == 7
    assert status.expected_s == 12 * (10 + 3 + 3) / 4  # 12 epochs are left, 4 took 16 s; one trial at a time
    assert status.used["trials"] == (2, None)
    assert status.used["gpu_hours"] == ((10 + 3 + 3) * 0.5 / 3600, None)  # by the epochs: time without a node is free
    text = status_text(status)
    assert f"(pid {pid} on host {os.uname().nodename}, since " in text
    assert f"{running}: epoch 1/2\n" in text
    assert "left         about 48 s of work\n" in text
    assert f"next         canopoint status {study.folder}   (the driver is at work" in text


def test_a_session_that_was_cut_off_is_told_from_one_that_ended(make_study: Callable[..., Study]) -> None:
    study = make_study()
    study.list_trials(study.grid())
    study.start(study.grid()[0], num_rows=1)
    assert read_status(study.folder).session == "none yet"
    study.log(STARTED, started(study.grid()[0]))
    status = read_status(study.folder)
    assert status.session.startswith(f"cut off after {time.strftime('%F ')}")
    assert status.phases["explore"].counts == {"unfinished": 1, "not_started": 7}
    assert status.next_command == f"canopoint run {study.folder}/study.yaml"
    study.log(STARTED, ended_session("interrupted", "SIGINT"))
    assert read_status(study.folder).session.endswith(": interrupted (SIGINT)")


def test_states_come_from_the_trial_s_own_result_and_else_from_the_ledger(make_study: Callable[..., Study]) -> None:
    study = make_study(search={**GRID["search"], "scheduler": "asha"})
    completed, infeasible, stopped, failed, failed_too, again = study.grid()[:6]
    study.list_trials(study.grid())
    study.finish(completed, 0.5)
    study.finish(infeasible, 0.5, infeasible="diverged in epoch 1, step 2: the loss is nan")
    for trial in (stopped, failed, failed_too, again):
        study.start(trial, num_rows=1)
    study.log(
        STARTED,
        ended(completed, "failed", reason="told wrongly"),
        ended(stopped, "stopped"),
        ended(failed, "failed", reason="out of memory"),
        ended(failed_too, "failed", reason="out of memory"),
        ended(again, "failed", reason="a lost node"),
        started(again),
        ended_session("failures", "3 trials failed in a row, 2 of them with: out of memory"),
    )
    status = read_status(study.folder)
    assert status.phases["explore"].counts == {
        "completed": 1, "infeasible": 1, "stopped": 1, "failed": 2, "unfinished": 1, "not_started": 2
    }  # fmt: skip
    assert status.failures == {"out of memory": [failed.trial_id, failed_too.trial_id]}
    assert status.diverged == {"diverged in epoch 1, step 2: the loss is nan": [infeasible.trial_id]}
    assert status.next_command.endswith("(once the cause of the failures is mended)")
    text = status_text(status)
    assert f"failed       2 trials: out of memory ({failed.trial_id}, {failed_too.trial_id})\n" in text
    # Without a scheduler a trial that was stopped goes on.
    (study.folder / "study.yaml").write_text((study.folder / "study.yaml").read_text().replace("asha", "none"))
    assert "stopped" not in read_status(study.folder).phases["explore"].counts


def test_what_a_search_is_yet_to_propose_counts_and_what_it_spares_does_not(make_study: Callable[..., Study]) -> None:
    study = make_study(**RANDOM)
    first, second = study.trial(20, 1e-3, 0), study.trial(20, 1e-3, 1)
    study.start(first, num_rows=1)
    proposed = {"event": "proposed", "level": {}, "setting": {}, "trials": [first.trial_id, second.trial_id]}
    study.list_trials([])
    study.log(STARTED, proposed, started(first))
    phases = read_status(study.folder).phases
    assert phases["explore"].counts == {"unfinished": 1, "not_started": 1}
    assert phases["explore"].to_come == 3 * 2  # two levels of two settings, one of which is known; two seeds
    assert phases["confirm"].to_come == 2 * 3  # two winners at three seeds
    study.log(ended(first, "stopped"))
    phases = read_status(study.folder).phases
    assert phases["explore"].counts == {"stopped": 1}  # the setting cannot win any more: its second seed is spared
    assert "6 yet to be chosen" in status_text(read_status(study.folder))


def test_a_used_up_budget_is_told_with_what_would_go_on(make_study: Callable[..., Study]) -> None:
    study = make_study(budget={"trials": 1, "hours": 2.0}, resources={"gpus_per_trial": 0.5})
    trial = study.grid()[0]
    study.list_trials(study.grid())
    study.finish(trial, 0.5)
    study.log(STARTED, started(trial), ended(trial, "completed", time_s=7200.0), ended_session("budget"))
    status = read_status(study.folder)
    assert status.used["trials"] == (1, 1)
    assert status.used["gpu_hours"] == (1.0, None)
    assert status.next_command.endswith("--set budget.trials=MORE   (the budget is used up)")
    assert "used         1 of 1 trials, 0.00 of 2 hours, 1.00 GPU-hours" in status_text(status)
    study.log(STARTED, ended_session("budget", "budget.hours: 2 used up"))
    assert "--set budget.hours=MORE" in read_status(study.folder).next_command


def test_a_moved_study_is_run_where_it_is(finished: Study, tmp_path: Path) -> None:
    moved = tmp_path / "a b" / "tiny"
    moved.parent.mkdir()
    finished.folder.rename(moved)
    (moved / "trials" / finished.grid()[0].trial_id / "result.json").unlink()
    status = read_status(moved)
    assert status.next_command == f"canopoint run '{moved}/study.yaml' --set storage='{moved.parent}'"


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_damage_is_told_and_nothing_is_changed(finished: Study) -> None:
    trial = finished.folder / "trials" / finished.grid()[0].trial_id
    (finished.folder / "trials.json").write_text("{")
    (trial / "result.json").write_bytes((trial / "result.json").read_bytes().replace(b"0.6", b"0.7"))
    ledger = finished.folder / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"pid": 7', b'"pid": 8')[:-9])
    before = contents(finished.folder)
    status = read_status(finished.folder)
    assert contents(finished.folder) == before
    assert status.phases["explore"].counts == {"completed": 7, "unfinished": 1}
    assert status.phases["confirm"].counts == {"completed": 4}
    assert status.notes == [f"damaged, to be mended by the next run: trials.json, trials/{trial.name}/result.json"]
    with open_ledger(finished.folder):
        pass
    assert "the ledger was mended 1 time, 2 events lost" in status_text(read_status(finished.folder))


def test_trials_that_the_study_no_longer_asks_for_are_counted_apart(finished: Study) -> None:
    finished.list_trials(finished.grid()[:2])
    status = read_status(finished.folder)
    assert status.phases["explore"].counts == {"completed": 2}
    assert status.notes == ["10 trials on disk of settings that are no longer part of the study"]


def test_the_status_is_plain_json(driver: tuple[Study, int]) -> None:
    described = json.loads(json.dumps(describe_status(read_status(driver[0].folder)), allow_nan=False))
    assert described["driver"]["pid"] == driver[1]
    assert described["phases"]["explore"]["counts"]["running"] == 1
    assert described["num_missing"] == {"explore": 7, "confirm": 0}


# A folder may be anyone's


def one_line(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_status(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_study_is_refused(tmp_path: Path, finished: Study) -> None:
    assert "holds no study (no study.yaml)" in one_line(tmp_path)
    assert "holds no study (no study.yaml)" in one_line(tmp_path / "absent")
    (finished.folder / "study.yaml").write_text("study: [")
    assert "study.yaml" in one_line(finished.folder)


@pytest.mark.parametrize(
    ("event", "rule"),
    [
        ({"event": "trial_ended", "trial_id": "0" * 12}, "phase is None"),
        ({**STARTED, "pid": "x" * 1000}, "pid is 'xxx"),
        ({"event": "trial_started", "trial_id": "../../../etc", "phase": "explore"}, "['../../../etc'] are no trials"),
        ({"event": "proposed", "trials": [3]}, "[3] are no trials"),
        ({"event": "proposed", "trials": "0" * 12}, "trials is '000"),
        ({"event": "confirming", "trials": {}}, "{} are no trials"),
        ({"event": "session_ended", "reason": None, "detail": ""}, "reason is None"),
        ({"event": "repaired", "lost": "all"}, "lost is 'all'"),
    ],
)
def test_events_that_no_driver_writes_are_refused(finished: Study, event: Event, rule: str) -> None:
    finished.log(event)
    message = one_line(finished.folder)
    assert f"ledger.jsonl: event 14 ({event['event']}): {rule}" in message
    assert "remove the file" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "name", ["ledger.jsonl", "trials.json", ".lock", "trials/{}/result.json", "trials/{}/config.json"]
)
def test_links_and_pipes_are_refused(finished: Study, name: str) -> None:
    path = finished.folder / name.format(finished.grid()[0].trial_id)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert f"{path.name}: cannot be opened: is a link" in one_line(finished.folder)
    path.unlink()
    os.mkfifo(path)
    assert f"{path.name}: must be a file" in one_line(finished.folder)


@pytest.mark.parametrize(
    "content",
    [
        {"state": "completed"},
        {"state": ["completed"]},
        {"state": "completed", "metrics": [], "epochs": "many", "time_s": None},
        {"state": "completed", "metrics": {"val/miou": "best"}, "epochs": 1e300, "time_s": -1e300},
        {"state": "completed", "metrics": {"val/miou": True}, "epochs": 1e999},
        {"state": "infeasible", "reason": 3},
    ],
)
def test_results_that_no_driver_writes_count_for_nothing(finished: Study, content: dict[str, Any]) -> None:
    path = finished.folder / "trials" / finished.grid()[0].trial_id / "result.json"
    write_sealed(path, content)
    (best, _) = read_status(finished.folder).best
    assert best.setting == {"learning_rate": 1e-2}  # 1e-3 has one seed left
    status_text(read_status(finished.folder))


@pytest.mark.parametrize("trials", [{}, 3, [{}, None, "../../..", "0" * 12]])
def test_a_list_of_trials_that_no_driver_writes_names_none(finished: Study, trials: object) -> None:
    write_sealed(finished.folder / "trials.json", {"trials": trials})
    assert read_status(finished.folder).phases["explore"].counts.keys() <= {"not_started"}


def test_text_of_others_moves_no_cursor(finished: Study) -> None:
    trial = finished.grid()[0]
    (finished.folder / "trials" / trial.trial_id / "result.json").unlink()
    finished.log(STARTED, ended(trial, "failed", reason="\x1b[2J\nnext         rm -rf /"))
    text = status_text(read_status(finished.folder))
    assert "\x1b" not in text
    assert "\nnext         rm" not in text


# Scale


def test_a_thousand_trials_take_a_second_and_no_more_memory_than_their_numbers(
    make_study: Callable[..., Study],
) -> None:
    study = make_study(search={"seeds": list(range(1000))})
    trial = study.trial(20, 1e-3, 0)
    study.finish(trial, 0.5)
    one = study.folder / "trials" / trial.trial_id
    ids = [f"{number:012x}" for number in range(1000)]
    for trial_id in ids:
        shutil.copytree(one, one.with_name(trial_id), copy_function=os.link)
    write_sealed(study.folder / "trials.json", {"trials": ids})
    told = [{**event, "trial_id": each} for each in ids for event in (started(trial), ended(trial, "completed"))]
    study.log(STARTED, *told, COMPLETE)
    before = time.process_time()
    status = read_status(study.folder)
    assert time.process_time() - before < 2
    assert status.phases["explore"].counts == {"completed": 1000}
    tracemalloc.start()
    read_status(study.folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_asking_loads_neither_torch_nor_ray_nor_optuna(finished: Study) -> None:
    ask = "import sys; from pathlib import Path; from cluster.status import read_status, status_text\n"
    ask += "status_text(read_status(Path(sys.argv[1])))\n"
    ask += "assert not {'torch', 'ray', 'optuna', 'wandb', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", ask, str(finished.folder)], check=True, timeout=60)
