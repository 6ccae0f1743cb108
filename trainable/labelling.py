"""Which pixels people should label: the very points that a run would draw, written out for their tools."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from trainable.atomic import check_parent
from trainable.config import IGNORE_INDEX, InputError, TrainConfig
from trainable.decode import read_header
from trainable.geo import read_geotransform
from trainable.image_table import ImagePair, read_pairs
from trainable.point_export import PointRow, export_points, write_points_csv, write_points_geojson
from trainable.points import Points, draw_points
from trainable.store import decode_mask

BLIND_STRATEGIES = ("uniform", "grid", "clustered")
"""Those that can place points before anything is known of an image's classes."""


def write_points_to_label(root: Path, config: TrainConfig, out: Path, group: str = "scene") -> list[PointRow]:
    """Draws the points of every image of a folder and writes them as CSV or GeoJSON, as the suffix of `out` says.

    With masks the points carry their classes, as a run on that folder would see them; without, the classes are left
    to be filled in, and `data.annotations` then takes the file.

    Args:
        root: a data folder, or one that holds `images/` alone.
        config: number of points, strategy, seed, and the image size that they are drawn at.
        out: a file that is not there yet: nobody's labels are overwritten.
        group: column of meta_data.csv that names the scene, as a study on the folder would be told.

    Raises:
        InputError: the folder is not as it must be, the strategy needs masks or finds nothing, or `out` is there or of
            another kind.
    """
    if out.suffix not in (".csv", ".geojson"):
        raise InputError(f"--out: {out}: must end in .csv or .geojson")
    if out.exists():
        raise InputError(f"--out: {out}: exists already, and may hold labels; give a new file")
    check_parent(out.parent, "--out")
    pairs = read_pairs(root, group, with_masks=(root / "masks").is_dir())
    if pairs[0].mask is None and config.point_strategy not in BLIND_STRATEGIES:
        raise InputError(
            f"--strategy: {config.point_strategy} places points by masks, and {root} has none; choose"
            f" {', '.join(BLIND_STRATEGIES)}"
        )
    rows = export_points(
        (pair.image.name, read_header(pair.image).size, _points(pair, config), config.image_size) for pair in pairs
    )
    if not rows:
        raise InputError(f"--strategy: {config.point_strategy} finds no pixel to label in {root}; choose another")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        write_points_csv(out, rows)
    else:
        write_points_geojson(out, rows, {pair.image.name: read_geotransform(pair.image) for pair in pairs})
    return rows


def _points(pair: ImagePair, config: TrainConfig) -> Points:
    """The first points of the image's ranked list; of unknown class where there is no mask."""
    assert isinstance(config.points_per_image, int), "a number is asked for"
    if pair.mask:
        mask, _ = decode_mask(pair.mask, config.image_size)
        return draw_points(mask, config.points_per_image, pair.image.name, config)
    blank = np.zeros((config.image_size, config.image_size), dtype=np.uint8)
    drawn = draw_points(blank, config.points_per_image, pair.image.name, config)
    return replace(drawn, classes=np.full_like(drawn.classes, IGNORE_INDEX))
