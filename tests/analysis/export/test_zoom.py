"""A zoomed study file is a study: it loads, its trials can be listed, its seeds are fresh."""

import math
from dataclasses import replace

import pytest

from analysis.export.zoom import export_zoomed
from analysis.find import find
from study.design import list_cells, open_study
from study.spec import load_study
from study.yaml_file import parse_yaml, to_yaml

STUDY = {
    "study": "demo",
    "data": {"synthetic": {}},
    "training": {"encoder": "resnet18", "weights": "none", "image_size": 64, "epochs": 2},
    "parameters": {
        "points_per_image": {"role": "scientific", "values": [10, 50]},
        "learning_rate": {"role": "nuisance", "values": [1e-3, 1e-2]},
        "focal_gamma": {"role": "nuisance", "values": [0, 2]},
    },
    "search": {"seeds": [0, 1, 2]},
    "confirm": {"seeds": [100, 101, 102]},
}
# Tight seeds: 10 points are clearly not enough.
WINNERS = {(10, 0.001, 2.0): [0.500, 0.501, 0.499], (50, 0.001, 0.0): [0.660, 0.661, 0.659]}


def export(folder, make_study, study=STUDY, **changes):
    (folder / "study.yaml").write_text(to_yaml(study))
    runs = make_study(**{"confirm": WINNERS, **changes})
    return export_zoomed(folder, folder / "export", runs, find(runs))


def test_the_file_is_a_study_that_can_be_run(tmp_path, make_study):
    path = export(tmp_path, make_study)
    assert path == tmp_path / "export" / "zoomed.yaml"
    spec = open_study(str(path), [])
    assert spec.study == "demo-zoom"
    assert spec.training == load_study(str(tmp_path / "study.yaml"), []).training
    assert spec.parameters["points_per_image"].values == [17, 29, 50, 200]  # thirds of 10 to 50 are 17.1 and 29.2
    assert spec.parameters["learning_rate"].values == [0.00032, 0.001, 0.0032]  # of the kept level alone
    assert spec.parameters["focal_gamma"].values == [0, 1]
    assert len(list_cells(spec)) == 4 * 3 * 2


def test_its_seeds_are_fresh_and_as_many(tmp_path, make_study):
    spec = load_study(str(export(tmp_path, make_study)), [])
    assert spec.search.seeds == [103, 104, 105]
    assert spec.confirm.seeds == [106, 107, 108]


def test_seeds_that_were_added_are_not_used_again(tmp_path, make_study):
    winners = {cell: [*values, 0.6] for cell, values in WINNERS.items()}  # 103, by canopoint extend
    assert load_study(str(export(tmp_path, make_study, confirm=winners)), []).search.seeds == [104, 105, 106]


def test_the_comments_say_why(tmp_path, make_study):
    comments = [line for line in export(tmp_path, make_study).read_text().splitlines() if line.startswith("#")]
    text = "\n".join(comments)
    assert "# points per image: 17, 29, 50 and 200: without 10, not enough; 17 and 29 between 10, not enough" in text
    assert "200 beyond 50, the largest tried, which leads." in text
    assert "Label 50 points per image" in text


def test_a_level_that_is_undecided_stays_and_its_settings_count(tmp_path, make_study):
    winners = {(10, 0.01, 2.0): [0.64, 0.60, 0.70], (50, 0.001, 0.0): [0.66, 0.70, 0.62]}
    spec = load_study(str(export(tmp_path, make_study, confirm=winners)), [])
    assert spec.parameters["points_per_image"].values == [10, 50, 200]
    assert spec.parameters["learning_rate"].values == [0.00032, 0.001, 0.0032, 0.01, 0.032]


def test_a_searched_range_is_halved(tmp_path, make_study):
    ranged = {
        **STUDY["parameters"],
        "learning_rate": {"role": "nuisance", "min": 1e-5, "max": 1e-1, "scale": "log"},
    }
    study = {**STUDY, "parameters": ranged, "search": {"method": "random", "trials_per_level": 4, "seeds": [0]}}
    spec = open_study(str(export(tmp_path, make_study, study=study)), [])
    rate = spec.parameters["learning_rate"]
    assert (rate.min, rate.max, rate.scale) == (1e-4, 1e-2, "log")
    assert math.isclose(math.sqrt(rate.min * rate.max), 1e-3)
    assert spec.search.trials_per_level == 4


def test_draws_of_points_stay_as_they_were(tmp_path, make_study):
    factors = {**STUDY["parameters"], "points_seed": {"role": "scientific", "values": [0, 2]}}
    del factors["focal_gamma"]
    (tmp_path / "study.yaml").write_text(to_yaml({**STUDY, "parameters": factors, "confirm": None}))
    runs = make_study(
        roles={"points_per_image": "scientific", "learning_rate": "nuisance", "focal_gamma": "scientific"}
    )
    new = {"focal_gamma": "points_seed"}
    runs = replace(
        runs,
        parameters={new.get(name, name): role for name, role in runs.parameters.items()},
        trials=runs.trials.rename(columns=new).astype({"points_seed": int}),
        epochs=runs.epochs.rename(columns=new),
    )
    spec = load_study(str(export_zoomed(tmp_path, tmp_path / "export", runs, find(runs))), [])
    assert (spec.parameters["points_seed"].role, spec.parameters["points_seed"].values) == ("scientific", [0, 2])


def test_the_longest_name_stays_one(tmp_path, make_study):
    name = "n" * 64
    path = export(tmp_path, make_study, study={**STUDY, "study": name})
    assert load_study(str(path), []).study == "n" * 59 + "-zoom"


def test_it_can_be_zoomed_again_and_is_the_same_twice(tmp_path, make_study):
    first = export(tmp_path, make_study).read_text()
    assert export(tmp_path, make_study).read_text() == first
    assert parse_yaml(first, "zoomed")["study"] == "demo-zoom"


def test_without_a_study_file_there_is_nothing_to_zoom(tmp_path, make_study):
    runs = make_study()
    assert export_zoomed(tmp_path, tmp_path / "export", runs, find(runs)) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hostile", ["a\nstudy: other", "x\u2028y", "\x1b[31m"])
def test_no_name_ends_a_comment(tmp_path, make_study, hostile):
    path = export(tmp_path, make_study, study=STUDY)
    runs = make_study(confirm=WINNERS, study=hostile)
    (tmp_path / "study.yaml").write_text(to_yaml(STUDY))
    text = export_zoomed(tmp_path, tmp_path / "export", runs, find(runs)).read_text()
    assert parse_yaml(text, "zoomed") == parse_yaml(path.read_text(), "zoomed")
    assert parse_yaml(text, "zoomed")["study"] == "demo-zoom"
