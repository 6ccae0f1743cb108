"""Points written out for people, filled in by them, and read back as the labels of a run."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainable.config import CLASS_NAMES, AnnotationConfig, DataConfig, InputError, SplitConfig, TrainConfig
from trainable.data import load_index, load_store
from trainable.labelling import write_points_to_label
from trainable.points import draw_points
from trainable.store import open_store

CONFIG = TrainConfig(points_per_image=5, point_strategy="grid", image_size=32)


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """Three scenes of two images of 64 x 48 px, without masks."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    for number, scene in enumerate("abc"):
        for patch in range(2):
            Image.new("RGB", (64, 48), (40 * number, 90, 20 * patch)).save(root / "images" / f"{scene}_{patch}.png")
    return root


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_without_masks_the_classes_are_left_to_be_filled_in(unlabelled: Path) -> None:
    out = unlabelled / "points.csv"
    write_points_to_label(unlabelled, CONFIG, out)
    rows = read_rows(out)
    assert [row["class"] for row in rows] == [""] * 6 * 5
    assert [row["rank"] for row in rows[:5]] == ["1", "2", "3", "4", "5"]
    blank = np.zeros((32, 32), dtype=np.uint8)
    drawn = draw_points(blank, 5, "a_0.png", CONFIG)
    # A pixel of the 32 x 32 square is 2 px wide and 1.5 px high in the image.
    assert [float(row["x"]) for row in rows[:5]] == ((drawn.columns + 0.5) * 2).tolist()
    assert [float(row["y"]) for row in rows[:5]] == ((drawn.rows + 0.5) * 1.5).tolist()


def test_what_people_fill_in_is_what_a_run_sees(unlabelled: Path, tmp_path: Path) -> None:
    out = unlabelled / "points.csv"
    write_points_to_label(unlabelled, CONFIG, out)
    rows = read_rows(out)
    for row in rows:
        row["class"] = CLASS_NAMES[int(row["rank"]) % 2]
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    data = DataConfig(
        root=str(unlabelled),
        annotations=AnnotationConfig(path="points.csv"),
        split=SplitConfig(train=0.4, val=0.3, test=0.3),
    )
    store = open_store(load_store(load_index(data, tmp_path), 32, tmp_path, lambda done: None))
    drawn = draw_points(np.zeros((32, 32), dtype=np.uint8), 5, store.names[0], CONFIG)
    expected = np.full((32, 32), 255, dtype=np.uint8)
    expected[drawn.rows, drawn.columns] = [1, 0, 1, 0, 1]
    np.testing.assert_array_equal(store.masks[0], expected)


def test_with_masks_the_points_are_those_of_a_run_on_that_folder(data_folder: Path, tmp_path: Path) -> None:
    half = np.zeros((8, 8), dtype=np.uint8)
    half[:, 4:] = 255
    for path in (data_folder / "masks").iterdir():
        Image.fromarray(half).save(path)
    config = TrainConfig(points_per_image=7, point_strategy="boundary", image_size=32)
    out = tmp_path / "points.csv"
    write_points_to_label(data_folder, config, out)
    index = load_index(DataConfig(root=str(data_folder)), tmp_path)
    store = open_store(load_store(index, 32, tmp_path, lambda done: None))
    drawn = draw_points(store.masks[0], 7, store.names[0], config)
    rows = [row for row in read_rows(out) if row["image"] == store.names[0]]
    assert [row["class"] for row in rows] == [CLASS_NAMES[each] for each in drawn.classes]
    assert [float(row["x"]) for row in rows] == ((drawn.columns + 0.5) / 4).tolist()


def test_geojson_without_a_place_on_the_map_is_in_pixels(unlabelled: Path, tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="the extra canopoint[geo] is not installed")
    out = tmp_path / "points.geojson"
    write_points_to_label(unlabelled, CONFIG, out)
    document = json.loads(out.read_text())
    assert document["crs"] is None
    assert len(document["features"]) == 30


@pytest.mark.parametrize(
    ("out", "strategy", "message"),
    [
        ("points.txt", "uniform", r"points\.txt: must end in \.csv or \.geojson"),
        ("there.csv", "uniform", r"there\.csv: exists already, and may hold labels"),
        ("points.csv", "boundary", r"--strategy: boundary places points by masks, and .*data has none"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    unlabelled: Path, tmp_path: Path, out: str, strategy: str, message: str
) -> None:
    (tmp_path / "there.csv").write_text("labelled")
    with pytest.raises(InputError, match=message):
        write_points_to_label(unlabelled, TrainConfig(point_strategy=strategy, image_size=32), tmp_path / out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "there.csv"]
    assert (tmp_path / "there.csv").read_text() == "labelled"
