"""`make bench`: ours against the notebook's algorithm, alternately in one run; medians and ratios.

Writes build/bench.json. The machines are shared and noisy: quote ratios, not times.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench import notebook_baseline
from trainable.config import DataConfig, SyntheticConfig
from trainable.data import load_index, load_store
from trainable.loss import partial_focal_loss
from trainable.metrics import confusion_counts, image_metrics
from trainable.points import point_labels, ranked_points
from trainable.scenes import SceneIndex
from trainable.store import open_store
from trainable.train import band_statistics, normalise

FOREST = Path("../shared/data/forest")
BATCH, SIZE, POINTS = 16, 256, 50


def main() -> None:
    """Runs every benchmark and prints a line for each."""
    torch.set_num_threads(1)
    results = [bench_loading(), bench_loss(), bench_metrics()]
    for result in results:
        print(f"{result['name']:<50} {result['baseline']:>9.2f} {result['ours']:>9.3f} ms   x{result['ratio']:.1f}")
    Path("build").mkdir(exist_ok=True)
    Path("build/bench.json").write_text(json.dumps(results, indent=2) + "\n")


def compare(name: str, baseline: Callable[[], object], ours: Callable[[], object], rounds: int = 15) -> dict:
    """Medians over rounds in which the two take turns, after one warm-up each, in milliseconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_number in range(rounds + 1):
        for function, record in zip((baseline, ours), times, strict=True):
            started = time.perf_counter()
            function()
            if round_number:
                record.append((time.perf_counter() - started) * 1000)
    medians = [statistics.median(record) for record in times]
    return {"name": name, "baseline": medians[0], "ours": medians[1], "ratio": medians[0] / medians[1], "unit": "ms"}


def bench_loading() -> dict:
    """A normalised float32 batch with its points, from a warm store; packing it, once, is not counted."""
    with tempfile.TemporaryDirectory() as scratch:
        index = _images(Path(scratch))
        store = open_store(load_store(index, SIZE, Path(scratch), lambda done: None))
        labels = np.stack(
            [
                point_labels(store.masks[i], ranked_points(store.masks[i], POINTS, store.names[i], seed=0))
                for i in range(BATCH * 4)
            ]
        )
        generator = np.random.default_rng(0)
        mean, std = band_statistics(store)

        def baseline() -> object:
            chosen = generator.choice(BATCH * 4, BATCH, replace=False)
            files = [(index.pairs[i].image, index.pairs[i].mask) for i in chosen]
            return notebook_baseline.load_batch(files, SIZE, POINTS)

        def ours() -> object:
            chosen = generator.choice(BATCH * 4, BATCH, replace=False)
            images = normalise(torch.from_numpy(store.images[chosen]), mean, std)
            return images, torch.from_numpy(labels[chosen])

        return compare(f"batch of {BATCH} with {POINTS} points, {SIZE} px", baseline, ours)


def bench_loss() -> dict:
    """Partial loss, forward and backward, at true points."""
    logits = torch.randn(BATCH, 2, SIZE, SIZE, requires_grad=True)
    labels = torch.full((BATCH, SIZE * SIZE), 255, dtype=torch.int64)
    labels[:, torch.randperm(SIZE * SIZE)[:POINTS]] = torch.randint(0, 2, (BATCH, POINTS))
    labels = labels.view(BATCH, SIZE, SIZE)
    return compare(
        f"partial loss at {POINTS} points, forward and backward",
        lambda: notebook_baseline.partial_loss(logits, labels).backward(),
        lambda: partial_focal_loss(logits, labels, gamma=0.0).backward(),
    )


def bench_metrics() -> dict:
    """Evaluation metrics of a batch, from predicted classes."""
    predicted, truth = torch.randint(0, 2, (2, BATCH, SIZE, SIZE))
    return compare(
        f"evaluation metrics of {BATCH} images",
        lambda: notebook_baseline.image_metrics(predicted.numpy(), truth.numpy()),
        lambda: image_metrics(confusion_counts(predicted, truth).numpy()),
        rounds=3,
    )


def _images(scratch: Path) -> SceneIndex:
    """Real images where they are at hand, made ones elsewhere."""
    made = SyntheticConfig(num_scenes=8, images_per_scene=16, image_size=SIZE)
    real = DataConfig(root=str(FOREST), max_images=300)
    return load_index(real if FOREST.is_dir() else DataConfig(synthetic=made), scratch)


if __name__ == "__main__":
    main()
