"""Stored counts per image -> everything that is said of a prediction. numpy alone.

`evaluation.py` makes the counts; an array of counts always has the images as its first axis.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainable.config import CLASS_NAMES, InputError

NUM_BINS = 15
"""Equal bins of confidence in [0, 1] for the calibration error, as in Guo et al. 2017."""

FOREST = CLASS_NAMES.index("forest")
Counts = NDArray[np.int64]
Scores = NDArray[np.float64]


def all_metrics(counts: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Every metric that these counts define, in [0, 1] but for `nll` and the numbers of what was left out.

    Args:
        counts: arrays by name, as `evaluation.Evaluation.counts` returns them.

    Raises:
        InputError: no pixel is known.
    """
    confusion = counts["confusion"]
    return {
        **dataset_metrics(confusion),
        **image_metrics(confusion),
        **boundary_metrics(counts["boundary"]),
        "ece": calibration_error(counts["calibration"]),
        "nll": float(counts["nll"].sum() / confusion.sum()),
    }


def dataset_metrics(confusion: Counts) -> dict[str, float]:
    """Metrics of all pixels pooled: mIoU, Dice, precision and recall as means over the classes, and accuracy.

    Args:
        confusion: (N, C, C) by true and predicted class.

    Returns:
        Name -> value in [0, 1], with the IoU of each class beside its mean (of a class that occurs at all).

    Raises:
        InputError: no pixel is known.
    """
    _check_known(confusion)
    pooled = confusion.sum(axis=0, keepdims=True)
    scores = _class_scores(pooled)
    means = {name: float(np.nanmean(values)) for name, values in scores.items()}
    class_iou = zip(CLASS_NAMES, scores["miou"][0], strict=True)
    occurring = {f"iou_{name}": float(value) for name, value in class_iou if not np.isnan(value)}
    return {**means, "accuracy": float(_accuracy(pooled)[0]), **occurring}


def image_metrics(confusion: Counts) -> dict[str, float]:
    """The same five metrics per image, then averaged over the images, and how many classes of images were left out.

    A class that is neither in an image's truth nor in its prediction says nothing about it and is left out. (The
    notebook that this grew from counted it as 0, so that a perfectly predicted image of one class scored a half.) So is
    an image of which nothing is known.

    Args:
        confusion: (N, C, C) by true and predicted class.

    Raises:
        InputError: no pixel is known.
    """
    _check_known(confusion)
    known = confusion[confusion.any(axis=(1, 2))]
    scores = _class_scores(known)
    means = {name: float(np.nanmean(values, axis=1).mean()) for name, values in scores.items()}
    means["accuracy"] = float(_accuracy(known).mean())
    num_absent = confusion.shape[0] * confusion.shape[1] - np.count_nonzero(~np.isnan(scores["miou"]))
    return {f"image_{name}": value for name, value in {**means, "absent_classes": float(num_absent)}.items()}


def boundary_metrics(boundary: Counts) -> dict[str, float]:
    """F1 of the border between forest and background: of all border pixels pooled, and as a mean over the images.

    Precision is the share of predicted border pixels with a true one within 3 px, recall the share of true ones with a
    predicted one. Images without a border in truth and prediction are left out of the mean, and counted; where that is
    all of them, the prediction is perfect.

    Args:
        boundary: (N, 5): predicted border pixels matched, and all; true ones matched, and all; pixels judged.

    Returns:
        Nothing where no pixel could be judged, as with truth at scattered points.
    """
    *matches, num_judged = boundary.sum(axis=0, keepdims=True).T
    if not num_judged[0]:
        return {}
    pooled = _border_f1(*matches)
    images = _border_f1(*boundary.T[:4])
    has_border = ~np.isnan(images)
    return {
        "boundary_f1": float(np.nan_to_num(pooled[0], nan=1.0)),
        "image_boundary_f1": float(images[has_border].mean()) if has_border.any() else 1.0,
        "image_absent_borders": float(np.count_nonzero(~has_border)),
    }


def calibration_error(calibration: Scores) -> float:
    """Expected calibration error of all pixels pooled: |share correct - mean confidence|, averaged over the pixels.

    Args:
        calibration: (N, 15, 3): number of pixels in a bin, sum of their confidence, number of correct ones.

    Source: Guo et al. 2017, eq. 3.
    """
    number, confidence, correct = calibration.sum(axis=0).T
    return float(np.abs(correct - confidence).sum() / number.sum())


def floors(masks: NDArray[np.uint8]) -> dict[str, dict[str, float]]:
    """What a prediction reaches that never looks at the pixels; a network must beat these to be worth its training.

    `all_forest` calls every pixel forest. `coin_flip` tosses a coin for each, and its counts are the expected ones.
    `image_majority` is an oracle: it is told each image's true majority class.

    Args:
        masks: (N, H, W) class indices, IGNORE_INDEX where unknown.

    Raises:
        InputError: no pixel is known.
    """
    true = np.stack([np.count_nonzero(masks == each, axis=(1, 2)) for each in range(len(CLASS_NAMES))], axis=1)
    forest = np.arange(len(CLASS_NAMES)) == FOREST
    mostly_forest = 2 * true[:, [FOREST]] >= true.sum(axis=1, keepdims=True)
    predicted = {  # how often a pixel of an image is counted as each class, (N, C) or, of any image, (1, C)
        "all_forest": forest[None],
        "coin_flip": np.ones_like(forest)[None],  # once as either: twice what is expected, which no ratio notices
        "image_majority": np.where(mostly_forest, forest, ~forest),
    }
    counts = {name: true[:, :, None] * times[:, None, :] for name, times in predicted.items()}
    return {name: {**dataset_metrics(each), **image_metrics(each)} for name, each in counts.items()}


def _check_known(confusion: Counts) -> None:
    if not confusion.any():
        raise InputError(
            f"metrics: images to evaluate on must have labelled pixels, but none of these {len(confusion)} has any;"
            f" label some of them"
        )


def _class_scores(confusion: Counts) -> dict[str, Scores]:
    """Metric -> (N, C); NaN for a class that is neither there nor predicted, 0 where a ratio is 0 of something."""
    hits = np.diagonal(confusion, axis1=1, axis2=2).astype(np.float64)
    true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    present = true + predicted > 0
    ratios = {
        "miou": (hits, true + predicted - hits),
        "dice": (2 * hits, true + predicted),
        "precision": (hits, predicted),
        "recall": (hits, true),
    }
    return {name: np.where(present, part / np.maximum(whole, 1), np.nan) for name, (part, whole) in ratios.items()}


def _accuracy(confusion: Counts) -> Scores:
    accuracy: Scores = np.trace(confusion, axis1=1, axis2=2) / np.maximum(confusion.sum(axis=(1, 2)), 1)
    return accuracy


def _border_f1(matched_predicted: Counts, predicted: Counts, matched_true: Counts, true: Counts) -> Scores:
    """(N,) counts -> (N,); NaN where there is no border, 0 where there is one that nothing matches."""
    precision = matched_predicted / np.maximum(predicted, 1)
    recall = matched_true / np.maximum(true, 1)
    total = precision + recall
    f1 = 2 * precision * recall / np.where(total > 0, total, 1)
    return np.where(predicted + true > 0, f1, np.nan)
