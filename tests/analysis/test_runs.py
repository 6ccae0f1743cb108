"""Each rule of load_study, on studies of real W&B runs."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.runs import StudyRuns, load_study
from trainable.config import InputError

IDS = ("0000000000aa", "0000000000bb", "0000000000cc")


def make_config(trial_id: str = IDS[0], seed: int = 0, points: int = 10, **changes: Any) -> dict[str, Any]:
    config = {
        "study": "demo",
        "trial_id": trial_id,
        "seed": seed,
        "parameters": {"points_per_image": points, "learning_rate": 0.001},
        "roles": {"points_per_image": "scientific", "learning_rate": "nuisance"},
        "training": {"points_per_image": points, "learning_rate": 0.001, "epochs": 3, "seed": seed, "encoder": "r18"},
        "data_config": {"root": "/data"},
        "data": {"fingerprint": "f00d", "num_images": 30},
        "objective": {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
        "trainer_version": "1",
    }
    return config | changes


def make_rows(*scores: float) -> list[dict[str, Any]]:
    return [
        {"epoch": n, "val/miou": score, "val/loss": 1.0 / n, "time/total_s": 2.5 * n}
        for n, score in enumerate(scores, 1)
    ]


@pytest.fixture(scope="module")
def base(write_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two complete runs: 10 points at seed 0, best in epoch 2; 50 points at seed 1."""
    study = tmp_path_factory.mktemp("storage") / "demo"
    study.mkdir()
    state = {"state": "completed"}
    write_run(study, f"demo-{IDS[0]}", make_rows(0.5, 0.7, 0.6), config=make_config(), summary=state)
    write_run(study, f"demo-{IDS[1]}", make_rows(0.6, 0.7, 0.8), config=make_config(IDS[1], 1, 50), summary=state)
    return study


@pytest.fixture
def study_dir(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "demo"))


@pytest.fixture
def add_run(write_run: Callable[..., Path], study_dir: Path) -> Callable[..., None]:
    """Adds a third run to the study: complete but for what is given."""

    def add(rows: list[dict[str, Any]] | None = None, run_id: str = f"demo-{IDS[2]}", **arguments: Any) -> None:
        given = {"config": make_config(IDS[2], 2), **arguments}
        write_run(study_dir, run_id, make_rows(0.1, 0.2, 0.3) if rows is None else rows, **given)

    return add


def reason_for_third(study_dir: Path) -> str:
    """The reason for which the added run is left out; the two others must stay."""
    study = load_study(study_dir)
    assert list(study.trials["trial_id"]) == [IDS[0], IDS[1]]
    ((run_id, reason),) = study.excluded
    assert run_id == f"demo-{IDS[2]}"
    return reason


def test_complete_runs_become_tidy_tables(study_dir: Path) -> None:
    study = load_study(study_dir)
    assert isinstance(study, StudyRuns)
    assert study.study == "demo"
    assert study.parameters == {"points_per_image": "scientific", "learning_rate": "nuisance"}
    assert study.data == {"fingerprint": "f00d", "num_images": 30}
    assert study.data_config == {"root": "/data"}
    assert study.excluded == []
    assert study.training[IDS[1]]["encoder"] == "r18"
    # objective at the last epoch, not the best one; time of the last epoch, 3 x 2.5 s
    assert study.trials.to_dict("records") == [
        {"run_id": f"demo-{IDS[0]}", "trial_id": IDS[0], "seed": 0, "points_per_image": 10, "learning_rate": 0.001}
        | {"objective": 0.6, "time_s": 7.5},
        {"run_id": f"demo-{IDS[1]}", "trial_id": IDS[1], "seed": 1, "points_per_image": 50, "learning_rate": 0.001}
        | {"objective": 0.8, "time_s": 7.5},
    ]
    columns = ["run_id", "trial_id", "seed", "points_per_image", "learning_rate", "epoch"]
    assert list(study.epochs)[:6] == columns
    assert set(list(study.epochs)[6:]) == {"val/miou", "val/loss", "time/total_s"}
    assert study.epochs["epoch"].tolist() == [1, 2, 3, 1, 2, 3]
    assert study.epochs["val/miou"].tolist() == [0.5, 0.7, 0.6, 0.6, 0.7, 0.8]
    assert study.epochs["points_per_image"].tolist() == [10, 10, 10, 50, 50, 50]


@pytest.mark.parametrize(("mode", "expected"), [("max", 0.7), ("min", 0.5)])
def test_the_best_epoch_is_read_where_the_study_says_so(
    mode: str, expected: float, write_run: Callable[..., Path], tmp_path: Path
) -> None:
    objective = {"metric": "val/miou", "mode": mode, "at": "best", "margin": 0.01}
    write_run(tmp_path, "demo-a", make_rows(0.5, 0.7, 0.6), config=make_config(objective=objective))
    study = load_study(tmp_path)  # the folder has another name than the study: a renamed copy
    assert study.study == "demo"
    assert study.trials["objective"].tolist() == [expected]


