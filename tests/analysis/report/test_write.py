import csv
import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from analysis.find import find
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import SearchTerms
from analysis.report.plots import draw
from analysis.report.write import write_report

SCRIPT = "</script><script>alert(1)</script>"
FORMULA = '=HYPERLINK("http://evil.example","x")'
ROLES = {"points_per_image": "scientific", "learning_rate": "nuisance", "focal_gamma": "nuisance"}


def make_runs(roles=ROLES, levels=((10, 50), (0.001, 0.01), (0.0, 2.0)), num_seeds=3, **changes):
    """Every combination of the levels at every seed; better with the later level of each factor."""
    trials, epochs, training = [], [], {}
    cells = [(a, b, c) for a in levels[0] for b in levels[1] for c in levels[2]]
    for i, cell in enumerate(cells):
        for seed in range(num_seeds):
            trial_id = f"{100 * i + seed:012x}"
            parameters = dict(zip(roles, cell, strict=True))
            key = {"run_id": f"demo-{trial_id}", "trial_id": trial_id, "seed": seed, "phase": "explore", **parameters}
            value = 0.5 + 0.02 * i + 0.01 * seed
            trials.append({**key, "objective": value, "test": math.nan, "time_s": 60.0})
            epochs += [{**key, "epoch": epoch, "val/miou": value - 0.1 / epoch} for epoch in (1, 2)]
            training[trial_id] = {**parameters, "seed": seed, "encoder": "resnet18", "weights": "none"}
    settings = {
        "study": "demo",
        "parameters": dict(roles),
        "objective": {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
        "data": {
            "source": "/data/forest",
            "num_images": 300,
            "num_images_available": 3052,
            "num_scenes": 12,
            "image_size": 128,
            "class_names": ["background", "forest"],
            "fingerprint": "ab12",
            "splits": {
                "train": {"num_images": 180, "scenes": ["10452"]},
                "val": {"num_images": 60, "scenes": ["7791"]},
            },
            "forest_share": {"train": 0.6123, "val": 0.58},
            "floors": {
                "all_forest": {"val/miou": 0.3, "test/miou": 0.28},
                "image_majority": {"val/miou": 0.9, "test/miou": 0.88},
            },
        },
        "data_config": {"root": "/data/forest"},
        "epochs": pd.DataFrame(epochs),
        "trials": pd.DataFrame(trials),
        "training": training,
        "excluded": [("demo-ffffffffffff", "1 of 2 epochs")],
    }
    return StudyRuns(**{**settings, **changes})


def make_hostile_runs():
    """Everything that a stranger's run file can name, named as badly as can be."""
    roles = {"../../up": "scientific", SCRIPT: "nuisance", "--> $x_{1$ | `b`": "nuisance"}
    data = {
        "source": f'"><img src=x onerror=alert(1)>{SCRIPT}',
        "class_names": [SCRIPT],
        "splits": {SCRIPT: {"num_images": 1, "scenes": [SCRIPT, "| a |"]}},
        "floors": {SCRIPT: {"val/miou": 0.3}},
    }
    levels = ((10, 50), (FORMULA, "resnet18"), ("$\\frac{", "</svg>"))
    excluded = [(SCRIPT, "<b>reason</b>\n# heading")]
    return make_runs(roles, levels, study=f"demo{SCRIPT}", data=data, excluded=excluded)


def confirm_all(runs):
    """The same study, with every cell confirmed at seeds 100 to 102, on the test split .03 below validation."""
    fresh = runs.trials.assign(
        run_id="confirm-" + runs.trials["run_id"],
        trial_id="f" + runs.trials["trial_id"].str[1:],
        seed=runs.trials["seed"] + 100,
        phase="confirm",
        objective=runs.trials["objective"] - 0.02,
        test=runs.trials["objective"] - 0.05,
    )
    epochs = runs.epochs.assign(run_id="confirm-" + runs.epochs["run_id"], phase="confirm")
    training = {f"f{trial_id[1:]}": training for trial_id, training in runs.training.items()}
    return replace(
        runs,
        trials=pd.concat([runs.trials, fresh], ignore_index=True),
        epochs=pd.concat([runs.epochs, epochs], ignore_index=True),
        training=runs.training | training,
    )


def write(tmp_path, runs):
    """The report's files: path below analysis/ -> text."""
    paths = write_report(tmp_path, runs, find(runs))
    assert {name: tmp_path / "analysis" / name for name in paths} == paths
    return {name: path.read_text(encoding="utf-8") for name, path in paths.items()}


class Page(HTMLParser):
    """Collects a page's elements, attributes and text, as a browser's parser would see them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("plain"), make_runs())


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "study"


@pytest.fixture(scope="module")
def hostile_files(hostile_folder):
    return write(hostile_folder, make_hostile_runs())


def test_every_file_is_there_and_nothing_else(tmp_path):
    write(tmp_path, make_runs())
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    figures = ("levels_points_per_image", "learning_curves", "map_learning_rate_focal_gamma")
    expected = {"findings.json", "report.md", "report.html", "runs.csv", *(f"figures/{name}.svg" for name in figures)}
    assert written == {f"analysis/{name}" for name in expected}


def test_the_page_may_load_and_run_nothing(files):
    page = Page(files["report.html"])
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert ("meta", "content", policy) in page.attributes
    assert {"script", "link", "iframe", "img", "object", "form", "a"}.isdisjoint(page.tags)
    assert not re.search(r"https?:|//", files["report.html"])
    targets = [value for _, name, value in page.attributes if name in ("href", "xlink:href", "src")]
    assert targets
    assert all(value.startswith("#") for value in targets)


def test_hostile_names_stay_text(hostile_files):
    page = Page(hostile_files["report.html"])
    assert {"script", "img", "b"}.isdisjoint(page.tags)
    assert not [attribute for _, attribute, _ in page.attributes if attribute.startswith("on")]
    assert f"Study demo{SCRIPT}" in page.text
    assert page.tags.count("svg") == 3


def test_hostile_names_stay_text_in_markdown(hostile_files):
    assert "<" not in hostile_files["report.md"]
    assert hostile_files["report.md"].count("\n# ") == 0  # the only first-level heading is the first line
    assert "\\| a \\|" in hostile_files["report.md"]  # no cell of a table ends early


def test_no_cell_of_the_table_is_a_formula(hostile_files):
    rows = list(csv.reader(hostile_files["runs.csv"].splitlines()))
    cells = [cell for row in rows for cell in row]
    assert f"'{FORMULA}" in cells
    assert "'--> $x_{1$ | `b`" in rows[0]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_hostile_names_write_no_file_elsewhere(hostile_folder, hostile_files):
    assert [path.name for path in hostile_folder.parent.iterdir()] == ["study"]
    assert "figures/levels_______up.svg" in hostile_files


def test_figures_are_well_formed_and_name_no_address(files, hostile_files):
    for name, text in [*files.items(), *hostile_files.items()]:
        if name.endswith(".svg"):
            root = ET.fromstring(text)
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert not [e for e in root.iter() if e.tag.endswith(("}script", "}image", "}metadata", "}foreignObject"))]
            without_namespaces = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
            assert "http" not in without_namespaces
            assert "<!--" not in text


def test_the_same_study_gives_the_same_bytes(tmp_path, files):
    assert write(tmp_path, make_runs()) == files


def test_figures_have_text_alternatives_and_tables_captions(files):
    page = Page(files["report.html"])
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert page.tags.count("svg") == page.tags.count("figure") == len(labels) == 3
    assert "50: 0.650 [0.625, 0.675]" in labels[0]  # the last cell: .64, .65, .66; 4.302653 * .01 / sqrt(3) = .0248
    assert page.tags.count("table") == page.tags.count("caption")


def test_the_page_and_markdown_tell_the_findings(files):
    runs = make_runs()
    findings = find(runs)
    page = Page(files["report.html"]).text
    for text in (findings.headline, *(x.text for x in findings.floors), *(x.text for x in findings.caveats)):
        assert text in page
    for fact in ("300 used of 3052", "10452", "7791", "0.612", "1 of 2 epochs", "24.0 minutes", *runs.training):
        assert fact in page
        assert fact in files["report.md"]
    assert "do NOT beat" in page


def test_findings_json_is_the_findings(files):
    assert json.loads(files["findings.json"]) == find(make_runs()).to_mapping()


def test_the_table_holds_every_epoch(files):
    rows = list(csv.DictReader(files["runs.csv"].splitlines()))
    assert len(rows) == 8 * 3 * 2
    assert rows[0]["run_id"] == "demo-000000000000"
    assert float(rows[1]["val/miou"]) == pytest.approx(0.45)  # 0.5 - 0.1 / 2


def test_an_old_report_is_replaced_whole(tmp_path):
    write(tmp_path, make_runs(study="old"))
    files = write(tmp_path, make_runs(study="new"))
    assert "Study new" in files["report.html"]
    assert not list(tmp_path.rglob(".*"))  # nothing half written is left


def test_figures_follow_the_factors():
    one_factor = make_runs({**ROLES, "learning_rate": "scientific"})
    assert [plot.name for plot in draw(one_factor, find(one_factor))] == [
        "levels_points_per_image",
        "levels_learning_rate",
        "learning_curves",
    ]


def test_a_study_of_one_seed_can_be_drawn(tmp_path):
    files = write(tmp_path, make_runs(num_seeds=1))
    assert "Provisional" in files["report.html"]


def test_figures_that_the_study_no_longer_has_are_removed_and_those_of_others_stay(tmp_path):
    write(tmp_path, make_runs({"old_factor": "scientific", "learning_rate": "nuisance", "focal_gamma": "nuisance"}))
    figures = tmp_path / "analysis" / "figures"
    assert (figures / "levels_old_factor.svg").is_file()
    others = ("my_figure.svg", "levels_old factor.svg", "levels_old_factor.png", "learning_curves_2.svg")
    for name in others:
        (figures / name).write_text("mine")
    write(tmp_path, make_runs())
    assert not (figures / "levels_old_factor.svg").exists()
    assert (figures / "levels_points_per_image.svg").is_file()
    assert [(figures / name).read_text() for name in others] == ["mine"] * 4


@pytest.mark.parametrize(("floor", "words"), [(0.9, "do NOT beat"), (0.65, "may or may not beat"), (0.3, "")])
def test_the_headline_block_says_that_a_floor_is_not_beaten(tmp_path, floor, words):
    # The recommended cell reaches .65 [.625, .675].
    runs = make_runs(data={"floors": {"image_majority": {"val/miou": floor}}})
    files = write(tmp_path, runs)
    block = files["report.html"].partition('<div class="headline')[2].partition("</div>")[0]
    assert block.startswith(' doubtful">' if words else '">')
    assert block.count("<p") == (2 if words else 1)
    assert words in block
    assert words in files["report.md"].partition("## Findings")[0]


def test_half_a_surrogate_pair_is_no_reason_to_fail(tmp_path):
    files = write(tmp_path, make_runs(study="a\ud800"))  # JSON can hold it, UTF-8 cannot
    assert "Study a?" in files["report.html"]


def test_the_tables_say_who_keeps_a_level_undecided(tmp_path):
    # At 10 points .6, .61, .62, at 50 always .0005 more; 200 swings so much that it may be far better than both.
    runs = make_runs(levels=((10, 50, 200), (0.001,), (0.0,)))
    runs.trials["objective"] = [0.6, 0.61, 0.62, 0.6005, 0.6105, 0.6205, 0.5, 0.7, 0.6]
    files = write(tmp_path, runs)
    assert "200 may lead by more than the margin" in Page(files["report.html"]).text
    assert "| 10 | undecided: 200 may lead by more than the margin |" in files["report.md"]


# Confirmation, searches -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def confirmed_files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("confirmed"), confirm_all(make_runs()))


def test_a_confirmed_report_is_of_the_test_split_and_shows_what_exploration_had_read(confirmed_files):
    page = Page(confirmed_files["report.html"])
    for text in (page.text, confirmed_files["report.md"].replace("\\", "")):
        assert "test/miou 0.600 [0.575, 0.625] over 3 fresh seeds" in text
        assert "Exploration had read val/miou of the chosen settings 0.020 better on average" in text
        for reading in ("0.650 [0.625, 0.675]", "0.630 [0.605, 0.655]", "0.600 [0.575, 0.625]"):  # of the last cell
            assert reading in text
        assert "exploration: 0, 1 and 2; confirmation: 100, 101 and 102" in text
        assert "These runs alone read the test split" in text
        assert "fresh seeds would tell" not in text
        assert "confirm-demo-000000000002" in text
    assert "on the same test images" in " ".join(page.text.split())
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert labels[0].startswith("test/miou by points per image.")
    assert "Thin lines: fresh seeds." in labels[1]
    assert labels[2].startswith("val/miou by learning rate and focal gamma.")
    assert page.tags.count("table") == page.tags.count("caption")
    assert json.loads(confirmed_files["findings.json"])["phase"] == "confirm"


def test_the_axis_says_which_split_was_read(tmp_path, monkeypatch):
    labels = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_ylabel", lambda self, label, **_: labels.append(label))
    for runs in (make_runs(), confirm_all(make_runs())):
        draw(runs, find(runs))
    assert labels[0] == "val/miou"
    assert labels[len(labels) // 2] == "test/miou"


def test_hostile_names_stay_text_where_they_are_confirmed(tmp_path):
    files = write(tmp_path, confirm_all(make_hostile_runs()))
    assert {"script", "img", "b"}.isdisjoint(Page(files["report.html"]).tags)
    assert "<" not in files["report.md"]


def test_a_search_is_reported_without_a_map(tmp_path):
    roles = {"points_per_image": "scientific", "learning_rate": "nuisance", "weight_decay": "nuisance"}
    runs = make_runs(roles, levels=((10, 50), (0.001,), (0.0,)))
    rates = {10: 0.0123, 50: 0.0456}  # each level has its own setting
    for table in (runs.trials, runs.epochs):
        table["learning_rate"] = table["points_per_image"].map(rates)
        table["weight_decay"] = table["points_per_image"].map(rates) / 10
    runs = replace(runs, search=SearchTerms(is_grid=False))
    files = write(tmp_path, runs)
    assert not [name for name in files if "map" in name]
    assert "Searched, not compared: learning rate and weight decay were tuned at each level" in files["report.md"]
    assert "points per image 10: 1; points per image 50: 1" in files["report.md"]


def test_a_cell_that_was_confirmed_and_never_explored_can_be_drawn(tmp_path):
    runs = confirm_all(make_runs())
    explored = (runs.trials["phase"] == "explore") & (runs.trials["points_per_image"] == 50)
    files = write(tmp_path, replace(runs, trials=runs.trials[~explored]))
    assert "not explored" in files["report.md"]
    assert files["figures/map_learning_rate_focal_gamma.svg"]
    alone = runs.trials[runs.trials["phase"] == "confirm"]
    files = write(tmp_path, replace(runs, trials=alone))
    assert "none: the confirmed settings were given" in files["report.md"]
