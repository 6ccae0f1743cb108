"""load_study on studies of real W&B runs; single rules: test_completeness.py, test_study_terms.py."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.reading.runs import StudyRuns, load_study
from trainable.config import InputError
from trainable.sealed import write_sealed

IDS = ("0000000000aa", "0000000000bb", "0000000000cc")
COMPLETED = {"state": "completed"}

MakeConfig = Callable[..., dict[str, Any]]
MakeRows = Callable[..., list[dict[str, Any]]]
AddRun = Callable[..., Path]


@pytest.fixture(scope="module")
def base(
    write_run: Callable[..., Path],
    make_config: MakeConfig,
    make_rows: MakeRows,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """W&B's files of two complete runs: 10 points at seed 0, best in epoch 2; 50 points at seed 1."""
    study = tmp_path_factory.mktemp("storage") / "demo"
    study.mkdir()
    write_run(study, f"demo-{IDS[0]}", make_rows(0.5, 0.7, 0.6), config=make_config(), summary=COMPLETED)
    write_run(study, f"demo-{IDS[1]}", make_rows(0.6, 0.7, 0.8), config=make_config(IDS[1], 1, 50), summary=COMPLETED)
    return study


@pytest.fixture
def study_dir(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "demo"))


@pytest.fixture
def add_run(
    write_run: Callable[..., Path], make_config: MakeConfig, make_rows: MakeRows, study_dir: Path
) -> Callable[..., Path]:
    """Adds a run to the study: complete but for what is given."""

    def add(trial_id: str = IDS[2], run_id: str = "", **arguments: Any) -> Path:
        given = {"rows": make_rows(0.1, 0.2, 0.3), "config": make_config(trial_id, 2), **arguments}
        return write_run(study_dir, run_id or f"demo-{trial_id}", given.pop("rows"), **given)

    return add


def write_study_file(study_dir: Path, **sections: Any) -> None:
    study = {
        "study": "demo",
        "data": {"root": "/data"},
        "parameters": {"points_per_image": {"role": "scientific", "values": [10, 50]}},
    }
    (study_dir / "study.yaml").write_text(yaml.safe_dump(study | sections))


def test_complete_runs_become_tidy_tables(study_dir: Path) -> None:
    study = load_study(study_dir)
    assert isinstance(study, StudyRuns)
    assert study.study == "demo"
    assert study.parameters == {"points_per_image": "scientific", "learning_rate": "nuisance"}
    assert study.objective == {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01}
    assert study.data == {"fingerprint": "f00d", "num_images": 30}
    assert study.data_config == {"root": "/data"}
    assert study.excluded == []
    assert study.training[IDS[1]]["encoder"] == "resnet18"
    # objective at the last epoch, not the best one; time of the last epoch, 3 x 2.5 s
    assert study.trials["test"].isna().all()
    assert study.trials.drop(columns="test").to_dict("records") == [
        {"run_id": f"demo-{IDS[0]}", "trial_id": IDS[0], "seed": 0, "phase": "explore"}
        | {"points_per_image": 10, "learning_rate": 0.001, "objective": 0.6, "time_s": 7.5},
        {"run_id": f"demo-{IDS[1]}", "trial_id": IDS[1], "seed": 1, "phase": "explore"}
        | {"points_per_image": 50, "learning_rate": 0.001, "objective": 0.8, "time_s": 7.5},
    ]
    columns = ["run_id", "trial_id", "seed", "phase", "points_per_image", "learning_rate", "epoch"]
    assert list(study.epochs)[:7] == columns
    assert set(list(study.epochs)[7:]) == {"val/miou", "val/loss", "time/total_s"}
    assert study.ended_early.empty
    assert study.epochs["epoch"].tolist() == [1, 2, 3, 1, 2, 3]
    assert study.epochs["val/miou"].tolist() == [0.5, 0.7, 0.6, 0.6, 0.7, 0.8]
    assert study.epochs["points_per_image"].tolist() == [10, 10, 10, 50, 50, 50]


# The study as it stands now -------------------------------------------------------------------------------------------


def test_an_edited_objective_counts_for_old_runs(study_dir: Path) -> None:
    objective = {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.05, "references": {}}
    write_study_file(study_dir, objective=objective)
    study = load_study(study_dir)
    assert study.objective == objective
    assert study.parameters == {"points_per_image": "scientific"}
    assert study.trials["objective"].tolist() == [0.6, 0.8]
    assert study.excluded == []


