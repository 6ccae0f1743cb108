import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainable.config import AnnotationConfig, DataConfig, InputError, SyntheticConfig
from trainable.data import describe_data, load_index, load_store
from trainable.scenes import SPLITS, check_test_split, check_train_images

MADE = DataConfig(synthetic=SyntheticConfig(num_scenes=3, images_per_scene=2, image_size=32))


def test_made_data_is_written_once(tmp_path: Path) -> None:
    first, written = load_index(MADE, tmp_path), tmp_path.stat().st_mtime_ns
    assert load_index(MADE, tmp_path) == first
    assert tmp_path.stat().st_mtime_ns == written  # no scratch folder came and went either
    assert list(tmp_path.iterdir()) == [first.root]


def test_damaged_made_data_are_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = load_index(MADE, tmp_path)
    path = first.pairs[0].image
    path.write_bytes(path.read_bytes()[:-1])
    assert load_index(MADE, tmp_path) == first  # by its fingerprint, too
    assert f"{first.root} is damaged (images/{path.name} has another checksum)" in caplog.text


def test_other_made_data_lie_elsewhere(tmp_path: Path) -> None:
    other = DataConfig(synthetic=SyntheticConfig(num_scenes=3, images_per_scene=2, image_size=32, seed=1))
    assert load_index(other, tmp_path).root != load_index(MADE, tmp_path).root


def test_a_folder_is_read_where_it_is(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # root is relative to the working directory
    index = load_index(DataConfig(root="data"), tmp_path / "cache")
    assert [pair.image for pair in index.pairs][:2] == [Path("data/images/a_0.png"), Path("data/images/a_1.png")]
    assert not (tmp_path / "cache").exists()


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root: .*nowhere: no such folder"):
        load_index(DataConfig(root=str(tmp_path / "nowhere")), tmp_path)


def test_the_description_worked_by_hand(data_folder: Path, tmp_path: Path) -> None:
    # Every mask is all forest but one, whose left quarter is background: its split of two images has 7/8 forest.
    mask = np.full((8, 8), 255, dtype=np.uint8)
    mask[:, :2] = 0
    Image.fromarray(mask).save(data_folder / "masks" / "a_0.png")
    config = DataConfig(root=str(data_folder))
    index = load_index(config, tmp_path)
    described = describe_data(config, index, load_store(index, 8, tmp_path, lambda done: None))
    assert described["source"] == str(data_folder.resolve())
    assert described["fingerprint"] == index.fingerprint
    assert (described["num_images"], described["num_images_available"], described["num_scenes"]) == (6, 6, 3)
    assert (described["num_bands"], described["image_size"]) == (3, 8)
    assert described["class_names"] == ["background", "forest"]
    for split in SPLITS:
        assert described["splits"][split] == {"num_images": 2, "scenes": index.scenes(split)}
        assert described["forest_share"][split] == (7 / 8 if index.scenes(split) == ["a"] else 1.0)


@pytest.fixture
def point_folder(data_folder: Path) -> Path:
    """One image a scene labelled: two points of forest, one of background; c_1 has one of forest more."""
    points = [(f"{scene}_0.png", x, y, name) for scene in "abc" for x, y, name in ((0, 0, "forest"), (3, 3, "forest"))]
    points += [(f"{scene}_0.png", 7, 0, "background") for scene in "abc"] + [("c_1.png", 5, 5, "forest")]
    lines = [f"{name},{x},{y},{kind}" for name, x, y, kind in points]
    (data_folder / "points.csv").write_text("\n".join(["image,x,y,class", *lines]) + "\n")
    shutil.rmtree(data_folder / "masks")
    return data_folder


def test_points_are_described_by_themselves(point_folder: Path, tmp_path: Path) -> None:
    config = DataConfig(root=str(point_folder), annotations=AnnotationConfig(path="points.csv"))
    index = load_index(config, tmp_path)
    described = describe_data(config, index, load_store(index, 8, tmp_path, lambda done: None))
    check_test_split(index)
    assert described["annotations"] == "points"
    for split in SPLITS:
        forest = 3 if index.scenes(split) == ["c"] else 2
        assert described["splits"][split]["num_points"] == {"background": 1, "forest": forest}
        assert described["splits"][split]["num_labelled"] == (2 if index.scenes(split) == ["c"] else 1)
        assert described["forest_share"][split] == forest / (forest + 1)
    # All forest is right at the forest's share of the points, of which the other pixels are no part.
    assert described["floors"]["all_forest"]["val/accuracy"] == described["forest_share"]["val"]
    assert described["warnings"] == ["2 of 6 images have no point and teach nothing, for example a_1.png"]
    assert json.loads(json.dumps(described, allow_nan=False)) == described


def test_only_images_that_somebody_labelled_can_be_asked_for(point_folder: Path, tmp_path: Path) -> None:
    config = DataConfig(root=str(point_folder), annotations=AnnotationConfig(path="points.csv"))
    index = load_index(config, tmp_path)
    count = 2 if index.scenes("train") == ["c"] else 1
    for wanted in (None, count):
        check_train_images(index, wanted)
    with pytest.raises(InputError, match=rf"^train_images: must be at most the {count} labelled training images, got"):
        check_train_images(index, count + 1)


def test_a_test_split_without_points_has_no_share(point_folder: Path, tmp_path: Path) -> None:
    config = DataConfig(root=str(point_folder), annotations=AnnotationConfig(path="points.csv"))
    (unused,) = load_index(config, tmp_path).scenes("test")
    lines = (point_folder / "points.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(f"{unused}_")]
    (point_folder / "points.csv").write_text("\n".join(kept) + "\n")
    index = load_index(config, tmp_path)
    described = describe_data(config, index, load_store(index, 8, tmp_path, lambda done: None))
    assert described["forest_share"].keys() == {"train", "val"}
    assert {name.partition("/")[0] for name in described["floors"]["all_forest"]} == {"val"}
    with pytest.raises(
        InputError, match=rf"^data\.annotations: the images of the test split .* label some in {unused},"
    ):
        check_test_split(index)  # and so without confirmation alone
    assert described["splits"]["test"]["num_points"] == {"background": 0, "forest": 0}
    assert "no pixel of the test split is forest" in described["warnings"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_floors_are_those_of_the_splits_that_evaluate(tmp_path: Path, split: str) -> None:
    index = load_index(MADE, tmp_path)
    check_test_split(index)
    described = describe_data(MADE, index, load_store(index, 32, tmp_path, lambda done: None))
    # All forest is right at the forest's share of pixels; forest has that IoU, background 0, and mIoU is their mean.
    share = described["forest_share"][split]
    floor = described["floors"]["all_forest"]
    assert floor[f"{split}/accuracy"] == pytest.approx(share, abs=1e-12)
    assert floor[f"{split}/miou"] == pytest.approx(share / 2, abs=1e-12)
    assert described["floors"]["image_majority"][f"{split}/accuracy"] >= floor[f"{split}/accuracy"]
    assert {name.partition("/")[0] for name in floor} == {"val", "test"}
    assert described["source"] == "synthetic"


def test_the_description_is_plain_json(tmp_path: Path) -> None:
    index = load_index(MADE, tmp_path)
    described = describe_data(MADE, index, load_store(index, 32, tmp_path, lambda done: None))
    assert json.loads(json.dumps(described, allow_nan=False)) == described
