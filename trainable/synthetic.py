"""An embedded, seeded data set of made aerial landscapes, so that everything runs with no download.

A scene is one continuous landscape seen from above: parcels of farmland, then water, roads and forest, under one
season, one sun and one haze, cut into contiguous square images. Three things keep it from being a matter of colour:
meadows are drawn in the mean colour of the scene's own trees, water can be as dark and green as a conifer stand, and
season and light differ from scene to scene. What tells forest apart everywhere is its texture: crowns and shadows.

Lengths are in pixels where they belong to the texture (crowns, roads) and in image sides where they belong to the
layout (woods, lakes, parcels), so that images of any size hold both classes. Colours are RGB in [0, 1]. All arithmetic
is in float64: rounding that differs between processors then almost never reaches the 8 bits that are stored.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainable.config import SyntheticConfig
from trainable.randomness import derive_seed

Field = NDArray[np.float64]
Region = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)

MARGIN = 8
"""Pixels made around the canvas and thrown away: all filters wrap around, and there they may."""

NUM_CROPS = 64
"""Rows, and parcels a row, until the table of crops starts again."""

DEEP_GREEN, AUTUMN = np.array([0.15, 0.25, 0.12]), np.array([0.42, 0.31, 0.12])
SPROUT, RIPE, SOIL = np.array([0.38, 0.50, 0.22]), np.array([0.66, 0.58, 0.34]), np.array([0.45, 0.35, 0.26])
MURKY, BLUE = np.array([0.12, 0.20, 0.12]), np.array([0.13, 0.20, 0.27])
GRAVEL, HAZE = np.array([0.62, 0.59, 0.53]), np.array([0.72, 0.77, 0.84])


class _Crowns(NamedTuple):
    """A closed canopy, as three (H, W) fields over the whole canvas."""

    dome: Field  # height: 1 at a crown's top, about 0 in the gaps
    lit: Field  # about -1 on the side away from the sun to 1 on the side towards it
    tone: Field  # [0, 1], one random value per tree


class _Parcels(NamedTuple):
    """Farmland's division, for every pixel of the canvas, (H, W) each."""

    place: tuple[NDArray[np.intp], NDArray[np.intp]]  # row and column of the pixel's parcel
    across: Field  # pixels, at a right angle to the rows of parcels
    border: Region  # the strip of ground between parcels


def write_synthetic(config: SyntheticConfig, folder: Path) -> None:
    """Writes images/, masks/ and meta_data.csv (columns image, mask, scene; plain file names) into a new folder.

    Files are named like the real ones, `<scene>_sat_<row><column>` and `<scene>_mask_<row><column>`, as PNG.

    Raises:
        FileExistsError: the folder exists and is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: must be new or empty, but holds files; remove them or name another folder")
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    with (folder / "meta_data.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "mask", "scene"])
        for scene_index in range(config.num_scenes):
            table.writerows(_write_scene(config, scene_index, folder))


def make_scene(config: SyntheticConfig, scene_index: int) -> tuple[Bytes, Bytes]:
    """Makes one landscape and cuts it, row by row, into images and their masks.

    Returns:
        images: (N, H, W, 3) uint8 RGB.
        masks: (N, H, W) uint8, 0 background and 255 forest.
    """
    rng = _scene_stream(config.seed, scene_index)
    side = config.image_size
    rows, columns = _grid(config.images_per_scene)
    shape = (rows * side + 2 * MARGIN, columns * side + 2 * MARGIN)
    road, water = _roads(rng, shape, side), _water(rng, shape, side)
    forest = _forest(rng, ~(road | water), config)
    image = _paint(rng, forest, road, water, side)
    mask = _coarse_outline(rng, forest)
    return _cut(np.rint(255 * image).astype(np.uint8), config), _cut(np.where(mask, 255, 0).astype(np.uint8), config)


# Tiles and files.


def _write_scene(config: SyntheticConfig, scene_index: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Writes a scene's images and masks; yields their rows of meta_data.csv."""
    scene = f"scene{scene_index:02d}"
    rows, columns = _grid(config.images_per_scene)
    digits = len(str(max(rows, columns) - 1))
    for index, (image, mask) in enumerate(zip(*make_scene(config, scene_index), strict=True)):
        place = f"{index // columns:0{digits}d}{index % columns:0{digits}d}"
        image_name, mask_name = f"{scene}_sat_{place}.png", f"{scene}_mask_{place}.png"
        Image.fromarray(image).save(folder / "images" / image_name)
        Image.fromarray(mask).save(folder / "masks" / mask_name)
        yield image_name, mask_name, scene


