"""Runs of other projects, read by a mapping of columns: the notebook's published table among them, as real W&B runs."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.analyze import analyze_study
from analysis.reading.column_map import REPEATS, ColumnMap, check_mapped, map_runs
from analysis.reading.runs import load_study
from analysis.reading.source import Source, find_source
from analysis.reading.wandb_runs import WandbRun
from bench.notebook_results import PUBLISHED
from trainable.config import InputError

MakeRun = Callable[..., WandbRun]

COLUMNS = ("points=num_points", "learning_rate=lr", "objective=val_miou")


@pytest.fixture(scope="module")
def published(write_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs as the notebook would have logged them: a flat config, and the result in the summary alone."""
    folder = tmp_path_factory.mktemp("seed")
    for number, (points, rate, miou) in enumerate(PUBLISHED):
        config = {"num_points": points, "lr": rate, "epochs": 10}
        write_run(folder, f"n{number}", [], config=config, summary={"val_miou": miou}, group="")
    return folder


def test_the_published_table_becomes_a_study(published: Path, tmp_path: Path) -> None:
    runs = load_study(find_source(published, columns=COLUMNS, out=tmp_path))
    assert runs.parameters == {"points_per_image": "scientific", "learning_rate": "nuisance"}
    assert (runs.objective["metric"], runs.objective["margin"]) == ("val_miou", 0.01)
    rows = runs.trials[["points_per_image", "learning_rate", "objective", "seed"]].to_numpy().tolist()
    assert rows == [[*each, 1 if number == 5 else 0] for number, each in enumerate(PUBLISHED)]
    assert (runs.excluded, runs.gaps, runs.study_dir) == ([], [], None)
    assert runs.notes == [REPEATS]


def test_the_published_table_can_be_analysed(published: Path, tmp_path: Path) -> None:
    found = analyze_study(find_source(published, columns=COLUMNS, out=tmp_path / "out"))
    levels = {level.level: level.verdict for level in found.findings.scientific[0].levels}
    assert levels.keys() == {10, 50, 100, 200}
    assert "not enough" not in (levels[50], levels[100], levels[200])
    assert found.report_path.is_file()
    assert not (published / "analysis").exists()


def test_a_column_that_no_run_has_is_refused_with_the_nearest(published: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"--map points=num_pionts: no run has such a column; did you mean num_points\?"
    ):
        load_study(find_source(published, columns=["points=num_pionts", "objective=val_miou"], out=tmp_path))


def foreign(make_run: MakeRun, run_id: str, **changes: Any) -> WandbRun:
    """A run with nested settings that logs its metrics in rows of their own, from epoch 0."""
    settings = {
        "config": {"model": {"opt.lr": 0.1, "n": 5}, "seed": 3.0},
        "history": [
            {"train": 1.0, "ep": 0, "image": {"_type": "image-file"}},
            {"score": 0.2, "ep": 0},
            {"train": 0.5, "ep": 1},
            {"score": 0.4, "ep": 1},
        ],
        "summary": {"state": "whatever"},
        "group": "",
    }
    return make_run(run_id=run_id, **{**settings, **changes})


NESTED = ColumnMap.parse(["points=model.n", "learning_rate=model.opt.lr", "seed=seed", "epoch=ep", "objective=score"])


def test_nested_settings_and_curves_are_read(make_run: MakeRun) -> None:
    (run,) = map_runs([foreign(make_run, "a")], NESTED, "x").runs
    assert run.config["parameters"] == {"points_per_image": 5, "learning_rate": 0.1}
    assert (run.config["seed"], run.group, run.config["training"]["epochs"]) == (3, "x", 2)
    assert run.history.rows() == [{"epoch": 1, "score": 0.2}, {"epoch": 2, "score": 0.4}]


