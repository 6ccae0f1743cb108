"""`canopoint sync` against run files and a W&B server of ours; the analysis finds the gaps, as on the command line."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from analysis.reading.gaps import find_gaps
from analysis.reading.run_cache import RunCache
from analysis.reading.run_folder import read_runs
from analysis.reading.wandb_api import read_api_runs
from bench.made_study import make_study, show_study, write_trial
from bench.s3_server import s3_server
from bench.wandb_server import ENTITY, WandbServer
from cluster import sync, tracking
from cluster.preparation import Work
from cluster.sync import sync_study
from cluster.tracking import Mirror
from cluster.tracking_record import MIRROR_FILE
from trainable.atomic import sole_user
from trainable.config import InputError
from trainable.trial_files import RESULT
from trainable.trial_files import ROWS as ROWS_FILE

SMALL: dict[str, Any] = {"search": {"method": "grid", "seeds": [0]}, "confirm": None}
ONLINE: dict[str, Any] = {**SMALL, "tracking": {"project": "made", "mode": "online"}}
ROWS = ["epoch", "val/miou"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service that is away is given up in seconds; no key of this machine is used."""
    monkeypatch.setattr(tracking, "ANSWER_S", 3.0)
    monkeypatch.setattr(tracking, "REST_S", 3.0)
    monkeypatch.setattr(sync, "PATIENCE_S", (0.0, 0.5))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)


def look(work: Work, project: str | None) -> Mapping[str, str]:
    runs = read_runs(work.folder / "wandb")
    if project is not None:
        runs = read_api_runs(project, {"group": work.spec.study}, RunCache(None)) if project else []
    return find_gaps(work.folder, runs)


def synced(work: Work) -> tuple[int, list[str]]:
    said: list[str] = []
    return sync_study(str(work.folder), said.append, look), said


def run_file(work: Work, number: int) -> Path:
    """Of the trial with this number."""
    trial_id = work.agenda.trials[number].trial_id
    (path,) = work.folder.glob(f"wandb/*run-*/run-made-{trial_id}.wandb")
    return path


def ids(work: Work) -> list[str]:
    return [trial.trial_id for trial in work.agenda.trials]


def test_a_study_that_w_and_b_has_whole_is_left_alone(tmp_path: Path) -> None:
    work = show_study(make_study(tmp_path, **SMALL))
    before = {path: path.stat().st_mtime_ns for path in work.folder.rglob("*.wandb")}
    assert synced(work) == (0, ["W&B lacks nothing of the 8 trials of made"])
    assert {path: path.stat().st_mtime_ns for path in work.folder.rglob("*.wandb")} == before


def test_runs_that_are_missing_or_torn_are_named_and_written_again(tmp_path: Path) -> None:
    work = show_study(make_study(tmp_path, **SMALL))
    shutil.rmtree(run_file(work, 0).parent)
    torn = run_file(work, 1)
    torn.write_bytes(torn.read_bytes()[:-200])
    code, said = synced(work)
    assert code == 0
    for trial_id in ids(work)[:2]:
        assert sum(f"({trial_id}): " in line and line.startswith("gap: ") for line in said) == 1
        assert sum(f"({trial_id})" in line and line.startswith("closed: ") for line in said) == 1
    assert len(said) == 4
    assert synced(work) == (0, ["W&B lacks nothing of the 8 trials of made"])


@pytest.mark.slow
def test_a_run_file_that_was_written_short_and_recorded_so_is_found(tmp_path: Path) -> None:
    """As on a full disk, where W&B loses rows and says nothing: the mirror's own record fits the short file."""
    work = make_study(tmp_path, **SMALL)
    trial = work.agenda.trials[0]
    rows = (work.trial_folder(trial) / "metrics.jsonl").read_bytes()
    (work.trial_folder(trial) / "metrics.jsonl").write_bytes(rows[: rows.index(b"\n") + 1])
    result = (work.trial_folder(trial) / RESULT).read_bytes()
    (work.trial_folder(trial) / RESULT).unlink()
    show_study(work)
    (work.trial_folder(trial) / "metrics.jsonl").write_bytes(rows)
    (work.trial_folder(trial) / RESULT).write_bytes(result)
    code, said = synced(work)
    assert code == 0
    assert trial.trial_id in said[0]
    assert look(work, None) == {}


