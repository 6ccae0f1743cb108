"""What labelling costs: seconds of an annotator's time per image.

Sources: PointSup (Cheng et al. 2022) for the further points; Bearman et al. 2016 for everything else.
"""

from trainable.config import DENSE

LOOK_S = 20.0  # to see which classes an image holds
FIRST_POINT_S = 2.4  # more than a further point: the eye has to find its place
POINT_S = 0.9
DENSE_S = 239.7  # a mask of the whole image, the look included


def annotation_seconds(points_per_image: float | str) -> float:
    """Seconds to label one image.

    Args:
        points_per_image: labelled points, at least 1; or `dense`, every pixel.
    """
    if isinstance(points_per_image, str):
        if points_per_image != DENSE:
            raise ValueError(f"points_per_image must be a number or {DENSE}, got {points_per_image!r}")
        return DENSE_S
    return LOOK_S + FIRST_POINT_S + POINT_S * points_per_image
