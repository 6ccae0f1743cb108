"""Dense masks -> point annotations, as an annotator would make them.

Every image has one ranked list of points per draw seed and strategy (`point_strategies.py`); n points are its first n,
with the annotator's errors on them. So 10 is a subset of 50, nothing is redrawn during training, and a larger point
count only ever adds annotations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainable.config import CLASS_NAMES, IGNORE_INDEX, InputError, TrainConfig
from trainable.point_strategies import STRATEGIES, Streams
from trainable.randomness import derive_seed


@dataclass(frozen=True)
class Points:
    """The annotations of one image, in the order of their rank.

    Attributes:
        rows: (n,) row of the pixel.
        columns: (n,) column of the pixel.
        classes: (n,) class index that the annotator gave.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    classes: NDArray[np.uint8]


def draw_points(mask: NDArray[np.uint8], num_points: int, image_name: str, config: TrainConfig) -> Points:
    """The first `num_points` of an image's ranked list, with the annotator's errors of `config` on them.

    A click that misses its place keeps the class of the pixel it was meant for; it may fall on an unknown pixel, and
    several may fall on one. The errors of a rank are its own: they change neither with the number of points nor with
    the strategy, and a higher rate of flips only adds to the flips of a lower one.

    Args:
        mask: (H, W) class indices, IGNORE_INDEX where nothing is known; no point is meant for such a pixel.
        num_points: how many; fewer are returned where the strategy finds no more pixels.
        image_name: part of the stream, so that a list does not depend on which other images are there.
        config: seed, strategy and errors.
    """
    mask = np.asarray(mask)  # a memory map costs three times as much per operation
    streams = Streams(config.annotation_seed, config.point_strategy, image_name)
    pixels = STRATEGIES[config.point_strategy](mask, num_points, streams)
    rows, columns = np.divmod(pixels, mask.shape[1])
    classes = mask[rows, columns]
    if config.label_flip_rate:
        classes = _flip_classes(classes, config, image_name)
    if config.position_jitter_px:
        rows, columns = _move(rows, columns, mask.shape, config, image_name)
    return Points(rows, columns, classes)


def pack_points(lists: Sequence[Points], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The points of N images as two arrays, as wide as the longest list and at least 1.

    Args:
        lists: each image's points.
        width: columns of the images, pixels.

    Returns:
        positions: (N, P) row * width + column; 0 where a list has ended.
        classes: (N, P) class index; IGNORE_INDEX where a list has ended.
    """
    shape = (len(lists), max([1, *(points.rows.size for points in lists)]))
    positions = np.zeros(shape, dtype=np.int64)
    classes = np.full(shape, IGNORE_INDEX, dtype=np.int64)
    for image, points in enumerate(lists):
        positions[image, : points.rows.size] = points.rows * width + points.columns
        classes[image, : points.rows.size] = points.classes
    return positions, classes


def describe_points(counts: NDArray[np.int64]) -> dict[str, float]:
    """What was really obtained, which may be less than was asked for.

    Args:
        counts: (N, C) labelled pixels of each image and class, errors of the annotator included.

    Returns:
        `points/per_image` (mean over images), `points/fewest` (in one image), `points/<class>_share` (of all points),
        `points/images_of_one_class` (images whose points are all of one class) and `points/images_without` (any).

    Raises:
        InputError: no image has a point, so that there is nothing to learn from.
    """
    if not counts.any():
        raise InputError(
            f"training.point_strategy: finds no pixel to label in any of the {len(counts)} training images;"
            " choose another, or images whose masks hold what it labels"
        )
    per_image, classes_present = counts.sum(axis=1), (counts > 0).sum(axis=1)
    shares = counts.sum(axis=0) / counts.sum()
    return {
        "points/per_image": float(per_image.mean()),
        "points/fewest": float(per_image.min()),
        **{f"points/{name}_share": float(share) for name, share in zip(CLASS_NAMES, shares, strict=True)},
        "points/images_of_one_class": float((classes_present == 1).sum()),
        "points/images_without": float((classes_present == 0).sum()),
    }


def _flip_classes(classes: NDArray[np.uint8], config: TrainConfig, image_name: str) -> NDArray[np.uint8]:
    """Each with the probability `label_flip_rate` one of the other classes, every one of them alike."""
    chances = _error_stream(config, "label_flip", image_name).random((classes.size, 2))
    steps = 1 + (chances[:, 1] * (len(CLASS_NAMES) - 1)).astype(np.int64)
    flipped = (classes + steps) % len(CLASS_NAMES)
    return np.where(chances[:, 0] < config.label_flip_rate, flipped, classes).astype(np.uint8)


def _move(
    rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, ...], config: TrainConfig, image_name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gaussian in each direction, rounded to pixels, held inside the image."""
    stream = _error_stream(config, "position_jitter", image_name)
    offsets = np.rint(stream.normal(0, config.position_jitter_px, (rows.size, 2))).astype(np.int64)
    return np.clip(rows + offsets[:, 0], 0, shape[0] - 1), np.clip(columns + offsets[:, 1], 0, shape[1] - 1)


def _error_stream(config: TrainConfig, purpose: str, image_name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive_seed(config.annotation_seed, "points", purpose, image_name)))
