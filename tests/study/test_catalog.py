import math

import pytest

from study.design import list_cells, make_config, open_study
from study.spec import CATALOG, StudySpec, load_study

NAMES = sorted(path.stem for path in CATALOG.glob("*.yaml"))


def levels(spec: StudySpec) -> dict[str, list[int | float | str]]:
    return {name: parameter.values or [] for name, parameter in spec.parameters.items()}


def test_the_catalog_holds_the_demo_and_the_seed_s_study() -> None:
    assert {"demo", "demo_images", "point_budget", "seed_notebook"} <= set(NAMES)


def test_the_point_budget_is_held_against_every_pixel_each_count_at_its_own_settings() -> None:
    spec = load_study("point_budget", [])
    assert levels(spec)["points_per_image"] == [10, 50, 100, 200, "dense"]
    assert spec.parameters["learning_rate"].role == "nuisance"
    assert spec.confirm


@pytest.mark.parametrize("name", NAMES)
def test_every_study_can_be_run(name: str) -> None:
    spec = open_study(name, [])
    if spec.search.method == "grid":
        assert len(list_cells(spec)) == math.prod(len(values) for values in levels(spec).values())
    assert spec.parameters["points_per_image"].role == "scientific"
    assert spec.study.replace("-", "_") == name


@pytest.mark.parametrize("name", ["demo", "demo_images"])
def test_the_demos_can_answer_the_question_without_a_gpu(name: str) -> None:
    spec = load_study(name, [])
    assert set(levels(spec)) == {"points_per_image", "learning_rate", "focal_gamma"}
    assert min(len(values) for values in levels(spec).values()) >= 2
    assert len(spec.search.seeds) >= 2  # one seed has no spread
    assert spec.confirm
    assert len(spec.confirm.seeds) >= 3
    assert spec.resources.gpus_per_trial == 0
    assert spec.training["weights"] == "none"  # no download
    assert spec.tracking.mode == "offline"


def test_the_demo_brings_its_own_images_and_demo_images_takes_a_folder() -> None:
    assert load_study("demo", []).data.synthetic
    assert load_study("demo_images", ["data.root=mine"]).data.root == "mine"


def test_the_seed_s_study_has_the_seed_s_own_factors_and_settings() -> None:
    spec = load_study("seed_notebook", [])
    # SCIENCE.md: 10/50/100/200 points, rates 1e-3/1e-4/1e-5; gamma 0 is its notebook, 2 its README's focal term.
    assert levels(spec) == {
        "points_per_image": [10, 50, 100, 200],
        "learning_rate": [1e-3, 1e-4, 1e-5],
        "focal_gamma": [0, 2],
    }
    assert len(spec.search.seeds) == 3
    for cell in list_cells(spec):
        config = make_config(spec, cell, seed=0)
        assert (config.encoder, config.weights, config.image_size) == ("resnet50", "imagenet", 256)
        assert (config.optimizer, config.weight_decay, config.schedule) == ("adam", 1e-3, "constant")
        assert (config.batch_size, config.epochs) == (16, 10)
