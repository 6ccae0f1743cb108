"""A torchvision ResNet encoder with a lean U-Net decoder."""

import pickle
from typing import cast

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from trainable.config import CLASS_NAMES, InputError, TrainConfig
from trainable.randomness import derive_seed

DECODER_CHANNELS = (256, 128, 64, 32, 16)
IMAGENET_WEIGHTS = "IMAGENET1K_V1"  # the weights that every published comparison on these encoders starts from


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
    """U-Net: the encoder's five resolutions (strides 2 to 32), decoded back to the input's size.

    Args:
        encoder: name of a torchvision ResNet.
        num_bands: bands of the input.
        pretrained: whether the encoder starts from ImageNet weights.
    Source: Ronneberger et al. 2015, with the decoder widths usual for ResNet encoders.
    """

    def __init__(self, encoder: str, num_bands: int, *, pretrained: bool) -> None:
        super().__init__()
        resnet = torchvision.models.get_model(encoder, weights=IMAGENET_WEIGHTS if pretrained else None)
        if num_bands != 3:
            resnet.conv1 = _adapted_stem(resnet.conv1, num_bands)
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu)
        self.pool = resnet.maxpool
        self.stages = nn.ModuleList([resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4])
        widths = [resnet.conv1.out_channels, *(_out_channels(stage) for stage in self.stages)]
        skips = [*reversed(widths[:-1]), 0]  # the last block works at the input's size, where there is no skip
        inputs = [widths[-1], *DECODER_CHANNELS[:-1]]
        blocks = (DecoderBlock(i, s, o) for i, s, o in zip(inputs, skips, DECODER_CHANNELS, strict=True))
        self.decoder = nn.ModuleList(blocks)
        self.head = nn.Conv2d(DECODER_CHANNELS[-1], len(CLASS_NAMES), kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, bands, H, W) normalised floats -> (B, C, H, W) logits; H and W multiples of 32."""
        skips: list[Tensor | None] = [self.stem(images)]
        features = self.pool(skips[0])
        for stage in self.stages:
            features = stage(features)
            skips.append(features)
        skips = [None, *skips[:-1]]  # the deepest features are the decoder's input, not a skip
        for block in self.decoder:
            features = block(features, skips.pop())
        return cast(Tensor, self.head(features))


def build_model(config: TrainConfig, num_bands: int) -> Segmenter:
    """The model of a run. Seeds are blocks: the same seed gives the same initial weights in every cell."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        return Segmenter(config.encoder, num_bands, pretrained=config.weights == "imagenet")


def fetch_weights(config: TrainConfig) -> None:
    """Gets the encoder's pretrained weights into torchvision's cache before any trial needs them.

    Raises:
        InputError: they are neither in the cache nor to be downloaded.
    """
    if config.weights == "none":
        return
    weights = torchvision.models.get_model_weights(config.encoder)[IMAGENET_WEIGHTS]
    try:
        weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        cache = f"{torch.hub.get_dir()}/checkpoints"
        raise InputError(
            f"training.weights: {weights.url} cannot be downloaded, or its copy is damaged ({error});"
            f" put the file into {cache}, or set training.weights to none (random initial weights)"
        ) from error


def _conv_bn_relu(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def _out_channels(stage: nn.Module) -> int:
    convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d)]
    return max(conv.out_channels for conv in convolutions)


def _adapted_stem(conv: nn.Conv2d, num_bands: int) -> nn.Conv2d:
    """The first convolution for another number of bands: each gets the mean of the RGB weights, at the same total."""
    adapted = nn.Conv2d(num_bands, conv.out_channels, kernel_size=7, stride=2, padding=3, bias=False)
    mean = conv.weight.detach().mean(dim=1, keepdim=True)
    adapted.weight = nn.Parameter(mean.repeat(1, num_bands, 1, 1) * 3 / num_bands)
    return adapted
