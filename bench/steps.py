"""Training steps, whole epochs, waiting for data, and what bfloat16 gains: our runs against the notebook's.

The notebook's side is its ResNet-50 model throughout: what a study could take in its place is the question. Ours are
`TrainingRun`s as `canopoint train` makes them, with the defaults of TrainConfig (deterministic, precision auto).
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from bench.compare import Line, take_turns, times_less
from bench.images import Images, few_images, noise_batch, noise_store
from bench.notebook_baseline import NotebookImages
from bench.notebook_model import NotebookTraining, notebook_loader, notebook_settings
from bench.scale import Scale
from trainable.batches import Batch
from trainable.config import ENCODERS, TrainConfig
from trainable.precision import chosen_precision
from trainable.store import Store
from trainable.train import TrainingRun, make_deterministic

MANY_EPOCHS = 1000  # more than are run
WAIT_CEILING_PERCENT = 2.0


@dataclass(frozen=True)
class Case:
    """One of our models, and how many times faster than the notebook's it has to be."""

    encoder: str
    decoder_stride: int
    step_floor: float
    epoch_floor: float

    def __str__(self) -> str:
        return f"{self.encoder} to stride {self.decoder_stride}"


CASES = (Case("resnet50", 2, 3.3, 5), Case("resnet34", 2, 4.7, 7.5), Case("resnet18", 4, 8.5, 13))


def bench_steps(scale: Scale) -> list[Line]:
    """A training step on a batch that is ready: forward, loss, backward, optimizer."""
    store = noise_store(scale.step_batch, 1, scale.image_size)
    ours = {str(case): _stepper(_config(case.encoder, case.decoder_stride, scale), store) for case in CASES}
    seconds = take_turns({"notebook": _notebook_stepper(scale), **ours}, scale.step_rounds)
    return [
        times_less(f"training step, {case}", seconds["notebook"], seconds[str(case)], "s", floor=case.step_floor)
        for case in CASES
    ]


def bench_epochs(scale: Scale) -> list[Line]:
    """An epoch from files, or from the packed store, to the validation metrics."""
    with few_images(scale) as images:
        contestants: dict[str, Callable[[], object]] = {"notebook": _notebook_epoch(images, scale)}
        for case in CASES:
            contestants[str(case)] = _our_epoch(_config(case.encoder, case.decoder_stride, scale), images.store)
        seconds = take_turns(contestants, scale.epoch_rounds)
    what = f"epoch of {scale.num_train} + {scale.num_val} images"
    return [
        times_less(f"{what}, {case}", seconds["notebook"], seconds[str(case)], "s", floor=case.epoch_floor)
        for case in CASES
    ]


def bench_waiting(scale: Scale) -> list[Line]:
    """The share of the training steps' time that passes in waiting for the next batch.

    Ours with its fastest model, which leaves the loader the least time; the first batch of the epoch is waited for.
    """
    case = CASES[-1]
    with few_images(scale) as images:
        config = _config(case.encoder, case.decoder_stride, scale)
        run = TrainingRun(config, images.store)
        ours = _share_waited(lambda: train_pass(run), lambda: run.batches.waited_s, scale)
        notebook_settings(scale.num_threads)
        batches = _TimedBatches(_notebook_loaders(images, scale)[0])
        training = NotebookTraining()
        notebook = _share_waited(lambda: training.train_epoch(batches), lambda: batches.waited_s, scale)
    return [times_less(f"waiting for data, {case}", notebook, ours, "%", ceiling=WAIT_CEILING_PERCENT)]


def bench_precision(scale: Scale) -> list[Line]:
    """A training step of every encoder in float32 (first column) and in bfloat16: what `precision: auto` rests on."""
    return [_precision_line(encoder, scale) for encoder in ENCODERS]


def train_pass(run: TrainingRun) -> None:
    """One epoch's pass over the training images through the run's own loader and step, without the evaluation."""
    run.model.train()
    run.epoch += 1
    for batch in run.batches.epoch(run.epoch, run.device):
        run.train_step(batch, run.epoch - 1)


def _precision_line(encoder: str, scale: Scale) -> Line:
    store = noise_store(scale.step_batch, 1, scale.image_size)
    contestants = {
        precision: _stepper(_config(encoder, 2, scale, precision), store) for precision in ("float32", "bfloat16")
    }
    seconds = take_turns(contestants, scale.precision_rounds)
    chosen = chosen_precision(_config(encoder, 2, scale))
    name = f"training step, {encoder}, float32 / bfloat16 (auto: {chosen})"
    return times_less(name, seconds["float32"], seconds["bfloat16"], "s")


def _config(encoder: str, decoder_stride: int, scale: Scale, precision: str = "auto") -> TrainConfig:
    return TrainConfig(
        encoder=encoder, weights="none", decoder_stride=decoder_stride, points_per_image=scale.num_points,
        image_size=scale.image_size, batch_size=scale.step_batch, num_threads=scale.num_threads,
        precision=precision, epochs=MANY_EPOCHS,
    )  # fmt: skip


def _stepper(config: TrainConfig, store: Store) -> Callable[[], object]:
    """Our step on a batch that lies ready."""
    run = TrainingRun(config, store)
    batch: Batch = run.batches.load(np.arange(config.batch_size))

    def step() -> Tensor:
        make_deterministic(config)
        run.model.train()
        return run.train_step(batch, 0.0)

    return step


def _notebook_stepper(scale: Scale) -> Callable[[], object]:
    training = NotebookTraining()
    batch = noise_batch(scale.step_batch, scale.image_size, scale.num_points)

    def step() -> float:
        notebook_settings(scale.num_threads)
        return training.train_epoch([batch])

    return step


def _our_epoch(config: TrainConfig, store: Store) -> Callable[[], object]:
    epochs = TrainingRun(config, store).epochs()

    def epoch() -> object:
        make_deterministic(config)
        return next(epochs)

    return epoch


def _notebook_epoch(images: Images, scale: Scale) -> Callable[[], object]:
    training = NotebookTraining()
    train, val = _notebook_loaders(images, scale)

    def epoch() -> object:
        notebook_settings(scale.num_threads)
        training.train_epoch(train)
        return training.evaluate(val)

    return epoch


def _notebook_loaders(images: Images, scale: Scale) -> list["DataLoader[tuple[Tensor, Tensor]]"]:
    """Points for training, whole masks for validation."""
    return [
        notebook_loader(
            NotebookImages(images.files(split), scale.image_size, points), scale.step_batch, shuffle=shuffle
        )
        for split, points, shuffle in (("train", scale.num_points, True), ("val", None, False))
    ]


class _TimedBatches:
    """A loader that says how long its user waited."""

    def __init__(self, loader: "DataLoader[tuple[Tensor, Tensor]]") -> None:
        self.loader = loader
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.waited_s = 0.0
        started = time.perf_counter()
        for batch in self.loader:
            self.waited_s += time.perf_counter() - started
            yield batch
            started = time.perf_counter()


def _share_waited(train: Callable[[], object], waited_s: Callable[[], float], scale: Scale) -> float:
    """Median percentage over some passes, after one that warms up."""
    shares = []
    for _ in range(1 + scale.epoch_rounds):
        started = time.perf_counter()
        train()
        shares.append(100 * waited_s() / (time.perf_counter() - started))
    return statistics.median(shares[1:])
