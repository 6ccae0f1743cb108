"""Points in GeoJSON, in map coordinates or in pixels.

Which of the two, the member `crs` of the file says, and nothing is guessed:

- a named `crs` (GeoJSON 2008): map coordinates, reprojected where the image has another CRS;
- `"crs": null` (GeoJSON 2008: "no CRS can be assumed"): pixels, y downwards;
- no `crs`: degrees of longitude and latitude (RFC 7946, section 4) where the image is georeferenced. Where it is not,
  pixels; refused if the numbers would do as degrees too and have decimals.

Map coordinates go east before north whatever the CRS says of its axes, as GDAL and QGIS write them.
"""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

from trainable.config import InputError
from trainable.geo import CRS84, Georeference, read_geotransform, to_pixels
from trainable.point_marks import (
    Convention,
    Coordinates,
    ImageFile,
    Mark,
    MarkedImage,
    brief,
    indices_or_positions,
    make_mark,
    member,
    read_json,
)

MAP_TOLERANCE_PX = 0.01
"""Map coordinates are rounded when written (RFC 7946 files to 1 cm): so far outside, a point counts as on the edge."""

CLASS_PROPERTIES = ("class", "label", "name")


def read_geojson(file: Path) -> list[MarkedImage]:
    """A FeatureCollection of Point or MultiPoint; optional properties image and class (also label or name).

    Without the property `image` a feature speaks of the image that the file is named after.
    """
    document = read_json(file)
    features = member(document, "features", list, str(file))
    marks = [pair for index, each in enumerate(features, 1) for pair in _marks(each, f"{file}: feature {index}", file)]
    pixels = indices_or_positions(mark for _, mark in marks)
    convention = _convention(document, pixels, file)
    # An empty file says that there is nothing in its image.
    marked = {} if marks else {file.stem: MarkedImage(str(file), (file.stem,), convention)}
    for name, mark in marks:
        marked.setdefault(name, MarkedImage(mark.where, (name,), convention)).marks.append(mark)
    return list(marked.values())


def _marks(feature: object, where: str, file: Path) -> list[tuple[str, Mark]]:
    """Image name and mark of each point of a feature."""
    geometry = member(feature, "geometry", dict, where)
    kind = member(geometry, "type", str, where)
    if kind not in ("Point", "MultiPoint"):
        raise InputError(f"{where}: geometry of type {brief(kind)}; only Point and MultiPoint are points, remove it")
    coordinates = member(geometry, "coordinates", list, where)
    properties = feature["properties"] if isinstance(feature, dict) and feature.get("properties") else {}
    if not isinstance(properties, dict):
        raise InputError(f"{where}: properties must be an object, got {brief(properties)}; export the file again")
    image = properties.get("image", file.stem)
    if not isinstance(image, str):
        raise InputError(f"{where}: image must be a file name, got {brief(image)}; name the image")
    name = _class_name(properties, where)
    return [(image, _mark(each, name, where)) for each in ([coordinates] if kind == "Point" else coordinates)]


def _mark(position: object, name: object, where: str) -> Mark:
    if not isinstance(position, list) or len(position) not in (2, 3):  # the third is a height
        raise InputError(f"{where}: coordinates must be [x, y], got {brief(position)}; export the file again")
    return make_mark(where, position[0], position[1], name)


def _class_name(properties: dict[str, Any], where: str) -> object:
    given = [key for key in CLASS_PROPERTIES if properties.get(key) is not None]
    if len(given) > 1:
        raise InputError(f"{where}: the class could be in {' or '.join(given)}; keep one of these properties")
    return properties[given[0]] if given else None


def _convention(document: dict[str, Any], pixels: Convention, file: Path) -> Convention:
    if "crs" not in document:
        return functools.partial(_from_unnamed, pixels=pixels, file=file)
    if document["crs"] is None:
        return pixels
    properties = member(document["crs"], "properties", dict, f"{file}: crs")
    name = member(properties, "name", str, f"{file}: crs.properties")
    if not re.fullmatch(r"[\w:/.-]+", name):  # a definition in place of a name could send PROJ to a file
        raise InputError(f"{file}: crs {brief(name)} is no name; name one such as EPSG:26911")
    return functools.partial(_from_map, crs=name, file=file)


def _from_map(coordinates: Coordinates, image: ImageFile, crs: str, file: Path) -> Coordinates:
    georeference = _georeference(image, file)
    if georeference is None:
        raise InputError(
            f"{file}: coordinates in {crs}, but {image.path.name} is not georeferenced; use the image that is, or give"
            f' pixels and "crs": null'
        )
    return _onto_edge(to_pixels(georeference, coordinates, crs, str(file)), image)


def _from_unnamed(coordinates: Coordinates, image: ImageFile, pixels: Convention, file: Path) -> Coordinates:
    could_be_degrees = bool(np.all(np.abs(coordinates) <= (180, 90)))
    georeference = _georeference(image, file)
    if georeference is not None and not could_be_degrees:
        raise InputError(
            f"{file}: no crs, which means degrees (RFC 7946), but the coordinates are none; name their crs, or write"
            f' "crs": null where they are pixels'
        )
    if georeference is not None:
        return _onto_edge(to_pixels(georeference, coordinates, CRS84, str(file)), image)
    if could_be_degrees and np.any(coordinates % 1):
        raise InputError(
            f"{file}: pixels or degrees? {image.path.name} is not georeferenced and the file names no crs; write"
            f' "crs": null where the coordinates are pixels'
        )
    return pixels(coordinates, image)


def _georeference(image: ImageFile, file: Path) -> Georeference | None:
    georeference = read_geotransform(image.path)
    if georeference is not None and not georeference.crs:
        raise InputError(
            f"{image.path}: has a geotransform but no CRS, so that {file.name} cannot be checked against it; set one"
            f" (gdal_edit -a_srs)"
        )
    return georeference


def _onto_edge(coordinates: Coordinates, image: ImageFile) -> Coordinates:
    """Moves what rounding has pushed out of the image back onto its edge."""
    inside = np.clip(coordinates, 0, np.nextafter(np.array(image.size, dtype=float), 0))
    return np.where(np.abs(inside - coordinates) <= MAP_TOLERANCE_PX, inside, coordinates)
