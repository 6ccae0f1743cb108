"""Optional losses for the pixels that nobody labelled. Off by default; factors of a study when on.

Deterministic on CPU and GPU: no scatter, no interpolation, no pooling with a gradient. Nothing here makes the host wait
for the device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.loss import at_least_float32

# The defaults of the authors' implementation (github.com/toshas/GatedCRFLoss), which applies the loss to predictions at
# a quarter of the input's size, with a weight of 0.1 beside the cross-entropy.
CRF_RADIUS = 5
"""Neighbours within a window of (2 r + 1) x (2 r + 1) pixels of the prediction."""

CRF_SIGMA_POSITION = 6.0
"""Width of the Gaussian over positions, pixels of the prediction."""

CRF_SIGMA_COLOUR = 0.1
"""Width of the Gaussian over colours, RGB in [0, 1]."""


def entropy_loss(logits: Tensor, unlabelled: Tensor) -> Tensor:
    """Mean entropy of the predictions at the unlabelled pixels; falling, it makes the model decide.

    Args:
        logits: (B, C, h, w) float, unnormalised.
        unlabelled: (B, h, w) bool.

    Returns:
        Scalar, nats per unlabelled pixel, at most ln C; 0, with a graph, where there is none.
    Source: Grandvalet & Bengio 2004.
    """
    log_probs = F.log_softmax(at_least_float32(logits), dim=1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=1)  # (B, h, w)
    return (entropy * unlabelled).sum() / unlabelled.sum().clamp_min(1)


def consistency_loss(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Mean squared difference of two predictions for the same pixels, seen differently.

    Symmetric, and both sides learn: neither of the two views is the teacher.

    Args:
        logits_a: (B, C, h, w) float, unnormalised.
        logits_b: the same shape, brought back to the pixels of `logits_a` (mirrored back where the image was mirrored).

    Returns:
        Scalar in [0, 2 / C], mean over pixels and classes of the squared difference of softmax probabilities.
    Source: Laine & Aila 2017, algorithm 1 (the Pi-model), the unsupervised term.
    """
    return F.mse_loss(at_least_float32(logits_a).softmax(dim=1), at_least_float32(logits_b).softmax(dim=1))


def gated_crf_loss(logits: Tensor, images: Tensor) -> Tensor:
    """Potts energy of the prediction: neighbours of similar colour should be of the same class.

    `1 / N sum_ij k_ij sum_c p_i(c) (1 - p_j(c))` over the N pixels i of the batch and the other pixels j of their
    window, with k_ij a Gaussian of position and colour. Windows end at the image's edge (the gate). It is 0 where one
    class is sure everywhere, and positive for unsure predictions, even constant ones: it also asks to decide.

    Args:
        logits: (B, C, h, w) float, unnormalised, at the decoder's own resolution: the time goes with h x w.
        images: (B, bands, H, W) float in [0, 1], not normalised by mean and deviation; averaged down to h x w.

    Returns:
        Scalar, at least 0 and below the kernel's sum over a window (92 at most).
    Source: Obukhov et al. 2019, with one kernel of position and colour, as in the authors' implementation.
    """
    probs = at_least_float32(logits).softmax(dim=1).contiguous()  # rows are what the shifts below run along
    with torch.no_grad():
        colours = F.adaptive_avg_pool2d(images.to(probs.dtype), (probs.shape[2], probs.shape[3])).contiguous()
        costs = _class_costs(probs, colours)
    # The energy sum(p * costs) is quadratic in p with a symmetric kernel: its gradient is 2 * costs, but for a term
    # that all classes share and softmax ignores. So the costs are held fixed, and the first factor has the value of p
    # and the gradient of 2 p. Autograd would keep the kernel instead: 60 maps.
    return ((2 * probs - probs.detach()) * costs).sum() / costs[:, 0].numel()


def _class_costs(probs: Tensor, colours: Tensor) -> Tensor:
    """(B, C, h, w): for each pixel and class, the similarity-weighted votes of its neighbours for other classes."""
    height, width = probs.shape[2:]
    # Bands are averaged, times RGB's three: the colour width keeps its meaning for any number of bands.
    features = colours * ((3 / colours.shape[1]) ** 0.5 / CRF_SIGMA_COLOUR)  # (B, bands, h, w)
    others = 1 - probs
    costs = torch.zeros_like(probs)
    for down, right in _half_window():
        here = _window(height, width, -down, -right)
        there = _window(height, width, down, right)
        distance = (features[here] - features[there]).square_().sum(dim=1, keepdim=True)
        kernel = (-0.5 * (distance + (down**2 + right**2) / CRF_SIGMA_POSITION**2)).exp_()
        costs[here].addcmul_(kernel, others[there])
        costs[there].addcmul_(kernel, others[here])
    return costs


def _half_window() -> list[tuple[int, int]]:
    """(down, right) to every pixel of the window that comes later in reading order: each pair of pixels once."""
    reach = range(-CRF_RADIUS, CRF_RADIUS + 1)
    return [(down, right) for down in range(CRF_RADIUS + 1) for right in reach if (down, right) > (0, 0)]


def _window(height: int, width: int, down: int, right: int) -> tuple[slice, ...]:
    """Index of the part of a (B, C, h, w) map that stays inside it when moved by (-down, -right)."""
    rows = slice(max(down, 0), max(height + min(down, 0), 0))
    columns = slice(max(right, 0), max(width + min(right, 0), 0))
    return slice(None), slice(None), rows, columns
