import copy
import json
import os
import subprocess
import sys
import time
from dataclasses import fields, replace
from typing import Any

import pytest

from study.design import (
    MAX_TRIALS,
    Trial,
    describe_plan,
    estimate_s,
    list_cells,
    list_configs,
    list_trials,
    make_plan,
    open_study,
)
from study.design import trial_id as identify
from study.spec import StudySpec, parse_study
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
    seed=0,
    device="cpu",
    num_threads=1,
)
PINNED_ID = "96250efc8131"


def make_study(**changes: Any) -> StudySpec:
    return parse_study(copy.deepcopy(STUDY) | changes, "study.yaml")


def ids(spec: StudySpec) -> list[str]:
    return [trial.trial_id for trial in list_trials(spec, FINGERPRINT)]


def test_cells_stand_in_the_order_of_the_file() -> None:
    # The last factor turns fastest, as nested loops in the file's order would.
    cells = [(cell["points_per_image"], cell["focal_gamma"]) for cell in list_cells(make_study())]
    assert cells == [(50, 0), (50, 2), (5, 0), (5, 2)]


def test_trials_come_seed_block_by_seed_block() -> None:
    spec = make_study()
    trials = list_trials(spec, FINGERPRINT)
    assert [trial.config.seed for trial in trials] == [7] * 4 + [3] * 4
    assert [trial.parameters for trial in trials[4:]] == list_cells(spec)
    assert trials[1].name == "points_per_image=50 focal_gamma=2 seed=7"
    assert len(set(ids(spec))) == 8


def test_a_trial_has_the_fixed_settings_its_cell_and_its_resources() -> None:
    resources = {"gpus_per_trial": 0.5, "cpus_per_trial": 3}
    config = list_trials(make_study(resources=resources), FINGERPRINT)[1].config
    assert (config.encoder, config.epochs, config.points_per_image, config.focal_gamma) == ("resnet18", 2, 50, 2.0)
    assert (config.device, config.num_threads) == ("cuda", 3)
    assert list_configs(make_study())[0][1].device == "cpu"


def test_a_combination_that_no_run_can_have_is_refused() -> None:
    levels = {"points_per_image": {"role": "scientific", "values": [10, 1025]}}  # 32 x 32 = 1024
    with pytest.raises(InputError, match="1025 is more than the 1024 pixels"):
        list_configs(make_study(training={"image_size": 32}, parameters=levels))


def test_a_grid_of_ten_million_cells_is_refused_at_once() -> None:
    factors = ("points_per_image", "batch_size", "epochs", "image_size")
    parameters = {name: {"role": "nuisance", "values": list(range(40, 97))} for name in factors}  # 57^4 > 10^7
    started = time.monotonic()
    spec = make_study(training={}, parameters=parameters)
    with pytest.raises(InputError, match=f"^parameters: .*{2 * 57**4} trials; at most {MAX_TRIALS}"):
        list_configs(spec)
    assert time.monotonic() - started < 1


def test_ids_are_what_they_were_when_studies_were_run_with_them() -> None:
    # A change of this value makes every finished trial of every user run again. Raise TRAINER_VERSION on purpose only.
    assert identify(PINNED, FINGERPRINT) == PINNED_ID


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


def test_an_estimate_counts_forward_passes() -> None:
    # resnet18 at 256 px: 10.8 GFLOP. Two epochs of 3 x 10 training and 6 validation passes, at 50 GFLOP/s and thread.
    config = replace(PINNED, image_size=256, epochs=2)
    assert estimate_s(config, NUM_IMAGES) == pytest.approx(2 * 36 * 10.8 / 50)
    assert estimate_s(replace(config, num_threads=4), NUM_IMAGES) == pytest.approx(2 * 36 * 10.8 / 200)
    assert estimate_s(replace(config, device="cuda"), NUM_IMAGES) == pytest.approx(2 * 36 * 10.8 / 10_000)


def test_an_estimate_grows_with_the_image_s_area() -> None:
    times = [estimate_s(replace(PINNED, image_size=size), NUM_IMAGES) for size in (64, 128, 256)]
    assert times[1] / times[0] == pytest.approx(4)
    assert times[2] / times[0] == pytest.approx(16)


def plan_inputs(**changes: Any) -> tuple[StudySpec, list[Trial], float]:
    spec = make_study(**changes)
    trials = list_trials(spec, FINGERPRINT)
    return spec, trials, estimate_s(trials[0].config, NUM_IMAGES)  # all eight have the same


def test_a_plan_of_a_new_study() -> None:
    spec, trials, estimate = plan_inputs()
    plan = make_plan(spec, trials, NUM_IMAGES, {}, num_concurrent=2)
    assert (plan.num_cells, plan.seeds, plan.num_trials, plan.num_done, plan.num_missing) == (4, [7, 3], 8, 0, 8)
    assert plan.expected_s == pytest.approx(8 * estimate / 2)
    assert plan.gpu_hours == 0
    assert "rough estimate" in plan.basis


def test_a_plan_rests_on_measured_times_where_there_are_some() -> None:
    spec, trials, estimate = plan_inputs(resources={"gpus_per_trial": 0.5})
    # Three times and five times the estimate: on average four times.
    measured = {trials[0].trial_id: 3 * estimate, trials[1].trial_id: 5 * estimate}
    plan = make_plan(spec, trials, NUM_IMAGES, measured, num_concurrent=4)
    assert (plan.num_done, plan.num_missing, plan.basis) == (2, 6, "measured on 2 finished trials")
    assert plan.expected_s == pytest.approx(6 * 4 * estimate / 4)
    assert plan.gpu_hours == pytest.approx(6 * 4 * estimate * 0.5 / 3600)


def test_a_measured_time_is_scaled_to_trials_of_another_size() -> None:
    parameters = {"image_size": {"role": "scientific", "values": [64, 128]}}
    spec = make_study(training={"encoder": "resnet18"}, parameters=parameters, search={"seeds": [0]})
    small, large = list_trials(spec, FINGERPRINT)
    plan = make_plan(spec, [small, large], NUM_IMAGES, {small.trial_id: 3.0}, num_concurrent=1)
    assert plan.expected_s == pytest.approx(12)  # four times the pixels


def test_a_few_trials_do_not_run_more_at_once_than_there_are() -> None:
    spec, trials, estimate = plan_inputs()
    assert make_plan(spec, trials, NUM_IMAGES, {}, num_concurrent=100).expected_s == pytest.approx(estimate)


def test_nothing_is_expected_of_a_study_that_is_done() -> None:
    spec, trials, _ = plan_inputs()
    plan = make_plan(spec, trials, NUM_IMAGES, {trial.trial_id: 1.0 for trial in trials}, num_concurrent=2)
    assert (plan.num_missing, plan.expected_s, plan.gpu_hours) == (0, 0, 0)


def test_a_plan_is_plain_json() -> None:
    spec, trials, _ = plan_inputs()
    plan = make_plan(spec, trials, NUM_IMAGES, {}, num_concurrent=2)
    described = json.loads(json.dumps(describe_plan(plan)))
    assert (described["num_trials"], described["num_missing"], described["seeds"]) == (8, 8, [7, 3])
    assert described["expected_s"] == plan.expected_s


def test_an_impossible_combination_names_the_study_file() -> None:
    with pytest.raises(InputError, match=r"demo.yaml: training.points_per_image: 5000 is more than the 4096 pixels"):
        open_study("demo", ["parameters.points_per_image.values=[2, 5000]"])