BAD_CONFIGS = [
    ({"seed": "2"}, "config.seed: must be int"),
    ({"trial_id": "../../etc/hosts"}, "config.trial_id: must be 12 hex digits"),
    ({"training": {"epochs": 10**15}}, f"3 of {10**15} epochs"),
    ({"training": {"epochs": True}}, "config.training.epochs: must be a whole number above 0"),
    ({"parameters": {"seed": 1}, "roles": {"seed": "nuisance"}}, "config.parameters: must not be named like a column"),
    ({"parameters": {"a": [1]}, "roles": {"a": "nuisance"}}, "config.parameters: must be numbers, text or true/false"),
    ({"roles": {}}, "config.roles: must name the parameters"),
    ({"objective": {"metric": "val/miou", "mode": "up"}}, "config.objective.mode: must be max or min"),
    ({"data": {}}, "config.data.fingerprint: must be text"),
    ({"study": "other"}, "belongs to study 'other'"),
]


@pytest.mark.parametrize(("changes", "reason"), BAD_CONFIGS)
def test_a_run_whose_config_does_not_fit_is_excluded(
    changes: dict[str, Any], reason: str, add_run: Callable[..., None], study_dir: Path
) -> None:
    add_run(config=make_config(IDS[2], 2) | changes)
    assert reason_for_third(study_dir).startswith(reason)


def without(rows: list[dict[str, Any]], index: int) -> list[dict[str, Any]]:
    return rows[:index] + rows[index + 1 :]


ROWS = make_rows(0.1, 0.2, 0.3)
BAD_ROWS = [
    ([], "0 of 3 epochs"),
    (ROWS[:2], "2 of 3 epochs"),
    ([*without(ROWS, 1), {"epoch": 4, "val/miou": 0.3}], "epoch 2 is missing"),
    ([*ROWS, {"epoch": 4, "val/miou": 0.3}], "4 rows for 3 epochs"),
    ([*ROWS[:2], {"epoch": 2, "val/miou": 0.3}], "epoch 3 is missing"),
    ([*ROWS[:2], {"val/miou": 0.3}], "epoch 3 is missing"),  # W&B gives the row the epoch of the row before
    ([*ROWS[:2], {"epoch": 2.5, "val/miou": 0.3}], "a row's epoch is 2.5"),
    ([*ROWS[:2], {"epoch": 3, "val/loss": 0.3}], "objective val/miou is missing at epoch 3"),
    ([*ROWS[:2], {"epoch": 3, "val/miou": math.nan}], "objective val/miou is nan at epoch 3"),
    ([*ROWS[:2], {"epoch": 3, "val/miou": math.inf}], "objective val/miou is inf at epoch 3"),
    ([*ROWS[:2], {"epoch": 3, "val/miou": "high"}], "'val/miou' is not a number at epoch 3"),
    ([*ROWS[:2], {"epoch": 3, "val/miou": 0.3, "seed": 9}], "metric 'seed' has the name of a column"),
]


@pytest.mark.parametrize(("rows", "reason"), BAD_ROWS)
def test_a_run_without_all_its_rows_is_excluded(
    rows: list[dict[str, Any]], reason: str, add_run: Callable[..., None], study_dir: Path
) -> None:
    add_run(rows)
    assert reason_for_third(study_dir) == reason


def test_a_metric_other_than_the_objective_may_be_nan_or_null(add_run: Callable[..., None], study_dir: Path) -> None:
    add_run([*ROWS[:2], {"epoch": 3, "val/miou": 0.3, "val/loss": math.nan, "time/total_s": None}])
    study = load_study(study_dir)
    assert study.excluded == []
    assert math.isnan(study.epochs["val/loss"].tolist()[-1])
    assert math.isnan(study.trials["time_s"].tolist()[-1])


def test_a_run_that_did_not_end_well_is_excluded(add_run: Callable[..., None], study_dir: Path, tmp_path: Path) -> None:
    add_run(exit_code=3)
    assert reason_for_third(study_dir) == "ended with exit code 3"
    (path,) = (study_dir / "wandb").glob(f"offline-run-*/run-demo-{IDS[2]}.wandb")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert reason_for_third(study_dir).startswith(
        "no exit record: it is still running or was interrupted; torn at byte"
    )
    path.write_bytes(whole[:10])
    assert reason_for_third(study_dir) == "no config: the file ends or is damaged before it; torn at byte 7"


def test_a_run_in_another_state_is_excluded(add_run: Callable[..., None], study_dir: Path) -> None:
    add_run(summary={"state": "stopped"})
    assert reason_for_third(study_dir) == "its state is 'stopped'"


def test_a_run_of_another_group_is_excluded(add_run: Callable[..., None], study_dir: Path) -> None:
    add_run(group="elsewhere")
    assert reason_for_third(study_dir) == "belongs to study 'elsewhere'"


def test_a_trial_counts_once(add_run: Callable[..., None], study_dir: Path) -> None:
    add_run(run_id="demo-copy", config=make_config())
    study = load_study(study_dir)
    assert study.excluded == [("demo-copy", f"of the same trial as run demo-{IDS[0]}")]


