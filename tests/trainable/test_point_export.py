"""Points written out and read back: the same pixels, whatever the sizes, after somebody has filled in the classes."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainable.config import AnnotationConfig, InputError
from trainable.geo import Georeference, read_geotransform
from trainable.point_export import PointRow, export_points, write_points_csv, write_points_geojson
from trainable.point_files import read_annotations
from trainable.points import Points

# Width and height of the image, side of the square that points are drawn on: shrunk, as it is, grown, by odd factors.
SIZES = [(256, 256, 64), (64, 64, 64), (64, 64, 96), (512, 300, 64), (100, 37, 32), (33, 50, 128), (1, 1, 32)]
ROW = PointRow("a_0.png", 1, 5.75, 2.25, "")
HERE = {"type": "Point", "coordinates": [5.75, 2.25]}


def draw(side: int, seed: int = 0) -> Points:
    """Sixty pixels, in no order, whose classes are not known."""
    rows, columns = np.divmod(np.random.default_rng(seed).permutation(side**2)[:60], side)
    return Points(rows, columns, np.full(60, 255, np.uint8))


def fill_in(path: Path, names: list[str], as_spreadsheet: bool = False) -> None:
    """What a person does in a spreadsheet, which may save 13.0 as 13."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    for row, name in zip(rows, names, strict=True):
        row[header.index("class")] = name
        if as_spreadsheet:
            row[2:4] = [f"{float(value):.10g}" for value in row[2:4]]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def test_positions_by_hand() -> None:
    """Of a square of 4: pixel (3, 1) of a 10 x 6 image ends up at x = 1.5 / 4 * 10, y = 3.5 / 4 * 6."""
    points = Points(np.array([3, 0]), np.array([1, 0]), np.array([1, 255], np.uint8))
    assert export_points([("a.png", (10, 6), points, 4)]) == [
        PointRow("a.png", 1, 3.75, 5.25, "forest"),
        PointRow("a.png", 2, 1.25, 0.75, ""),
    ]


def test_csv_by_hand(tmp_path: Path) -> None:
    write_points_csv(tmp_path / "points.csv", [ROW, PointRow("b, c.png", 2, 3.0, 0.5, "forest")])
    assert (tmp_path / "points.csv").read_text() == (
        'image,rank,x,y,class\na_0.png,1,5.75,2.25,\n"b, c.png",2,3.0,0.5,forest\n'
    )