def test_a_parameter_added_later_was_a_setting_before(
    add_run: AddRun, make_config: MakeConfig, study_dir: Path
) -> None:
    config = make_config(IDS[2], 2)
    for section, value in (("training", "resnet50"), ("parameters", "resnet50"), ("roles", "nuisance")):
        config[section]["encoder"] = value
    add_run(config=config)
    assert load_study(study_dir).trials["encoder"].tolist() == ["resnet18", "resnet18", "resnet50"]
    encoder = {"role": "scientific", "values": ["resnet18", "resnet50"]}
    write_study_file(study_dir, parameters={"encoder": encoder})
    study = load_study(study_dir)
    assert study.parameters == {"encoder": "scientific"}
    assert study.trials["encoder"].tolist() == ["resnet18", "resnet18", "resnet50"]
    assert study.epochs["encoder"].tolist()[-3:] == ["resnet50"] * 3


def test_a_parameter_that_runs_know_nothing_of_is_refused(study_dir: Path) -> None:
    write_study_file(study_dir, parameters={"batch_size": {"role": "nuisance", "values": [8, 16]}})
    with pytest.raises(InputError, match=f"run demo-{IDS[0]}: has no value of parameter batch_size"):
        load_study(study_dir)


# What is left out -----------------------------------------------------------------------------------------------------


def test_real_runs_are_left_out_with_their_reasons(add_run: AddRun, make_rows: MakeRows, study_dir: Path) -> None:
    rows = make_rows(0.1, 0.2, 0.3)
    add_run("0000000000c1", exit_code=3)
    torn = add_run("0000000000c2")
    torn.write_bytes(torn.read_bytes()[:-5])
    cut = add_run("0000000000c3")
    cut.write_bytes(cut.read_bytes()[:10])
    add_run("0000000000c4", rows=rows[:2], summary={"state": "stopped"})
    add_run("0000000000c5", rows=[*rows[:2], {"epoch": 3, "val/miou": math.nan}])
    add_run("0000000000c6", rows=[*rows[:2], {"val/miou": 0.3}])  # W&B gives the row the epoch of the row before
    add_run("0000000000c7", group="elsewhere")
    add_run(IDS[0], run_id="demo-copy")
    add_run("0000000000c8")
    folder = study_dir / "trials" / "0000000000c8"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row | {"val/loss": 0.0}) + "\n" for row in rows))

    study = load_study(study_dir)
    assert study.trials["trial_id"].tolist() == [IDS[0], IDS[1]]
    assert study.gaps == [
        f"trial 0000000000c8: W&B has other values at epochs 1, 2 and 1 more; `canopoint sync {study_dir}` closes it"
    ]
    reasons = dict(study.excluded)
    assert reasons.pop("demo-0000000000c2").startswith(
        "no exit record: it is still running or was interrupted; torn at byte"
    )
    assert list(reasons.items()) == [
        ("demo-0000000000c1", "ended with exit code 3"),
        ("demo-0000000000c3", "no config: the file ends or is damaged before it; torn at byte 7"),
        ("demo-0000000000c4", "stopped early at epoch 2 of 3 by the scheduler: never compared with finished runs"),
        ("demo-0000000000c5", "objective val/miou is nan at epoch 3"),
        ("demo-0000000000c6", "epoch 3 is missing"),
        ("demo-0000000000c7", "belongs to study 'elsewhere'"),
        ("demo-0000000000c8", "differs from its trial: W&B has other values at epochs 1, 2 and 1 more"),
        ("demo-copy", f"of the same trial as run demo-{IDS[0]}"),
    ]


def test_what_could_not_be_measured_is_nan_in_the_tables(add_run: AddRun, make_rows: MakeRows, study_dir: Path) -> None:
    rows = make_rows(0.1, 0.2, 0.3)
    add_run(rows=[*rows[:2], rows[2] | {"val/loss": math.nan, "time/total_s": None}])
    study = load_study(study_dir)
    assert study.excluded == []
    assert math.isnan(study.epochs["val/loss"].tolist()[-1])
    assert math.isnan(study.trials["time_s"].tolist()[-1])


def test_the_plan_decides_what_is_part_of_the_study(study_dir: Path) -> None:
    plan = [IDS[0], "0000000000dd"]
    for write in (lambda path: path.write_text(json.dumps(plan)), lambda path: write_sealed(path, {"trials": plan})):
        write(study_dir / "trials.json")
        study = load_study(study_dir)
        assert study.trials["trial_id"].tolist() == [IDS[0]]
        assert study.excluded == [
            (f"demo-{IDS[1]}", "not part of the study as it stands"),
            ("demo-0000000000dd", "no W&B run"),
        ]


