"""The real W&B client logs to a server of ours and reads from it; what is read equals what the run files hold."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.reading.run_cache import RunCache
from analysis.reading.run_folder import read_runs
from analysis.reading.wandb_api import FINDINGS_JOB, read_api_runs
from analysis.reading.wandb_runs import WandbRun
from bench.made_study import make_study, show_study
from bench.wandb_server import ENTITY, KEY, WandbServer
from trainable.config import InputError

PROJECT = f"{ENTITY}/made"
SMALL: dict[str, Any] = {"search": {"method": "grid", "seeds": [0]}, "confirm": {"seeds": [100]}}
ROWS = [{"epoch": epoch, "val/miou": epoch / 10} for epoch in (1, 2, 3)]
ANSWER_S = 40.0


@pytest.fixture(params=["rows", "exports"])
def any_server(server: WandbServer, request: pytest.FixtureRequest) -> WandbServer:
    """The history of ended runs row by row, or as the Parquet files that W&B exports."""
    server.answers.exports = request.param == "exports"
    return server


def read(filters: dict[str, str] | None = None, cache: RunCache | None = None) -> list[WandbRun]:
    return read_api_runs(PROJECT, filters or {}, cache or RunCache(None))


def test_a_study_over_http_is_that_of_its_run_files(any_server: WandbServer, tmp_path: Path) -> None:
    offline = show_study(make_study(tmp_path / "offline", **SMALL))
    show_study(make_study(tmp_path / "online", **SMALL, tracking={"project": "made", "mode": "online"}))
    from_files, from_api = read_runs(offline.folder / "wandb"), read({"group": "made"})
    assert len(from_files) == len(from_api) == 10
    for ours, theirs in zip(from_files, from_api, strict=True):
        assert (ours.run_id, ours.group, ours.name) == (theirs.run_id, theirs.group, theirs.name)
        assert ours.config == theirs.config
        assert repr(ours.config["training"]) == repr(
            {name: theirs.config["training"][name] for name in ours.config["training"]}
        )
        assert list(ours.config["roles"]) == list(theirs.config["roles"])
        assert same(ours.summary, theirs.summary)
        assert (ours.exit_code, ours.problems) == (theirs.exit_code, theirs.problems) == (0, ())
        assert ours.history.columns.keys() == theirs.history.columns.keys()
        for name, values in ours.history.columns.items():
            assert np.array_equal(values, theirs.history.columns[name], equal_nan=True), name
        assert (ours.history.absent.keys(), ours.history.odd) == (theirs.history.absent.keys(), theirs.history.odd)


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Equal, NaN equal to NaN."""
    return ours.keys() == theirs.keys() and all(
        theirs[key] == value or (value != value and math.isnan(theirs[key])) for key, value in ours.items()
    )


def test_numbers_that_json_does_not_have_come_back_and_nested_ones_have_dots(any_server: WandbServer) -> None:
    odd = {"a": math.nan, "b": math.inf, "c": -math.inf}
    any_server.add_run("made", "r", [{"epoch": 1, "val": 0.5, **odd}, {"epoch": 2}], summary={**odd, "_step": 3})
    (run,) = read()
    assert same(run.summary, odd)
    assert [run.history.columns[name][0] for name in "bc"] == [math.inf, -math.inf]
    assert math.isnan(run.history.columns["a"][0])
    assert run.history.columns["val"][0] == 0.5
    assert run.history.odd == {}


def test_nested_metrics_get_names_with_dots(server: WandbServer) -> None:
    server.add_run("made", "r", [{"epoch": 1, "val": {"miou": 0.5, "deep": {"x": 1}}}])
    (run,) = read()
    assert run.history.rows() == [{"epoch": 1, "val.miou": 0.5, "val.deep.x": 1.0}]


@pytest.mark.parametrize(
    ("state", "code", "problems"),
    [
        ("finished", 0, ()),
        ("failed", 1, ()),
        ("killed", 1, ()),
        ("crashed", None, ("no exit record",)),
        ("running", None, ("no exit record",)),
    ],
)
def test_the_state_says_how_a_run_ended(
    server: WandbServer, state: str, code: int | None, problems: tuple[str, ...]
) -> None:
    server.add_run("made", "r", ROWS, state=state)
    (run,) = read()
    assert (run.exit_code, run.problems) == (code, problems)


def test_a_run_without_rows_is_read(server: WandbServer) -> None:
    server.add_run("made", "r", [])
    (run,) = read()
    assert (run.history.num_rows, run.problems) == (0, ("no rows",))


