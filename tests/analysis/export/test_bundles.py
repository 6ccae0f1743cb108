"""Which models are exported, under what names, with which texts."""

from dataclasses import replace

import pytest
import yaml

from analysis.export.bundles import arm_name, plan_bundles
from analysis.find import find
from study.training_file import read_training_file

WINNERS = {(10, 0.001, 2.0): [0.5, 0.52, 0.48], (50, 0.001, 0.0): [0.62, 0.66, 0.67]}


def plan(folder, runs):
    return plan_bundles(folder, runs, find(runs), onnx=False)


def test_each_count_has_one_folder_and_one_is_recommended(tmp_path, make_study):
    runs = make_study(confirm=WINNERS, data={"fingerprint": "f00d", "floors": {}})
    bundles = plan(tmp_path, runs)
    assert [(bundle.name, bundle.is_recommended) for bundle in bundles] == [("points_10", False), ("points_50", True)]
    assert bundles[0].trial_id != bundles[1].trial_id
    for bundle in bundles:
        assert runs.training[bundle.trial_id]["seed"] == 100  # the lowest, not the luckiest
        assert bundle.header == {"study": "demo", "run_id": f"demo-{bundle.trial_id}", "data_fingerprint": "f00d"}


def test_every_configuration_trains(tmp_path, make_study):
    runs = make_study(confirm=WINNERS)
    for bundle, points in zip(plan(tmp_path, runs), (10, 50), strict=True):
        path = tmp_path / f"{bundle.name}.yaml"
        path.write_text(bundle.texts["config.yaml"])
        read = read_training_file(path)
        assert read.training.points_per_image == points
        assert read.reproduces["trial_id"] == bundle.trial_id


def test_configuration_and_card_say_of_what_they_are_the_best(tmp_path, make_study):
    ten, fifty = plan(tmp_path, make_study(confirm=WINNERS))
    assert fifty.texts["config.yaml"].startswith("# The recommended configuration of study demo,\n")
    assert "The recommended configuration of study demo: " in fifty.texts["model_card.md"]
    assert ten.texts["config.yaml"].startswith("# The best configuration of study demo at points per image 10,\n")
    assert "recommended configuration of study" not in ten.texts["model_card.md"]


def test_a_study_without_question_has_one_model(tmp_path, make_study):
    roles = {"points_per_image": "nuisance", "learning_rate": "nuisance", "focal_gamma": "nuisance"}
    (bundle,) = plan(tmp_path, make_study(roles=roles))
    assert (bundle.name, bundle.is_recommended) == ("recommended", True)


@pytest.mark.parametrize(
    ("scientific", "name"),
    [
        ({"points_per_image": "dense"}, "points_dense"),
        ({"points_per_image": 50, "encoder": "resnet18"}, "points_50-encoder_resnet18"),
        ({"weights": "../../x/y-abcdef12.pth"}, "weights_y-abcdef12.pth"),
        ({"learning_rate": 1e-5}, "learning_rate_1e-05"),
        ({"weights": "w" * 300}, "weights_" + "w" * 92),
    ],
)
def test_a_name_is_one_folder_whatever_the_level(make_study, scientific, name):
    arm = replace(find(make_study()).recommended, scientific=scientific)
    assert arm_name(arm) == name


def test_levels_of_one_name_get_two_folders(tmp_path, make_study):
    runs = make_study(confirm=WINNERS)
    findings = find(runs)
    twins = [replace(arm, scientific={"points_per_image": text}) for arm, text in zip(findings.arms, "*?", strict=True)]
    bundles = plan_bundles(tmp_path, runs, replace(findings, arms=twins), onnx=False)
    names = [bundle.name for bundle in bundles]
    assert names[0] == "points__"
    assert names[1] == f"points__-{twins[1].trial_ids[0]}"


def test_the_configuration_is_that_of_best_yaml(tmp_path, make_study):
    from analysis.export.best import export_best

    runs = make_study(confirm=WINNERS)
    path = export_best(tmp_path, runs, find(runs))
    assert plan(tmp_path, runs)[1].texts["config.yaml"] == path.read_text()
    assert yaml.safe_load(path.read_text())["reproduces"]["metric"] == "test/miou"
