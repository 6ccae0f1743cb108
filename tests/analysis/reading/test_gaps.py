"""What W&B lacks of a trial, found by the trial's own files."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.reading.gaps import NO_RUN, difference, differing_epochs, find_differences, find_gaps
from analysis.reading.history import History
from analysis.reading.wandb_runs import WandbRun
from trainable.sealed import write_sealed

TRIAL = "0000000000aa"
ROWS = [{"epoch": n, "val/miou": 0.1 * n, "val/loss": 1.0 / n, "time/total_s": 2.5 * n} for n in (1, 2, 3)]

MakeRun = Callable[..., WandbRun]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_trial(study_dir: Path, text: str | None, trial_id: str = TRIAL, **result: Any) -> Path:
    folder = study_dir / "trials" / trial_id
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "metrics.jsonl").write_text(text)
    if result:
        write_sealed(folder / "result.json", result)
    return folder


OWN = [
    (lines(ROWS), ""),
    (lines([ROWS[0], {**ROWS[1], "val/loss": 0.4}, ROWS[2]]), "W&B has other values at epoch 2"),
    (lines([*ROWS[:2], {**ROWS[2], "val/dice": 0.4}]), "W&B has other values at epoch 3"),
    (lines([*ROWS[:2], {"epoch": 3, "val/miou": ROWS[2]["val/miou"]}]), "W&B has other values at epoch 3"),
    (lines(ROWS[:2]), "W&B has epoch 3, which its trial has not"),
    (lines([*ROWS, {"epoch": 4}]), "W&B lacks epoch 4"),
    (lines([*ROWS, {"epoch": 4}, {"epoch": 5}, {"epoch": 6}, {"epoch": 7}]), "W&B lacks epochs 4, 5 and 2 more"),
    # An epoch that was interrupted and redone has the same metrics, but took another time.
    (lines([*ROWS[:2], {**ROWS[2], "time/total_s": 99.0, "time/epoch_s": 9.0}]), ""),
    # A killed writer leaves part of a line, which is no row; not even where it could be read.
    (lines(ROWS) + '{"epoch": 4, "val', ""),
    (lines(ROWS) + '{"epoch": 4}', ""),
    (lines(ROWS).removesuffix("\n"), "W&B has epoch 3, which its trial has not"),
    ("", "W&B has epochs 1, 2 and 1 more, which its trial has not"),
    (None, ""),
]


@pytest.mark.parametrize(("own", "text"), OWN)
def test_wandb_must_hold_the_trials_own_rows(own: str | None, text: str, make_run: MakeRun, tmp_path: Path) -> None:
    assert difference(write_trial(tmp_path, own), make_run(history=ROWS)) == text


def test_nan_and_null_are_equal(make_run: MakeRun, tmp_path: Path) -> None:
    rows = [{**ROWS[0], "val/loss": math.nan, "val/ece": None}, *ROWS[1:]]
    folder = write_trial(tmp_path, lines(rows))
    assert difference(folder, make_run(history=rows)) == ""
    assert difference(folder, make_run(history=[{**rows[0], "val/ece": math.nan}, *ROWS[1:]])) == ""
    assert difference(folder, make_run(history=ROWS)) == "W&B has other values at epoch 1"


def test_an_epoch_that_stands_twice_differs_from_one() -> None:
    twice = History.from_rows([*ROWS, ROWS[2]])
    assert differing_epochs(History.from_rows(ROWS), twice) == [3]
    assert differing_epochs(twice, twice) == []


@pytest.mark.parametrize("line", ['{"epoch": 4, "val\n', "[4]\n", "{}\n", '{"epoch": [1]}\n', "[" * 100_000 + "\n"])
def test_unreadable_own_metrics_are_named(line: str, make_run: MakeRun, tmp_path: Path) -> None:
    text = difference(write_trial(tmp_path, lines(ROWS) + line), make_run(history=ROWS))
    assert text.startswith("its trial cannot be read (")


@pytest.mark.parametrize(
    ("run", "text"),
    [
        ({}, ""),
        ({"summary": {}}, ""),
        ({"exit_code": None}, "W&B lacks its end (completed)"),
        ({"summary": {"state": "stopped"}}, "W&B lacks its end (completed)"),
    ],
)
def test_the_end_of_a_trial_must_be_there_too(
    run: dict[str, Any], text: str, make_run: MakeRun, tmp_path: Path
) -> None:
    assert difference(write_trial(tmp_path, lines(ROWS), state="completed"), make_run(history=ROWS, **run)) == text


def test_every_gap_of_a_study_is_found(make_run: MakeRun, make_config: Callable[..., Any], tmp_path: Path) -> None:
    write_trial(tmp_path, lines(ROWS))
    write_trial(tmp_path, lines(ROWS[:1]), "0000000000bb")  # no run
    write_trial(tmp_path, "", "0000000000cc")  # nothing to show yet
    write_trial(tmp_path, lines([*ROWS, {"epoch": 4}]), "0000000000dd")
    short = make_run(run_id="demo-dd", config=make_config("0000000000dd"), history=ROWS)
    runs = [make_run(history=ROWS), short]
    assert find_gaps(tmp_path, runs) == {"0000000000bb": NO_RUN, "0000000000dd": "W&B lacks epoch 4"}
    whole = make_run(run_id="demo-e", config=make_config("0000000000dd"), history=[*ROWS, {"epoch": 4}])
    assert find_gaps(tmp_path, [*runs, whole]) == {"0000000000bb": NO_RUN}  # one run of the trial has it all
    assert find_gaps(tmp_path / "nowhere", runs) == {}


def test_what_was_found_is_kept_until_a_file_changes(make_run: MakeRun, tmp_path: Path) -> None:
    folder = write_trial(tmp_path, lines(ROWS[:2]))
    kept = tmp_path / "kept"
    kept.mkdir()
    run = make_run(history=ROWS, fingerprint="1")
    found = find_differences(tmp_path, [run], kept)
    assert found == {run.run_id: "W&B has epoch 3, which its trial has not"}
    path = kept / "gaps.json"
    path.write_text(path.read_text().replace("which", "WHICH"))  # not ours any more: set aside, and looked at again
    assert find_differences(tmp_path, [run], kept) == found
    assert path.with_name("gaps.json.damaged").is_file()
    (folder / "metrics.jsonl").write_text(lines(ROWS))
    assert find_differences(tmp_path, [run], kept) == {}


def test_a_hostile_trial_id_names_no_folder(make_run: MakeRun, make_config: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("not of a trial")
    (tmp_path / "trials").mkdir()
    for trial_id in ("../", "..", "", 7, "/etc"):
        assert find_differences(tmp_path, [make_run(config=make_config(trial_id))]) == {}


def test_what_was_compared_need_not_be_kept(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("analysis.reading.gaps.write_sealed", refuse)
    write_trial(tmp_path, lines([*ROWS, {"epoch": 4}]))
    run = make_run(history=ROWS)
    assert find_differences(tmp_path, [run], tmp_path) == {run.run_id: "W&B lacks epoch 4"}
    assert "No space left on device" in caplog.text
