import json

import pytest
import yaml

from analysis.analyze import analyze_study
from trainable.config import InputError, TrainConfig

COUNTS, SEEDS = (10, 50), (0, 1, 2)


@pytest.fixture(scope="module")
def study_dir(tmp_path_factory, write_run):
    """A study of two point counts at three seeds, as W&B writes it."""
    folder = tmp_path_factory.mktemp("analyze") / "demo"
    folder.mkdir()
    for count in COUNTS:
        for seed in SEEDS:
            trial_id = f"{100 * count + seed:012x}"
            training = TrainConfig(points_per_image=count, seed=seed, epochs=1).to_mapping()
            config = {
                "study": "demo",
                "trial_id": trial_id,
                "seed": seed,
                "parameters": {"points_per_image": count},
                "roles": {"points_per_image": "scientific"},
                "training": training,
                "data_config": {"root": "/data/forest"},
                "data": {"fingerprint": "ab12", "source": "/data/forest", "floors": {"all_forest": {"val/miou": 0.9}}},
                "objective": {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
                "trainer_version": "1",
            }
            rows = [{"epoch": 1, "val/miou": 0.5 + 0.002 * count + 0.01 * seed, "time/total_s": 2.0}]
            write_run(folder, f"demo-{trial_id}", rows, config=config, summary={"state": "completed"})
    return folder


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


def test_a_folder_without_runs_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match="no W&B runs"):
        analyze_study(tmp_path)
    assert list(tmp_path.iterdir()) == []
