"""Partial focal cross-entropy: supervision at the labelled pixels alone."""

import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.config import IGNORE_INDEX


def partial_focal_loss(logits: Tensor, labels: Tensor, gamma: float, class_weights: Tensor | None = None) -> Tensor:
    """Focal cross-entropy, averaged over the labelled pixels of the whole batch.

    `sum(w_c (1 - p)^gamma (-log p)) / sum(w_c)`, with p the softmax probability of the labelled class. Mean over
    labelled pixels, not over H x W: otherwise the point count would rescale the gradient, and a study would confound
    it with the learning rate.

    Args:
        logits: (B, C, H, W) float, unnormalised.
        labels: (B, H, W) integer, IGNORE_INDEX where unlabelled.
        gamma: focal exponent, at least 0; 0 is cross-entropy exactly.
        class_weights: (C,) float, or None for equal weights.

    Returns:
        Scalar, nats per labelled pixel; 0, with a graph, where nothing is labelled.
    Source: Lin et al. 2017, eq. 4, over labelled pixels only.
    """
    labelled = labels != IGNORE_INDEX
    if not labelled.any():
        return logits.sum() * 0.0
    targets = labels[labelled].long()  # (P,)
    log_probs = F.log_softmax(logits.permute(0, 2, 3, 1)[labelled], dim=1)  # (P, C)
    log_p = log_probs.gather(1, targets[:, None])[:, 0]
    weights = torch.ones_like(log_p) if class_weights is None else class_weights[targets]
    return (weights * _focal_factor(log_p, gamma) * -log_p).sum() / weights.sum()


def _focal_factor(log_p: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma from log p; the clamp keeps the gradient finite at p = 1 for gamma below 1."""
    if gamma == 0:
        return torch.ones_like(log_p)
    return (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny) ** gamma
