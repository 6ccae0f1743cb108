import json
import logging
import random
import resource
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from cluster.optuna_journal import Entry, OptunaJournal
from study.search import Outcome
from study.spec import StudySpec, parse_study

FEW, MANY = {"points_per_image": 10}, {"points_per_image": 50}
SEARCH = {"method": "optuna", "trials_per_level": 9, "seeds": [0, 1]}


def study(**changes: Any) -> StudySpec:
    content = {
        "study": "forest",
        "data": {"synthetic": {}},
        "parameters": {
            "points_per_image": {"role": "scientific", "values": [10, 50]},
            "learning_rate": {"role": "nuisance", "min": 1e-5, "max": 1e-1, "scale": "log"},
            "focal_gamma": {"role": "nuisance", "values": [0, 1, 2, 5]},
            "batch_size": {"role": "nuisance", "min": 4, "max": 16},
        },
        "search": SEARCH,
    }
    return parse_study({**content, **changes}, "study.yaml")


def entry(number: int, outcome: Outcome | None = None, num_epochs: int = 3, level=FEW, reason: str = "") -> Entry:
    setting = {
        "learning_rate": float(f"{10 ** (number / 3 - 5):.3g}"),
        "focal_gamma": number % 3,
        "batch_size": 4 + number,
    }
    steps = [(epoch, 0.4 + number / 100 + epoch / 1000) for epoch in range(1, num_epochs + 1)]
    return Entry(level, number, setting, [f"{number:06x}a", f"{number:06x}b"], steps, outcome, reason)


HISTORY = [
    entry(0, Outcome("completed", 0.5125)),
    entry(0, Outcome("completed", 0.7), level=MANY),
    entry(1, Outcome("stopped", None, ((1, 0.411),)), num_epochs=1),
    entry(2, Outcome("infeasible"), num_epochs=2, reason="loss is nan in epoch 3, step 7"),
    entry(3, Outcome("failed"), num_epochs=0, reason="killed"),
    entry(4, num_epochs=2),
    entry(5, num_epochs=0),
    entry(1, Outcome("completed", 0.71), level=MANY),
]


def write(path: Path, history: list[Entry], spec: StudySpec | None = None) -> None:
    """One session that begins with this history."""
    journal = OptunaJournal(path, spec or study())
    journal.sync(history)
    journal.close()
    assert not journal.problem


def live(journal: OptunaJournal, each: Entry) -> None:
    """What a session writes of a setting that it runs to its end."""
    journal.proposed(each.level, each.number, each.setting, each.trial_ids)
    journal.started(each.level, each.number)
    for epoch, value in each.steps:
        journal.epoch(each.level, each.number, epoch, value)
    if each.outcome:
        journal.ended(each.level, each.number, each.outcome, each.reason)


def load(path: Path, name: str) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name=name, storage=storage)


