"""Panels of a finished run: the right scenes, the right images, drawn once."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainable.config import IGNORE_INDEX, DataConfig, SplitConfig, SyntheticConfig, TrainConfig
from trainable.data import load_index, load_store
from trainable.image_table import ImagePair
from trainable.panel_files import lacks_panels
from trainable.panel_picture import Prediction
from trainable.panels import _entry, _labels, _Pick, _pick_scenes, draw_panels
from trainable.sealed import read_sealed, write_sealed
from trainable.store import open_store
from trainable.trained import load_trained
from trainable.trial import run_trial

TRIAL = "0123456789ab"
DATA = DataConfig(
    synthetic=SyntheticConfig(num_scenes=5, images_per_scene=3, image_size=32),
    split=SplitConfig(train=0.4, val=0.2, test=0.4),
)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study of one trial that opened its test split: two scenes of three images."""
    root = tmp_path_factory.mktemp("studies")
    index = load_index(DATA, root / "cache")
    store = open_store(load_store(index, 32, root / "cache", lambda done: None))
    config = TrainConfig(
        encoder="mobilenet_v2", weights="none", image_size=32, epochs=1, batch_size=4, evaluate_test=True,
        points_per_image=7,
    )  # fmt: skip
    list(run_trial(config, store, root / "demo" / "trials" / TRIAL))
    write_sealed(root / "demo" / "data.json", {"fingerprint": index.fingerprint})
    yield root
    shutil.rmtree(root)


def draw(
    studies: Path, said: list[str], data: DataConfig = DATA, num_scenes: int = 2, out: Path | None = None
) -> list[Path]:
    out = out or studies / "demo"
    return draw_panels(studies / "demo", TRIAL, data, studies / "cache", said.append, num_scenes, out=out)


def test_the_best_and_the_worst_test_scene_are_drawn(studies: Path) -> None:
    said: list[str] = []
    paths = draw(studies, said)
    assert said == []
    folder = studies / "demo" / "analysis" / "panels"
    listed = read_sealed(folder / "panels.json")
    assert listed is not None
    best, worst = listed["panels"]
    assert [path.name for path in paths] == [best["file"], worst["file"]]
    assert (best["rank"], worst["rank"], best["num_scenes"]) == (1, 2, 2)
    assert best["title"] == f"Test scene {best['scene']}, 1 of 2 by mIoU"
    assert worst["text"].startswith(f"Test scene {worst['scene']}, 2 of 2 by mIoU: mIoU {worst['miou']:.3f} over its 3")
    assert best["miou"] > worst["miou"]
    assert {entry["split"] for entry in (best, worst)} == {"test"}
    index = load_index(DATA, studies / "cache")
    assert {best["scene"], worst["scene"]} == set(index.scenes("test"))
    assert listed["trial_id"] == best["trial_id"] == TRIAL
    assert "7 points; green discs on forest, yellow squares on background; drawn as the trial draws" in best["text"]
    assert all(word in best["text"] for word in ("in orange", "in blue", "forest dark"))  # what the legend says
    for path in paths:
        with Image.open(path) as picture:
            assert picture.width > 500


def test_they_are_drawn_once_and_anew_where_they_are_damaged(studies: Path) -> None:
    said: list[str] = []
    first, last = draw(studies, said)
    assert not lacks_panels(studies / "demo", TRIAL, studies / "demo")
    before = first.stat().st_mtime_ns
    assert draw(studies, said, DataConfig(root="/nowhere")) == [first, last]  # the images are not even looked for
    assert first.stat().st_mtime_ns == before
    good = last.read_bytes()
    last.write_bytes(good[:-1])
    assert lacks_panels(studies / "demo", TRIAL, studies / "demo")
    assert draw(studies, said) == [first, last]
    assert last.read_bytes() == good
    assert said == []


def test_they_lie_with_the_results_wherever_those_go(studies: Path, tmp_path: Path) -> None:
    said: list[str] = []
    study_before = sorted((studies / "demo").rglob("*"))
    assert lacks_panels(studies / "demo", TRIAL, tmp_path)
    paths = draw(studies, said, out=tmp_path)
    assert {path.parent for path in paths} == {tmp_path / "analysis" / "panels"}
    assert not lacks_panels(studies / "demo", TRIAL, tmp_path)
    assert sorted((studies / "demo").rglob("*")) == study_before
    assert said == []