def test_rows_come_by_step_and_all_rows_of_a_step_are_kept(server: WandbServer) -> None:
    """Which of them count is not the reader's to say: `completeness.py` has the rule."""
    stored = server.add_run("made", "r", ROWS)
    stored.lines[:] = [stored.lines[0], stored.lines[2], stored.lines[1], stored.lines[2]]
    (run,) = read()
    assert run.history.values("epoch").tolist() == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "abcd"),
        ({"group": "g"}, "ab"),
        ({"state": "finished"}, "acd"),
        ({"tag": "old"}, "b"),
        ({"config.rate": "1e-3"}, "ab"),
        ({"config.training.seed": "2"}, "bc"),
        ({"config.training.name": "x"}, "a"),
        ({"config.flag": "true"}, "d"),
        ({"group": "g", "config.training.seed": "2"}, "b"),
        ({"group": "none"}, ""),
        ({"config.training.none": "2"}, ""),
    ],
)
def test_filters_choose_runs(server: WandbServer, filters: dict[str, str], found: str) -> None:
    server.add_run("made", "a", ROWS, group="g", config={"rate": 0.001, "training": {"seed": 1, "name": "x"}})
    server.add_run(
        "made", "b", ROWS, group="g", state="failed", tags=["old"], config={"rate": 1e-3, "training": {"seed": 2}}
    )
    server.add_run("made", "c", ROWS, group="h", config={"rate": 0.01, "training": {"seed": 2}})
    server.add_run("made", "d", ROWS, config={"flag": True})
    server.add_run("made", "ours", ROWS, group="g", job_type=FINDINGS_JOB)
    assert "".join(run.run_id for run in read(filters)) == found


def test_more_runs_than_a_page_has_come_once_each(server: WandbServer) -> None:
    for number in range(230):
        server.add_run("made", f"r{number:03}", ROWS[:1])
    assert [run.run_id for run in read()] == [f"r{number:03}" for number in range(230)]


def test_the_history_is_asked_for_once_and_again_where_the_run_went_on(server: WandbServer) -> None:
    for name in "ab":
        server.add_run("made", name, ROWS, state="running")
    cache = RunCache(None)
    first = read(cache=cache)
    server.asked.clear()
    again = read(cache=cache)
    assert [run.history.rows() for run in first] == [run.history.rows() for run in again]
    assert server.asked.count("HistoryPage") == 0
    server.add_run("made", "b", [*ROWS, {"epoch": 4, "val/miou": 0.9}])
    changed = read(cache=cache)
    assert server.asked.count("HistoryPage") == 1
    assert [run.history.num_rows for run in changed] == [3, 4]


def test_a_run_id_that_leads_out_of_a_folder_is_left_out(server: WandbServer, caplog: pytest.LogCaptureFixture) -> None:
    server.add_run("made", "../../escape", ROWS)
    server.add_run("made", "good", ROWS)
    assert [run.run_id for run in read()] == ["good"]
    assert "'../../escape' left out" in caplog.text


def refused(project: str = PROJECT, filters: dict[str, str] | None = None) -> str:
    """The one line, said in time and without the key."""
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        read_api_runs(project, filters or {}, RunCache(None))
    said = str(caught.value)
    assert time.monotonic() - started < ANSWER_S
    assert "\n" not in said
    assert KEY not in said
    assert "hunter2" not in said
    return said


@pytest.mark.parametrize("project", ["alone", "a/b/c", "/x", "x/", ""])
def test_a_project_needs_an_entity(project: str) -> None:
    assert "must name a project, as in wandb://ENTITY/PROJECT" in refused(project)


@pytest.mark.parametrize("name", ["colour", "config", "config.", "Group"])
def test_an_unknown_filter_is_refused(name: str) -> None:
    assert refused(filters={name: "x"}) == f"--filter {name}: no such filter; use group, state, tag or config.NAME"


def test_without_a_key_nobody_is_asked_for_one(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    assert refused() == f"wandb://{PROJECT}: needs a W&B key for 127.0.0.1; set WANDB_API_KEY or run wandb login"
    assert server.asked == []


def test_a_wrong_key_is_said_to_be_one(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter2" * 6)
    said = refused()
    assert "does not let us in (user is not logged in); check WANDB_API_KEY" in said


def test_a_project_that_is_not_there_is_said_to_be_none(server: WandbServer) -> None:
    server.add_run("made", "r", ROWS)
    said = refused(f"{ENTITY}/other")
    assert said == f"wandb://{ENTITY}/other: W&B at 127.0.0.1 has no such project, or the key may not see it"


def test_a_server_that_is_away_is_given_up_in_time(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://user:hunter2@127.0.0.1:9")
    assert "connection refused" in refused()


@pytest.mark.slow
def test_a_server_that_goes_away_while_it_is_read_is_given_up_in_time(server: WandbServer) -> None:
    for number in range(50):
        server.add_run("made", f"r{number:03}", ROWS)
    server.leave_after("HistoryPage", 5)
    assert "does not answer as it should" in refused()
    server.start()