def content(path: Path) -> dict[str, list[Any]]:
    """All that a fresh reader finds, times apart."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    found = {}
    for each in storage.get_all_studies():
        attributes = [each.directions, each.user_attrs, each.system_attrs]
        found[each.study_name] = [*attributes, *map(essence, storage.get_all_trials(each._study_id))]
    return found


def essence(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.number, trial.state, trial.params, trial.values, trial.intermediate_values, trial.user_attrs


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "optuna.journal"


def test_optuna_reads_back_every_setting(path):
    write(path, HISTORY)
    assert set(content(path)) == {"forest points_per_image=10", "forest points_per_image=50"}
    few = load(path, "forest points_per_image=10")
    assert few.metric_names == ["val/miou"]
    assert [direction.name for direction in few.directions] == ["MAXIMIZE"]
    assert few.best_trial.value == 0.5125
    completed, stopped, infeasible, failed, running, waiting = few.trials
    assert essence(completed) == (
        0,
        TrialState.COMPLETE,
        {"learning_rate": 1e-5, "focal_gamma": 0, "batch_size": 4},
        [0.5125],
        {1: 0.401, 2: 0.402, 3: 0.403},
        {"trial_ids": ["000000a", "000000b"], "state": "completed"},
    )
    assert completed.distributions == {
        "learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
        "focal_gamma": optuna.distributions.CategoricalDistribution([0, 1, 2, 5]),
        "batch_size": optuna.distributions.IntDistribution(4, 16),
    }
    assert (stopped.state, stopped.values, stopped.user_attrs["state"]) == (TrialState.PRUNED, None, "stopped")
    assert (infeasible.state, infeasible.user_attrs["state"]) == (TrialState.FAIL, "infeasible")
    assert infeasible.user_attrs["reason"] == "loss is nan in epoch 3, step 7"
    assert (failed.state, failed.user_attrs["state"]) == (TrialState.FAIL, "failed")
    assert (running.state, running.values, len(running.intermediate_values)) == (TrialState.RUNNING, None, 2)
    assert waiting.state == TrialState.WAITING
    assert [trial.value for trial in load(path, "forest points_per_image=50").trials] == [0.7, 0.71]


def test_a_session_writes_what_a_history_would(path, tmp_path):
    journal = OptunaJournal(path, study())
    journal.sync([])
    for each in HISTORY[:5]:
        live(journal, each)
        live(journal, each)  # reported again, as after a retry
    journal.close()
    assert not journal.problem
    write(tmp_path / "rebuilt", HISTORY[:5])
    assert content(path) == content(tmp_path / "rebuilt")


def test_without_scientific_factors_the_optuna_study_is_the_study(path):
    spec = study(parameters={"focal_gamma": {"role": "nuisance", "values": [0, 1]}})
    write(path, [Entry({}, 0, {"focal_gamma": 1}, ["a"], (), Outcome("completed", 0.5))], spec)
    assert load(path, "forest").best_params == {"focal_gamma": 1}


def test_a_search_against_effort_has_two_objectives(path):
    """20 s to look, 2.4 s for the first point and 0.9 s for each of ten."""
    spec = study(
        parameters={"points_per_image": {"role": "nuisance", "values": [10, 50]}},
        search={**SEARCH, "method": "optuna_pareto", "trials_per_level": 2},
    )
    write(path, [Entry({}, 0, FEW, ["a"], (), Outcome("completed", 0.5)), Entry({}, 1, MANY, ["b"])], spec)
    found = load(path, "forest")
    assert [direction.name for direction in found.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert found.metric_names == ["val/miou", "annotation_s_per_image"]
    assert found.trials[0].values == pytest.approx([0.5, 31.4])
    assert found.best_trials == [found.trials[0]]


def test_a_value_that_is_no_number_is_left_out(path):
    write(path, [Entry(FEW, 0, entry(0).setting, ["a"], [(1, float("nan")), (2, 0.5)])])
    assert load(path, "forest points_per_image=10").trials[0].intermediate_values == {2: 0.5}


def test_a_later_session_continues_the_file(path, tmp_path, caplog):
    write(path, HISTORY[:3])
    before = path.read_bytes()
    journal = OptunaJournal(path, study())
    journal.sync(HISTORY[:4])
    for each in HISTORY[4:]:
        live(journal, each)
    journal.close()
    assert path.read_bytes().startswith(before)
    write(tmp_path / "rebuilt", HISTORY)
    found, wanted = content(path), content(tmp_path / "rebuilt")
    assert found.pop("forest points_per_image=10")[:-1] == wanted.pop("forest points_per_image=10")[:-1]
    assert found == wanted
    assert not caplog.records
    assert {each.name for each in tmp_path.iterdir()} == {"optuna.journal", "rebuilt"}


def test_a_reason_that_the_history_does_not_know_is_no_damage(path, tmp_path):
    ends = {0: Outcome("failed"), 1: Outcome("infeasible")}
    write(path, [entry(number, outcome, reason="why") for number, outcome in ends.items()])
    before = path.read_bytes()
    write(path, [entry(number, outcome) for number, outcome in ends.items()])
    assert path.read_bytes() == before
    path.unlink()
    write(path, [entry(number, outcome) for number, outcome in ends.items()])
    write(path, [entry(number, outcome, reason="why") for number, outcome in ends.items()])
    assert list(tmp_path.iterdir()) == [path]


def test_a_driver_that_was_killed_after_any_line_is_caught_up(path, tmp_path, caplog):
    write(path, HISTORY)
    whole, wanted = path.read_bytes(), content(path)
    lines = whole.splitlines(keepends=True)
    for kept in (*range(8), *range(8, len(lines), 5), len(lines) - 1):  # after each kind of line
        path.write_bytes(b"".join(lines[:kept]))
        write(path, HISTORY)
        assert content(path) == wanted
    assert not caplog.records
    assert list(tmp_path.iterdir()) == [path]


def test_a_torn_journal_is_named_set_aside_and_rebuilt(path, tmp_path, caplog):
    write(path, HISTORY)
    whole, wanted = path.read_bytes(), content(path)
    cuts = [cut for cut in random.Random(0).sample(range(1, len(whole)), 25) if whole[cut - 1 : cut] != b"\n"][:20]
    assert len(cuts) == 20
    for number, cut in enumerate(cuts, 1):
        path.write_bytes(whole[:cut])
        caplog.clear()
        write(path, HISTORY)
        assert content(path) == wanted
        aside = tmp_path / f"optuna.journal.damaged{f'-{number}' if number > 1 else ''}"
        assert aside.read_bytes() == whole[:cut]
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert str(path) in record.getMessage()
        assert aside.name in record.getMessage()


def test_a_flipped_byte_never_stays(path, tmp_path):
    """Wherever it is: the journal is either set aside, or says what it said, as where a time changed."""
    write(path, HISTORY)
    whole, wanted = path.read_bytes(), content(path)
    numbers = random.Random(0)
    for _ in range(40):
        position, bit = numbers.randrange(len(whole)), 1 << numbers.randrange(8)
        path.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
        write(path, HISTORY)
        assert content(path) == wanted
    assert 20 < len(list(tmp_path.iterdir())) < 40


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"values":[0.5125]', b'"values":[0.5225]'),
        (b'"values":[0.5125]', b'"values":[1.5125]'),
        (b'"state":1', b'"state":2'),
        (b'"focal_gamma":0', b'"focal_gamma":1'),
        (b'"learning_rate":1e-05', b'"learning_rate":1e-04'),
        (b'"batch_size":5', b'"batch_size":7'),
        (b'"intermediate_value":0.403', b'"intermediate_value":0.413'),
        (b'"step":3', b'"step":7'),
        (b'["000000a', b'["000800a'),
        (b"val/miou", b"val/moou"),
        (b'"directions":[2]', b'"directions":[1]'),
        (b"points_per_image=10", b"points_per_image=11"),
        (b'"state":"stopped"', b'"state":"stoqped"'),
    ],
)
def test_a_changed_parameter_value_or_state_is_found(path, tmp_path, before, after, caplog):
    write(path, HISTORY)
    whole, wanted = path.read_bytes(), content(path)
    assert before in whole
    path.write_bytes(whole.replace(before, after, 1))
    write(path, HISTORY)
    assert content(path) == wanted
    assert (tmp_path / "optuna.journal.damaged").exists()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("text", ["", "\n", "no journal\n", "[1]\n", '{"op_code": 4}\n', "\x00" * 300])
def test_what_is_no_journal_is_replaced(path, text):
    path.write_text(text)
    write(path, HISTORY)
    assert len(load(path, "forest points_per_image=10").trials) == 6


def test_a_journal_with_trials_that_the_study_does_not_know_is_set_aside(path, tmp_path):
    write(path, HISTORY)
    write(path, HISTORY[:3])
    assert (tmp_path / "optuna.journal.damaged").exists()
    assert len(load(path, "forest points_per_image=10").trials) == 2


def test_an_edited_study_writes_its_journal_anew_and_nothing_is_called_damaged(path, tmp_path, caplog):
    write(path, HISTORY)
    edited = study(training={"epochs": 4})
    write(path, HISTORY[:2], edited)
    write(tmp_path / "new", HISTORY[:2], edited)
    assert content(path) == content(tmp_path / "new")
    assert not caplog.records
    assert not (tmp_path / "optuna.journal.damaged").exists()


@pytest.mark.parametrize("outcome", [None, Outcome("completed", 0.6)])
def test_a_failed_setting_that_is_run_again_is_no_damage(path, tmp_path, caplog, outcome):
    write(path, [entry(0, Outcome("failed"), 1, reason="killed"), entry(1, Outcome("completed", 0.5))])
    write(path, [entry(0, outcome, 2), entry(1, Outcome("completed", 0.5))])
    state = load(path, "forest points_per_image=10").trials[0].state
    assert state == (TrialState.COMPLETE if outcome else TrialState.RUNNING)
    assert not caplog.records
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [JournalFileSymlinkLock, JournalFileOpenLock])
def test_a_lock_that_a_killed_driver_left_is_removed(path, tmp_path, kind):
    write(path, HISTORY[:2])
    kind(str(path)).acquire()
    (tmp_path / "optuna.journal.lock0e6c.rename").touch()  # killed while it let go
    started = time.monotonic()
    write(path, HISTORY)
    assert time.monotonic() - started < 2
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_at_the_end_and_mended_by_the_next_session(path, tmp_path):
    """No file may grow beyond a limit, as on a full disk: in the middle of a line the rest of it is not written."""
    write(path, HISTORY[:2])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = OptunaJournal(path, study())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))
        journal.sync(HISTORY[:2])
        for each in HISTORY[2:]:
            live(journal, each)
        journal.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert journal.problem.startswith(f"{path}: OSError: [Errno 27] File too large")
    write(path, HISTORY)
    write(tmp_path / "new", HISTORY)
    assert content(path) == content(tmp_path / "new")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def get(port: int, route: str) -> Any:
    """An answer of the dashboard; waits until it serves."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{route}", timeout=10) as answer:
                return json.load(answer)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def wait_for(port: int, route: str, is_there: Any) -> Any:
    """An answer as awaited: the dashboard asks the journal every two seconds."""
    for _ in range(40):
        answer = get(port, route)
        if is_there(answer):
            return answer
        time.sleep(0.25)
    pytest.fail(f"{route} shows {answer}")


