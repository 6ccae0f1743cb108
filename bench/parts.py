"""The parts of a run, one by one: loading, packing, loss, last decoder stage, metrics."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import notebook_baseline
from bench.compare import Line, take_turns, times_less
from bench.images import few_images, find_index, image_files
from bench.notebook_model import NotebookSegmenter, notebook_settings
from bench.scale import Scale
from trainable.batches import Batches
from trainable.config import IGNORE_INDEX, TrainConfig
from trainable.data import load_store
from trainable.evaluation import Evaluation
from trainable.loss import point_focal_loss
from trainable.metrics import all_metrics, image_metrics
from trainable.model import build_model
from trainable.pixel_counts import confusion_counts

NUM_CLASSES = 2


def bench_batch(scale: Scale) -> list[Line]:
    """A batch with its points, ready to go to the device; the store is packed and its pages are warm.

    The notebook opens, decodes, resizes, normalises and draws points in one worker. Ours takes bytes and points from
    where they lie, and leaves normalisation to the device (counted in the training step).
    """
    notebook_settings(scale.part_threads)
    with few_images(scale) as images:
        generator = np.random.default_rng(0)
        theirs = notebook_baseline.NotebookImages(images.files("train"), scale.image_size, scale.num_points)
        ours = Batches(_config(scale), images.store)

        def draw() -> NDArray[np.int64]:
            return generator.choice(len(theirs), scale.part_batch, replace=False)

        seconds = take_turns(
            {
                "baseline": lambda: notebook_baseline.load_batch(theirs, draw().tolist()),
                "ours": lambda: ours.load(draw()),
            },
            scale.part_rounds,
        )
    name = f"uint8 batch of {scale.part_batch} with {scale.num_points} points, warm store"
    return [times_less(name, seconds["baseline"] * 1e3, seconds["ours"] * 1e3, "ms", floor=80)]


def bench_packing(scale: Scale) -> list[Line]:
    """All pairs from files to the two arrays of a store, into a fresh folder every round.

    The baseline writes the same arrays; ours also checks, counts and describes, and appears whole or not at all. The
    files are in the page cache on both sides: the index has read each for its fingerprint.
    """
    with TemporaryDirectory() as scratch:
        index = find_index(scale, scale.num_pairs, Path(scratch))
        files = image_files(index)

        def baseline() -> None:
            with TemporaryDirectory(dir=scratch) as folder:
                notebook_baseline.pack(files, scale.image_size, Path(folder))

        def ours() -> None:
            with TemporaryDirectory(dir=scratch) as folder:
                load_store(index, scale.image_size, Path(folder), lambda done: None)

        name = f"packing {len(files)} pairs, {scale.image_size} px"
        seconds = take_turns({"baseline": baseline, "ours": ours}, scale.packing_rounds, warm_up=False)
        return [times_less(name, seconds["baseline"], seconds["ours"], "s", floor=2.5)]


def bench_loss(scale: Scale) -> list[Line]:
    """Partial loss at true points, forward and backward, from logits to their gradient.

    The baseline gets dense logits, as it always does, and gives a dense gradient. Ours gets the logits at the points,
    as the point head hands them over; what that head itself costs is in `bench_last_stage`.
    """
    notebook_settings(scale.part_threads)
    logits, positions, classes = _labelled_logits(scale)
    labels = _label_map(positions, classes, scale.image_size)
    at_points = logits.detach().flatten(2).permute(0, 2, 1).gather(1, positions[..., None].expand(-1, -1, NUM_CLASSES))
    point_logits = at_points.flatten(0, 1).contiguous().requires_grad_()
    point_classes = classes.flatten()
    seconds = take_turns(
        {
            "baseline": lambda: _backward(notebook_baseline.partial_loss(logits, labels), logits),
            "ours": lambda: _backward(point_focal_loss(point_logits, point_classes, 0.0), point_logits),
        },
        scale.part_rounds,
    )
    what = f"partial loss, {scale.num_points} points, batch {scale.part_batch}"
    return [
        times_less(f"{what}, ours from point logits", seconds["baseline"] * 1e3, seconds["ours"] * 1e3, "ms", floor=14),
    ]


def bench_last_stage(scale: Scale) -> list[Line]:
    """From the last feature map to the loss and back to that map's gradient (and the head's).

    Baseline: 64 channels at stride 2, upsampled to the image (align_corners), 1x1 convolution, its loss. Ours: our own
    feature map of 32 channels at stride 2 sampled at the points, the head there, the loss. And ours given the
    baseline's 64 channels: what the point head alone gains.
    """
    notebook_settings(scale.part_threads)
    side = scale.image_size // 2
    wide = torch.randn(scale.part_batch, 64, side, side, requires_grad=True)
    _, positions, classes = _labelled_logits(scale)
    labels = _label_map(positions, classes, scale.image_size)
    notebook = NotebookSegmenter()
    size = torch.Size((scale.image_size, scale.image_size))
    contestants = {
        "baseline": lambda: _backward(
            notebook_baseline.partial_loss(notebook.classify(wide, size), labels), wide, *notebook.head.parameters()
        )
    }
    for channels in (32, 64):
        contestants[str(channels)] = _point_stage(channels, _config(scale), positions, classes)
    seconds = take_turns(contestants, scale.part_rounds)
    what = f"last stage, {scale.num_points} points, batch {scale.part_batch}"
    baseline = seconds["baseline"] * 1e3
    return [
        times_less(f"{what}, forward + backward", baseline, seconds["32"] * 1e3, "ms", floor=20),
        times_less(f"{what}, ours at its 64 channels", baseline, seconds["64"] * 1e3, "ms"),
    ]


def _point_stage(channels: int, config: TrainConfig, positions: Tensor, classes: Tensor) -> Callable[[], None]:
    """Our last stage on a stride-2 map of so many channels, in the memory layout and head of a real model."""
    model = build_model(config, num_bands=3)
    model.head = torch.nn.Conv2d(channels, NUM_CLASSES, kernel_size=1)
    side = config.image_size // config.decoder_stride
    features = torch.randn(len(positions), channels, side, side).to(memory_format=torch.channels_last).requires_grad_()

    def stage() -> None:
        logits = model.point_logits(features, positions).flatten(0, 1)
        _backward(point_focal_loss(logits, classes.flatten(), 0.0), features, *model.head.parameters())

    return stage


def bench_metrics(scale: Scale) -> list[Line]:
    """The notebook's four metrics per image, from predicted classes to their means over a batch of images.

    Second line: all that our evaluation counts (boundary F1, calibration, likelihood too) against those four, both
    from logits.
    """
    notebook_settings(scale.part_threads)
    shape = (scale.part_batch, scale.image_size, scale.image_size)
    logits = torch.randn(shape[0], NUM_CLASSES, *shape[1:], generator=_generator())
    truth = torch.randint(0, NUM_CLASSES, shape, generator=_generator())
    predicted = logits.argmax(dim=1)
    found, known = predicted.bool(), truth.to(torch.uint8)  # the types that our evaluation and store have
    seconds = take_turns(
        {
            "baseline": lambda: notebook_baseline.image_metrics(predicted.numpy(), truth.numpy()).mean(axis=0),
            "ours": lambda: image_metrics(confusion_counts(found, known).numpy()),
            "baseline, logits": lambda: notebook_baseline.image_metrics(logits.argmax(1).numpy(), truth.numpy()),
            "ours, logits": lambda: _evaluate(logits, known),
        },
        rounds=max(1, scale.part_rounds // 3),
    )
    per_image = {name: each * 1e3 / scale.part_batch for name, each in seconds.items()}
    return [
        times_less("evaluation metrics of an image", per_image["baseline"], per_image["ours"], "ms", floor=200),
        times_less("all of our metrics from logits", per_image["baseline, logits"], per_image["ours, logits"], "ms"),
    ]


def _evaluate(logits: Tensor, truth: Tensor) -> dict[str, float]:
    evaluation = Evaluation()
    evaluation.add(logits, truth)
    return all_metrics(evaluation.counts())


def _config(scale: Scale) -> TrainConfig:
    return TrainConfig(
        encoder="resnet18", weights="none", decoder_stride=2, points_per_image=scale.num_points,
        image_size=scale.image_size, num_threads=scale.num_threads,
    )  # fmt: skip


def _labelled_logits(scale: Scale) -> tuple[Tensor, Tensor, Tensor]:
    """(B, C, H, W) logits that ask for a gradient, and (B, P) positions and classes of distinct points."""
    generator = _generator()
    batch, num_pixels = scale.part_batch, scale.image_size**2
    logits = torch.randn(batch, NUM_CLASSES, scale.image_size, scale.image_size, generator=generator)
    positions = torch.stack([torch.randperm(num_pixels, generator=generator) for _ in range(batch)])
    classes = torch.randint(0, NUM_CLASSES, (batch, scale.num_points), generator=generator)
    return logits.requires_grad_(), positions[:, : scale.num_points].contiguous(), classes


def _label_map(positions: Tensor, classes: Tensor, image_size: int) -> Tensor:
    """The same points as the dense (B, H, W) int64 labels that the notebook's loss reads."""
    labels = torch.full((len(positions), image_size**2), IGNORE_INDEX, dtype=torch.int64)
    return labels.scatter_(1, positions, classes).view(-1, image_size, image_size)


def _backward(loss: Tensor, *inputs: Tensor) -> None:
    """Runs the backward pass to these tensors, and leaves no gradient behind to be added to in the next round."""
    torch.autograd.grad(loss, inputs)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
