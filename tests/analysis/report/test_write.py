import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from analysis.find import find
from analysis.reading.study_terms import SearchTerms
from analysis.report.sections import build_document
from trainable.config import InputError

ROLES = {"points_per_image": "scientific", "learning_rate": "nuisance", "focal_gamma": "nuisance"}
SCRIPT = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def files(tmp_path_factory, write, make_runs):
    return write(tmp_path_factory.mktemp("plain"), make_runs())


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "study"


@pytest.fixture(scope="module")
def hostile_files(hostile_folder, write, hostile_runs):
    return write(hostile_folder, hostile_runs)


def plots_of(runs):
    return build_document(runs, replace(find(runs), topics=[]), []).plots


def test_every_file_is_there_and_nothing_else(tmp_path, write, make_runs):
    write(tmp_path, make_runs())
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    figures = ("levels_points_per_image", "learning_curves", "map_learning_rate_focal_gamma")
    expected = {"findings.json", "report.md", "report.html", "runs.csv", "epochs.parquet"}
    expected |= {f"figures/{name}.{kind}" for name in figures for kind in ("svg", "png")}
    assert written == {f"analysis/{name}" for name in expected}


def test_hostile_names_write_no_file_elsewhere(hostile_folder, hostile_files):
    assert [path.name for path in hostile_folder.parent.iterdir()] == ["study"]
    assert "figures/levels_______up.svg" in hostile_files


def test_figures_are_well_formed_and_name_no_address(files, hostile_files):
    for name, text in [*files.items(), *hostile_files.items()]:
        if name.endswith(".svg"):
            root = ET.fromstring(text)
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert root[0].tag.endswith("}title")
            assert root[1].text.endswith(".")
            assert not [e for e in root.iter() if e.tag.endswith(("}script", "}image", "}metadata", "}foreignObject"))]
            without_namespaces = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
            assert "http" not in without_namespaces
            assert "<!--" not in text
            assert "style" not in without_namespaces  # a strict page forbids styles within elements


def test_the_same_study_gives_the_same_bytes(tmp_path, files, write, make_runs):
    assert write(tmp_path, make_runs()) == files


def test_the_page_and_markdown_tell_the_findings(files, parse, make_runs):
    runs = make_runs()
    findings = find(runs)
    page = parse(files["report.html"]).text
    for text in (findings.headline, *(x.text for x in findings.floors), *(x.text for x in findings.caveats)):
        assert text in page
    for fact in ("300 used of 3052", "10452", "7791", "0.612", "1 of 2 epochs", "24.0 minutes", *runs.training):
        assert fact in page
        assert fact in files["report.md"]
    assert "do NOT beat" in page


def test_findings_json_is_the_findings(files, make_runs):
    assert json.loads(files["findings.json"]) == replace(find(make_runs()), topics=[]).to_mapping()


def test_an_old_report_is_replaced_whole(tmp_path, write, make_runs):
    write(tmp_path, make_runs(study="old"))
    files = write(tmp_path, make_runs(study="new"))
    assert "Study new" in files["report.html"]
    assert not list(tmp_path.rglob(".*"))  # nothing half written is left


def test_figures_follow_the_factors(make_runs):
    assert [plot.name for plot in plots_of(make_runs({**ROLES, "learning_rate": "scientific"}))] == [
        "levels_points_per_image",
        "levels_learning_rate",
        "learning_curves",
    ]


def test_a_study_of_one_seed_can_be_drawn_with_all_that_it_shows(tmp_path, write, make_runs):
    runs = make_runs(num_seeds=1)
    assert "Provisional" in write(tmp_path, runs, find(runs))["report.html"]


def test_figures_that_the_study_no_longer_has_are_removed_and_those_of_others_stay(tmp_path, write, make_runs):
    old = {"old_factor": "scientific", "learning_rate": "nuisance", "focal_gamma": "nuisance"}
    write(tmp_path, make_runs(old))
    figures = tmp_path / "analysis" / "figures"
    ours = [figures / f"levels_old_factor.{kind}" for kind in ("svg", "png")]
    assert all(path.is_file() for path in ours)
    others = ("my_figure.svg", "levels_old factor.svg", "levels_old_factor.pdf", "learning_curves_2.svg")
    for name in others:
        (figures / name).write_text("mine")
    write(tmp_path, make_runs())
    assert not any(path.exists() for path in ours)
    assert (figures / "levels_points_per_image.svg").is_file()
    assert [(figures / name).read_text() for name in others] == ["mine"] * 4


@pytest.mark.parametrize("linked", ["analysis", "analysis/figures"])
def test_a_link_to_elsewhere_is_not_followed(tmp_path, linked, write, make_runs):
    victim, study = tmp_path / "victim", tmp_path / "study"
    (victim / "figures").mkdir(parents=True)
    (victim / "levels_x.svg").write_text("mine")
    (study / linked).parent.mkdir(parents=True, exist_ok=True)
    (study / linked).symlink_to(victim)
    with pytest.raises(InputError, match=f"{linked}: must be a folder of its own, is a link to") as caught:
        write(study, make_runs())
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in victim.rglob("*")) == ["figures", "levels_x.svg"]
    assert (victim / "levels_x.svg").read_text() == "mine"