def test_an_unfinished_trial_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    work = make_study(tmp_path, **SMALL)
    trial = work.agenda.trials[0]
    shutil.rmtree(work.trial_folder(trial))
    write_trial(work, trial, num_epochs=2)
    assert synced(work)[0] == 0
    (run,) = [run for run in read_runs(work.folder / "wandb") if run.config["trial_id"] == trial.trial_id]
    assert run.history.values("epoch").tolist() == [1, 2]
    assert run.exit_code != 0


def damage_row(folder: Path) -> None:
    path = folder / ROWS_FILE
    path.write_text(path.read_text().replace('"epoch": 2', '"epoqh": 2'))


def cut_row(folder: Path) -> None:
    path = folder / ROWS_FILE
    first, second, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, second[:20], "\n", *others]))


def lose_result(folder: Path) -> None:
    """And the last epochs, at a line break: what is left reads like a trial that has not ended."""
    cut_row(folder)
    path = folder / ROWS_FILE
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    (folder / RESULT).unlink()


def damage_result(folder: Path) -> None:
    (folder / RESULT).write_text((folder / RESULT).read_text().replace("completed", "complated"))


DAMAGES = [damage_row, cut_row, lose_result, damage_result]


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_only_sound_copy_of_a_damaged_trial_is_left_alone(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """The other gap is closed all the same; the record of what was shown stays, too."""
    work = show_study(make_study(tmp_path, **SMALL))
    trial = work.agenda.trials[0]
    run, record = run_file(work, 0), work.trial_folder(trial) / MIRROR_FILE
    before = run.read_bytes(), record.read_bytes()
    shutil.rmtree(run_file(work, 1).parent)
    damage(work.trial_folder(trial))
    code, said = synced(work)
    assert code == 3
    assert (run.read_bytes(), record.read_bytes()) == before
    assert sum(line.startswith("closed: ") for line in said) == 1
    (refusal,) = [line for line in said if line.startswith(f"not in W&B: {trial.name} ({trial.trial_id}): ")]
    assert "left as it is until `canopoint run` has mended" in refusal
    assert str(work.trial_folder(trial)) in refusal


def test_a_damaged_trial_without_a_run_is_not_shown(tmp_path: Path) -> None:
    work = show_study(make_study(tmp_path, **SMALL))
    shutil.rmtree(run_file(work, 0).parent)
    damage_result(work.trial_folder(work.agenda.trials[0]))
    assert synced(work)[0] == 3
    assert not list(work.folder.glob(f"wandb/*{ids(work)[0]}*"))


@pytest.mark.parametrize("damage", [cut_row, *(pytest.param(each, marks=pytest.mark.slow) for each in DAMAGES[::2])])
def test_a_run_of_a_damaged_trial_is_not_set_aside_in_the_service(
    server: WandbServer, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    work = show_study(make_study(tmp_path, **ONLINE))
    trial_id = ids(work)[0]
    whole = server.runs[f"made-{trial_id}"].rows()
    damage(work.trial_folder(work.agenda.trials[0]))
    code, said = synced(work)
    assert (code, len(said)) == (3, 2)
    assert f"({trial_id}): left as it is until `canopoint run`" in said[1]
    found = server.runs[f"made-{trial_id}"]
    assert (found.group, found.state, found.rows()) == ("made", "finished", whole)
    assert len(server.runs) == 8


def test_a_torn_last_line_is_no_damage(tmp_path: Path) -> None:
    """A killed writer leaves one; the epochs before it are shown."""
    work = make_study(tmp_path, **SMALL)
    folder = work.trial_folder(work.agenda.trials[0])
    (folder / RESULT).unlink()
    (folder / ROWS_FILE).write_bytes((folder / ROWS_FILE).read_bytes()[:-5])
    assert synced(work)[0] == 0
    (run,) = [run for run in read_runs(work.folder / "wandb") if run.config["trial_id"] == ids(work)[0]]
    assert run.history.values("epoch").tolist() == [1, 2, 3]


@pytest.mark.parametrize("is_gone", [False, True])
def test_trials_that_hang_on_a_damaged_one_are_compared_too(tmp_path: Path, is_gone: bool) -> None:
    """Without all of exploration nobody knows which winners were confirmed."""
    work = show_study(make_study(tmp_path))
    explored, confirmed = work.agenda.trials[0], work.agenda.trials[-1]
    if is_gone:
        shutil.rmtree(work.trial_folder(explored))
        rest = "the others have nothing to show yet; `canopoint run` trains them"
        assert synced(work) == (0, [f"W&B lacks nothing of 21 of the 22 trials of made; {rest}"])
    else:
        damage_row(work.trial_folder(explored))
    shutil.rmtree(run_file(work, -1).parent)
    code, said = synced(work)
    assert code == 3
    assert f"gap: trial {confirmed.trial_id}: no W&B run" in said
    assert f"not in W&B: trial {confirmed.trial_id}: left as it is until `canopoint run` has mended the study" in (
        said[-1].partition(" (")[0] if is_gone else next(line for line in said[2:] if confirmed.trial_id in line)
    )
    assert not list(work.folder.glob(f"wandb/*{confirmed.trial_id}*"))


def test_while_a_driver_works_nothing_is_touched(tmp_path: Path) -> None:
    work = make_study(tmp_path, **SMALL)
    with sole_user(work.folder), pytest.raises(InputError, match="is working here"):
        synced(work)
    assert not (work.folder / "wandb").exists()


@pytest.mark.parametrize(("lost", "said"), [("study.yaml", "holds no study"), ("data.json", "holds no data.json")])
def test_what_is_no_study_is_refused(tmp_path: Path, lost: str, said: str) -> None:
    work = make_study(tmp_path, **SMALL)
    (work.folder / lost).unlink()
    with pytest.raises(InputError, match=said):
        synced(work)


def test_without_a_key_an_online_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a W&B key"):
        synced(make_study(tmp_path, **ONLINE))


def test_a_study_that_w_and_b_never_saw_is_uploaded(server: WandbServer, tmp_path: Path) -> None:
    work = make_study(tmp_path, **ONLINE)
    code, said = synced(work)
    assert code == 0
    assert [line.split(":")[0] for line in said] == ["gap"] * 8 + ["closed"] * 8
    assert {run.state for run in server.runs.values()} == {"finished"}
    assert [len(run.lines) for run in server.runs.values()] == [4] * 8
    assert synced(work) == (0, ["W&B lacks nothing of the 8 trials of made"])


def lose_run(server: WandbServer, run_id: str) -> None:
    server.answers.runs.pop((ENTITY, "made", run_id))


def lose_end(server: WandbServer, run_id: str) -> None:
    """As W&B's service shows a run that it heard no more of after the third epoch."""
    run = server.runs[run_id]
    run.lines.pop()
    run.summary, run.state = run.rows()[-1], "crashed"


def lose_middle(server: WandbServer, run_id: str) -> None:
    del server.runs[run_id].lines[1:3]


def change_value(server: WandbServer, run_id: str) -> None:
    server.runs[run_id].lines[2] = json.dumps({**server.runs[run_id].rows()[2], "val/miou": 0.1})


def repeat_epoch(server: WandbServer, run_id: str) -> None:
    server.runs[run_id].lines.append(server.runs[run_id].lines[-1])


@pytest.mark.parametrize(
    "damage",
    [
        lose_end,
        change_value,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (lose_run, lose_middle, repeat_epoch)),
    ],
)
def test_every_gap_in_the_service_is_named_and_closed(
    server: WandbServer, tmp_path: Path, damage: Callable[[WandbServer, str], None]
) -> None:
    work = show_study(make_study(tmp_path, **ONLINE))
    trial_id = ids(work)[0]
    whole = server.runs[f"made-{trial_id}"].rows()
    damage(server, f"made-{trial_id}")
    code, said = synced(work)
    assert code == 0, said
    assert said[0].startswith("gap: ")
    assert said[-1].startswith("closed: ")
    assert all(trial_id in line for line in (said[0], said[-1]))
    is_mended = damage in (lose_run, lose_end)
    assert len(said) == 2 if is_mended else "written anew under another id" in said[1]
    (found,) = [run for run in server.runs.values() if run.group == "made" and run.name.startswith(f"made-{trial_id}")]
    assert found.state == "finished"
    assert [[row[name] for name in ROWS] for row in found.rows()] == [[row[name] for name in ROWS] for row in whole]
    assert (found.name == f"made-{trial_id}") == is_mended
    replaced = [run for run in server.runs.values() if run.group == "made-replaced"]
    assert [run.config["replaced_by"]["value"] for run in replaced] == ([] if is_mended else [found.name])
    assert synced(work) == (0, ["W&B lacks nothing of the 8 trials of made"])


@pytest.mark.slow
def test_a_study_in_an_object_store_is_synced_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local copy is written, and pushed before the store is let go."""
    work = make_study(tmp_path / "made", **SMALL)
    with s3_server() as store:
        for name, value in {**store.environment, "CANOPOINT_CACHE": str(tmp_path / "cache")}.items():
            monkeypatch.setenv(name, value)
        for path in (each for each in work.folder.rglob("*") if each.is_file()):
            store.put(f"lab/made/{path.relative_to(work.folder)}", path.read_bytes())
        url = f"s3://{store.bucket}/lab/made"
        said: list[str] = []
        assert sync_study(url, said.append, look) == 0
        assert [line.split(":")[0] for line in said] == ["gap"] * 8 + ["closed"] * 8
        assert sum(name.endswith(".wandb") for name in store.names("lab/made/wandb")) == 8
        assert sync_study(url, said.append, look) == 0
        assert said[16:] == ["W&B lacks nothing of the 8 trials of made"]


@pytest.mark.slow
def test_w_and_bs_own_sync_uploads_a_study_that_was_run_offline(server: WandbServer, tmp_path: Path) -> None:
    work = show_study(make_study(tmp_path, **SMALL))
    command = [Path(sys.executable).parent / "wandb", "sync", "--yes", work.folder / "wandb"]
    subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=tmp_path)
    assert look(work, f"{ENTITY}/made") == {}
    assert [run.state for run in server.runs.values()] == ["finished"] * 8


@pytest.mark.slow
def test_a_service_that_goes_away_leaves_gaps_that_the_next_sync_closes(server: WandbServer, tmp_path: Path) -> None:
    """It goes while the second run is sent; the mirror says so, and no run that was not sent counts as shown."""
    work = make_study(tmp_path, **ONLINE)
    mirror = Mirror(work)
    server.leave_after("UpsertBucket", 3)
    for trial in work.agenda.trials:
        mirror.update(trial)
    mirror.close()
    unsent = {trial.name for trial in work.agenda.trials if not (work.trial_folder(trial) / MIRROR_FILE).exists()}
    assert len(unsent) >= 6
    assert unsent == mirror.problems.keys()
    assert not any("\n" in problem for problem in mirror.problems.values())
    server.start(int(server.url.rpartition(":")[2]))
    code, said = synced(work)
    assert code == 0, said
    assert sum(line.startswith("closed") for line in said) >= len(unsent)
    assert [len(run.lines) for run in server.runs.values()] == [4] * 8


@pytest.mark.slow
def test_what_could_not_be_closed_is_named_and_the_exit_code_is_3(server: WandbServer, tmp_path: Path) -> None:
    work = make_study(tmp_path, **ONLINE)
    trial = work.agenda.trials[0]
    lacking = {trial.trial_id: "no W&B run"}
    said: list[str] = []
    with server.away():
        code = sync_study(str(work.folder), said.append, lambda work, project: lacking)
    assert code == 3
    assert said[0] == f"gap: {trial.name} ({trial.trial_id}): no W&B run"
    assert said[1].startswith(f"not in W&B: {trial.name} ({trial.trial_id}): CommError: ")


def test_a_sync_that_was_interrupted_is_ended_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = make_study(tmp_path, **SMALL)
    closed = Mirror.close
    calls: list[float | None] = []

    def interrupted(mirror: Mirror, within_s: float | None = None) -> None:
        calls.append(within_s)
        if within_s is None:
            raise KeyboardInterrupt
        closed(mirror, within_s)

    monkeypatch.setattr(Mirror, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synced(work)
    assert calls == [None, sync.MIRROR_WITHIN_S]
    monkeypatch.setattr(Mirror, "close", closed)
    assert not any(thread.name == "wandb-mirror" for thread in threading.enumerate())
    assert synced(work)[0] == 0
    assert look(work, None) == {}
