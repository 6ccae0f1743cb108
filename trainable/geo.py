"""Georeferenced images and rasters of many bands: the only place that knows rasterio and pyproj.

Both are an extra, `pip install 'canopoint[geo]'`, and imported when first needed. Pixel coordinates are ours, measured
from the outer corner of the first pixel, as GDAL's geotransform is. World files and `AREA_OR_POINT=Point` refer to the
pixel's centre; GDAL shifts their geotransform itself when it opens the file.
"""

import contextlib
import functools
import importlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainable.config import MAX_BANDS, InputError

CRS84 = "OGC:CRS84"
"""WGS 84 in degrees, longitude first: what GeoJSON means where it names nothing (RFC 7946, section 4)."""

# By the first bytes of the file. Left to choose, GDAL would follow a VRT of any name to wherever it points.
DRIVERS = {b"II": "GTiff", b"MM": "GTiff", b"\xff\xd8": "JPEG", b"\x89P": "PNG"}

_FILTERING = threading.Lock()


class Georeference(NamedTuple):
    """Where an image lies: x = a column + b row + c, y = d column + e row + f, in the units of the CRS.

    Attributes:
        transform: (a, b, c, d, e, f).
        crs: `EPSG:26911`, or WKT where it has no such code; empty where the image does not say.
    """

    transform: tuple[float, float, float, float, float, float]
    crs: str


def read_geotransform(path: Path) -> Georeference | None:
    """The image's own georeference, also from a world file beside it; None where it has none.

    Raises:
        InputError: not readable, or georeferenced in a way that is no geotransform.
    """
    with _open(path) as raster:
        if raster.gcps[0]:
            raise InputError(f"{path}: georeferenced by control points; resample it to a grid first (gdalwarp)")
        a, b, c, d, e, f = raster.transform[:6]
        if raster.transform.is_identity:
            return None
        if a * e == b * d:
            raise InputError(f"{path}: its geotransform {(a, b, c, d, e, f)} has no area; georeference it again")
        return Georeference((a, b, c, d, e, f), raster.crs.to_string() if raster.crs else "")


def to_pixels(
    georeference: Georeference, coordinates: npt.NDArray[np.float64], crs: str, where: str
) -> npt.NDArray[np.float64]:
    """Map coordinates as pixel coordinates.

    Where the systems differ, PROJ's best transformation that needs no grid from the network takes over. Between WGS 84
    and a plate-fixed datum such as NAD83 that may be the identity, one to two metres off; GDAL does the same.

    Args:
        georeference: of the image.
        coordinates: (n, 2), east before north.
        crs: their system.
        where: what to blame for an unknown `crs`.

    Returns:
        (n, 2), column and row; infinite where the transformation is not defined.
    """
    a, b, c, d, e, f = georeference.transform
    x, y = _reproject(coordinates, crs, georeference.crs, where).T - np.array([[c], [f]])
    determinant = a * e - b * d
    return np.stack([(e * x - b * y) / determinant, (a * y - d * x) / determinant], axis=1)


def to_map(
    georeference: Georeference, pixels: npt.NDArray[np.float64], crs: str, where: str
) -> npt.NDArray[np.float64]:
    """Pixel coordinates (n, 2), column and row, as map coordinates (n, 2) in `crs`, east before north."""
    a, b, c, d, e, f = georeference.transform
    column, row = pixels.T
    return _reproject(
        np.stack([a * column + b * row + c, d * column + e * row + f], axis=1), georeference.crs, crs, where
    )


def crs_urn(crs: str) -> str | None:
    """The name under which GeoJSON can carry a CRS, such as urn:ogc:def:crs:EPSG::26911; None where it has no code."""
    code = _crs(crs, "crs").to_authority(min_confidence=100)
    return f"urn:ogc:def:crs:{code[0]}::{code[1]}" if code else None


def read_bands(path: Path) -> npt.NDArray[np.uint8]:
    """All bands of a raster.

    Returns:
        (H, W, bands) uint8, in the order of the file. An alpha or near infra-red band is a band like the others.

    Raises:
        InputError: not readable, too large, not 8-bit, a palette, or not of 1 to 8 bands.
    """
    with _open(path) as raster:
        if raster.count > MAX_BANDS:
            raise InputError(f"{path}: {raster.count} bands, at most {MAX_BANDS}; choose some (gdal_translate -b)")
        if set(raster.dtypes) != {"uint8"}:
            raise InputError(
                f"{path}: values of type {raster.dtypes[0]}; scale them to 8 bits (gdal_translate -ot Byte -scale)"
            )
        if raster.colorinterp[0].name == "palette":
            raise InputError(
                f"{path}: a palette, whose values are no intensities; expand it (gdal_translate -expand rgb)"
            )
        if Image.MAX_IMAGE_PIXELS and raster.width * raster.height > Image.MAX_IMAGE_PIXELS:
            raise InputError(f"{path}: more than {Image.MAX_IMAGE_PIXELS} pixels; cut it into smaller images")
        return np.ascontiguousarray(np.moveaxis(raster.read(), 0, -1))


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    rasterio = _extra("rasterio", path)
    errors = importlib.import_module("rasterio.errors")
    try:
        with path.open("rb") as file:
            driver = DRIVERS.get(file.read(2), "GTiff")
        # Filters of warnings belong to the whole process, and stores are packed by several threads.
        with _FILTERING, warnings.catch_warnings():
            warnings.simplefilter("ignore", errors.NotGeoreferencedWarning)  # that is what we are asking
            raster = rasterio.open(path.absolute(), driver=driver)
        with raster:
            yield raster
    except OSError as error:  # rasterio's own error is one
        raise InputError(f"{path}: not a whole JPEG, PNG or TIFF image; replace or remove it") from error


def _reproject(coordinates: npt.NDArray[np.float64], source: str, target: str, where: str) -> npt.NDArray[np.float64]:
    transformer = _transformer(_crs(source, where), _crs(target, where))
    if transformer is None:
        return coordinates
    return np.stack(transformer.transform(coordinates[:, 0], coordinates[:, 1]), axis=1)


@functools.lru_cache(maxsize=64)  # milliseconds each, and thousands of images share one
def _transformer(source: Any, target: Any) -> Any:
    if source.equals(target, ignore_axis_order=True):
        return None
    # always_xy: east before north, whatever order the CRS itself prefers.
    return importlib.import_module("pyproj").Transformer.from_crs(source, target, always_xy=True)


def _crs(name: str, where: str) -> Any:
    pyproj = _extra("pyproj", where)
    try:
        return pyproj.CRS.from_user_input(name)
    except pyproj.exceptions.CRSError as error:
        raise InputError(f"{where}: {name!r} is no coordinate reference system; name one such as EPSG:26911") from error


def _extra(module: str, where: Path | str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{where}: needs {module}; pip install 'canopoint[geo]'") from error
