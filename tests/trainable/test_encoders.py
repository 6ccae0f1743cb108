"""The stages of every encoder, and its adaptation to other bands than RGB."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from trainable.config import ENCODERS, TrainConfig
from trainable.encoders import Encoder, build_encoder

STAGES = {  # strides and widths, from the tables of the papers
    "resnet18": ([2, 4, 8, 16, 32], [64, 64, 128, 256, 512]),
    "resnet34": ([2, 4, 8, 16, 32], [64, 64, 128, 256, 512]),
    "resnet50": ([2, 4, 8, 16, 32], [64, 256, 512, 1024, 2048]),
    "resnet101": ([2, 4, 8, 16, 32], [64, 256, 512, 1024, 2048]),
    # Of these three the widening to 1280, 960 and 1280 channels, which only a classification head needs, is left out.
    "mobilenet_v2": ([2, 4, 8, 16, 32], [16, 24, 32, 96, 320]),
    "mobilenet_v3_large": ([2, 4, 8, 16, 32], [16, 24, 40, 112, 160]),
    "efficientnet_b0": ([2, 4, 8, 16, 32], [16, 24, 40, 112, 320]),
    "convnext_tiny": ([4, 8, 16, 32], [96, 192, 384, 768]),
}
SMALL = "mobilenet_v2"
every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


@cache
def classifier(encoder: str) -> nn.Module:
    """torchvision's own, with random weights; copied where it is altered."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision.models.get_model(encoder)


# Stages


@every_encoder
def test_strides_and_widths(encoder: str) -> None:
    with torch.device("meta"):  # shapes without numbers
        built = build_encoder(TrainConfig(encoder=encoder, weights="none"), num_bands=3)
        features = built(torch.empty(2, 3, 64, 96))
    assert (built.strides, built.widths) == STAGES[encoder]
    shapes = [(2, width, 64 // stride, 96 // stride) for stride, width in zip(*STAGES[encoder], strict=True)]
    assert [tuple(each.shape) for each in features] == shapes


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny"])
def test_the_last_stage_gives_what_torchvisions_classifier_computes(encoder: str) -> None:
    original: Any = copy.deepcopy(classifier(encoder)).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    if encoder == "resnet18":
        kept = nn.Sequential(*list(original.children())[:-2])  # all but pooling and head
    else:
        kept = original.features if encoder == "convnext_tiny" else original.features[:-1]
    last = Encoder(copy.deepcopy(original), num_bands=3).eval()(images)[-1]
    torch.testing.assert_close(last, kept(images), rtol=0, atol=0)


def test_finding_the_stages_leaves_no_trace() -> None:
    built = Encoder(copy.deepcopy(classifier(SMALL)), num_bands=3)
    assert all(module.training for module in built.modules())
    norms = [module for module in built.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {0}
    assert not any(norm.running_mean.any() for norm in norms)


# Bands


EVERY_NUMBER = [(SMALL, bands) for bands in range(1, 9)]
EVERY_FAMILY = [("resnet18", 4), ("mobilenet_v3_large", 4), ("efficientnet_b0", 1), ("convnext_tiny", 8)]


@pytest.mark.parametrize(("encoder", "num_bands"), EVERY_NUMBER + EVERY_FAMILY)
def test_a_grey_image_looks_the_same_in_any_number_of_bands(encoder: str, num_bands: int) -> None:
    grey = torch.rand(1, 1, 32, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rgb, adapted = (
        Encoder(copy.deepcopy(classifier(encoder)), bands).double().eval()(grey.expand(-1, bands, -1, -1))
        for bands in (3, num_bands)
    )
    assert [each.shape for each in adapted] == [each.shape for each in rgb]
    for ours, expected in zip(adapted, rgb, strict=True):  # the means are rounded to float32
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def test_each_band_gets_the_mean_of_the_rgb_weights() -> None:
    original: Any = classifier("resnet18")
    adapted: Any = Encoder(copy.deepcopy(original), num_bands=5)
    expected = original.conv1.weight.mean(dim=1) * 3 / 5
    for band in range(5):
        torch.testing.assert_close(adapted.stages[0][0][0].weight[:, band], expected)
