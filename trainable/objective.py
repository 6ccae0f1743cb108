"""What a training step minimises: the loss at the labelled pixels, and optional terms for all the others."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainable.config import IGNORE_INDEX, TrainConfig
from trainable.loss import partial_focal_loss, point_focal_loss
from trainable.model import Segmenter
from trainable.regularisers import consistency_loss, entropy_loss, gated_crf_loss

Features = Callable[[Tensor], Tensor]
"""(B, bands, H, W) images in [0, 1] -> (B, F, h, w), the model's last feature map."""


class Objective:
    """The loss of a batch.

    Args:
        config: gamma and the weights of the optional terms.
        model: for its head.
        features: how images become features: normalisation and precision included.
        class_weights: (C,), or None for equal weights.
    """

    def __init__(self, config: TrainConfig, model: Segmenter, features: Features, class_weights: Tensor | None) -> None:
        self.config = config
        self.model = model
        self.features = features
        self.class_weights = class_weights

    def __call__(self, images: Tensor, positions: Tensor | None, labels: Tensor) -> Tensor:
        """Scalar, nats per labelled pixel plus the weighted optional terms.

        Args:
            images: (B, bands, H, W) in [0, 1].
            positions: (B, P) int64, or None where all pixels are labelled.
            labels: (B, P) int64 at the positions, or (B, H, W) uint8; IGNORE_INDEX where unlabelled.
        """
        features = self.features(images)
        if positions is None:
            logits = self.model.dense_logits(features)
            loss = partial_focal_loss(logits, labels, self.config.focal_gamma, self.class_weights)
        else:
            logits = self.model.point_logits(features, positions).flatten(0, 1)
            loss = point_focal_loss(logits, labels.flatten(), self.config.focal_gamma, self.class_weights)
        for term in self._optional_terms(features, images, positions, labels):
            loss = loss + term
        return loss

    def _optional_terms(
        self, features: Tensor, images: Tensor, positions: Tensor | None, labels: Tensor
    ) -> list[Tensor]:
        """Those that are on, at the decoder's own resolution, where a map has a quarter of the pixels or fewer."""
        config, terms = self.config, []
        if not (config.entropy_weight or config.consistency_weight or config.crf_weight):
            return []
        logits = self.model.decoder_logits(features)  # (B, C, h, w)
        if config.entropy_weight:
            terms.append(config.entropy_weight * entropy_loss(logits, self._unlabelled(logits, positions, labels)))
        if config.consistency_weight:
            mirrored = self.model.decoder_logits(self.features(images.flip(3))).flip(3)
            terms.append(config.consistency_weight * consistency_loss(logits, mirrored))
        if config.crf_weight:
            terms.append(config.crf_weight * gated_crf_loss(logits, images))
        return terms

    def _unlabelled(self, logits: Tensor, positions: Tensor | None, labels: Tensor) -> Tensor:
        """(B, h, w) bool: decoder pixels in which no labelled pixel lies."""
        batch, _, height, width = logits.shape
        stride = self.model.stride
        if positions is None:
            known = (labels != IGNORE_INDEX).view(batch, height, stride, width, stride)
            return ~known.any(dim=4).any(dim=2)
        row, column = positions // (width * stride) // stride, positions % (width * stride) // stride
        hits = torch.zeros(batch, height * width, device=logits.device)
        hits.scatter_add_(1, row * width + column, (labels != IGNORE_INDEX).float())
        return hits.view(batch, height, width) == 0