@pytest.mark.parametrize("as_spreadsheet", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_csv_leads_back_to_the_same_pixels(tmp_path: Path, size: tuple[int, int, int], as_spreadsheet: bool) -> None:
    width, height, side = size
    images = {name: tmp_path / name for name in ("a_0.png", "b_0.png")}
    drawn = {name: draw(side, seed) for seed, name in enumerate(images)}
    for path in images.values():
        Image.new("L", (width, height)).save(path)
    path = tmp_path / "points.csv"
    write_points_csv(path, export_points([(name, (width, height), each, side) for name, each in drawn.items()]))
    classes = np.random.default_rng(7).integers(0, 2, 120)
    fill_in(path, [("background", "forest")[index] for index in classes], as_spreadsheet)
    found = read_annotations(AnnotationConfig(path="points.csv"), tmp_path, images)
    for name, expected in zip(images, classes.reshape(2, 60), strict=True):
        assert [int(p.row * side / height) for p in found[name]] == drawn[name].rows.tolist()
        assert [int(p.column * side / width) for p in found[name]] == drawn[name].columns.tolist()
        assert [p.class_index for p in found[name]] == expected.tolist()


def test_classes_left_open_are_refused_when_read(tmp_path: Path) -> None:
    Image.new("L", (8, 6)).save(tmp_path / "a_0.png")
    write_points_csv(tmp_path / "points.csv", [ROW])
    with pytest.raises(InputError, match="row 2: the point has no class"):
        read_annotations(AnnotationConfig(path="points.csv"), tmp_path, {"a_0.png": tmp_path / "a_0.png"})


HOSTILE = (
    '=HYPERLINK("http://x")_0.png', "+1_0.png", "-1_0.png", "@SUM(1)_0.png", " =1_0.png", "\t=1_0.png", "＝1_0.png",
    "a;=1_0.png", "a,=1_0.png", 'a"=1_0.png', "a\n=1_0.png", "a\r_0.png", "a\udcff_0.png",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_would_be_formulas_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"points\.csv: .*rename the image") as caught:
        write_points_csv(tmp_path / "points.csv", [ROW, PointRow(name, 1, 1.5, 1.5, "")])
    assert str(caught.value).isprintable()
    assert not (tmp_path / "points.csv").exists()


@pytest.mark.parametrize("name", ["10452_sat_08.jpg", "site 3 - north=1.tif", "é_0.png", "a'b.png", "#1_0.png"])
def test_names_that_are_none_are_written_as_they_are(tmp_path: Path, name: str) -> None:
    write_points_csv(tmp_path / "points.csv", [PointRow(name, 1, 1.5, 1.5, "")])
    with (tmp_path / "points.csv").open(newline="", encoding="utf-8") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [name]


def test_geojson_in_pixels_by_hand(tmp_path: Path) -> None:
    write_points_geojson(tmp_path / "p.geojson", [ROW], {"a_0.png": None})
    assert json.loads((tmp_path / "p.geojson").read_text()) == {
        "type": "FeatureCollection",
        "crs": None,
        "features": [
            {"type": "Feature", "properties": {"image": "a_0.png", "rank": 1, "class": None}, "geometry": HERE}
        ],
    }


def test_geojson_in_map_coordinates_by_hand(tmp_path: Path) -> None:
    pytest.importorskip("pyproj", reason="needs the extra `geo`")
    place = Georeference((2.0, 0.0, 500000.0, 0.0, -2.0, 4000000.0), "EPSG:26911")
    write_points_geojson(tmp_path / "p.geojson", [ROW], {"a_0.png": place})
    document = json.loads((tmp_path / "p.geojson").read_text())
    assert document["crs"] == {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::26911"}}
    assert document["features"][0]["geometry"]["coordinates"] == [500011.5, 3999995.5]


# The systems of two images; in which one the file is written.
SYSTEMS: dict[str, tuple[tuple[str | None, str | None], Any]] = {
    "neither": ((None, None), None),
    "both in one": (("EPSG:26911", "EPSG:26911"), "urn:ogc:def:crs:EPSG::26911"),
    "two zones": (("EPSG:26910", "EPSG:26911"), "degrees"),
    "no code": (("+proj=tmerc +lat_0=36 +lon_0=-117 +x_0=500000 +y_0=4000000 +datum=WGS84",) * 2, "degrees"),
}


@pytest.mark.parametrize("case", SYSTEMS)
@pytest.mark.parametrize("size", SIZES[:-1])
def test_geojson_leads_back_to_the_same_pixels(tmp_path: Path, size: tuple[int, int, int], case: str) -> None:
    rasterio = pytest.importorskip("rasterio", reason="needs the extra `geo`")
    (systems, written), (width, height, side) = SYSTEMS[case], size
    images = {name: tmp_path / name for name in ("a_0.tif", "b_0.tif")}
    for system, image in zip(systems, images.values(), strict=True):
        if system is None:
            Image.new("L", (width, height)).save(image)
            continue
        options = {"transform": rasterio.Affine(0.6, 0, 499000, 0, -0.6, 3999000), "crs": system}
        with rasterio.open(image, "w", "GTiff", width, height, 1, dtype="uint8", **options) as raster:
            raster.write(np.zeros((1, height, width), np.uint8))
    drawn = {name: draw(side, seed) for seed, name in enumerate(images)}
    rows = export_points([(name, (width, height), each, side) for name, each in drawn.items()])
    path = tmp_path / "points.geojson"
    write_points_geojson(path, rows, {name: read_geotransform(image) for name, image in images.items()})

    document = json.loads(path.read_text())
    assert document.get("crs", "degrees") == (
        written if written in (None, "degrees") else {"type": "name", "properties": {"name": written}}
    )
    for feature in document["features"]:
        feature["properties"]["class"] = "forest"
    path.write_text(json.dumps(document))
    found = read_annotations(AnnotationConfig(format="geojson", path="points.geojson"), tmp_path, images)
    for name, each in drawn.items():
        assert [int(p.row * side / height) for p in found[name]] == each.rows.tolist()
        assert [int(p.column * side / width) for p in found[name]] == each.columns.tolist()


def test_geojson_of_images_here_and_nowhere_is_refused(tmp_path: Path) -> None:
    place = Georeference((2.0, 0.0, 0.0, 0.0, -2.0, 0.0), "EPSG:26911")
    rows = [ROW, PointRow("b_0.png", 1, 1.0, 1.0, "")]
    with pytest.raises(InputError, match=r"p\.geojson: b_0\.png is not georeferenced, a_0\.png is; write .* CSV"):
        write_points_geojson(tmp_path / "p.geojson", rows, {"a_0.png": place, "b_0.png": None})
    assert not (tmp_path / "p.geojson").exists()
