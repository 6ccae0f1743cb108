"""Counts of pixels per image, exact, on the device that holds them and without waiting for it.

Everything that is counted is a flag: a (B, H, W) uint8 map of 0 and 1. Flags are combined by bitwise operations and
summed eight at a time, as the bytes of 64-bit words: on a CPU ten times as fast as comparing, converting and summing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.config import CLASS_NAMES

NUM_CLASSES = len(CLASS_NAMES)
assert NUM_CLASSES == 2, "the flags below tell two classes apart"

WORDS_PER_SUM = 128
"""Words added before their bytes are taken apart; a byte holds a sum of up to 255 flags."""


def confusion_counts(predicted: Tensor, truth: Tensor) -> Tensor:
    """Counts pixels per image by true and predicted class.

    Args:
        predicted: (B, H, W) class indices, bool, uint8 or int64.
        truth: (B, H, W) class indices, uint8 or int64, IGNORE_INDEX where unknown.

    Returns:
        (B, C, C) int64: image, true class, predicted class.
    """
    forest, unknown = truth_flags(truth)
    found = predicted.to(torch.uint8) & ~unknown
    num_hits, num_forest, num_found, num_unknown = (
        count_flags(each) for each in (found & forest, forest, found, unknown)
    )
    num_known = truth.shape[1:].numel() - num_unknown
    missed, false = num_forest - num_hits, num_found - num_hits
    counts = torch.stack([num_known - num_forest - false, false, missed, num_hits], dim=1)
    return counts.view(-1, NUM_CLASSES, NUM_CLASSES)


def border_counts(predicted: Tensor, truth: Tensor) -> Tensor:
    """Counts the pixels of the forest's border in truth and prediction that have their like within 3 px in the other.

    A border pixel is forest and has background among its eight neighbours; the frame of the image is no border. Within
    3 px means in a disk: rows and columns apart, squared, add up to 9 at most. Border pixels that have an unknown pixel
    within 3 px are not judged, as their like may lie there. So where truth is known at scattered points, none is.

    Args:
        predicted: (B, H, W) class indices, bool, uint8 or int64.
        truth: (B, H, W) class indices, uint8 or int64, IGNORE_INDEX where unknown.

    Returns:
        (B, 5) int64: predicted border pixels that are matched, and all; true ones that are matched, and all; pixels
        of any kind that have no unknown pixel within 3 px.

    Source: Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?", with their tolerance of
    0.75 % of the diagonal, which is 2.7 px at 256 x 256.
    """
    forest, unknown = truth_flags(truth)
    found = predicted.to(torch.uint8) & ~unknown
    # Bit 0 is truth and bit 1 the prediction, so that both travel through the neighbourhoods in one map.
    forests = forest | found << 1
    backgrounds = forests ^ (unknown ^ 1) * 3
    borders = forests & _square(backgrounds)
    near = _disk(borders | unknown << 2)
    judged = (near >> 2) ^ 1
    true, found = borders & judged, (borders >> 1) & judged
    flags = (found & near, found, true & (near >> 1), true, judged)
    return torch.stack([count_flags(each) for each in flags], dim=1)


def truth_flags(truth: Tensor) -> tuple[Tensor, Tensor]:
    """Flags of forest and of what is unknown: 255, of which forest's bit has to be taken away."""
    truth = truth.to(torch.uint8)
    unknown = truth >> 7
    return (truth ^ unknown) & 1, unknown


def count_flags(flags: Tensor) -> Tensor:
    """(B, H, W) uint8 of 0 and 1 -> (B,) int64, how many are 1."""
    flags = flags.flatten(1)
    padded = F.pad(flags, (0, -flags.shape[1] % (8 * WORDS_PER_SUM)))
    words = padded.view(torch.int64).view(len(flags), -1, WORDS_PER_SUM)
    return words.sum(dim=2).view(torch.uint8).sum(dim=1)


def _square(bits: Tensor) -> Tensor:
    """Every pixel's bits and those of its eight neighbours."""
    return _spread(_spread(bits, 1, 1), 2, 1)


def _disk(bits: Tensor) -> Tensor:
    """Every pixel's bits and those within 3 px: a square of side 5 and the four pixels that are 3 px straight ahead."""
    return _square(_square(bits)) | _spread(bits, 1, 3) | _spread(bits, 2, 3)


def _spread(bits: Tensor, dim: int, distance: int) -> Tensor:
    """Every pixel's bits and those of the two pixels so far away in one direction."""
    spread = bits.clone()
    rest = bits.shape[dim] - distance
    if rest > 0:
        spread.narrow(dim, distance, rest).bitwise_or_(bits.narrow(dim, 0, rest))
        spread.narrow(dim, 0, rest).bitwise_or_(bits.narrow(dim, distance, rest))
    return spread
