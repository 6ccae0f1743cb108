"""The segmenter: an encoder, a lean U-Net decoder that may stop early, a head for all pixels or for points alone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainable.config import CLASS_NAMES, TrainConfig
from trainable.encoders import build_encoder
from trainable.randomness import derive_seed

DECODER_WIDTHS = {16: 256, 8: 128, 4: 64, 2: 32, 1: 16}
"""Stride -> channels of the decoder there, as is usual for U-Nets on classifiers' encoders."""


class DecoderBlock(nn.Module):
    """Doubles the resolution, joins the encoder's features of that resolution, and mixes them with two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            *_conv_bn_relu(in_channels + skip_channels, out_channels), *_conv_bn_relu(out_channels, out_channels)
        )

    def forward(self, features: Tensor, skip: Tensor | None) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, 2H, 2W)."""
        # Nearest, not bilinear: its gradient is deterministic on a GPU too, and the convolutions smooth it.
        features = F.interpolate(features, scale_factor=2.0, mode="nearest")
        return cast(Tensor, self.mix(features if skip is None else torch.cat([features, skip], dim=1)))


class Segmenter(nn.Module):
    """U-Net whose decoder stops at `decoder_stride`; from there to the image's own size its logits are bilinear.

    Attributes:
        stride: input pixels per feature of the last feature map.
        mean, std: (bands, 1, 1) what images are normalised by; part of its state, so that weights bring them along.
    Source: Ronneberger et al. 2015, with the decoder widths usual for ResNet encoders.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: TrainConfig, num_bands: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_bands, 1, 1))
        self.register_buffer("std", torch.ones(num_bands, 1, 1))
        self.encoder = build_encoder(config, num_bands)
        self.stride = config.decoder_stride
        self.is_encoder_frozen = config.freeze_encoder
        self.saves_memory = config.gradient_checkpointing
        skips = dict(zip(self.encoder.strides, self.encoder.widths, strict=True))
        self.decoder_strides = [stride for stride in DECODER_WIDTHS if stride >= self.stride]
        inputs = [self.encoder.widths[-1], *(DECODER_WIDTHS[stride] for stride in self.decoder_strides)]
        self.decoder = nn.ModuleList(
            DecoderBlock(inputs[i], skips.get(stride, 0), DECODER_WIDTHS[stride])
            for i, stride in enumerate(self.decoder_strides)
        )
        self.head = nn.Conv2d(DECODER_WIDTHS[self.stride], len(CLASS_NAMES), kernel_size=1)
        self.encoder.requires_grad_(not config.freeze_encoder)
        self.train()

    def train(self, mode: bool = True) -> "Segmenter":
        """A frozen encoder stays in evaluation mode: its batch statistics are part of what is frozen."""
        super().train(mode)
        self.encoder.train(mode and not self.is_encoder_frozen)
        return self

    def features(self, images: Tensor) -> Tensor:
        """(B, bands, H, W) in [0, 1] -> (B, F, H / stride, W / stride); H and W multiples of 32."""
        skips = dict(zip(self.encoder.strides, self._encode((images - self.mean) / self.std), strict=True))
        features = skips[self.encoder.strides[-1]]
        for stride, block in zip(self.decoder_strides, self.decoder, strict=True):
            features = self._run(block, features, skips.get(stride))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """(B, bands, H, W) in [0, 1] -> (B, C, H, W) logits."""
        return self.dense_logits(self.features(images))

    def decoder_logits(self, features: Tensor) -> Tensor:
        """(B, F, h, w) of any precision -> (B, C, h, w), in the precision of the weights."""
        return cast(Tensor, self.head(features.to(self.head.weight.dtype)))

    def dense_logits(self, features: Tensor) -> Tensor:
        """(B, F, h, w) -> (B, C, h * stride, w * stride)."""
        logits = self.decoder_logits(features)
        if self.stride == 1:
            return logits
        return F.interpolate(logits, scale_factor=float(self.stride), mode="bilinear", align_corners=False)

    def point_logits(self, features: Tensor, positions: Tensor) -> Tensor:
        """The dense logits at some pixels, without the others.

        A 1x1 head commutes with bilinear interpolation, so the features are interpolated at the points alone.

        Args:
            features: (B, F, h, w).
            positions: (B, P) int64, row * W + column in the image of W = w * stride columns.

        Returns:
            (B, P, C), equal to `dense_logits` there.
        """
        sampled = sample_bilinear(features, positions, self.stride)  # (B, P, F)
        return F.linear(sampled, self.head.weight.flatten(1), self.head.bias)

    def _encode(self, images: Tensor) -> list[Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_encoder_frozen):
            return cast("list[Tensor]", self.encoder(images, self._run))

    def _run(self, block: nn.Module, *inputs: Tensor | None) -> Tensor:
        """Applies a block; where memory is to be saved, its activations are dropped and computed again."""
        if not (self.saves_memory and self.training and torch.is_grad_enabled()):
            return cast(Tensor, block(*inputs))
        if torch.compiler.is_compiling():  # a compiled graph moves the statistics once, and takes no contexts
            return cast(Tensor, checkpoint(block, *inputs, use_reentrant=False))
        contexts = lambda: (nullcontext(), _statistics_kept(block))  # noqa: E731
        return cast(Tensor, checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts))


def build_model(config: TrainConfig, num_bands: int, statistics: tuple[Tensor, Tensor] | None = None) -> Segmenter:
    """The model of a run. Seeds are blocks: the same seed gives the same initial weights in every cell.

    Args:
        config: encoder, decoder and initial weights.
        num_bands: of the images.
        statistics: (mean, standard deviation), each (bands,), for images in [0, 1]; else they are taken as they are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        model = Segmenter(config, num_bands)
    if statistics:
        model.mean[:, 0, 0], model.std[:, 0, 0] = statistics
    return model


def sample_bilinear(features: Tensor, positions: Tensor, stride: int) -> Tensor:
    """Interpolates a feature map at the centres of some pixels of the image, as `align_corners=False` places them.

    Written with gathered rows, not `grid_sample`, whose gradient is not deterministic on a GPU.

    Args:
        features: (B, F, h, w).
        positions: (B, P) int64, row * W + column in the image of W = w * stride columns.
        stride: image pixels per feature.

    Returns:
        (B, P, F).
    """
    batch, channels, height, width = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels)  # (B h w, F), no copy in channels-last memory
    first = torch.arange(batch, device=features.device)[:, None] * (height * width)
    top, bottom, down = _neighbours(positions // (width * stride), stride, height)
    left, right, across = _neighbours(positions % (width * stride), stride, width)
    corners = torch.stack([top * width + left, top * width + right, bottom * width + left, bottom * width + right])
    weights = torch.stack([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across])
    sampled = rows.index_select(0, (first + corners).flatten()).view(4, *positions.shape, channels)
    exact = torch.float64 if features.dtype == torch.float64 else torch.float32
    return (sampled.to(exact) * weights.to(exact)[..., None]).sum(dim=0)


def _neighbours(pixels: Tensor, stride: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """(lower, upper, share of the upper) feature along one axis, clamped at the border."""
    place = ((pixels + 0.5) / stride - 0.5).clamp(0, size - 1)
    lower = place.floor().long()
    return lower, (lower + 1).clamp(max=size - 1), place - lower


def _conv_bn_relu(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second pass of gradient checkpointing must not enter the running statistics again: it is given copies.

    Merely not tracking them would not do: batch normalisation then saves fewer tensors than the first pass did.
    """
    buffers = [(module, *named) for module in block.modules() for named in module.named_buffers(recurse=False)]
    for module, name, buffer in buffers:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