def test_where_nothing_can_be_written_a_line_says_so(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    (tmp_path / "analysis").write_text("a file")
    assert draw(studies, said, out=tmp_path) == []
    monkeypatch.setattr("trainable.atomic.os.access", lambda path, mode: False)
    assert draw(studies, said, out=tmp_path / "read_only") == []
    monkeypatch.undo()
    (tmp_path / "theirs" / "analysis" / "panels").mkdir(parents=True)
    assert draw(studies, said, out=tmp_path / "theirs") == []
    assert [line.startswith("no prediction panels: ") for line in said] == [True] * 3
    assert ["is a file" in said[0], "cannot be written to" in said[1], "not what canopoint made" in said[2]] == [
        True
    ] * 3


@pytest.mark.parametrize("content", [{"panels": [1]}, {"files": 3, "source": {}}, {"files": {"a": 1}, "source": {}}])
def test_a_list_of_another_shape_is_none(studies: Path, tmp_path: Path, content: dict[str, object]) -> None:
    (tmp_path / "analysis" / "panels").mkdir(parents=True)
    write_sealed(tmp_path / "analysis" / "panels" / "panels.json", content)
    assert lacks_panels(studies / "demo", TRIAL, tmp_path)


def test_a_trial_that_is_not_at_hand_lacks_none(tmp_path: Path) -> None:
    assert not lacks_panels(tmp_path, TRIAL, tmp_path)


def test_without_images_a_line_says_so_and_nothing_fails(studies: Path) -> None:
    said: list[str] = []
    assert draw(studies, said, DataConfig(root="/nowhere"), num_scenes=1) == []
    assert len(said) == 1
    assert said[0].startswith("no prediction panels: data.root: /nowhere: no such folder")


def test_other_images_are_not_passed_off_as_the_study_s(studies: Path) -> None:
    said: list[str] = []
    other = DataConfig(synthetic=SyntheticConfig(num_scenes=5, images_per_scene=3, image_size=32, seed=9))
    assert draw(studies, said, other, num_scenes=1) == []
    assert "other images than those that the study was run on" in said[0]


@pytest.mark.parametrize(
    ("gone", "why"), [("checkpoint", "weights are damaged or gone"), ("counts_test.npz", "absent")]
)
def test_without_its_files_a_trial_has_no_panels(studies: Path, gone: str, why: str) -> None:
    trial = studies / "demo" / "trials" / TRIAL
    (trial / gone).rename(studies / "aside")
    said: list[str] = []
    assert draw(studies, said, num_scenes=1) == []
    (studies / "aside").rename(trial / gone)
    assert len(said) == 1
    assert why in said[0]


def confusion(hits: int, misses: int) -> list[list[int]]:
    return [[hits, 0], [misses, hits]]


def picks(counts: dict[str, list[list[int]]], num_scenes: int) -> list[tuple[str, int, int, str]]:
    """Of images named `<scene>_<n>`: (scene, rank, number of scenes, image)."""
    pairs = {name: ImagePair(Path(name), Path(name), name.partition("_")[0]) for name in counts}
    arrays = {"names": np.array(list(counts)), "confusion": np.array(list(counts.values()))}
    return [(pick.scene, pick.rank, pick.num_scenes, pick.image) for pick in _pick_scenes(arrays, pairs, num_scenes)]


def test_scenes_are_ranked_by_all_their_pixels_and_shown_by_their_most_usual_image() -> None:
    counts = {
        "a_1": confusion(90, 10), "a_2": confusion(99, 1), "a_3": confusion(95, 5),
        "b_1": confusion(50, 50),
        "c_1": confusion(70, 30), "c_2": [[0, 0], [0, 0]],
        "d_1": [[0, 0], [0, 0]],
    }  # fmt: skip
    assert picks(counts, 1) == [("a", 1, 3, "a_3"), ("b", 3, 3, "b_1")]
    assert picks(counts, 2) == picks(counts, 1)  # of three scenes, the middle one is neither
    assert picks({"b_1": confusion(50, 50)}, 2) == [("b", 1, 1, "b_1")]


def test_of_four_scenes_none_is_called_what_it_is_not() -> None:
    counts = {f"{name}_1": confusion(hits, 100 - hits) for name, hits in zip("abcd", (90, 80, 70, 60), strict=True)}
    assert [pick[:3] for pick in picks(counts, 2)] == [(name, n, 4) for n, name in enumerate("abcd", 1)]


def test_a_validation_split_serves_where_no_test_split_was_opened(
    stopped: dict[int, Path], store_folder: Path, tmp_path: Path
) -> None:
    made = SyntheticConfig(num_scenes=4, images_per_scene=4, image_size=32)
    data = DataConfig(synthetic=made, split=SplitConfig(train=0.5, val=0.25, test=0.25))
    index = load_index(data, store_folder.parent)
    shutil.copytree(stopped[3], tmp_path / "demo" / "trials" / TRIAL)
    write_sealed(tmp_path / "demo" / "data.json", {"fingerprint": index.fingerprint})
    said: list[str] = []
    (path,) = draw_panels(tmp_path / "demo", TRIAL, data, store_folder.parent, said.append, out=tmp_path / "demo")
    listed = read_sealed(path.parent / "panels.json")
    assert listed is not None
    assert said == []
    panel = listed["panels"][0]  # one scene of four images
    assert (panel["rank"], panel["num_scenes"], panel["split"]) == (1, 1, "val")
    assert panel["title"] == f"Validation scene {panel['scene']}, the only one"
    shutil.rmtree(tmp_path / "demo")


def test_points_of_people_are_shown_as_they_were_made(studies: Path) -> None:
    trained = load_trained(studies / "demo" / "trials" / TRIAL)
    known = np.full((32, 32), IGNORE_INDEX, dtype=np.uint8)
    known[3, 5], known[20, 1] = 1, 0
    labels = _labels(trained, ImagePair(Path("a.png"), None, "a"), known)
    points = labels.points
    assert points is not None
    assert (points.rows.tolist(), points.columns.tolist(), points.classes.tolist()) == ([3, 20], [5, 1], [1, 0])
    assert (labels.title, labels.are_drawn) == ("people's points", False)


def test_a_run_on_masks_shows_them_as_its_labels_and_draws_no_points(studies: Path) -> None:
    trained = load_trained(studies / "demo" / "trials" / TRIAL)
    dense = replace(trained, config=replace(trained.config, points_per_image="dense"))
    truth = np.zeros((32, 32), dtype=np.uint8)
    labels = _labels(dense, ImagePair(Path("a.png"), Path("a.png"), "a"), truth)
    assert (labels.points, labels.title, labels.are_drawn) == (None, "every pixel labelled", False)
    prediction = Prediction(np.zeros((32, 32, 3), dtype=np.uint8), truth, truth, None, labels.title, [])
    entry = _entry("1_a.png", TRIAL, "val", _Pick(1, 3, "a", 0.5, 2, "a.png", 0.5), labels, prediction)
    assert "its labels (every pixel labelled); the truth" in entry["text"]