def _grid(num_images: int) -> tuple[int, int]:
    """Rows and columns of the smallest near-square grid with room for that many images."""
    columns = math.ceil(math.sqrt(num_images))
    return math.ceil(num_images / columns), columns


def _cut(canvas: NDArray[Scalar], config: SyntheticConfig) -> NDArray[Scalar]:
    """Cuts the canvas without its margin into the scene's images, row by row: (H, W, ...) -> (N, side, side, ...)."""
    side = config.image_size
    rows, columns = _grid(config.images_per_scene)
    inner = canvas[MARGIN:-MARGIN, MARGIN:-MARGIN]
    tiles = inner.reshape(rows, side, columns, side, *canvas.shape[2:]).swapaxes(1, 2)
    return tiles.reshape(rows * columns, side, side, *canvas.shape[2:])[: config.images_per_scene]


# Randomness.


def _scene_stream(seed: int, scene_index: int) -> np.random.Generator:
    """A stream of the scene's own: scene 3 is the same landscape however many scenes are made."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, "synthetic", scene_index)))


def _low_pass(shape: tuple[int, ...], scale: float) -> Field:
    """A Gaussian of standard deviation `scale`, pixels, as factors on the half spectrum; (H, W // 2 + 1)."""
    frequency_y, frequency_x = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    factors: Field = np.exp(-2 * (np.pi * scale) ** 2 * (frequency_y**2 + frequency_x**2))
    return factors


def _smooth(field: Field | Region, scale: float) -> Field:
    """Gaussian blur with standard deviation `scale`, pixels, wrapping around; (H, W)."""
    return np.fft.irfft2(np.fft.rfft2(field) * _low_pass(field.shape, scale), s=field.shape)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Field:
    """Smooth random hills of mean 0 and standard deviation 1: white noise under a Gaussian blur of `scale` pixels."""
    # Drawn as a spectrum, for that of white noise is white noise too: one transform instead of two.
    low_pass = _low_pass(shape, min(scale, min(shape) / 4))
    low_pass[0, 0] = 0  # the mean
    waves = rng.standard_normal((2, *low_pass.shape))
    field = np.fft.irfft2((waves[0] + 1j * waves[1]) * low_pass, s=shape)
    hills: Field = field / field.std()
    return hills


# The layout: what lies where.


def _water(rng: np.random.Generator, shape: tuple[int, int], side: int) -> Region:
    """Lakes in the hollows of one relief and, in most scenes, a river along a contour of another."""
    lakes = _noise(rng, shape, 0.25 * side) < rng.uniform(-3.0, -1.5)
    river: Region = np.abs(_noise(rng, shape, 0.6 * side)) < rng.choice([0.0, 0.05, 0.1])
    return lakes | river


def _roads(rng: np.random.Generator, shape: tuple[int, int], side: int) -> Region:
    """One to three slightly winding roads, 3 to 4 pixels wide, each across the whole scene."""
    y, x = np.indices(shape)
    roads = np.zeros(shape, dtype=bool)
    for _ in range(rng.integers(1, 4)):
        angle, through = rng.uniform(0, np.pi), rng.random(2) * shape
        winding = 0.06 * side * _noise(rng, shape, 0.6 * side)
        distance = np.cos(angle) * (y - through[0]) + np.sin(angle) * (x - through[1]) + winding
        roads |= np.abs(distance) < rng.uniform(1.5, 2.0)
    return roads


def _forest(rng: np.random.Generator, land: Region, config: SyntheticConfig) -> Region:
    """Woods with ragged edges, clearings inside and small groups of trees outside, on land only.

    The scene's forest share is drawn first and then met, as far as there is land: no scene is all of one class.
    """
    side, shape = config.image_size, land.shape
    share = rng.uniform(0.4, 0.7)
    score = _noise(rng, shape, 0.2 * side) + 0.25 * _noise(rng, shape, 0.05 * side)
    spots = _noise(rng, shape, 0.06 * side)
    score += 3.0 * (spots > 2.1) - 3.0 * (spots < -2.1)
    score[~land] = score.min() - 1
    forest: Region = score > np.quantile(_cut(score, config), 1 - share)
    return forest & land


def _coarse_outline(rng: np.random.Generator, forest: Region) -> Region:
    """The forest as an annotator outlines it: corners rounded, edges off by a pixel or two, shifted by up to one.

    The wobble stays below 0.25, so deep inside and far outside nothing changes. Part of what is thinner than a road or
    smaller than a crown is lost, as annotators lose it.
    """
    wobble = 0.12 * np.clip(_noise(rng, forest.shape, 5.0), -2.0, 2.0)
    outline: Region = _smooth(forest, 1.5) + wobble > 0.5
    return np.roll(outline, rng.integers(-1, 2, size=2).tolist(), axis=(0, 1))


# The picture: what it looks like.


def _paint(rng: np.random.Generator, forest: Region, road: Region, water: Region, side: int) -> Field:
    """Paints the layers from the ground up and lights them; (H, W, 3) in [0, 1]."""
    azimuth = rng.uniform(0, 2 * np.pi)
    sun = np.array([np.sin(azimuth), np.cos(azimuth)])
    crowns = _crowns(rng, forest.shape, spacing=rng.uniform(4.5, 6.5), sun=sun)
    canopy = _canopy(rng, crowns, side)
    image = _farmland(rng, forest.shape, side, tree_colour=canopy[forest].mean(axis=0))
    image[water] = _between(MURKY, BLUE, rng.random()) * rng.uniform(0.8, 1.3)
    image[road] = GRAVEL * rng.uniform(0.7, 1.1)
    # Single trees stand in the fields too; no annotator outlines them.
    lone_tree = (crowns.tone > 0.985) & (crowns.dome > 0.3) & ~road & ~water
    trees = forest | lone_tree
    shadow = np.roll(trees, np.rint(-3 * sun).astype(int).tolist(), axis=(0, 1)) & ~trees
    image[shadow] *= 0.55
    image[trees] = canopy[trees]
    return _develop(rng, image, side)


def _crowns(rng: np.random.Generator, shape: tuple[int, ...], spacing: float, sun: Field) -> _Crowns:
    """Grows one tree in each cell of a grid, somewhere in the cell; a pixel belongs to the highest crown over it.

    Source: cellular noise, Worley 1996, with a paraboloid of random radius in place of the distance.
    """
    cells = (int(shape[0] / spacing) + 3, int(shape[1] / spacing) + 3)
    top_y, top_x = np.indices(cells) + rng.random((2, *cells))
    radius, tone = rng.uniform(0.6, 1.1, cells), rng.random(cells)
    y, x = np.indices(shape) / spacing + 1  # in cells; + 1, so that every pixel has neighbours on all sides
    dome, owner = np.full(shape, -np.inf), np.zeros((2, *shape), dtype=int)
    for step in np.ndindex(3, 3):
        cell = y.astype(int) + step[0] - 1, x.astype(int) + step[1] - 1
        height = 1 - ((y - top_y[cell]) ** 2 + (x - top_x[cell]) ** 2) / radius[cell] ** 2
        owner = np.where(height > dome, cell, owner)
        dome = np.maximum(dome, height)
    tree = owner[0], owner[1]
    lit = ((y - top_y[tree]) * sun[0] + (x - top_x[tree]) * sun[1]) / radius[tree]
    return _Crowns(np.clip(dome, -0.3, 1), np.clip(lit, -1, 1), tone[tree])


def _canopy(rng: np.random.Generator, crowns: _Crowns, side: int) -> Field:
    """Trees in the scene's season, in dark and light stands, bright towards the sun and black in the gaps."""
    season = rng.uniform(-0.3, 0.5)
    turned = np.clip(season + 0.5 * (crowns.tone - 0.5), 0, 1)
    stand = 1 + 0.1 * np.clip(_noise(rng, crowns.dome.shape, 0.3 * side), -2, 2)
    relief = (0.35 + 0.7 * crowns.dome + 0.55 * crowns.lit) * (0.75 + 0.5 * crowns.tone)
    return _between(DEEP_GREEN, AUTUMN, turned) * (np.clip(relief, 0.12, None) * stand)[..., None]


def _parcels(rng: np.random.Generator, shape: tuple[int, ...], side: int) -> _Parcels:
    """Divides the land like brickwork: rows of one height, in each row parcels of one length, all a little bent."""
    angle, height = rng.uniform(0, np.pi), rng.uniform(0.35, 0.8) * side
    y, x = np.indices(shape)
    bend = 0.05 * side * _noise(rng, shape, 0.5 * side)
    along, across = x * np.cos(angle) + y * np.sin(angle) + bend, y * np.cos(angle) - x * np.sin(angle) + bend
    row = np.floor(across / height).astype(int) % NUM_CROPS
    length = (rng.uniform(0.5, 1.5, NUM_CROPS) * side)[row]
    column = np.floor(along / length).astype(int) % NUM_CROPS
    return _Parcels((row, column), across, (along % length < 1.5) | (across % height < 1.5))


def _farmland(rng: np.random.Generator, shape: tuple[int, ...], side: int, tree_colour: Field) -> Field:
    """Parcels under one crop each, some with furrows, some meadows in the very colour of the trees; (H, W, 3)."""
    parcels, table = _parcels(rng, shape, side), (NUM_CROPS, NUM_CROPS)
    crops = np.array([tree_colour, SPROUT, RIPE, SOIL])
    crop = crops[rng.choice(4, size=table, p=[0.28, 0.26, 0.26, 0.2])] * rng.uniform(0.9, 1.3, (*table, 1))
    furrow_depth = rng.choice([0.0, 0.04, 0.12], size=table)[parcels.place]
    furrow_width = rng.uniform(3.0, 6.0, table)[parcels.place]
    furrows = furrow_depth * np.sin(2 * np.pi * parcels.across / furrow_width)
    growth = 0.07 * _noise(rng, shape, 0.1 * side) + 0.03 * _noise(rng, shape, 1.0)
    image: Field = crop[parcels.place] * (1 + furrows + growth)[..., None]
    image[parcels.border] *= 0.8
    return image


def _develop(rng: np.random.Generator, image: Field, side: int) -> Field:
    """The scene's light and camera: exposure, tint, uneven haze, a soft lens, grain; (H, W, 3) clipped to [0, 1]."""
    shape = image.shape[:2]
    tint = rng.uniform(0.95, 1.05, 3) * rng.uniform(0.95, 1.25)
    haze = np.clip(rng.uniform(0, 0.12) + 0.03 * _noise(rng, shape, 0.8 * side), 0, 1)[..., None]
    softness = rng.uniform(0.3, 0.6)
    hazy = (1 - haze) * image * tint + haze * HAZE
    soft = np.stack([_smooth(hazy[..., channel], softness) for channel in range(3)], axis=-1)
    return np.clip(soft + rng.uniform(0.005, 0.015) * rng.standard_normal(image.shape), 0, 1)


def _between(start: Field, end: Field, weight: Field | float) -> Field:
    """Mixes two colours; a (H, W) weight gives (H, W, 3)."""
    colour: Field = start + np.asarray(weight)[..., None] * (end - start)
    return colour
