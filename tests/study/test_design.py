import copy
import json
import os
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from study.design import (
    Trial,
    list_cells,
    list_levels,
    make_config,
    make_trial,
    most_train_images,
    open_study,
    read_cell,
)
from study.design import trial_id as identify
from study.sections import MAX_TRIALS
from study.spec import StudySpec, parse_study
from study.yaml_file import to_yaml
from trainable.config import InputError, TrainConfig

STUDY: dict[str, Any] = {
    "study": "s",
    "data": {"root": "forest"},
    "training": {"encoder": "resnet18", "weights": "none", "image_size": 64, "epochs": 2},
    "parameters": {
        "points_per_image": {"role": "scientific", "values": [50, 5]},  # not sorted: the file's order counts
        "focal_gamma": {"role": "nuisance", "values": [0, 2]},
    },
    "search": {"seeds": [7, 3]},
}
FINGERPRINT = "f" * 64
NUM_IMAGES = {"train": 10, "val": 6, "test": 4}

# Every setting is written out, so that a changed default does not change it.
PINNED = TrainConfig(
    points_per_image=10,
    point_strategy="uniform",
    label_flip_rate=0.0,
    position_jitter_px=0.0,
    encoder="resnet18",
    weights="none",
    freeze_encoder=False,
    decoder_stride=1,
    image_size=64,
    augmentation="off",
    learning_rate=1e-3,
    focal_gamma=2,
    class_weights="none",
    entropy_weight=0.0,
    consistency_weight=0.0,
    crf_weight=0.0,
    optimizer="adam",
    schedule="constant",
    warmup_epochs=0.0,
    weight_decay=1e-3,
    epochs=2,
    batch_size=8,
    precision="float32",
    gradient_checkpointing=False,
    compile=False,
    deterministic=True,
    evaluate_test=False,
    seed=0,
    device="cpu",
    num_threads=1,
)
PINNED_ID = "8812ff0a4920"


def make_study(**changes: Any) -> StudySpec:
    return parse_study(copy.deepcopy(STUDY) | changes, "study.yaml")


def list_trials(spec: StudySpec) -> list[Trial]:
    return [make_trial(spec, FINGERPRINT, cell, seed) for seed in spec.search.seeds for cell in list_cells(spec)]


def ids(spec: StudySpec) -> list[str]:
    return [trial.trial_id for trial in list_trials(spec)]


def test_cells_stand_in_the_order_of_the_file() -> None:
    # The last factor turns fastest, as nested loops in the file's order would.
    cells = [(cell["points_per_image"], cell["focal_gamma"]) for cell in list_cells(make_study())]
    assert cells == [(50, 0), (50, 2), (5, 0), (5, 2)]


def test_levels_are_the_combinations_of_scientific_factors_alone() -> None:
    assert list_levels(make_study()) == [{"points_per_image": 50}, {"points_per_image": 5}]
    nuisance = {"focal_gamma": STUDY["parameters"]["focal_gamma"]}
    assert list_levels(make_study(parameters=nuisance)) == [{}]


def test_a_trial_has_a_name_and_its_own_group() -> None:
    cell = {"points_per_image": 50, "focal_gamma": 2}
    trial = make_trial(make_study(), FINGERPRINT, cell, 7)
    assert trial.name == "points_per_image=50 focal_gamma=2 seed=7"
    assert (trial.phase, trial.group) == ("explore", "points_per_image=50 seed=7")
    confirming = make_trial(make_study(), FINGERPRINT, cell, 100, "confirm")
    assert (confirming.phase, confirming.group) == ("confirm", "")  # no scheduler may touch it
    assert (trial.config.evaluate_test, confirming.config.evaluate_test) == (False, True)
    assert len(set(ids(make_study()))) == 8


def test_a_trial_has_the_fixed_settings_its_cell_and_its_resources() -> None:
    resources = {"gpus_per_trial": 0.5, "cpus_per_trial": 3}
    config = list_trials(make_study(resources=resources))[1].config
    assert (config.encoder, config.epochs, config.points_per_image, config.focal_gamma) == ("resnet18", 2, 50, 2.0)
    assert (config.device, config.num_threads) == ("cuda", 3)
    assert list_trials(make_study())[0].config.device == "cpu"


def test_a_cell_typed_by_a_user_is_checked() -> None:
    spec = make_study()
    assert list(read_cell(spec, "{focal_gamma: 2, points_per_image: 50}").items()) == [
        ("points_per_image", 50),
        ("focal_gamma", 2),
    ]
    for text, message in {
        "{points_per_image: 50}": "must give each of points_per_image, focal_gamma",
        "[50, 2]": "must give each of points_per_image, focal_gamma",
        "{points_per_image: 50, focal_gamma: high}": r"^--cell: focal_gamma: must be float, got 'high'",
        "{points_per_image: 5000, focal_gamma: 0}": "5000 is more than the 4096 pixels",
        "{points_per_image: [": "^--cell",
    }.items():
        with pytest.raises(InputError, match=message):
            read_cell(spec, text)


def test_a_combination_that_no_run_can_have_is_refused() -> None:
    levels = {"points_per_image": {"role": "scientific", "values": [10, 1025]}}  # 32 x 32 = 1024
    spec = make_study(training={"image_size": 32}, parameters=levels)
    with pytest.raises(InputError, match="1025 is more than the 1024 pixels"):
        make_config(spec, {"points_per_image": 1025}, seed=0)


