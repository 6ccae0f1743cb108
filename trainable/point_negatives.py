"""Background points where people have labelled the forest alone.

A model that sees one class learns to answer that class. A set without background is therefore refused, or background
is drawn away from the positives. The risk is stated where it is chosen: an unlabelled tree becomes background.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainable.config import CLASS_NAMES, AnnotationConfig, InputError
from trainable.decode import read_header
from trainable.point_files import PointAnnotation
from trainable.randomness import derive_seed

BACKGROUND = CLASS_NAMES.index("background")
FOREST = CLASS_NAMES.index("forest")


def require_both_classes(
    annotations: Mapping[str, Sequence[PointAnnotation]], config: AnnotationConfig, images: Mapping[str, Path]
) -> dict[str, list[PointAnnotation]]:
    """The annotations, with sampled background where they have none and the config asks for it.

    Args:
        annotations: image name -> its points, as `read_annotations` returns them. Images that are absent get nothing:
            where nobody has looked, the absence of trees is not known.
        config: says what to do without background.
        images: image name -> path.

    Raises:
        InputError: there is no forest point, or no background point and none may be or can be drawn.
    """
    points = {name: list(each) for name, each in annotations.items()}
    if FOREST not in _classes(points):
        raise InputError("data.annotations: no point is forest; check data.annotations.classes and default_class")
    if BACKGROUND in _classes(points):
        return points
    if config.negatives == "refuse":
        raise InputError(
            "data.annotations: no point is background, and a model that sees forest alone answers forest; label some"
            " background, or set data.annotations.negatives: sampled (an unlabelled tree then counts as background)"
        )
    for name, each in points.items():
        # Data, not training: every trial sees the same negatives, and adding an image changes no other.
        seed = derive_seed("negatives", name)
        each.extend(sample_negatives(each, read_header(images[name]).size, config.negative_distance_px, seed))
    if BACKGROUND not in _classes(points):
        raise InputError(
            f"data.annotations.negative_distance_px: nothing is {config.negative_distance_px:g} pixels away from every"
            f" point; lower it"
        )
    return points


def sample_negatives(
    points: Sequence[PointAnnotation], image_size: tuple[int, int], distance_px: float, seed: int
) -> list[PointAnnotation]:
    """Background points at centres of pixels that keep a distance to every positive, uniform and without repetition.

    Args:
        points: the positives.
        image_size: (width, height).
        distance_px: least distance between the centre of a sampled pixel and a positive.
        seed: of this image.

    Returns:
        As many as there are positives, at least one; fewer where fewer pixels are far enough.
    """
    allowed = _far_from(points, image_size, distance_px)
    # By row first: a list of all allowed pixels of a large image would take eight times its memory.
    up_to_row = np.cumsum(allowed.sum(axis=1))
    count = min(max(len(points), 1), int(up_to_row[-1]))
    negatives = []
    for rank in np.random.default_rng(seed).choice(int(up_to_row[-1]), count, replace=False) if count else ():
        row = int(np.searchsorted(up_to_row, rank, side="right"))
        columns = np.flatnonzero(allowed[row])
        column = int(columns[rank - up_to_row[row]])  # counted from the row's end
        negatives.append(PointAnnotation(row + 0.5, column + 0.5, BACKGROUND))
    return negatives


def _far_from(
    points: Sequence[PointAnnotation], image_size: tuple[int, int], distance_px: float
) -> npt.NDArray[np.bool_]:
    """(H, W): the pixel's centre is at least `distance_px` from every point."""
    width, height = image_size
    allowed = np.ones((height, width), dtype=bool)
    for point in points:
        top, left = (max(int(place - distance_px) - 1, 0) for place in (point.row, point.column))
        window = allowed[top : int(point.row + distance_px) + 2, left : int(point.column + distance_px) + 2]
        rows, columns = np.ogrid[: window.shape[0], : window.shape[1]]
        squared = (rows + top + 0.5 - point.row) ** 2 + (columns + left + 0.5 - point.column) ** 2
        window &= squared >= distance_px**2
    return allowed


def _classes(points: Mapping[str, Sequence[PointAnnotation]]) -> set[int]:
    return {point.class_index for each in points.values() for point in each}
