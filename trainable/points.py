"""Dense masks -> point annotations.

Every image has one ranked list of points per draw seed; n points are its first n. So 10 is a subset of 50, nothing is
redrawn during training, and a larger point count only ever adds annotations.
"""

import numpy as np
from numpy.typing import NDArray

from trainable.config import IGNORE_INDEX
from trainable.randomness import derive_seed


def ranked_points(mask: NDArray[np.uint8], num_points: int, image_name: str, seed: int) -> NDArray[np.int64]:
    """The first `num_points` of an image's ranked list, drawn uniformly over its valid pixels without repetition.

    Args:
        mask: (H, W) class indices, IGNORE_INDEX where nothing is known.
        num_points: how many; fewer are returned where the image has fewer valid pixels.
        image_name: part of the stream, so that a list does not depend on which other images are there.
        seed: draw seed.

    Returns:
        (n,) positions in the flattened mask (row * W + column).
    """
    valid = np.flatnonzero(mask.ravel() != IGNORE_INDEX)
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "points", "uniform", image_name)))
    return valid[generator.permutation(valid.size)[:num_points]]


def point_labels(mask: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A label map of the mask's shape that holds the class at the points and IGNORE_INDEX everywhere else."""
    labels = np.full(mask.size, IGNORE_INDEX, dtype=np.uint8)
    labels[positions] = mask.ravel()[positions]
    return labels.reshape(mask.shape)
