"""Per-image confusion counts, and everything that follows from them.

Counts have the shape (N, C, C): image, true class, predicted class.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainable.config import CLASS_NAMES, IGNORE_INDEX

NUM_CLASSES = len(CLASS_NAMES)
Counts = NDArray[np.int64]


def confusion_counts(predicted: Tensor, truth: Tensor) -> Tensor:
    """Counts pixels per image, on the device that holds them.

    Args:
        predicted: (B, H, W) integer class indices.
        truth: (B, H, W) integer class indices, IGNORE_INDEX where unknown.

    Returns:
        (B, C, C) int64.
    """
    pairs = truth.long() * NUM_CLASSES + predicted.long()
    offsets = torch.arange(len(truth), device=truth.device).view(-1, 1, 1) * NUM_CLASSES**2
    counted = (pairs + offsets)[truth != IGNORE_INDEX]
    counts = torch.bincount(counted, minlength=len(truth) * NUM_CLASSES**2)
    return counts.view(len(truth), NUM_CLASSES, NUM_CLASSES)


def dataset_metrics(counts: Counts) -> dict[str, float]:
    """Metrics of all pixels pooled: mIoU, Dice, precision and recall as means over the classes, and accuracy.

    Args:
        counts: (N, C, C).

    Returns:
        Name -> value in [0, 1], with the IoU of each class beside its mean (of a class that occurs at all).
    """
    pooled = counts.sum(axis=0, keepdims=True)
    scores = _class_scores(pooled)
    means = {name: float(np.nanmean(values)) for name, values in scores.items()}
    class_iou = zip(CLASS_NAMES, scores["miou"][0], strict=True)
    occurring = {f"iou_{name}": float(value) for name, value in class_iou if not np.isnan(value)}
    return {**means, "accuracy": float(_accuracy(pooled)[0]), **occurring}


def image_metrics(counts: Counts) -> dict[str, float]:
    """The same five metrics per image, then averaged over the images.

    A class that is neither in an image's truth nor in its prediction says nothing about it and is left out. (The
    notebook that this grew from counted it as 0, so that a perfectly predicted image of one class scored a half.)

    Args:
        counts: (N, C, C).
    """
    means = {name: float(np.nanmean(values, axis=1).mean()) for name, values in _class_scores(counts).items()}
    return {f"image_{name}": value for name, value in {**means, "accuracy": float(_accuracy(counts).mean())}.items()}


def floors(masks: NDArray[np.uint8]) -> dict[str, dict[str, float]]:
    """What a prediction reaches that never looks at the pixels; a network must beat these to be worth its training.

    `all_forest` calls every pixel forest. `image_majority` is an oracle: it is told each image's true majority class.

    Args:
        masks: (N, H, W) class indices.
    """
    forest = CLASS_NAMES.index("forest")
    majority = (masks.reshape(len(masks), -1) == forest).mean(axis=1) >= 0.5
    predictions = {"all_forest": np.full(len(masks), forest), "image_majority": np.where(majority, forest, 1 - forest)}
    counts = {name: _constant_counts(masks, classes) for name, classes in predictions.items()}
    return {name: {**dataset_metrics(each), **image_metrics(each)} for name, each in counts.items()}


def _constant_counts(masks: NDArray[np.uint8], classes: NDArray[np.int64]) -> Counts:
    predicted = torch.from_numpy(classes).view(-1, 1, 1).expand(masks.shape)
    counts: Counts = confusion_counts(predicted, torch.from_numpy(np.array(masks))).numpy()
    return counts


def _class_scores(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """Metric -> (N, C); NaN for a class that is neither there nor predicted, 0 where a ratio is 0 of something."""
    hits = np.diagonal(counts, axis1=1, axis2=2).astype(np.float64)
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    present = true + predicted > 0
    ratios = {
        "miou": (hits, true + predicted - hits),
        "dice": (2 * hits, true + predicted),
        "precision": (hits, predicted),
        "recall": (hits, true),
    }
    return {name: np.where(present, part / np.maximum(whole, 1), np.nan) for name, (part, whole) in ratios.items()}


def _accuracy(counts: Counts) -> NDArray[np.float64]:
    accuracy: NDArray[np.float64] = np.trace(counts, axis1=1, axis2=2) / np.maximum(counts.sum(axis=(1, 2)), 1)
    return accuracy