def test_of_an_epoch_that_was_logged_again_the_last_row_counts(make_run: MakeRun) -> None:
    rows = [{"score": 0.2, "ep": 5}, {"score": 0.3, "ep": 10}, {"score": 0.9, "ep": 5}]
    (run,) = map_runs([foreign(make_run, "a", history=rows)], NESTED, "x").runs
    assert run.history.values("score").tolist() == [0.9, 0.3]
    by_row = replace(NESTED, columns={name: column for name, column in NESTED.columns.items() if name != "epoch"})
    (run,) = map_runs([foreign(make_run, "a", history=rows)], by_row, "x").runs
    assert run.history.values("score").tolist() == [0.2, 0.3, 0.9]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"seed": 1, "model": {"opt.lr": 0.1}}, "has no 'model.n'"),
        ({"seed": 1, "model": {"opt.lr": 0.1, "n": [1]}}, "'model.n' must be a number, text or true/false, got [1]"),
        ({"seed": 1, "model": {"opt.lr": 0.1, "n": -5}}, "'model.n' must be a whole number above 0 or dense, got -5"),
        ({"seed": 1, "model": {"opt.lr": 0.1, "n": "5"}}, "'model.n' must be a whole number above 0 or dense, got '5'"),
        (
            {"seed": 1, "model": {"opt.lr": 0.1, "n": True}},
            "'model.n' must be a whole number above 0 or dense, got True",
        ),
        ({"seed": 1.5, "model": {"opt.lr": 0.1, "n": 5}}, "'seed' must be a whole number"),
        ({"model": {"opt.lr": 0.1, "n": 5}}, "'seed' must be a whole number"),
    ],
)
def test_a_run_without_what_was_mapped_is_listed(config: dict[str, Any], reason: str, make_run: MakeRun) -> None:
    mapped = map_runs([foreign(make_run, "a"), foreign(make_run, "b", config=config)], NESTED, "x")
    assert [run.run_id for run in mapped.runs] == ["a"]
    assert mapped.excluded == [("b", reason)]
    assert mapped.notes == []


def test_runs_of_other_projects_keep_to_the_rules(write_run: Callable[..., Path], tmp_path: Path) -> None:
    config = {"n": 5, "seed": 0}
    good = [{"score": 0.1}, {"score": 0.2}]
    write_run(tmp_path, "a", good, config=config, group="")
    write_run(tmp_path, "b", good, config={**config, "seed": 1}, exit_code=1, group="")
    write_run(tmp_path, "c", [{"score": math.nan}], config={**config, "seed": 2}, group="")
    write_run(tmp_path, "d", [{"score": "high"}], config={**config, "seed": 3}, group="")
    write_run(tmp_path, "e", [], config={**config, "seed": 4}, group="")
    columns = ["points=n", "seed=seed", "objective=score"]
    runs = load_study(Source(tmp_path, tmp_path, mapping=ColumnMap.parse(columns)))
    assert runs.trials["run_id"].tolist() == ["a"]
    assert runs.trials["objective"].tolist() == [0.2]
    assert dict(runs.excluded) == {
        "b": "ended with exit code 1",
        "c": "objective score is nan at epoch 1",
        "d": "objective score is nan at epoch 1",
        "e": "0 of 1 epochs",
    }


def test_a_reader_is_told_of_runs_of_unequal_length(make_run: MakeRun) -> None:
    short = foreign(make_run, "b", history=[{"score": 0.2, "ep": 0}])
    note = "Runs have 1 to 2 rows of the objective: each is read at its own last one."
    assert map_runs([foreign(make_run, "a"), short], NESTED, "x").notes == [note]
    assert map_runs([foreign(make_run, "a"), short], NESTED, "x").runs[0].config["training"]["epochs"] == 2


def test_runs_that_differ_in_nothing_that_is_mapped_are_refused(make_run: MakeRun) -> None:
    runs = map_runs([foreign(make_run, "a"), foreign(make_run, "b")], NESTED, "x").runs
    with pytest.raises(InputError, match="runs a and b: have the same points_per_image, learning_rate, seed; map what"):
        check_mapped(runs, NESTED)
    check_mapped(runs[:1], NESTED)
