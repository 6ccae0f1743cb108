"""What a GPU makes of it: `python -m bench.gpu`. Needs torch, torchvision, numpy, Pillow and trainable's core alone.

Throughput of the ResNet-50 run in bfloat16 against the notebook's model on the same GPU, the part of the measured
matrix-product peak that it reaches, and how much 2, 4 and 8 trials that share the GPU finish together. Each side runs
in a process of its own, so that neither keeps the other's settings or memory. Without a GPU it says so and ends well.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.compare import Line, print_header, print_line, times_more, write_lines
from bench.gpu_worker import NUM_POINTS, WAIT_S, Task
from trainable.config import TrainConfig
from trainable.model import build_model

OURS = Task("ours")
ROUNDS = 3
SHARING = (2, 4, 8)
RUN_MARGIN_S = 120
ROOT = Path(__file__).resolve().parent.parent


class WorkerError(RuntimeError):
    """A worker did not get ready, or ended without a result."""


def main() -> None:
    """Prints the lines and adds them to build/bench.json."""
    if not torch.cuda.is_available():
        print("bench.gpu: skipped: torch sees no GPU here")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; batch {OURS.batch_size}, {OURS.image_size} px")
    print_header()
    for lines in (bench_training(OURS, ROUNDS), bench_sharing(OURS, SHARING)):
        for line in lines:
            print_line(line)
        write_lines(lines)


def bench_training(ours: Task, rounds: int) -> list[Line]:
    """Images a second of each way of training, one after the other in every round; then the part of the peak."""
    tasks = {
        "bfloat16": ours,
        "any algorithm": replace(ours, deterministic=False),
        "float32": replace(ours, precision="float32"),
        "notebook": replace(ours, kind="notebook"),
        "notebook without TF32": replace(ours, kind="notebook", tf32=False),
        "peak": replace(ours, kind="matrix_product"),
    }
    rates = _alternate(tasks, rounds)
    floating_point_rate = rates["bfloat16"] * training_flop(ours)
    what = f"GPU, {ours.encoder} run"
    return [
        times_more(f"{what}, bf16 / notebook, TF32 convolutions", rates["notebook"], rates["bfloat16"], "images/s"),
        times_more(f"{what}, bf16 / notebook, no TF32", rates["notebook without TF32"], rates["bfloat16"], "images/s"),
        times_more(f"{what}, bf16 / our float32", rates["float32"], rates["bfloat16"], "images/s"),
        times_more(f"{what}, any algorithm / deterministic", rates["bfloat16"], rates["any algorithm"], "images/s"),
        times_more(f"{what}, bf16 / matrix-product peak", rates["peak"] / 1e12, floating_point_rate / 1e12, "TFLOP/s"),
    ]


def bench_sharing(ours: Task, numbers: Iterable[int]) -> list[Line]:
    """Images a second of several trials together, against one trial that has the GPU to itself."""
    (alone,) = measure([ours])
    lines = []
    for number in numbers:
        try:
            together = sum(measure([ours] * number))
        except WorkerError as error:  # most likely they do not fit into its memory together; fewer did
            print(f"GPU, {number} trials together: no figure: {error}")
            break
        lines.append(times_more(f"GPU, {number} trials together / one alone", alone, together, "images/s"))
    return lines


def training_flop(task: Task) -> float:
    """Floating-point operations (2 a multiply-add) of one image in a training step of ours, counted, not estimated."""
    config = TrainConfig(encoder=task.encoder, weights="none", image_size=task.image_size)
    model = build_model(config, num_bands=3)
    images = torch.zeros(2, 3, task.image_size, task.image_size)
    with FlopCounterMode(display=False) as counter:
        features = model.features(images)
        model.point_logits(features, torch.zeros(2, NUM_POINTS, dtype=torch.int64)).sum().backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / len(images)


def measure(tasks: Sequence[Task]) -> list[float]:
    """Runs tasks side by side, each in its process; all start work at the same moment, and none outlives this call.

    Returns:
        What each did a second: images, or floating-point operations.

    Raises:
        WorkerError: one of them failed; the others are ended.
    """
    with TemporaryDirectory() as scratch, ExitStack() as processes:
        folders = [Path(scratch) / str(number) for number in range(len(tasks))]
        workers = [processes.enter_context(_Worker(*each)) for each in zip(folders, tasks, strict=True)]
        _wait_for_all(workers, "ready", WAIT_S)
        (Path(scratch) / "go").touch()
        _wait_for_all(workers, "result.json", max(task.seconds for task in tasks) + RUN_MARGIN_S)
        results = [json.loads((folder / "result.json").read_text()) for folder in folders]
        return [result["amount"] / result["seconds"] for result in results]


class _Worker:
    """A process of `bench.gpu_worker`, ended with the context."""

    def __init__(self, folder: Path, task: Task) -> None:
        self.folder = folder
        folder.mkdir()
        command = [sys.executable, "-m", "bench.gpu_worker", str(folder), task.to_json()]
        with (folder / "output").open("w") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()

    def last_words(self) -> str:
        """The last line that the process wrote."""
        return ((self.folder / "output").read_text().strip().splitlines() or ["it wrote nothing"])[-1]


def _wait_for_all(workers: Sequence[_Worker], name: str, timeout_s: float) -> None:
    """Waits until every worker has written a file of that name."""
    deadline = time.monotonic() + timeout_s
    for worker in workers:
        while not (worker.folder / name).exists():
            if worker.process.poll() is not None and not (worker.folder / name).exists():
                raise WorkerError(f"a worker ended early: {worker.last_words()}")
            if time.monotonic() > deadline:
                raise WorkerError(f"a worker did not write {name} within {timeout_s:g} s")
            time.sleep(0.01)


def _alternate(tasks: Mapping[str, Task], rounds: int) -> dict[str, float]:
    """Median rate of each task, over rounds in which all take their turn."""
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            rates[name] += measure([task])
    return {name: statistics.median(each) for name, each in rates.items()}


if __name__ == "__main__":
    main()
