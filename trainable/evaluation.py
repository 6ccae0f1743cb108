"""Logits of whole images -> the counts per image that every metric follows from (`metrics.py`).

It all happens on the device that holds the logits, batch by batch, and nothing waits for it before the end.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trainable.metrics import NUM_BINS
from trainable.pixel_counts import border_counts, confusion_counts, truth_flags

NUM_CELLS = 64
"""Cells that pixels are sorted into: 16 bins, of which 15 are used, x wrong or correct x known or unknown."""


PIXELS_ON_CPU = 2**18
"""Pixels that a CPU is given at a time."""


class Evaluation:
    """Collects the counts of an evaluation.

    The two logits matter by their difference alone, the margin by which forest leads: its sign is the prediction, its
    size the confidence. (torch's `argmax` over two channels takes 200 times as long on a CPU.)
    """

    def __init__(self) -> None:
        self._parts: list[dict[str, Tensor]] = []

    @torch.no_grad()
    def add(self, logits: Tensor, truth: Tensor) -> None:
        """Counts one batch of images.

        Args:
            logits: (B, C, H, W) float, unnormalised; of less than float32, widened to it.
            truth: (B, H, W) uint8 class indices, IGNORE_INDEX where unknown, on the same device.
        """
        # A CPU gets few images at a time, so that what is computed of them stays in its cache: half the time.
        num_images = len(logits) if logits.is_cuda else max(1, PIXELS_ON_CPU // truth.shape[1:].numel())
        for start in range(0, len(logits), num_images):
            part = slice(start, start + num_images)
            self._parts.append(_count(logits[part], truth[part]))

    def counts(self) -> dict[str, NDArray[np.generic]]:
        """Waits for the device and returns everything added so far, images in the order of adding.

        Returns:
            `confusion`: (N, C, C) int64 by true and predicted class. `boundary`: (N, 5) int64, see `border_counts`.
            `calibration`: (N, 15, 3) float64, see `calibration_sums`. `nll`: (N,) float64, see `nll_sums`.
        """
        return {name: torch.cat([part[name] for part in self._parts]).cpu().numpy() for name in self._parts[0]}


def _count(logits: Tensor, truth: Tensor) -> dict[str, Tensor]:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    margin = logits[:, 1] - logits[:, 0]
    predicted = margin > 0
    return {
        "confusion": confusion_counts(predicted, truth),
        "boundary": border_counts(predicted, truth),
        "calibration": calibration_sums(margin, truth),
        "nll": nll_sums(margin, truth),
    }


def calibration_sums(margin: Tensor, truth: Tensor) -> Tensor:
    """Sorts the known pixels of each image into 15 equal bins of the confidence in their predicted class.

    A bin holds its lower edge, and the last holds 1 as well.

    Args:
        margin: (B, H, W) float, the logit of forest less that of background.
        truth: (B, H, W) uint8 class indices, IGNORE_INDEX where unknown.

    Returns:
        (B, 15, 3) float64: number of pixels, sum of their confidence, number of the correctly predicted.
    """
    forest, unknown = truth_flags(truth)
    confidence = margin.abs().sigmoid_()
    bins = (confidence * NUM_BINS).to(torch.uint8).clamp_(max=NUM_BINS - 1)
    correct = (margin > 0) ^ forest ^ 1
    cells = (bins | correct << 4 | unknown << 5).long()
    images = torch.arange(len(cells), device=cells.device).view(-1, 1, 1)
    cells = cells.add_(images * NUM_CELLS).flatten()
    sums = torch.zeros(2, len(images) * NUM_CELLS, dtype=torch.float64, device=cells.device)
    sums[0].index_add_(0, cells, sums.new_ones(1).expand(len(cells)))
    sums[1].index_add_(0, cells, confidence.flatten().double())
    # (2, B, known, correct, 16 bins), of which the known pixels and the first 15 bins.
    number, confidences = sums.view(2, len(images), 2, 2, 16)[:, :, 0, :, :NUM_BINS]
    return torch.stack([number.sum(dim=1), confidences.sum(dim=1), number[:, 1]], dim=2)


def nll_sums(margin: Tensor, truth: Tensor) -> Tensor:
    """Sums the negative log-likelihood of the true class over the known pixels of each image.

    Args:
        margin: (B, H, W) float, the logit of forest less that of background.
        truth: (B, H, W) uint8 class indices, IGNORE_INDEX where unknown.

    Returns:
        (B,) float64, nats. Each pixel is computed in the margin's own type, the sum in float64.
    """
    forest, unknown = truth_flags(truth)
    sign = (1 - 2 * forest.view(torch.int8)).to(margin.dtype)
    # Beyond 50 the softplus differs from its argument by e^-50; torch would give up at 20 already.
    nll = F.softplus(margin * sign, threshold=50).mul_(1 - unknown)
    return nll.flatten(1).sum(dim=1, dtype=torch.float64)
