import json
import shutil

import pytest
import yaml

from analysis.analyze import analyze_study
from analysis.reading.source import find_source
from trainable.config import InputError, TrainConfig

COUNTS, SEEDS = (10, 50), (0, 1, 2)


@pytest.fixture(scope="module")
def study_dir(tmp_path_factory, write_run):
    """A study of two point counts at three seeds, as W&B writes it."""
    folder = tmp_path_factory.mktemp("analyze") / "demo"
    folder.mkdir()
    for count in COUNTS:
        for seed in SEEDS:
            add_run(write_run, folder, count, seed)
    return folder


@pytest.fixture(scope="module")
def confirmed_dir(study_dir, tmp_path_factory, write_run):
    """The same study with both counts confirmed at two seeds, and a run that a scheduler stopped."""
    folder = shutil.copytree(study_dir, tmp_path_factory.mktemp("confirmed") / "demo")
    for count in COUNTS:
        for seed in (100, 101):
            add_run(write_run, folder, count, seed, phase="confirm")
    add_run(write_run, folder, 50, 3, state="stopped")
    return folder


def add_run(write_run, folder, count, seed, phase="explore", state="completed"):
    trial_id = f"{1000 * count + seed:012x}"
    confirms = phase == "confirm"
    training = TrainConfig(points_per_image=count, seed=seed, epochs=1, evaluate_test=confirms).to_mapping()
    floor = {"val/miou": 0.9, "test/miou": 0.2}
    config = {
        "study": "demo",
        "trial_id": trial_id,
        "seed": seed,
        "phase": phase,
        "parameters": {"points_per_image": count},
        "roles": {"points_per_image": "scientific"},
        "training": training,
        "data_config": {"root": "/data/forest"},
        "data": {"fingerprint": "ab12", "source": "/data/forest", "floors": {"all_forest": floor}},
        "objective": {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
        "trainer_version": "1",
    }
    row = {"epoch": 1, "val/miou": 0.5 + 0.002 * count + 0.01 * (seed % 100), "time/total_s": 2.0}
    test = {"test/miou": row["val/miou"] - 0.1} if confirms else {}
    write_run(folder, f"demo-{trial_id}", [row | test], config=config, summary={"state": state})


def test_one_call_reads_the_runs_and_writes_everything(study_dir):
    analysis = analyze_study(study_dir)
    folder = study_dir / "analysis"
    assert analysis.findings_path == folder / "findings.json"
    assert analysis.report_path == folder / "report.html"
    assert analysis.markdown_path == folder / "report.md"
    assert analysis.best_path == folder / "best.yaml"
    assert json.loads(analysis.findings_path.read_text()) == analysis.findings.to_mapping()
    assert "Study demo" in analysis.report_path.read_text()
    assert analysis.markdown_path.read_text().startswith("# Study demo")
    assert yaml.safe_load(analysis.best_path.read_text())["training"]["points_per_image"] == 50
    # 0.5 + 0.002 * 50 + 0.01 * seed: .60, .61, .62; 4.302653 * .01 / sqrt(3) = .0248.
    assert analysis.text.startswith("Label 50 points per image: val/miou 0.610 [0.585, 0.635] over 3 seeds.\n")
    assert 'do NOT beat calling every pixel "forest"' in analysis.text


def test_pictures_are_drawn_where_the_results_go(study_dir, tmp_path):
    drawn = []
    analyze_study(
        find_source(study_dir, out=tmp_path / "out"), lambda runs, _, out: drawn.append((runs.study_dir, out))
    )
    assert drawn == [(study_dir, tmp_path / "out")]


def test_a_folder_without_runs_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match="no W&B runs"):
        analyze_study(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_results_that_cannot_be_written_are_refused_before_anything_is_read(study_dir, tmp_path, monkeypatch):
    def is_called(source):
        raise AssertionError("the runs were read")

    monkeypatch.setattr("analysis.analyze.load_study", is_called)
    (tmp_path / "file").write_text("")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "analysis").write_text("")
    for out in ("file", "file/x", "study"):
        with pytest.raises(InputError, match=r"^--out: \S+ is a file; name another folder$"):
            analyze_study(find_source(study_dir, out=tmp_path / out))


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nosuch: no such folder$"):
        analyze_study(tmp_path / "nosuch")
    assert list(tmp_path.iterdir()) == []


def test_a_confirmed_study_is_read_on_the_test_split(confirmed_dir):
    analysis = analyze_study(confirmed_dir)
    found = json.loads(analysis.findings_path.read_text())
    assert (found["schema_version"], found["phase"], found["metric"]) == ("4", "confirm", "test/miou")
    # .50 and .51; 12.706205 * .00707107 / sqrt(2) = .0635. What `extend` reads: factors, their levels, the arms.
    assert analysis.text.startswith("Label 50 points per image: test/miou 0.505 [0.441, 0.569] over 2 fresh seeds.\n")
    assert 'The networks beat calling every pixel "forest" (test/miou 0.200).' in analysis.text
    (factor,) = (factor for factor in found["factors"] if factor["role"] == "scientific")
    assert [(level["level"], level["verdict"]) for level in factor["levels"]] == [(10, "not enough"), (50, "best")]
    assert [(arm["scientific"], arm["parameters"]) for arm in found["arms"]] == [
        ({"points_per_image": n}, {"points_per_image": n}) for n in COUNTS
    ]
    assert found["arms"][1]["explored"]["value"] == pytest.approx(0.61)
    assert found["arms"][1]["val"]["value"] == pytest.approx(0.605)
    assert found["excluded"][0][1].startswith("stopped early at epoch 1 of 1 by the scheduler")
    best = yaml.safe_load(analysis.best_path.read_text())
    assert best["training"]["evaluate_test"] is True
    assert best["reproduces"]["value"] == pytest.approx(0.5)
