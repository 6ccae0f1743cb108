"""The run itself: epochs as an iterator of results, with nothing of files, Ray or W&B in it."""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainable.checkpoint import Arrays, pack_state, unpack_state
from trainable.config import InputError, TrainConfig
from trainable.loss import partial_focal_loss
from trainable.metrics import Counts, confusion_counts, dataset_metrics, image_metrics
from trainable.model import build_model
from trainable.points import point_labels, ranked_points
from trainable.randomness import derive_seed
from trainable.store import Store

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch.

    Attributes:
        metrics: `train/loss` (nats per labelled pixel), `val/...` in [0, 1] but for `val/nll` (nats per pixel),
            `time/epoch_s` (seconds).
        counts: (N, C, C) confusion counts of the validation images.
    """

    epoch: int
    metrics: dict[str, float]
    counts: Counts


class TrainingRun:
    """A segmenter in training. The same config on the same store gives the same bits."""

    def __init__(self, config: TrainConfig, store: Store) -> None:
        make_deterministic(config)
        if len(store.splits["train"]) == 1 and config.image_size == 32:
            raise InputError("data.split: one training image of 32 px is too little to normalise over; add images")
        self.config = config
        self.store = store
        self.device = torch.device(config.device)
        self.labels = _point_labels(config, store)  # (N_train, H, W) uint8
        self.mean, self.std = (stat.to(self.device) for stat in band_statistics(store))
        num_bands = store.images.shape[3]
        self.model = build_model(config, num_bands).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.epoch = 0

    def epochs(self) -> Iterator[EpochResult]:
        """Trains epoch by epoch until the config's number is reached.

        Raises:
            FloatingPointError: the loss is no longer a finite number.
        """
        while self.epoch < self.config.epochs:
            started = time.perf_counter()
            self.epoch += 1
            loss = self._train_epoch()
            counts, nll = self._evaluate("val")
            scores = {
                f"val/{name}": value for name, value in {**dataset_metrics(counts), **image_metrics(counts)}.items()
            }
            if not math.isfinite(nll):
                raise FloatingPointError(f"diverged in epoch {self.epoch}: the validation loss is {nll}")
            timing = {"time/epoch_s": time.perf_counter() - started}
            yield EpochResult(self.epoch, {"train/loss": loss, **scores, "val/nll": nll, **timing}, counts)

    def state(self, *, final: bool) -> Arrays:
        """Everything that the next epoch depends on, beside config and epoch; the model alone where none follows."""
        return pack_state(self.model, None if final else self.optimizer)

    def restore(self, epoch: int, arrays: Arrays) -> None:
        """Continues after `epoch`, bit by bit as if never interrupted."""
        unpack_state(arrays, self.model, self.optimizer)
        self.epoch = epoch

    def _train_epoch(self) -> float:
        """One pass over the training images; returns the mean loss over its steps."""
        self.model.train()
        losses = []
        batches = self._batches()
        for step, positions in enumerate(batches):
            self._set_learning_rate((self.epoch - 1 + step / len(batches)) / self.config.epochs)
            images = self._images(self.store.splits["train"][positions])
            labels = torch.from_numpy(self.labels[positions]).to(self.device)
            loss = partial_focal_loss(self.model(images), labels, self.config.focal_gamma)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses.append(loss.detach())
        mean = float(torch.stack(losses).mean())  # the only wait for the device in an epoch
        if not math.isfinite(mean):
            raise FloatingPointError(f"diverged in epoch {self.epoch}: the mean training loss is {mean}")
        return mean

    def _set_learning_rate(self, progress: float) -> None:
        """Follows the schedule, a function of progress in [0, 1) alone, so that there is no state to resume."""
        factor = (1 + math.cos(math.pi * progress)) / 2 if self.config.schedule == "cosine" else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor

    def _batches(self) -> list[NDArray[np.int64]]:
        """Positions within the training split, in the order of (seed, epoch), in batches that differ by one at most.

        A small remainder as a last batch would give batch normalisation almost nothing to average over.
        """
        count = len(self.store.splits["train"])
        generator = np.random.Generator(np.random.PCG64(derive_seed(self.config.seed, "order", self.epoch)))
        # At 32 px the encoder ends at 1 x 1: one image alone has nothing to average over, so no batch is of one.
        num_batches = max(1, min(math.ceil(count / self.config.batch_size), count // 2))
        return np.array_split(generator.permutation(count), num_batches)

    @torch.no_grad()
    def _evaluate(self, split: str) -> tuple[Counts, float]:
        """Confusion counts (N, C, C) and mean negative log-likelihood over all pixels of a split."""
        self.model.eval()
        members = self.store.splits[split]
        counts, nll = [], torch.zeros((), device=self.device, dtype=torch.float64)
        for batch in np.array_split(members, math.ceil(len(members) / self.config.batch_size)):
            logits = self.model(self._images(batch))
            truth = torch.from_numpy(self.store.masks[batch]).to(self.device)
            counts.append(confusion_counts(logits.argmax(dim=1), truth))
            nll += partial_focal_loss(logits, truth, gamma=0.0).double() * len(batch)
        pooled: Counts = torch.cat(counts).cpu().numpy()
        return pooled, float(nll) / len(members)

    def _images(self, indices: NDArray[np.int64]) -> Tensor:
        """(B, bands, H, W) normalised float32 on the device, from (B, H, W, bands) bytes of the store."""
        return normalise(torch.from_numpy(self.store.images[indices]).to(self.device), self.mean, self.std)


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, H, W, bands) bytes -> (B, bands, H, W) float32, each band less its mean, in standard deviations."""
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def make_deterministic(config: TrainConfig) -> None:
    """Pins what the bits of a result depend on: algorithms and threads."""
    if config.device == "cuda":
        if not torch.cuda.is_available():
            raise InputError("training.device: cuda is asked for, but torch sees no GPU here; use cpu")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.set_num_threads(config.num_threads)
    torch.use_deterministic_algorithms(True)
    # It also fills new memory, to make reads of it repeatable. We read none, and it costs a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def band_statistics(store: Store) -> tuple[Tensor, Tensor]:
    """(mean, standard deviation) per band for pixels in [0, 1]: ImageNet's for RGB, else the training split's own."""
    if store.images.shape[3] == len(IMAGENET_MEAN):
        return torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    total, squares = 0.0, 0.0
    for index in store.splits["train"]:
        pixels = store.images[index].reshape(-1, store.images.shape[3]) / 255
        total, squares = total + pixels.mean(axis=0), squares + (pixels**2).mean(axis=0)
    mean = total / len(store.splits["train"])
    variance = squares / len(store.splits["train"]) - mean**2
    return torch.tensor(mean).float(), torch.tensor(np.sqrt(np.maximum(variance, 1e-6))).float()


def _point_labels(config: TrainConfig, store: Store) -> NDArray[np.uint8]:
    """(N_train, H, W): each training image's own points, the rest IGNORE_INDEX."""
    labels = []
    for index in store.splits["train"]:
        mask = store.masks[index]
        positions = ranked_points(mask, config.points_per_image, store.names[index], config.seed)
        labels.append(point_labels(mask, positions))
    return np.stack(labels)
