"""What labelling costs: an annotator's time and money, by the rates of the study file's `effort` section.

A cell's effort is that of its training images. The images that evaluate are labelled once, for all cells alike.
"""

from collections.abc import Mapping
from typing import Any

from study.sections import Effort
from trainable.config import DENSE

PUBLISHED = Effort()
"""The rates of a study that states none of its own."""


def annotation_seconds(points_per_image: float | str, effort: Effort = PUBLISHED) -> float:
    """Seconds to label one image.

    Args:
        points_per_image: labelled points, at least 1; or `dense`, every pixel.
        effort: the rates.
    """
    if isinstance(points_per_image, str):
        if points_per_image != DENSE:
            raise ValueError(f"points_per_image must be a number or {DENSE}, got {points_per_image!r}")
        return effort.dense_s
    return effort.look_s + effort.first_point_s + effort.point_s * points_per_image


def setting_seconds(setting: Mapping[str, Any], effort: Effort = PUBLISHED) -> float:
    """What tells settings of one search apart: seconds per image, or of all images where their number is searched too.

    Args:
        setting: with `points_per_image`, and perhaps `train_images`.
        effort: the rates.
    """
    return annotation_seconds(setting["points_per_image"], effort) * int(setting.get("train_images", 1))


def annotation_hours(points_per_image: float | str, num_images: int, effort: Effort = PUBLISHED) -> float:
    """Hours to label so many images alike."""
    return annotation_seconds(points_per_image, effort) * num_images / 3600


def annotation_money(hours: float, effort: Effort) -> float | None:
    """What so many hours cost, in `effort.currency`; None where no rate is known."""
    return None if effort.hourly_rate is None else hours * effort.hourly_rate
