import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from analysis.reading.scene_counts import pooled_metric, read_scene_counts
from trainable.config import InputError
from trainable.sealed import write_sealed

TRIAL = "0123456789ab"
SCENES = {"x.png": "b", "y.png": "a", "z.png": "b"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of one trial with counts of three images of two scenes."""
    write_sealed(tmp_path / "scenes.json", {"val": SCENES, "test": {}})
    (tmp_path / "trials" / TRIAL).mkdir(parents=True)
    write_counts(tmp_path)
    return tmp_path


def write_counts(folder, names=tuple(SCENES), confusion=None):
    counts = np.arange(12).reshape(3, 2, 2) if confusion is None else confusion
    np.savez_compressed(folder / "trials" / TRIAL / "counts.npz", names=np.array(names), confusion=counts)


def test_images_are_added_up_by_scene(folder):
    counts = read_scene_counts(folder, [TRIAL, TRIAL], "val")
    assert counts.scenes == ["a", "b"]
    expected = [[[4, 5], [6, 7]], [[0 + 8, 1 + 9], [2 + 10, 3 + 11]]]
    assert counts.confusion.tolist() == [expected, expected]


def test_without_scenes_or_counts_there_is_nothing(folder):
    assert read_scene_counts(folder, [TRIAL], "val") is not None
    assert read_scene_counts(folder, [TRIAL], "test") is None  # the trial did not open it
    assert read_scene_counts(folder, [TRIAL, "ffffffffffff"], "val") is None
    assert read_scene_counts(folder, ["../trials/0123456789ab"], "val") is None
    (folder / "scenes.json").unlink()
    assert read_scene_counts(folder, [TRIAL], "val") is None


@pytest.mark.parametrize(
    ("names", "confusion"),
    [
        (("x.png", "y.png"), np.ones((2, 2, 2))),
        (("y.png", "x.png", "z.png"), np.ones((3, 2, 2))),
        (tuple(SCENES), np.ones((3, 2, 3))),
        (tuple(SCENES), -np.ones((3, 2, 2))),
        (tuple(SCENES), np.full((3, 2, 2), np.nan)),
    ],
)
def test_counts_of_other_images_are_refused(folder, names, confusion):
    write_counts(folder, names, confusion)
    with pytest.raises(
        InputError, match=r"counts.npz: must hold counts of the 3 images in scenes.json; run `canopoint"
    ):
        read_scene_counts(folder, [TRIAL], "val")


def test_a_damaged_a_pickled_and_a_huge_file_are_refused(folder):
    path = folder / "trials" / TRIAL / "counts.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="cannot be read as counts"):
        read_scene_counts(folder, [TRIAL], "val")
    np.savez(path, names=np.array(list(SCENES), dtype=object), confusion=np.ones((3, 2, 2)))
    with pytest.raises(InputError, match="cannot be read as counts"):
        read_scene_counts(folder, [TRIAL], "val")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**8,)})
        archive.writestr("names.npy", pickle.dumps("x"))
        archive.writestr("confusion.npy", header.getvalue() + bytes(300 * 2**20))
    with pytest.raises(InputError, match=r"cannot be read as counts .*an array of more than"):
        read_scene_counts(folder, [TRIAL], "val")


@pytest.mark.parametrize("described", [{"val": []}, {"val": {}}, {"val": {"x.png": 1}}, {"other": SCENES}])
def test_a_list_of_scenes_that_is_none_is_refused(folder, described):
    write_sealed(folder / "scenes.json", described)
    with pytest.raises(InputError, match=r"scenes.json: must name the scene of every image of val; run"):
        read_scene_counts(folder, [TRIAL], "val")


def test_a_changed_list_of_scenes_is_refused(folder):
    path = folder / "scenes.json"
    path.write_text(path.read_text().replace('"b"', '"a"'))
    with pytest.raises(InputError, match=r"scenes.json: damaged"):
        read_scene_counts(folder, [TRIAL], "val")


def test_pooled_metrics_equal_those_of_the_pixels():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 2, (2, 500))
    confusion = np.array([[np.sum((truth == t) & (predicted == p)) for p in (0, 1)] for t in (0, 1)], dtype=float)
    expected = {
        "miou": jaccard_score(truth, predicted, average="macro"),
        "dice": f1_score(truth, predicted, average="macro"),
        "precision": precision_score(truth, predicted, average="macro"),
        "recall": recall_score(truth, predicted, average="macro"),
        "accuracy": accuracy_score(truth, predicted),
        "iou_forest": jaccard_score(truth, predicted),
        "iou_background": jaccard_score(truth, predicted, pos_label=0),
    }
    assert {name: float(pooled_metric(confusion, name)) for name in expected} == pytest.approx(expected)
    assert pooled_metric(confusion, "boundary_f1") is None
    assert pooled_metric(confusion, "iou_water") is None


def test_a_class_that_does_not_occur_is_left_out_of_the_mean():
    assert pooled_metric(np.array([[[9.0, 1.0], [0.0, 0.0]], [[5.0, 0.0], [0.0, 0.0]]]), "miou").tolist() == [0.45, 1.0]