def test_the_plan_decides_what_is_part_of_the_study(add_run: Callable[..., None], study_dir: Path) -> None:
    add_run()
    (study_dir / "trials.json").write_text(json.dumps([*IDS[:2], "0000000000dd"]))
    study = load_study(study_dir)
    assert study.trials["trial_id"].tolist() == [*IDS[:2]]
    assert study.excluded == [
        (f"demo-{IDS[2]}", "not part of the study as it stands"),
        ("demo-0000000000dd", "no W&B run"),
    ]


@pytest.mark.parametrize("content", ["[", "{}", "[1]", "[" * 100_000])
def test_a_broken_plan_is_refused(content: str, study_dir: Path) -> None:
    (study_dir / "trials.json").write_text(content)
    with pytest.raises(InputError, match=r"trials\.json: "):
        load_study(study_dir)


def write_own_metrics(study_dir: Path, rows: list[dict[str, Any]]) -> None:
    folder = study_dir / "trials" / IDS[2]
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


OWN = [
    (ROWS, ""),
    ([ROWS[0], {**ROWS[1], "val/loss": 0.4}, ROWS[2]], "differs from its metrics.jsonl at epoch 2"),
    ([*ROWS[:2], {**ROWS[2], "val/dice": 0.4}], "differs from its metrics.jsonl at epoch 3"),
    (ROWS[:2], "differs from its metrics.jsonl at epoch 3"),
    ([*ROWS, {"epoch": 4}], "differs from its metrics.jsonl at epoch 4"),
    ([*ROWS, {"epoch": "5"}], "differs from its metrics.jsonl at epoch 0"),
]


@pytest.mark.parametrize(("own", "reason"), OWN)
def test_wandb_must_equal_the_trials_own_metrics(
    own: list[dict[str, Any]], reason: str, add_run: Callable[..., None], study_dir: Path
) -> None:
    add_run()
    write_own_metrics(study_dir, own)
    if reason:
        assert reason_for_third(study_dir) == reason
    else:
        assert load_study(study_dir).excluded == []


def test_nan_in_both_is_equal(add_run: Callable[..., None], study_dir: Path) -> None:
    rows = [{**ROWS[0], "val/loss": math.nan}, *ROWS[1:]]
    add_run(rows)
    write_own_metrics(study_dir, rows)
    assert load_study(study_dir).excluded == []


def test_unreadable_own_metrics_are_named(add_run: Callable[..., None], study_dir: Path) -> None:
    add_run()
    write_own_metrics(study_dir, ROWS)
    with (study_dir / "trials" / IDS[2] / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "val')
    assert reason_for_third(study_dir).startswith("its metrics.jsonl cannot be read (JSONDecodeError")


DISAGREEMENTS = [
    ({"trainer_version": "2"}, "trainer_version, got '1' and '2'"),
    ({"data": {"fingerprint": "beef"}}, "data fingerprint, got 'f00d' and 'beef'"),
    (
        {"objective": {"metric": "val/dice", "mode": "max", "at": "last", "margin": 0.01}},
        r"objective, got .*val/miou.* and .*val/dice",
    ),
    ({"roles": {"points_per_image": "nuisance", "learning_rate": "nuisance"}}, "got 'scientific' and 'nuisance'"),
]


@pytest.mark.parametrize(("changes", "message"), DISAGREEMENTS)
def test_runs_that_do_not_go_together_are_refused(
    changes: dict[str, Any], message: str, add_run: Callable[..., None], study_dir: Path
) -> None:
    add_run([{**row, "val/dice": 0.5} for row in ROWS], config=make_config(IDS[2], 2) | changes)
    with pytest.raises(InputError, match=message):
        load_study(study_dir)


def test_a_parameter_added_later_was_a_setting_before(add_run: Callable[..., None], study_dir: Path) -> None:
    config = make_config(IDS[2], 2)
    config["parameters"]["encoder"], config["roles"]["encoder"] = "r50", "nuisance"
    add_run(config=config)
    assert load_study(study_dir).trials["encoder"].tolist() == ["r18", "r18", "r50"]


def test_no_runs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no W&B runs in .*; run `canopoint run STUDY` first"):
        load_study(tmp_path)


def test_no_complete_run_says_why(write_run: Callable[..., Path], tmp_path: Path) -> None:
    write_run(tmp_path, "demo-a", ROWS[:1], config=make_config())
    with pytest.raises(InputError, match=r"none of 1 W&B runs is complete \(run demo-a: 1 of 3 epochs\)"):
        load_study(tmp_path)


def test_a_folder_of_several_other_studies_is_refused(write_run: Callable[..., Path], tmp_path: Path) -> None:
    for study in ("one", "two"):
        write_run(tmp_path, f"{study}-a", ROWS, config=make_config(study=study), group=study)
    with pytest.raises(InputError, match="holds runs of the studies one, two"):
        load_study(tmp_path)
