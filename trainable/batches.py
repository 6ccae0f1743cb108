"""The training images of an epoch, with their labels, on the device by the time the step wants them."""

import itertools
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainable.config import CLASS_NAMES, DENSE, IGNORE_INDEX, InputError, TrainConfig
from trainable.points import draw_points, pack_points
from trainable.randomness import derive_seed
from trainable.store import Store


@dataclass(frozen=True)
class Batch:
    """Images and labels of one step.

    Attributes:
        indices: (B,) the images' places in the store.
        pixels: (B, H, W, bands) uint8, as stored.
        labels: the classes of all pixels, (B, H, W) uint8, in the dense arm; else those of the points, (B, P) int64.
            IGNORE_INDEX where unlabelled.
        positions: (B, P) int64, row * W + column of the points; None in the dense arm.
    """

    indices: NDArray[np.int64]
    pixels: Tensor
    labels: Tensor
    positions: Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; nothing waits for the copies to arrive."""
        if device.type == "cpu":
            return self

        def move(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        positions = None if self.positions is None else move(self.positions)
        return Batch(self.indices, move(self.pixels), move(self.labels), positions)


class Batches:
    """The training split in batches: straight from the memory-mapped store, one batch ahead of the step.

    Attributes:
        members: places in the store of the N training images: those of the split, or as many as are labelled.
        points: (positions, classes), each (N, P), of the training images; None in the dense arm.
        teaching: places among the training images of those that an epoch shows: those with a label, and all where a
            term of the loss learns from unlabelled pixels.
        waited_s: seconds that the steps of the last epoch waited for data.
    """

    def __init__(self, config: TrainConfig, store: Store) -> None:
        self.config = config
        self.members = choose_images(config, store)
        # The plain arrays beneath: a memory map makes every operation on it dearer.
        self.images, self.masks = np.asarray(store.images), np.asarray(store.masks)
        self.points = None if config.points_per_image == DENSE else _draw_all(config, store, self.members)
        learns_without = config.entropy_weight or config.consistency_weight or config.crf_weight
        self._label_counts = class_counts(self.points[1]) if self.points else self.pixel_counts()
        is_labelled = self._label_counts.any(axis=1)
        self.teaching = np.arange(len(self.members)) if learns_without else np.flatnonzero(is_labelled)
        self.waited_s = 0.0

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch: batches that differ by one image at most.

        A small remainder as a last batch would give batch normalisation almost nothing to average over. At 32 px the
        encoder ends at 1 x 1, where one image alone has no variance, so no batch is of one.
        """
        count = len(self.teaching)
        return max(1, min(math.ceil(count / self.config.batch_size), count // 2))

    def epoch(self, epoch: int, device: torch.device) -> Iterator[Batch]:
        """All images that teach once, in the order of (seed, epoch)."""
        generator = np.random.Generator(np.random.PCG64(derive_seed(self.config.seed, "order", epoch)))
        order = np.array_split(generator.permutation(self.teaching), self.per_epoch)
        self.waited_s = 0.0
        with ThreadPoolExecutor(1) as loader:
            upcoming = loader.submit(self.load, order[0])
            for following in order[1:]:
                batch = self._wait_for(upcoming)
                upcoming = loader.submit(self.load, following)
                yield batch.to(device)
            yield self._wait_for(upcoming).to(device)

    def load(self, chosen: NDArray[np.int64]) -> Batch:
        """The images at some places among the training images, with their labels."""
        indices = self.members[chosen]
        pixels = torch.from_numpy(self.images.take(indices, axis=0))
        if self.points is None:
            return Batch(indices, pixels, torch.from_numpy(self.masks.take(indices, axis=0)), None)
        positions, classes = (torch.from_numpy(each[chosen]) for each in self.points)
        return Batch(indices, pixels, classes, positions)

    def label_counts(self) -> NDArray[np.int64]:
        """(N, C) labelled pixels per training image and class."""
        return self._label_counts

    def pixel_counts(self) -> NDArray[np.int64]:
        """(N, C) known pixels per training image and class, labelled for training or not."""
        return np.concatenate([class_counts(self.masks[index].reshape(1, -1)) for index in self.members])

    def _wait_for(self, upcoming: "Future[Batch]") -> Batch:
        started = time.perf_counter()
        batch = upcoming.result()
        self.waited_s += time.perf_counter() - started
        return batch


def class_counts(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """(N, L) class indices -> (N, C) how often each occurs."""
    return np.stack([(labels == index).sum(axis=1) for index in range(len(CLASS_NAMES))], axis=1)


def choose_images(config: TrainConfig, store: Store) -> NDArray[np.int64]:
    """(N,) the training images, in the order of the store: all of the split, or the first of its ranked list.

    The list holds images that somebody labelled, and an image's rank does not depend on the others: 10 images are
    among the 20 of the same seed, whatever else the folder holds.

    Raises:
        InputError: fewer are labelled than are asked for.
    """
    members = store.splits["train"]
    if config.train_images is None:
        return members
    seed = config.annotation_seed
    ranked = sorted(members.tolist(), key=lambda place: derive_seed(seed, "train_images", store.names[place]))
    labelled = (place for place in ranked if not store.sparse or (store.masks[place] != IGNORE_INDEX).any())
    chosen = sorted(itertools.islice(labelled, config.train_images))
    if len(chosen) < config.train_images:
        raise InputError(
            f"training.train_images: must be at most the {len(chosen)} labelled training images, got"
            f" {config.train_images}; ask for fewer"
        )
    return np.array(chosen, dtype=np.int64)


def _draw_all(
    config: TrainConfig, store: Store, members: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    assert isinstance(config.points_per_image, int), "the dense arm has no points"
    return pack_points(
        [draw_points(store.masks[i], config.points_per_image, store.names[i], config) for i in members],
        width=store.masks.shape[2],
    )