def test_a_grid_of_ten_million_cells_is_refused_at_once() -> None:
    factors = ("points_per_image", "batch_size", "epochs", "image_size")
    parameters = {name: {"role": "nuisance", "values": list(range(40, 97))} for name in factors}  # 57^4 > 10^7
    started = time.monotonic()
    spec = make_study(training={}, parameters=parameters)
    with pytest.raises(InputError, match=f"^parameters: .*{2 * 57**4} trials; at most {MAX_TRIALS}"):
        list_cells(spec)
    assert time.monotonic() - started < 1


def test_ids_are_what_they_were_when_studies_were_run_with_them() -> None:
    # A change of this value makes every finished trial of every user run again. Raise TRAINER_VERSION on purpose only.
    assert identify(PINNED, FINGERPRINT) == PINNED_ID


def test_settings_that_nobody_had_then_leave_ids_as_they_were_until_they_are_used() -> None:
    assert identify(replace(PINNED, points_seed=None, train_images=None), FINGERPRINT) == PINNED_ID
    used = [replace(PINNED, points_seed=0), replace(PINNED, train_images=8), replace(PINNED, train_images=9)]
    assert len({PINNED_ID, *(identify(each, FINGERPRINT) for each in used)}) == 4


def test_the_number_of_images_is_a_factor_as_any_other() -> None:
    images = {"train_images": {"role": "scientific", "values": [4, 8]}}
    spec = make_study(parameters=STUDY["parameters"] | images)
    assert [level["train_images"] for level in list_levels(spec)] == [4, 8, 4, 8]
    assert [trial.config.train_images for trial in list_trials(spec)[:2]] == [4, 8]
    assert list_trials(spec)[1].group == "points_per_image=50 train_images=8 seed=7"
    assert most_train_images(spec) == 8
    assert most_train_images(make_study()) is None
    assert most_train_images(make_study(training={"train_images": 6})) == 6
    searched = {"train_images": {"role": "nuisance", "min": 2, "max": 9}}
    random = {"method": "random", "trials_per_level": 2}
    assert most_train_images(make_study(parameters=searched, search=random)) == 9


def test_ids_are_the_same_in_every_process() -> None:
    code = (
        "import sys, json; from study.design import trial_id; from trainable.config import TrainConfig;"
        "print(trial_id(TrainConfig(**json.loads(sys.argv[1])), sys.argv[2]))"
    )
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", code, json.dumps(PINNED.to_mapping()), FINGERPRINT]
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert printed == f"{PINNED_ID}\n"


@pytest.mark.parametrize("name", [field.name for field in fields(TrainConfig)])
def test_ids_change_with_every_setting(name: str) -> None:
    other = replace(PINNED)
    object.__setattr__(other, name, "other")  # past the checks: some settings have one choice yet
    assert identify(other, FINGERPRINT) != PINNED_ID


def test_ids_change_with_the_data_and_with_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert identify(PINNED, "0" * 64) != PINNED_ID
    monkeypatch.setattr("study.design.TRAINER_VERSION", "another")
    assert identify(PINNED, FINGERPRINT) != PINNED_ID


def test_ids_do_not_change_with_what_no_run_sees() -> None:
    changes = {
        "study": "another",
        "storage": "elsewhere",
        "objective": {"metric": "val/dice", "margin": 0.1},
        "tracking": {"mode": "online"},
    }
    assert ids(make_study(**changes)) == ids(make_study())


def test_a_value_has_one_identity_however_it_is_written() -> None:
    for values in ([0, 2], [0.0, 2.0]):
        parameters = STUDY["parameters"] | {"focal_gamma": {"role": "nuisance", "values": values}}
        assert ids(make_study(parameters=parameters)) == ids(make_study())


def test_a_longer_study_holds_the_trials_of_the_shorter_one() -> None:
    parameters = STUDY["parameters"] | {"focal_gamma": {"role": "nuisance", "values": [2, 0, 5]}}
    assert set(ids(make_study())) < set(ids(make_study(parameters=parameters, search={"seeds": [1, 3, 7]})))


def test_a_searched_pair_that_no_run_can_have_is_refused_before_anything_runs(tmp_path: Path) -> None:
    parameters = {
        "points_per_image": {"role": "scientific", "values": [50, "dense"]},
        "point_strategy": {"role": "nuisance", "values": ["uniform", "per_class"]},
        "learning_rate": {"role": "nuisance", "min": 1e-4, "max": 1e-2, "scale": "log"},
    }
    spec = make_study(parameters=parameters, search={"method": "random", "trials_per_level": 3})
    (tmp_path / "study.yaml").write_text(to_yaml(spec.to_mapping()))
    with pytest.raises(InputError, match="dense"):
        open_study(str(tmp_path / "study.yaml"), [])


def test_an_impossible_combination_names_the_study_file() -> None:
    with pytest.raises(InputError, match=r"demo.yaml: training.points_per_image: 5000 is more than the 4096 pixels"):
        open_study("demo", ["parameters.points_per_image.values=[2, 5000]"])
