"""One process on the GPU: a run of ours, the notebook's, or the matrix-product peak; started by `bench/gpu.py`.

    python -m bench.gpu_worker FOLDER SETTINGS

It builds and warms up, writes `ready`, waits for `go` in the folder that all workers of a measurement share, works for
the time given, and writes `result.json`. SETTINGS is a `Task` as JSON. Nothing of it needs a GPU: `device` says where.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.images import noise_batch, noise_store
from bench.notebook_model import NotebookTraining
from bench.steps import train_pass
from trainable.config import TrainConfig
from trainable.train import TrainingRun

MATRIX_SIDE = 8192
NUM_POINTS = 50
WAIT_S = 300


@dataclass(frozen=True)
class Task:
    """What one worker does.

    Attributes:
        kind: `ours`, `notebook` or `matrix_product`.
        seconds: for how long.
        precision: of our run: bfloat16 or float32.
        tf32: whether the notebook's convolutions may use TF32 in place of float32; torch's default lets them.
        deterministic: whether our run is bound to deterministic algorithms, as it is by default.
        steps_at_once: between two looks at the clock, for which the device must have finished.
    """

    kind: str
    seconds: float = 10.0
    device: str = "cuda"
    encoder: str = "resnet50"
    precision: str = "bfloat16"
    tf32: bool = True
    deterministic: bool = True
    batch_size: int = 16
    image_size: int = 256
    steps_at_once: int = 8

    def to_json(self) -> str:
        """The task as a command's argument."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Job:
    """Work in pieces: calling `work` does `amount` of it (images, or floating-point operations), not waiting for it."""

    work: Callable[[], object]
    amount: float


def main(folder: Path, task: Task) -> None:
    """Warms up, waits for the others, works, reports."""
    job = JOBS[task.kind](task)
    for _ in range(2):  # the first piece picks algorithms and fills the allocator
        job.work()
    _finish(task)
    (folder / "ready").touch()
    _wait_for(folder.parent / "go")
    started = time.perf_counter()
    pieces = 0
    while time.perf_counter() - started < task.seconds:
        job.work()
        _finish(task)
        pieces += 1
    result = {"amount": job.amount * pieces, "seconds": time.perf_counter() - started}
    (folder / "result.tmp").write_text(json.dumps(result))
    (folder / "result.tmp").rename(folder / "result.json")


def our_run(task: Task) -> Job:
    """Epochs of our own run: batches from the bytes of a store, transfer, points, step. Evaluation is not counted."""
    config = TrainConfig(
        encoder=task.encoder, weights="none", points_per_image=NUM_POINTS, batch_size=task.batch_size,
        image_size=task.image_size, precision=task.precision, deterministic=task.deterministic, device=task.device,
    )  # fmt: skip
    num_images = task.steps_at_once * task.batch_size
    run = TrainingRun(config, noise_store(num_images, task.batch_size, task.image_size))
    return Job(lambda: train_pass(run), num_images)


def notebook_run(task: Task) -> Job:
    """The notebook's steps on one batch that lies on the device already; its loading, which is slow, is not counted."""
    torch.backends.cudnn.allow_tf32 = task.tf32
    training = NotebookTraining(task.device)
    images, labels = noise_batch(task.batch_size, task.image_size, NUM_POINTS)
    batch = images.to(task.device), labels.to(task.device)
    return Job(lambda: training.train_epoch([batch] * task.steps_at_once), task.steps_at_once * task.batch_size)


def matrix_product(task: Task) -> Job:
    """Products of large bf16 matrices: the most that this device gives in practice."""
    side = MATRIX_SIDE if task.device == "cuda" else 256
    left, right = torch.randn(2, side, side, device=task.device, dtype=torch.bfloat16)
    return Job(lambda: [left @ right for _ in range(task.steps_at_once)], task.steps_at_once * 2 * side**3)


JOBS = {"ours": our_run, "notebook": notebook_run, "matrix_product": matrix_product}


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {path} within {WAIT_S} s: the others were not ready")
        time.sleep(0.002)


def _finish(task: Task) -> None:
    if task.device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Task(**json.loads(sys.argv[2])))