def test_the_test_split_is_read_where_a_run_confirms(
    add_run: AddRun, make_config: MakeConfig, make_rows: MakeRows, study_dir: Path
) -> None:
    config = make_config(
        IDS[2], 100, phase="confirm", data={"fingerprint": "f00d", "floors": {"a": {"test/miou": 0.2}}}
    )
    rows = make_rows(0.5, 0.6, 0.7)
    add_run(rows=[*rows[:2], rows[2] | {"test/miou": 0.65}], config=config, summary=COMPLETED)
    study = load_study(study_dir)
    assert study.trials["phase"].tolist() == ["explore", "explore", "confirm"]
    assert study.trials["objective"].tolist() == [0.6, 0.8, 0.7]
    assert study.trials["test"].tolist()[2] == 0.65
    assert study.data["floors"] == {"a": {"test/miou": 0.2}}  # the description that knows the test split


def test_what_ended_early_is_kept_apart(
    add_run: AddRun, make_config: MakeConfig, make_rows: MakeRows, study_dir: Path
) -> None:
    add_run("0000000000c1", rows=make_rows(0.1), summary={"state": "stopped"})
    add_run("0000000000c2", rows=[], summary={"state": "infeasible", "reason": "diverged in epoch 1: loss is nan"})
    add_run("0000000000c3", rows=[{"epoch": "a", "time/total_s": "b"}], summary={"state": "infeasible"})
    study = load_study(study_dir)
    ended = study.ended_early
    assert ended["state"].tolist() == ["stopped early", "diverged", "diverged"]
    assert ended["trial_id"].tolist() == ["0000000000c1", "0000000000c2", "0000000000c3"]
    assert ended["points_per_image"].tolist() == [10, 10, 10]
    assert ended["time_s"].tolist()[0] == 2.5
    assert ended["time_s"].isna().tolist() == [False, True, True]
    assert dict(study.excluded)["demo-0000000000c2"] == "diverged in epoch 1: loss is nan"
    assert study.trials["trial_id"].tolist() == [IDS[0], IDS[1]]


@pytest.mark.parametrize("content", ["[", "{}", "[1]", '{"trials": ["a"], "sha256": "0"}', "[" * 100_000])
def test_a_broken_plan_is_refused(content: str, study_dir: Path) -> None:
    (study_dir / "trials.json").write_text(content)
    with pytest.raises(InputError, match=r"trials\.json: "):
        load_study(study_dir)


DISAGREEMENTS = [
    ({"trainer_version": "2"}, "trainer_version, got '1' and '2'"),
    ({"data": {"fingerprint": "beef"}}, "data fingerprint, got 'f00d' and 'beef'"),
]


@pytest.mark.parametrize(("changes", "message"), DISAGREEMENTS)
def test_runs_that_do_not_go_together_are_refused(
    changes: dict[str, Any], message: str, add_run: AddRun, make_config: MakeConfig, study_dir: Path
) -> None:
    add_run(config=make_config(IDS[2], 2) | changes)
    with pytest.raises(InputError, match=f"runs demo-{IDS[0]} and demo-{IDS[2]}: must have the same {message}"):
        load_study(study_dir)


def test_no_runs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no W&B runs in .*; run `canopoint run STUDY` first"):
        load_study(tmp_path)


def test_no_complete_run_says_why(
    write_run: Callable[..., Path], make_config: MakeConfig, make_rows: MakeRows, tmp_path: Path
) -> None:
    write_run(tmp_path, "demo-a", make_rows(0.1), config=make_config())
    with pytest.raises(InputError, match=r"none of 1 W&B runs is complete \(run demo-a: 1 of 3 epochs\)"):
        load_study(tmp_path)


def test_numbers_too_large_to_reckon_with_are_not_known(
    write_run: Callable[..., Path],
    make_config: Callable[..., dict[str, Any]],
    make_rows: Callable[..., Any],
    tmp_path: Path,
) -> None:
    rows = make_rows(-1e308, 0.2, 0.3)
    rows[1]["val/loss"] = math.inf
    rows[2] |= {"val/loss": 1e308, "time/total_s": 1e308}
    write_run(tmp_path, "demo-a", rows, config=make_config(), summary={"state": "completed"})
    study = load_study(tmp_path)
    assert math.isnan(study.trials["time_s"][0])
    curves = study.curves(["val/miou", "val/loss"])
    assert [math.isnan(value) for value in curves["val/miou"]] == [True, False, False]
    assert curves["val/loss"].tolist()[:2] == [1.0, math.inf]
    assert math.isnan(curves["val/loss"].tolist()[2])
