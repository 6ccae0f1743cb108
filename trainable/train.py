"""The run itself: epochs as an iterator of results, with nothing of files, Ray or W&B in it."""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainable.augment import augment_images, augment_labels, augment_points, draw_transforms
from trainable.batches import Batch, Batches
from trainable.checkpoint import Arrays, pack_state, unpack_state
from trainable.config import IGNORE_INDEX, InputError, TrainConfig
from trainable.evaluation import Evaluation
from trainable.loss import class_weights_from_counts
from trainable.metrics import all_metrics
from trainable.model import build_model
from trainable.objective import Features, Objective
from trainable.optimizer import build_optimizer, rate_factor
from trainable.points import describe_points
from trainable.precision import autocast
from trainable.randomness import derive_seed
from trainable.store import Store

ImageCounts = dict[str, NDArray[Any]]
"""Arrays by name, images along their first axis (`evaluation.py`)."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch.

    Attributes:
        metrics: `train/loss` (nats per labelled pixel, optional terms included), `val/...` (metrics.py), `points/...`
            (what the annotations hold), `time/epoch_s` and `time/data_wait_s` (seconds); after the last epoch of a run
            that opens the test split, `test/...` too.
        counts: split -> per-image counts of its images, from which `val/...` and `test/...` follow.
    """

    epoch: int
    metrics: dict[str, float]
    counts: dict[str, ImageCounts]


class DivergenceError(FloatingPointError):
    """The loss or the state is no longer finite: these settings cannot be trained.

    Attributes:
        epoch, step: counted from 1; step is None where no step's loss shows it.
        reason: what was found.
    """

    def __init__(self, epoch: int, step: int | None, reason: str) -> None:
        self.epoch, self.step, self.reason = epoch, step, reason
        place = f"epoch {epoch}, step {step}" if step else f"epoch {epoch}, after its steps"
        super().__init__(f"diverged in {place}: {reason}")


