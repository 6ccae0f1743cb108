"""Map coordinates and pixels in GeoJSON: which of the two, and where they land."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainable.config import AnnotationConfig, InputError
from trainable.point_files import read_annotations
from trainable.point_geojson import read_geojson

rasterio = pytest.importorskip("rasterio", reason="needs the extra `geo`")

UTM = "urn:ogc:def:crs:EPSG::26911"
# Three quarters across and a quarter down pixel (row 2, column 5), of 2 m pixels from the corner (500000, 4000000).
PLACE = (500011.5, 3999995.5)
PIXEL = [(2.25, 5.75)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """located.tif is georeferenced, half.tif has a geotransform without CRS, plain.png has nothing; 8 x 6 pixels."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "plain.png")
    for name, crs in (("located", "EPSG:26911"), ("half", None)):
        transform = rasterio.Affine(2, 0, 500000, 0, -2, 4000000)
        shape = {"width": 8, "height": 6, "count": 4, "dtype": "uint8"}
        with rasterio.open(
            tmp_path / f"images/{name}.tif", "w", "GTiff", crs=crs, transform=transform, **shape
        ) as raster:
            raster.write(np.zeros((4, 6, 8), np.uint8))
    return tmp_path


def read(root: Path, image: str, *places: Any, **members: Any) -> list[tuple[float, float]]:
    """(row, column) of each point of a file about one image."""
    geometry = {"type": "MultiPoint", "coordinates": places}
    feature = {"type": "Feature", "geometry": geometry, "properties": {"image": image}}
    document = {"type": "FeatureCollection", "features": [feature], **members}
    (root / "points.geojson").write_text(json.dumps(document))
    config = AnnotationConfig(format="geojson", path="points.geojson", default_class="forest")
    found = read_annotations(config, root, {path.name: path for path in (root / "images").iterdir()})
    return [(point.row, point.column) for point in found[image]]


def named(crs: Any) -> dict[str, Any]:
    return {"crs": {"type": "name", "properties": {"name": crs}}}


def elsewhere(crs: str, x: float, y: float) -> tuple[float, float]:
    """GDAL's own reprojection of a place in UTM."""
    from rasterio.warp import transform

    xs, ys = transform("EPSG:26911", crs, [x], [y])
    return xs[0], ys[0]


def test_the_images_own_system_is_taken_as_it_is(root: Path) -> None:
    assert read(root, "located.tif", PLACE, **named(UTM)) == PIXEL
    assert read(root, "located.tif", [*PLACE, 312.5], **named("EPSG:26911")) == PIXEL  # with a height


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:26910"])
def test_another_named_system_is_reprojected(root: Path, crs: str) -> None:
    found = read(root, "located.tif", elsewhere(crs, *PLACE), **named(crs))
    np.testing.assert_allclose(found, PIXEL, atol=1e-4)


def test_without_a_name_coordinates_are_degrees(root: Path) -> None:
    found = read(root, "located.tif", elsewhere("EPSG:4326", *PLACE))
    np.testing.assert_allclose(found, PIXEL, atol=1e-4)


def test_null_means_pixels_even_where_the_image_is_georeferenced(root: Path) -> None:
    assert read(root, "located.tif", (5.75, 2.25), crs=None) == PIXEL
    assert read(root, "plain.png", (5, 2), crs=None) == [(2.5, 5.5)]


def test_without_name_and_georeference_whole_numbers_are_pixels(root: Path) -> None:
    assert read(root, "plain.png", (5, 2)) == [(2.5, 5.5)]


def test_rounding_does_not_push_a_point_off_the_edge_but_more_does(root: Path) -> None:
    """The far edges lie at x = 500016 and y = 3999988; 0.01 pixels are 0.02 m."""
    (point,) = read(root, "located.tif", (500016.019, 3999987.981), **named(UTM))
    assert point == (pytest.approx(6, abs=1e-9), pytest.approx(8, abs=1e-9))
    assert point < (6, 8)
    assert read(root, "located.tif", (499999.981, 4000000.019), **named(UTM)) == [(0, 0)]
    for outside in ((500016.021, 3999995.5), (500011.5, 4000000.021)):
        with pytest.raises(InputError, match=r"feature 1: the point .* lies outside located\.tif"):
            read(root, "located.tif", outside, **named(UTM))


REFUSED: dict[str, tuple[str, Any, dict[str, Any], str]] = {
    "map coordinates, image nowhere": ("plain.png", PLACE, named(UTM), "plain.png is not georeferenced.*crs.: null"),
    "no system of the image": ("half.tif", PLACE, named(UTM), "half.tif: has a geotransform but no CRS.*a_srs"),
    "no system of the image, degrees": ("half.tif", (-117, 36), {}, "half.tif: has a geotransform but no CRS"),
    "pixels or degrees": ("plain.png", (5.75, 2.25), {}, "pixels or degrees.*crs.: null"),
    "metres without a name": ("located.tif", PLACE, {}, "no crs, which means degrees.*name their crs"),
    "degrees elsewhere": ("located.tif", (11.58, 48.14), {}, "outside located.tif"),
    "where the projection ends": ("located.tif", (63, 0), {}, "outside located.tif"),
    "unknown code": ("located.tif", PLACE, named("EPSG:1"), "'EPSG:1' is no coordinate reference system"),
    "a definition for a name": ("located.tif", PLACE, named("+init=/etc/passwd:x"), "crs .* is no name"),
    "a number for a name": ("located.tif", PLACE, named(26911), "name must be text"),
    "a link": ("located.tif", PLACE, {"crs": {"type": "link", "properties": {"href": "x"}}}, "name must be text"),
    "a text for a system": ("located.tif", PLACE, {"crs": "EPSG:26911"}, "properties must be an object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_placed_is_refused(root: Path, case: str) -> None:
    image, place, members, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        read(root, image, place, **members)
    assert "points.geojson" in str(caught.value)


def point(coordinates: Any, kind: str = "Point", **properties: Any) -> str:
    feature = {"geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}
    return json.dumps({"features": [feature], "crs": None})


BAD_FEATURES = {
    "polygon": (point([], "Polygon"), "geometry of type 'Polygon'"),
    "no geometry": ('{"features": [{"geometry": null}]}', "geometry must be an object"),
    "no feature": ('{"features": [3]}', "geometry must be an object"),
    "one coordinate": (point([5]), r"coordinates must be \[x, y\]"),
    "no coordinates": (point(None), "coordinates must be a list"),
    "a point of points": (point([[5, 2]]), r"coordinates must be \[x, y\]"),
    "text": (point(["five", 2]), "x must be a finite number"),
    "truth": (point([True, 2]), "x must be a finite number"),
    "huge integer": (point([10**400, 2]), "x must be a finite number"),
    "deep coordinate": (point([[[[[[[]]]]]], 2]), "x must be a finite number"),
    "two classes": (point([5, 2], name="a", label="b"), "the class could be in label or name"),
    "a class of another kind": (point([5, 2], name=["a"]), "the class must be a name"),
    "an image of another kind": (point([5, 2], image=3), "image must be a file name"),
    "properties of another kind": (
        '{"features": [{"geometry": {"type": "Point", "coordinates": [5, 2]}, "properties": 3}]}',
        "properties must be an object",
    ),
}


@pytest.mark.parametrize("case", BAD_FEATURES)
def test_what_is_no_point_is_refused(tmp_path: Path, case: str) -> None:
    content, message = BAD_FEATURES[case]
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(InputError, match=rf"a\.geojson: feature 1: {message}"):
        read_geojson(tmp_path / "a.geojson")
