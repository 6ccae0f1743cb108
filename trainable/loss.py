"""Partial focal cross-entropy: supervision at the labelled pixels alone.

Nothing here makes the host wait for the device: unlabelled entries count as 0 instead of being taken out, because
`if mask.any()` and `values[mask]` need the mask's content on the host before the next kernel can be launched.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.config import IGNORE_INDEX, InputError


def partial_focal_loss(logits: Tensor, labels: Tensor, gamma: float, class_weights: Tensor | None = None) -> Tensor:
    """Focal cross-entropy, averaged over the labelled pixels of the whole batch.

    `sum(w_c (1 - p)^gamma (-log p)) / sum(w_c)`, with p the softmax probability of the labelled class. Mean over
    labelled pixels, not over H x W: otherwise the point count would rescale the gradient, and a study would confound
    it with the learning rate.

    Args:
        logits: (B, C, H, W) float, unnormalised; half precision is computed and summed in float32.
        labels: (B, H, W) integer, IGNORE_INDEX where unlabelled.
        gamma: focal exponent, at least 0; 0 is cross-entropy exactly.
        class_weights: (C,) float, or None for equal weights.

    Returns:
        Scalar, nats per labelled pixel; 0, with a graph, where nothing is labelled or all that is has weight 0.
    Source: Lin et al. 2017, eq. 4, over labelled pixels only.
    """
    labels = labels.long()
    # Reduction "none" and a sum after it: cross_entropy's own sum is not deterministic on a GPU, and slower on a CPU.
    nll = F.cross_entropy(at_least_float32(logits), labels, ignore_index=IGNORE_INDEX, reduction="none")
    losses = nll if gamma == 0 else _focal_factor(nll, gamma) * nll  # 0 where unlabelled, as nll is
    if class_weights is None:
        return _ratio(losses.sum(), (labels != IGNORE_INDEX).sum())
    # Classes without a weight of their own, IGNORE_INDEX among them, look up a 0.
    weights = F.pad(class_weights.to(nll.dtype), (0, IGNORE_INDEX + 1 - len(class_weights)))[labels]
    return _ratio((weights * losses).sum(), weights.sum())


def point_focal_loss(logits: Tensor, classes: Tensor, gamma: float, class_weights: Tensor | None = None) -> Tensor:
    """`partial_focal_loss` of a model that computes its logits at the points alone: the same number, without the map.

    Args:
        logits: (N, C) float, unnormalised, of the points of all images of a batch.
        classes: (N,) integer, IGNORE_INDEX for padding.
        gamma: focal exponent, at least 0.
        class_weights: (C,) float, or None for equal weights.

    Returns:
        Scalar, nats per point; 0, with a graph, where all is padding.
    """
    return partial_focal_loss(logits, classes, gamma, class_weights)


def class_weights_from_counts(counts: Tensor, mode: str, priors: Tensor | None = None) -> Tensor | None:
    """Weights that give each class the share of the loss that it should have, whatever share of the points it got.

    The weight of a class is its wanted share over its labelled share, scaled to a mean of 1 over the labelled points.

    Args:
        counts: (C,) labelled points per class of the training images.
        mode: `none`; `balanced`: all classes with points are wanted equally; `prior`: by their share of the pixels.
        priors: (C,) share of each class among the pixels of the training images, any scale; `prior` needs it.

    Returns:
        (C,) float64, or None for `none`. A class without a labelled point has weight 0: no weight can bring it back,
        and the others share what it would have had. So does, under `prior`, a class that has no pixel.

    Raises:
        InputError: `prior` without priors, or no labelled point in any class that is wanted.
    """
    if mode == "none":
        return None
    if mode == "prior" and priors is None:
        raise InputError(
            "training.class_weights: prior needs the classes' share of the pixels, which point annotations alone do"
            " not tell; use balanced or none"
        )
    wanted = torch.ones_like(counts) if mode == "balanced" or priors is None else priors
    reached = wanted.double() * (counts > 0)  # (C,) the wanted shares that there are points for
    if not reached.sum() > 0:
        raise InputError(
            f"training.class_weights: {mode} needs labelled points of a class that the images hold, but the classes"
            f" have {counts.tolist()} points; use none, or label more"
        )
    return reached / reached.sum() * counts.sum() / counts.clamp_min(1)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32, wider types as they are: a sum over many pixels in bfloat16 stops growing at 256."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _focal_factor(nll: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma from -log p; the clamp keeps the gradient finite at p = 1 for gamma below 1."""
    return (-torch.expm1(-nll)).clamp_min(torch.finfo(nll.dtype).tiny) ** gamma


def _ratio(total: Tensor, weight: Tensor) -> Tensor:
    """Total by weight; 0 where both are 0, as nothing is labelled then."""
    return total / (weight + (weight == 0))