class TrainingRun:
    """A segmenter in training. The same config on the same store gives the same bits."""

    def __init__(self, config: TrainConfig, store: Store) -> None:
        make_deterministic(config)
        self.config = config
        self.store = store
        self.device = torch.device(config.device)
        check_known(store, "val")
        if config.evaluate_test:
            check_known(store, "test")
        self.batches = Batches(config, store)
        label_counts = self.batches.label_counts()
        self.annotation = describe_points(label_counts)
        if len(self.batches.teaching) == 1 and config.image_size == 32:
            raise InputError("data.split: one training image of 32 px is too little to normalise over; add images")
        model = build_model(config, store.images.shape[3], band_statistics(store))
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        features = torch.compile(self.model.features) if config.compile else self.model.features
        self.features = in_precision(config, features)
        weights = self._class_weights(torch.from_numpy(label_counts.sum(axis=0)))
        self.objective = Objective(config, self.model, self.features, weights)
        self.optimizer = build_optimizer(config, self.model)
        self.epoch = 0

    def epochs(self) -> Iterator[EpochResult]:
        """Trains epoch by epoch until the config's number is reached.

        Raises:
            DivergenceError: the loss or the state is no longer finite.
        """
        while self.epoch < self.config.epochs:
            started = time.perf_counter()
            self.epoch += 1
            loss = self._train_epoch()
            scores, counts = self._evaluate_epoch()
            self._check_finite()
            timing = {"time/epoch_s": time.perf_counter() - started, "time/data_wait_s": self.batches.waited_s}
            yield EpochResult(self.epoch, {"train/loss": loss, **scores, **self.annotation, **timing}, counts)

    def state(self, *, final: bool) -> Arrays:
        """Everything that the next epoch depends on, beside config and epoch; the model alone where none follows."""
        return pack_state(self.model, None if final else self.optimizer)

    def restore(self, epoch: int, arrays: Arrays) -> None:
        """Continues after `epoch`, bit by bit as if never interrupted."""
        unpack_state(arrays, self.model, self.optimizer)
        self.epoch = epoch

    def train_step(self, batch: Batch, progress: float) -> Tensor:
        """One step of the optimizer, at `progress` epochs from the start; returns its loss without waiting for it."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rate_factor(self.config, progress, 1 / self.batches.per_epoch)
        self.optimizer.zero_grad()  # first: the gradients of the last step need not lie beside these activations
        loss = self.objective(*self._augmented(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def evaluate(self, split: str) -> ImageCounts:
        """Per-image counts over all known pixels of a split."""
        self.model.eval()
        members = self.store.splits[split]
        evaluation = Evaluation()
        for indices in np.array_split(members, math.ceil(len(members) / self.config.batch_size)):
            both = (self.store.images, self.store.masks)
            pixels, truth = (torch.from_numpy(each[indices]).to(self.device) for each in both)
            evaluation.add(self.model.dense_logits(self.features(unit_scale(pixels))), truth)
        return evaluation.counts()

    def _evaluate_epoch(self) -> tuple[dict[str, float], dict[str, ImageCounts]]:
        """Metrics of the epoch and the counts that they follow from; at the end, of the test split where asked for."""
        opens_test = self.config.evaluate_test and self.epoch == self.config.epochs
        counts = {split: self.evaluate(split) for split in (("val", "test") if opens_test else ("val",))}
        scores: dict[str, float] = {}
        for split, each in counts.items():
            scores |= {f"{split}/{name}": value for name, value in all_metrics(each).items()}
            if not math.isfinite(scores[f"{split}/nll"]):
                raise DivergenceError(self.epoch, None, f"the {split} loss is {scores[f'{split}/nll']}")
        return scores, counts

    def _train_epoch(self) -> float:
        """One pass over the training images; returns the mean loss over its steps."""
        self.model.train()
        losses = []
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.config.seed, "dropout", self.epoch))  # some encoders drop whole layers
            for step, batch in enumerate(self.batches.epoch(self.epoch, self.device)):
                losses.append(self.train_step(batch, self.epoch - 1 + step / self.batches.per_epoch))
        history = torch.stack(losses).cpu()  # the only wait for the device in an epoch
        broken = (~history.isfinite()).nonzero()
        if len(broken):
            step = int(broken[0])
            raise DivergenceError(self.epoch, step + 1, f"the training loss is {float(history[step])}")
        return float(history.mean())

    def _check_finite(self) -> None:
        """Normalisation can hide from the loss that a weight, a batch statistic or a moment has overflowed."""
        moments = [tensor for state in self.optimizer.state.values() for tensor in state.values()]
        sums = [tensor.sum(dtype=torch.float32) for tensor in [*self.model.state_dict().values(), *moments]]
        if not torch.stack(sums).isfinite().all():
            raise DivergenceError(self.epoch, None, "weights, batch statistics or moments are not finite")

    def _augmented(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor]:
        """Images (B, bands, H, W) in [0, 1], positions and labels, moved together."""
        images = unit_scale(batch.pixels)
        if self.config.augmentation == "off":
            return images, batch.positions, batch.labels
        transforms = draw_transforms(batch.indices, self.config, self.epoch)
        images = augment_images(images, transforms)
        if batch.positions is None:
            return images, None, augment_labels(batch.labels, transforms)
        return images, *augment_points(batch.positions, batch.labels, self.config.image_size, transforms)

    def _class_weights(self, label_counts: Tensor) -> Tensor | None:
        mode = self.config.class_weights
        priors = torch.from_numpy(self.batches.pixel_counts().sum(axis=0)) if mode == "prior" else None
        weights = class_weights_from_counts(label_counts, mode, priors)
        return None if weights is None else weights.float().to(self.device)


def check_known(store: Store, split: str) -> None:
    """Refuses a split of which nothing is known, before a run trains for long and has nothing to be judged by.

    Raises:
        InputError: names the split.
    """
    members = store.splits[split]
    if all((store.masks[index] == IGNORE_INDEX).all() for index in members):
        raise InputError(
            f"data.split: none of the {len(members)} images of the {split} split has a labelled pixel to evaluate on;"
            f" label some of them"
        )


def unit_scale(pixels: Tensor) -> Tensor:
    """(B, H, W, bands) bytes -> (B, bands, H, W) float32 in [0, 1], in channels-last memory without a copy."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def in_precision(config: TrainConfig, features: Features) -> Features:
    """The model's features in the run's precision.

    No method of the run: the objective would hold the run and the run the objective, and a process that trains one
    trial after another would keep the weights, gradients and moments of several until the collector comes by.
    """

    def compute(images: Tensor) -> Tensor:
        with autocast(config):
            return features(images)

    return compute


def make_deterministic(config: TrainConfig) -> None:
    """Pins what the bits of a result depend on: algorithms and threads. Also undoes it: processes are reused."""
    if config.device == "cuda":
        if not torch.cuda.is_available():
            raise InputError("training.device: cuda is asked for, but torch sees no GPU here; use cpu")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.set_num_threads(config.num_threads)
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic
    # It also fills new memory, to make reads of it repeatable. We read none, and it costs a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def band_statistics(store: Store) -> tuple[Tensor, Tensor]:
    """(mean, standard deviation) per band for pixels in [0, 1]: ImageNet's for RGB, else the training split's own."""
    if store.images.shape[3] == len(IMAGENET_MEAN):
        return torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return torch.tensor(store.band_mean), torch.tensor(store.band_std).clamp_min(1e-3)
