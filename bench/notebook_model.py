"""The notebook's model and how it trained it; `bench/notebook_baseline.py` holds its loading, loss and metrics.

One model is the baseline of all our encoders: the notebook's ResNet-50 decoder without skips, 28.8 GFLOP (2 MAC) an
image at 256 px, 61.2 M parameters (SCIENCE.md, Compute). float32, contiguous memory, torch's default algorithms.
"""

import os
from collections.abc import Iterable
from itertools import pairwise
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bench.notebook_baseline import NotebookImages, image_metrics, partial_loss
from trainable.config import CLASS_NAMES

DECODER_CHANNELS = (2048, 1024, 512, 256, 128, 64)
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 1e-3


class NotebookSegmenter(nn.Module):
    """torchvision's ResNet-50 and five blocks that use the *sizes* of the shallower encoder maps, not their features.

    The encoder's maps are the stem's (before its pooling) and those of layers 1 to 4: strides 2, 4, 8, 16, 32. That the
    stem's is the one before pooling follows from the 28.8 GFLOP and the 170 MiB of activations; after it, 26.1 and 149.
    """

    def __init__(self) -> None:
        super().__init__()
        resnet = torchvision.models.resnet50()
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu)
        self.pool = resnet.maxpool
        self.layers = nn.ModuleList([resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4])
        self.blocks = nn.ModuleList(_block(before, after) for before, after in pairwise(DECODER_CHANNELS))
        self.head = nn.Conv2d(DECODER_CHANNELS[-1], len(CLASS_NAMES), kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H, W) logits."""
        features = self.stem(images)
        sizes = [features.shape[2:]]
        features = self.pool(features)
        for layer in self.layers:
            features = layer(features)
            sizes.append(features.shape[2:])
        features = self.blocks[0](features)
        for block, size in zip(self.blocks[1:], reversed(sizes[:-1]), strict=True):
            features = block(_upsampled(features, size))
        return self.classify(features, images.shape[2:])

    def classify(self, features: Tensor, size: torch.Size) -> Tensor:
        """Its last stage: (B, 64, H/2, W/2) -> (B, C, H, W), upsampled first and classified then."""
        return cast(Tensor, self.head(_upsampled(features, size)))


class NotebookTraining:
    """Its training and evaluation loops: default Adam, `loss.item()` at every step, argmax to numpy, sklearn."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.model = NotebookSegmenter().to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def step(self, images: Tensor, labels: Tensor) -> float:
        """One step: (B, 3, H, W) float32 and (B, H, W) int64 -> the loss."""
        images, labels = images.to(self.device), labels.to(self.device)
        self.optimizer.zero_grad()
        loss = partial_loss(self.model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()

    def train_epoch(self, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
        """One pass; returns the mean loss."""
        self.model.train()
        return float(np.mean([self.step(images, labels) for images, labels in batches]))

    @torch.no_grad()
    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> NDArray[np.float64]:
        """Its four metrics, mean over the images."""
        self.model.eval()
        scores = [
            image_metrics(self.model(images.to(self.device)).argmax(dim=1).cpu().numpy(), truth.numpy())
            for images, truth in batches
        ]
        means: NDArray[np.float64] = np.concatenate(scores).mean(axis=0)
        return means


def notebook_settings(num_threads: int) -> None:
    """Torch as the notebook had it: no deterministic algorithms, which our run switches on for the whole process."""
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(num_threads)


def notebook_loader(images: NotebookImages, batch_size: int, *, shuffle: bool) -> "DataLoader[tuple[Tensor, Tensor]]":
    """Its `DataLoader`: 4 workers, or as many as there are cores where these are fewer, which torch advises."""
    num_workers = min(4, os.cpu_count() or 1)
    return DataLoader(images, batch_size=batch_size, shuffle=shuffle, num_workers=num_workers)


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions with batch norm and ReLU; no bias, which the batch norm would take away again."""
    convolutions = [(in_channels, out_channels), (out_channels, out_channels)]
    layers = (
        [nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        for before, after in convolutions
    )
    return nn.Sequential(*(module for each in layers for module in each))


def _upsampled(features: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(features, size=size, mode="bilinear", align_corners=True)