@pytest.mark.cluster
def test_the_real_dashboard_shows_the_study_while_it_runs(path):
    journal = OptunaJournal(path, study())
    journal.sync(HISTORY[:2])
    while not path.exists():
        time.sleep(0.05)
    port = free_port()
    program = Path(sys.executable).parent / "optuna-dashboard"
    command = [str(program), str(path), "--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref"]
    dashboard = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        names = {each["study_name"]: each["study_id"] for each in get(port, "/api/studies")["study_summaries"]}
        assert set(names) == {"forest points_per_image=10", "forest points_per_image=50"}
        route = f"/api/studies/{names['forest points_per_image=10']}"
        assert get(port, route)["objective_names"] == ["val/miou"]
        new = entry(1)
        journal.proposed(new.level, new.number, new.setting, new.trial_ids)
        shown = wait_for(port, route, lambda answer: len(answer["trials"]) == 2)["trials"]
        assert [each["state"] for each in shown] == ["Complete", "Waiting"]
        journal.epoch(new.level, new.number, 1, 0.5)
        is_running = lambda answer: answer["trials"][1]["intermediate_values"] == [{"step": 1, "value": 0.5}]  # noqa: E731
        assert wait_for(port, route, is_running)["trials"][1]["state"] == "Running"
        journal.ended(new.level, new.number, Outcome("completed", 0.75))
        found = wait_for(port, route, lambda answer: answer["trials"][1]["state"] == "Complete")
        assert found["trials"][1]["values"] == [0.75]
        assert [each["number"] for each in found["best_trials"]] == [1]
        parameters = {each["name"]: each["param_external_value"] for each in found["trials"][1]["params"]}
        assert parameters == {name: str(value) for name, value in new.setting.items()}
    finally:
        dashboard.kill()
        dashboard.wait()
        journal.close()
    assert not journal.problem
