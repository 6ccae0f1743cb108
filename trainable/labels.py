"""What is known of an image's pixels -> class indices: masks by their convention, points of people by their pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainable.config import CLASS_NAMES, IGNORE_INDEX, InputError
from trainable.point_files import PointAnnotation
from trainable.scenes import SPLITS, SceneIndex

FOREST_THRESHOLD = 128
"""JPEG masks hold 0 to 9 and 246 to 255: at least this is forest."""

FIRST_GREY, LAST_GREY = 10, 245
MAX_GREY_SHARE = 0.01
"""Where a larger share of a mask is neither black nor white, it may not be the mask that was meant."""

FOREST = CLASS_NAMES.index("forest")
Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class LabelFacts:
    """What was met on the way to the labels of one image.

    Attributes:
        num_pixels: of each class, as stored.
        is_indices: the mask holds 0 and 1 alone, so that they were taken for class indices.
        grey_share: share of the mask's pixels that are neither black nor white.
        num_conflicts: points in a pixel that has one of another class already.
    """

    num_pixels: tuple[int, ...]
    is_indices: bool = False
    grey_share: float = 0.0
    num_conflicts: int = 0


def mask_labels(grey: Mask, is_lossy: bool, image_size: int) -> tuple[Mask, LabelFacts]:
    """The class indices of a mask.

    Args:
        grey: (H, W) uint8, 0 background and 255 forest; or, where the format keeps values, 0 and 1.
        is_lossy: as JPEG is, where 1 is noise.
        image_size: side of the result.

    Returns:
        (image_size, image_size) uint8, each from the nearest pixel: there is no class between two classes.
    """
    is_indices = not is_lossy and bool(grey.max() == 1)
    labels = (grey >= (1 if is_indices else FOREST_THRESHOLD)).view(np.uint8)
    if labels.shape != (image_size, image_size):
        labels = np.asarray(Image.fromarray(labels).resize((image_size, image_size), Image.Resampling.NEAREST))
    num_forest = int(np.count_nonzero(labels))
    # What is below FIRST_GREY wraps around to the top.
    num_grey = 0 if is_indices else np.count_nonzero(np.subtract(grey, FIRST_GREY) <= LAST_GREY - FIRST_GREY)
    return labels, LabelFacts((labels.size - num_forest, num_forest), is_indices, num_grey / grey.size)


def point_labels(points: Sequence[PointAnnotation], size: tuple[int, int], image_size: int) -> tuple[Mask, LabelFacts]:
    """(image_size, image_size) uint8 of IGNORE_INDEX, but for the pixels that points fall into.

    Args:
        points: in pixels of the image. Of two that fall into one pixel, the first counts.
        size: (height, width) of the image.
        image_size: side of the result.
    """
    labels = np.full((image_size, image_size), IGNORE_INDEX, dtype=np.uint8)
    num_conflicts = 0
    for point in points:
        place = int(point.row * image_size / size[0]), int(point.column * image_size / size[1])
        if labels[place] == IGNORE_INDEX:
            labels[place] = point.class_index
        num_conflicts += int(labels[place] != point.class_index)
    num_pixels = tuple(int(np.count_nonzero(labels == number)) for number in range(len(CLASS_NAMES)))
    return labels, LabelFacts(num_pixels, num_conflicts=num_conflicts)


def check_masks(index: SceneIndex, facts: Sequence[LabelFacts]) -> None:
    """Refuses masks that make no sense as a set.

    Raises:
        InputError: no forest at all, or two conventions.
    """
    masks = [pair.mask for pair in index.pairs]
    indices = [mask for mask, each in zip(masks, facts, strict=True) if each.is_indices]
    white = [mask for mask, each in zip(masks, facts, strict=True) if each.num_pixels[FOREST] and not each.is_indices]
    if not indices and not white:
        raise InputError(
            f"{index.root / 'masks'}: no pixel of any mask reaches {FOREST_THRESHOLD}; forest must be 255, background 0"
        )
    if indices and white:
        raise InputError(
            f"{indices[0]}: holds 0 and 1 alone, while {white[0]} is white where forest is, so that 1 may be forest or"
            f" noise; save all masks with 0 background, 255 forest"
        )


def label_warnings(index: SceneIndex, facts: Sequence[LabelFacts], image_size: int) -> list[str]:
    """What was accepted and should be known: how often, and an example."""
    told = []
    named = [(pair.image.name, each) for pair, each in zip(index.pairs, facts, strict=True)]
    if indices := [name for name, each in named if each.is_indices]:
        told.append(
            f"{len(indices)} of {len(named)} masks hold 0 and 1 alone and were read as class indices, 1 being forest,"
            f" for example that of {indices[0]}"
        )
    if grey := [(each.grey_share, name) for name, each in named if each.grey_share > MAX_GREY_SHARE]:
        told.append(
            f"{len(grey)} of {len(named)} masks have more than {MAX_GREY_SHARE:.0%} of their pixels between black and"
            f" white, {max(grey)[0]:.1%} in that of {max(grey)[1]}; {FOREST_THRESHOLD} and more was read as forest"
        )
    if conflicts := [(each.num_conflicts, name) for name, each in named if each.num_conflicts]:
        told.append(
            f"{sum(number for number, _ in conflicts)} points share a pixel at {image_size} px with one of another"
            f" class and were left out, for example in {conflicts[0][1]}"
        )
    return told + _absent_classes(index, facts)


def _absent_classes(index: SceneIndex, facts: Sequence[LabelFacts]) -> list[str]:
    return [
        f"no pixel of the {split} split is {name}"
        for split in SPLITS
        for number, name in enumerate(CLASS_NAMES)
        if not any(
            each.num_pixels[number] for pair, each in zip(index.pairs, facts, strict=True) if pair.split == split
        )
    ]