def test_a_linked_figure_is_no_stale_one_of_ours(tmp_path, write, make_runs):
    figures = tmp_path / "analysis" / "figures"
    figures.mkdir(parents=True)
    (tmp_path / "mine.svg").write_text("mine")
    (figures / "levels_old.svg").symlink_to(tmp_path / "mine.svg")
    write(tmp_path, make_runs())
    assert (figures / "levels_old.svg").is_symlink()


@pytest.mark.parametrize(("floor", "words"), [(0.9, "do NOT beat"), (0.65, "may or may not beat"), (0.3, "")])
def test_the_headline_block_says_that_a_floor_is_not_beaten(tmp_path, floor, words, write, make_runs):
    # The recommended cell reaches .65 [.625, .675].
    files = write(tmp_path, make_runs(data={"floors": {"image_majority": {"val/miou": floor}}}))
    block = files["report.html"].partition('<div class="headline')[2].partition("</div>")[0]
    assert block.startswith(' doubtful">' if words else '">')
    assert block.count("<p") == (2 if words else 1)
    assert words in block
    assert words in files["report.md"].partition("## Findings")[0]


def test_half_a_surrogate_pair_is_no_reason_to_fail(tmp_path, write, make_runs):
    files = write(tmp_path, make_runs(study="a\ud800"))  # JSON can hold it, UTF-8 cannot
    assert "Study a?" in files["report.html"]


def test_the_tables_say_who_keeps_a_level_undecided(tmp_path, write, parse, make_runs):
    # At 10 points .6, .61, .62, at 50 always .0005 more; 200 swings so much that it may be far better than both.
    runs = make_runs(levels=((10, 50, 200), (0.001,), (0.0,)))
    runs.trials["objective"] = [0.6, 0.61, 0.62, 0.6005, 0.6105, 0.6205, 0.5, 0.7, 0.6]
    files = write(tmp_path, runs)
    assert "200 may lead by more than the margin" in parse(files["report.html"]).text
    assert "| 10 | undecided; 200 may lead by more than the margin; " in files["report.md"]
    assert re.search(r"some \d+ further seeds would likely decide \(80 %\) \|", files["report.md"])


# Confirmation, searches -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def confirmed_files(tmp_path_factory, write, make_runs, confirm_all):
    return write(tmp_path_factory.mktemp("confirmed"), confirm_all(make_runs()))


def test_a_confirmed_report_is_of_the_test_split_and_shows_what_exploration_had_read(confirmed_files, parse):
    page = parse(confirmed_files["report.html"])
    for text in (page.text, confirmed_files["report.md"].replace("\\", "")):
        assert "test/miou 0.600 [0.575, 0.625] over 3 fresh seeds" in text
        assert "Exploration had read val/miou of the chosen settings 0.020 better on average" in text
        for reading in ("0.650 [0.625, 0.675]", "0.630 [0.605, 0.655]", "0.600 [0.575, 0.625]"):  # of the last cell
            assert reading in text
        assert "exploration: 0, 1 and 2; confirmation: 100, 101 and 102" in text
        assert "These runs alone read the test split" in text
        assert "fresh seeds would tell" not in text
        assert "confirm-demo-000000000002" in text
        titles = ("test/miou by points per image.", "val/miou in exploration and on fresh seeds.", "val/miou by epoch.")
        assert all(title.removesuffix(".") in text for title in titles)
    assert "on the same test images" in " ".join(page.text.split())
    assert "Thin lines: fresh seeds." in page.text
    assert json.loads(confirmed_files["findings.json"])["phase"] == "confirm"


def test_the_axis_says_which_split_was_read(monkeypatch, make_runs, confirm_all):
    labels = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_ylabel", lambda self, label, **_: labels.append(label))
    plots_of(make_runs())
    assert labels[0] == "val/miou"
    labels.clear()
    plots_of(confirm_all(make_runs()))
    assert labels[0] == "test/miou"


def test_a_search_is_reported_without_a_map(tmp_path, write, make_runs):
    roles = {"points_per_image": "scientific", "learning_rate": "nuisance", "weight_decay": "nuisance"}
    runs = make_runs(roles, levels=((10, 50), (0.001,), (0.0,)))
    rates = {10: 0.0123, 50: 0.0456}  # each level has its own setting
    for table in (runs.trials, runs.epochs):
        table["learning_rate"] = table["points_per_image"].map(rates)
        table["weight_decay"] = table["points_per_image"].map(rates) / 10
    files = write(tmp_path, replace(runs, search=SearchTerms(is_grid=False)))
    assert not [name for name in files if "map" in name]
    assert "Searched, not compared: learning rate and weight decay were tuned at each level" in files["report.md"]
    assert "points per image 10: 1; points per image 50: 1" in files["report.md"]


def test_a_cell_that_was_confirmed_and_never_explored_can_be_drawn(tmp_path, write, make_runs, confirm_all):
    runs = confirm_all(make_runs())
    explored = (runs.trials["phase"] == "explore") & (runs.trials["points_per_image"] == 50)
    files = write(tmp_path, replace(runs, trials=runs.trials[~explored]))
    assert "not explored" in files["report.md"]
    assert files["figures/map_learning_rate_focal_gamma.svg"]
    alone = runs.trials[runs.trials["phase"] == "confirm"]
    files = write(tmp_path, replace(runs, trials=alone))
    assert "none: the confirmed settings were given" in files["report.md"]
