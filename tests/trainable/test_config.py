import json
from typing import Any

import pytest

from trainable.config import DataConfig, InputError, SplitConfig, SyntheticConfig, TrainConfig, from_mapping

MADE: dict[str, Any] = {"synthetic": {}}


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("points_per_image", 0, "at least 1, got 0"),
        ("points_per_image", 2.0, "must be int or str, got 2.0"),  # half a point means nothing, so no float at all
        ("points_per_image", True, "must be int or str, got True"),  # Python counts True as 1; a user does not
        ("points_per_image", "50", "must be a number or dense, got '50'"),
        ("points_per_image", None, "must be int or str, got None"),
        ("points_per_image", 256**2 + 1, "more than the 65536 pixels"),
        ("point_strategy", "gird", "must be one of uniform, per_class, grid"),
        ("encoder", "resnet19", "did you mean resnet1"),
        ("weights", "ImageNet", "must be imagenet, none or a file named NAME-HASH.pth"),
        ("image_size", 100, "multiple of 32 (encoder stride), got 100"),
        ("image_size", 0, "at least 32"),
        ("learning_rate", 0, "greater than 0, got 0"),
        ("learning_rate", -1e-3, "greater than 0, got -0.001"),
        ("learning_rate", 10.5, "at most 10, got 10.5"),
        ("learning_rate", True, "must be float, got True"),
        ("learning_rate", "1e-4", "must be float, got '1e-4'"),  # what YAML 1.1 makes of 1e-4 without a dot
        ("learning_rate", float("nan"), "finite"),
        ("learning_rate", float("inf"), "finite"),
        pytest.param("learning_rate", 10**400, "at most 10", id="an integer that no float can hold"),
        ("focal_gamma", -0.1, "at least 0"),
        ("focal_gamma", float("-inf"), "finite"),
        ("weight_decay", 1.5, "at most 1"),
        ("epochs", 0, "at least 1"),
        ("epochs", 10_001, "at most 10000"),
        ("batch_size", 1, "at least 2"),  # batch normalisation over one image's last feature, 1 x 1 at 32 px
        ("seed", -1, "at least 0"),
        ("points_seed", -1, "at least 0"),
        ("points_seed", 1.0, "must be int or null, got 1.0"),
        ("train_images", 0, "at least 1"),
        ("train_images", True, "must be int or null, got True"),
        ("device", "gpu", "must be one of cpu, cuda"),
        ("num_threads", 0, "at least 1"),
    ],
)
def test_a_bad_value_names_its_field_and_rule(field: str, value: object, rule: str) -> None:
    with pytest.raises(InputError) as caught:
        from_mapping(TrainConfig, {field: value}, "training")
    assert f"training.{field}: " in str(caught.value)
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("data", "place", "rule"),
    [
        ({}, "data: ", "either root"),
        ({"root": "here", "synthetic": {}}, "data: ", "one of the two"),
        ({"root": ""}, "data", "root"),
        ({"root": 3}, "data.root: ", "must be str or null, got 3"),
        ({"synthetic": 3}, "data.synthetic: ", "must be a mapping"),
        ({**MADE, "split": None}, "data.split: ", "SplitConfig"),
        ({**MADE, "split": {"train": 0.7}}, "data.split: ", "add up to 1.1"),  # 0.7 + 0.2 + 0.2
        ({**MADE, "split": {"train": 0.8, "val": 0.2, "test": 0}}, "data.split.test: ", "greater than 0"),
        ({**MADE, "split": {"vall": 0.2}}, "data.split.vall: ", "did you mean val?"),
        ({**MADE, "max_images": 2}, "data.max_images: ", "at least 3"),  # one image for each split
        ({**MADE, "max_images": False}, "data.max_images: ", "must be int or null, got False"),
        ({"synthetic": {"num_scenes": 2}}, "data.synthetic.num_scenes: ", "at least 3"),
        # 1000 x 64^2 = 4,096,000 pixels
        ({"synthetic": {"images_per_scene": 1000}}, "data.synthetic: ", "4096000 pixels; at most 4000000"),
        ([1], "data: ", "must be a mapping of settings, got [1]"),
        (None, "data: ", "must be a mapping of settings, got None"),
    ],
)
def test_bad_data_settings_name_their_place_and_rule(data: object, place: str, rule: str) -> None:
    with pytest.raises(InputError) as caught:
        from_mapping(DataConfig, data, "data")
    assert str(caught.value).startswith(place)
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("foacl_gamma", "did you mean focal_gamma?"),
        ("learningrate", "did you mean learning_rate?"),
        ("xyz", "known: points_per_image, point_strategy, label_flip_rate"),  # nothing near, so all of them
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        from_mapping(TrainConfig, {name: 2}, "training")
    assert str(caught.value).startswith(f"training.{name}: no such setting; ")
    assert hint in str(caught.value)


@pytest.mark.parametrize("field", ["focal_gamma", "learning_rate", "weight_decay"])
def test_an_integer_for_a_float_becomes_a_float(field: str) -> None:
    # 1 and 1.0 must be one trial: they would differ in JSON, and so in the trial's identity.
    config = from_mapping(TrainConfig, {field: 1}, "training")
    assert json.dumps(config.to_mapping()[field]) == "1.0"


def test_edges_of_the_ranges_are_allowed() -> None:
    edges = {"points_per_image": 1024, "image_size": 32, "learning_rate": 10.0, "batch_size": 2, "weight_decay": 0.0}
    assert from_mapping(TrainConfig, edges, "training").points_per_image == 32**2


def test_a_config_survives_its_mapping() -> None:
    config = TrainConfig(encoder="resnet18", learning_rate=3e-4, seed=7)
    again = from_mapping(TrainConfig, json.loads(json.dumps(config.to_mapping())), "training")
    assert again == config


def test_settings_that_came_later_are_left_out_until_they_are_used() -> None:
    # Trials of older studies are compared with, and named by, what they said.
    later = {"points_seed", "train_images"}
    assert later.isdisjoint(TrainConfig().to_mapping())
    used = TrainConfig(points_seed=0, train_images=8)
    assert used.to_mapping().items() >= {"points_seed": 0, "train_images": 8}.items()
    assert from_mapping(TrainConfig, used.to_mapping(), "training") == used


def test_a_seed_of_points_needs_something_to_draw() -> None:
    with pytest.raises(InputError, match=r"^training.points_seed: 3 has no effect where every pixel of every image"):
        TrainConfig(points_per_image="dense", points_seed=3)
    assert TrainConfig(points_per_image="dense", points_seed=3, train_images=5).annotation_seed == 3
    assert TrainConfig(seed=4).annotation_seed == TrainConfig(seed=9, points_seed=4).annotation_seed == 4


def test_nested_sections_become_configs() -> None:
    config = from_mapping(DataConfig, {"synthetic": {"num_scenes": 5}, "split": {"seed": 3}}, "data")
    assert config.synthetic == SyntheticConfig(num_scenes=5)
    assert config.split == SplitConfig(train=0.6, val=0.2, test=0.2, seed=3)


def test_a_message_is_one_printable_line() -> None:
    # Names come from files: one with a line break or a terminal's escape must not forge output.
    assert str(InputError("row 2: é\n\x1b[2J absent")) == "row 2: é\\n\\x1b[2J absent"


def test_the_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="epochs"):
        TrainConfig(epochs=0)
