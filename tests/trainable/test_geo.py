"""Georeferenced images: against rasterio and Pillow themselves, and worked by hand."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainable.config import InputError
from trainable.geo import Georeference, crs_urn, read_bands, read_geotransform, to_map, to_pixels

rasterio = pytest.importorskip("rasterio", reason="needs the extra `geo`")

URBAN_TREES = Path(__file__).parents[2] / "../shared/data/urban_trees"
UTM = "EPSG:26911"
# 2 m pixels, the corner of the first at (500000, 4000000), north up.
NORTH_UP = (2.0, 0.0, 500000.0, 0.0, -2.0, 4000000.0)


def write_tif(path: Path, pixels: Any = None, transform: Any = NORTH_UP, crs: str | None = UTM, **options: Any) -> Path:
    """A GeoTIFF of (bands, H, W) pixels, by rasterio."""
    pixels = np.zeros((1, 6, 8), np.uint8) if pixels is None else np.asarray(pixels)
    bands, height, width = pixels.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=rasterio.Affine(*transform), **shape) as raster:
        raster.write(pixels)
        for option, value in options.items():
            raster.update_tags(**{option: value})
    return path


def test_geotransform_is_read_as_written(tmp_path: Path) -> None:
    assert read_geotransform(write_tif(tmp_path / "a.tif")) == Georeference(NORTH_UP, UTM)


def test_an_image_without_georeference_has_none(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.tif"):
        Image.new("RGB", (8, 6)).save(tmp_path / name)
        assert read_geotransform(tmp_path / name) is None


def test_pixel_is_point_is_shifted_to_the_corner(tmp_path: Path) -> None:
    """The file then stores the centre of the first pixel, (500001, 3999999); what we get is its corner all the same."""
    path = write_tif(tmp_path / "a.tif", AREA_OR_POINT="Point")
    assert b"500001" not in path.read_bytes()  # stored as binary doubles
    assert np.float64(500001).tobytes() in path.read_bytes()
    assert read_geotransform(path) == Georeference(NORTH_UP, UTM)


def test_world_file_is_shifted_to_the_corner(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_text("2\n0\n0\n-2\n500001\n3999999\n")  # centre of the first pixel
    assert read_geotransform(tmp_path / "a.png") == Georeference(NORTH_UP, "")


def test_pixels_and_map_by_hand() -> None:
    north_up = Georeference(NORTH_UP, UTM)
    pixels = np.array([[0.0, 0.0], [3.5, 1.5]])
    places = np.array([[500000.0, 4000000.0], [500007.0, 3999997.0]])
    np.testing.assert_allclose(to_map(north_up, pixels, UTM, "test"), places, rtol=0, atol=1e-9)
    np.testing.assert_allclose(to_pixels(north_up, places, UTM, "test"), pixels, rtol=0, atol=1e-9)


def test_rotated_geotransform_agrees_with_rasterio() -> None:
    turned = Georeference((0.5, -0.3, 500000.0, -0.2, -0.6, 4000000.0), UTM)
    pixels = np.random.default_rng(0).uniform(0, 1000, (50, 2))
    places = to_map(turned, pixels, UTM, "test")
    from rasterio.transform import xy

    expected = xy(rasterio.Affine(*turned.transform), pixels[:, 1], pixels[:, 0], offset="ul")
    np.testing.assert_allclose(places, np.array(expected).T, rtol=0, atol=1e-8)
    np.testing.assert_allclose(to_pixels(turned, places, UTM, "test"), pixels, rtol=0, atol=1e-6)


@pytest.mark.parametrize("crs", ["EPSG:4326", "OGC:CRS84", "urn:ogc:def:crs:EPSG::4326", "EPSG:3857", "EPSG:26910"])
def test_reprojection_agrees_with_gdal_and_goes_east_first(crs: str) -> None:
    pixels = np.array([[0.0, 0.0], [3.5, 1.5], [200.0, 100.0]])
    places = to_map(Georeference(NORTH_UP, UTM), pixels, crs, "test")
    from rasterio.warp import transform

    expected = transform(UTM, crs.rpartition("def:crs:")[2].replace("::", ":"), 500000 + 2 * pixels[:, 0],
                         4000000 - 2 * pixels[:, 1])  # fmt: skip
    np.testing.assert_allclose(places, np.array(expected).T, rtol=1e-11)
    np.testing.assert_allclose(to_pixels(Georeference(NORTH_UP, UTM), places, crs, "test"), pixels, atol=1e-4)


def test_geojson_names_of_systems() -> None:
    assert crs_urn(UTM) == "urn:ogc:def:crs:EPSG::26911"
    assert crs_urn('LOCAL_CS["site",UNIT["metre",1]]') is None


@pytest.mark.parametrize("bands", [1, 3, 4, 5, 8])
def test_bands_are_read_as_written(tmp_path: Path, bands: int) -> None:
    pixels = np.random.default_rng(bands).integers(0, 256, (bands, 6, 8), dtype=np.uint8)
    read = read_bands(write_tif(tmp_path / "a.tif", pixels))
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, np.moveaxis(pixels, 0, -1))


@pytest.mark.skipif(not URBAN_TREES.is_dir(), reason="../shared/data/urban_trees is absent")
def test_bands_of_naip_agree_with_pillow_in_the_three_it_knows() -> None:
    for path in sorted((URBAN_TREES / "images").iterdir())[::10]:
        bands = read_bands(path)
        assert bands.shape == (256, 256, 4)
        with Image.open(path) as image:
            np.testing.assert_array_equal(bands[..., :3], np.asarray(image)[..., :3])
        assert bands[..., 3].std() > 0  # near infra-red, not transparency


def _control_points(path: Path) -> None:
    from rasterio.control import GroundControlPoint

    corners = [GroundControlPoint(row, column, column, -row) for row, column in ((0, 0), (0, 8), (6, 0))]
    write_tif(path)
    with rasterio.open(path, "r+") as raster:
        raster.gcps = (corners, rasterio.CRS.from_epsg(26911))


def _no_area(path: Path) -> None:
    Image.new("RGB", (8, 6)).save(path, format="PNG")
    path.with_suffix(".wld").write_text("1\n2\n2\n4\n0\n0\n")


def _elsewhere(path: Path) -> None:
    """A VRT under another name, by which GDAL would read any file or address."""
    target = write_tif(path.with_name("target.tif"))
    path.write_text(
        f'<VRTDataset rasterXSize="8" rasterYSize="6"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{target}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )


def _truncated(path: Path) -> None:
    write_tif(path, np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:6000])


def _palette(path: Path) -> None:
    Image.new("P", (8, 6)).save(path)


BAD_REFERENCES = {"control points": (_control_points, "gdalwarp"), "no area": (_no_area, "georeference it again")}
BAD_RASTERS = {
    "absent": (lambda path: None, "not a whole"),
    "empty": (lambda path: path.touch(), "not a whole"),
    "another file by reference": (_elsewhere, "not a whole"),
    "truncated": (_truncated, "not a whole"),
    "nine bands": (lambda path: write_tif(path, np.zeros((9, 6, 8), np.uint8)), "at most 8"),
    "16-bit": (lambda path: write_tif(path, np.zeros((1, 6, 8), np.uint16)), "gdal_translate -ot Byte"),
    "float": (lambda path: write_tif(path, np.zeros((2, 6, 8), np.float32)), "gdal_translate -ot Byte"),
    "palette": (_palette, "-expand rgb"),
}


@pytest.mark.parametrize("bad", BAD_REFERENCES)
def test_georeference_that_is_no_grid_is_refused(tmp_path: Path, bad: str) -> None:
    make, remedy = BAD_REFERENCES[bad]
    make(tmp_path / "a.tif")
    with pytest.raises(InputError, match=rf"a\.tif: .*{remedy}"):
        read_geotransform(tmp_path / "a.tif")


@pytest.mark.parametrize("bad", BAD_RASTERS)
def test_rasters_that_are_no_8_bit_bands_are_refused(tmp_path: Path, bad: str) -> None:
    make, remedy = BAD_RASTERS[bad]
    make(tmp_path / "a.tif")
    with pytest.raises(InputError, match=rf"a\.tif: .*{remedy}"):
        read_bands(tmp_path / "a.tif")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tif(tmp_path / "a.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6 * 8 - 1)
    with pytest.raises(InputError, match="more than 47 pixels"):
        read_bands(path)


def test_unknown_system_is_refused() -> None:
    with pytest.raises(InputError, match=r"here: 'EPSG:1' is no coordinate reference system; .*EPSG:26911"):
        to_pixels(Georeference(NORTH_UP, UTM), np.zeros((1, 2)), "EPSG:1", "here")


@pytest.mark.parametrize("module", ["rasterio", "pyproj"])
def test_without_the_extra_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    path = write_tif(tmp_path / "a.tif")
    georeference = read_geotransform(path)
    assert georeference is not None
    monkeypatch.setitem(sys.modules, module, None)  # what Python itself does for a module that is not there
    with pytest.raises(InputError, match=rf"needs {module}; pip install 'canopoint\[geo\]'"):
        to_pixels(georeference, np.zeros((1, 2)), UTM, "here") if module == "pyproj" else read_bands(path)
