"""Points written out, so that people can label exactly those, and read back by `point_files.py`.

Positions are in pixels of the original image, measured from the outer corner of its first pixel. The CSV opens in a
spreadsheet, the GeoJSON in a GIS; in both the column `class` is to be filled in.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainable.atomic import write_atomically
from trainable.config import CLASS_NAMES, IGNORE_INDEX, InputError
from trainable.geo import CRS84, Georeference, crs_urn, to_map
from trainable.points import Points

COLUMNS = ("image", "rank", "x", "y", "class")

# Where a cell may begin, which a spreadsheet with another separator decides, a character that starts a formula.
FORMULA = re.compile(r"(^|[,;\t\"'|])\s*[=+\-@＝＋－＠]")


@dataclass(frozen=True)
class PointRow:
    """One point to label: x and y in pixels of the original image; the class is empty where it is not known."""

    image: str
    rank: int
    x: float
    y: float
    class_name: str


def export_points(images: Iterable[tuple[str, tuple[int, int], Points, int]]) -> list[PointRow]:
    """Points drawn on resized squares, as positions in the original images.

    Args:
        images: name, original (width, height), points, and side of the square that they were drawn on.

    Returns:
        The centre of each point's pixel, in the order given; the rank counts from 1 within its image.
    """
    return [
        PointRow(name, rank, (column + 0.5) * width / side, (row + 0.5) * height / side, _class_name(index))
        for name, (width, height), points, side in images
        for rank, (row, column, index) in enumerate(
            zip(points.rows.tolist(), points.columns.tolist(), points.classes.tolist(), strict=True), 1
        )
    ]


def write_points_csv(path: Path, rows: Sequence[PointRow]) -> None:
    """Writes the columns image, rank, x, y, class. Decimals say that x and y are positions, not indices of pixels.

    Raises:
        InputError: an image's name would be a formula in a spreadsheet, or breaks a line.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        # Refused and not quoted away: the name must lead back to its image.
        if FORMULA.search(row.image) or not row.image.isprintable():
            raise InputError(f"{path}: {row.image!r} would be a formula in a spreadsheet; rename the image")
        writer.writerow([row.image, row.rank, float(row.x), float(row.y), row.class_name])
    write_atomically(path, text.getvalue())


def write_points_geojson(path: Path, rows: Sequence[PointRow], georeference: Mapping[str, Georeference | None]) -> None:
    """Writes a feature per point: map coordinates where the images have them, else pixels and `"crs": null`.

    In the images' own CRS, if they share one that has a code; otherwise in degrees (RFC 7946).

    Args:
        path: the file.
        rows: the points.
        georeference: image name -> where it lies, as `geo.read_geotransform` says.

    Raises:
        InputError: some of the images are georeferenced and some are not.
    """
    places = {name: each for name in {row.image for row in rows} if (each := georeference.get(name)) and each.crs}
    strays = sorted({row.image for row in rows} - set(places))
    if places and strays:
        raise InputError(f"{path}: {strays[0]} is not georeferenced, {min(places)} is; write points as CSV")
    urn = _common_urn({each.crs for each in places.values()})
    crs = {"type": "name", "properties": {"name": urn}} if urn else None
    named = f'"crs": {json.dumps(crs)},\n' if urn or not places else ""
    coordinates = _coordinates(rows, places, urn or CRS84)
    features = (json.dumps(_feature(row, place)) for row, place in zip(rows, coordinates, strict=True))
    lines = ",\n".join(features)
    write_atomically(path, f'{{"type": "FeatureCollection",\n{named}"features": [\n{lines}\n]}}\n')


def _common_urn(systems: set[str]) -> str | None:
    return crs_urn(next(iter(systems))) if len(systems) == 1 else None


def _coordinates(rows: Sequence[PointRow], places: Mapping[str, Georeference], crs: str) -> list[list[float]]:
    """On the map in `crs`, or in pixels for images that are nowhere."""
    coordinates = np.array([(row.x, row.y) for row in rows], dtype=np.float64).reshape(-1, 2)
    indices: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        indices.setdefault(row.image, []).append(index)
    for name, place in places.items():
        coordinates[indices[name]] = to_map(place, coordinates[indices[name]], crs, name)
    on_the_map: list[list[float]] = coordinates.tolist()
    return on_the_map


def _feature(row: PointRow, coordinates: list[float]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "properties": {"image": row.image, "rank": row.rank, "class": row.class_name or None},
        "geometry": {"type": "Point", "coordinates": coordinates},
    }


def _class_name(index: int) -> str:
    return "" if index == IGNORE_INDEX else CLASS_NAMES[index]
