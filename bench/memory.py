"""Peak memory of a ResNet-50 trial above its imports: `make bench` runs this module once for each side.

    python -m bench.memory notebook|ours BATCH_SIZE IMAGE_SIZE NUM_THREADS    prints MiB

The figure is the peak of the process's resident memory (VmHWM) less what it held after its imports (VmRSS). The images
are noise made before that reading: ours lie in a memory-mapped store, whose pages are the system's cache and are shared
by all trials; the notebook's come from worker processes, which are not counted either.
"""

import subprocess
import sys
from pathlib import Path

from bench.compare import Line, times_less
from bench.images import noise_batch, noise_store
from bench.notebook_model import NotebookTraining, notebook_settings
from bench.scale import Scale
from trainable.config import TrainConfig
from trainable.train import TrainingRun

NUM_STEPS = 3  # the second is the first that holds the optimizer's moments beside the activations
NUM_POINTS = 50
TIMEOUT_S = 600


def bench_memory(scale: Scale) -> list[Line]:
    """Three training steps and an evaluation of one batch, each side in a process of its own."""
    peaks = {side: _peak_of_process(side, scale) for side in ("notebook", "ours")}
    name = f"peak memory of a ResNet-50 trial, batch {scale.memory_batch}"
    return [times_less(name, peaks["notebook"], peaks["ours"], "MiB", floor=2)]


def _peak_of_process(side: str, scale: Scale) -> float:
    sizes = (scale.memory_batch, scale.image_size, scale.num_threads)
    command = [sys.executable, "-m", "bench.memory", side, *map(str, sizes)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, timeout=TIMEOUT_S, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def run_notebook(batch_size: int, image_size: int, num_threads: int) -> float:
    """MiB above the start, for the notebook's model."""
    import sklearn.metrics  # noqa: F401  # an import, not memory of the trial

    notebook_settings(num_threads)
    batch = noise_batch(batch_size, image_size, NUM_POINTS)
    before = _resident_mib("VmRSS")
    training = NotebookTraining()
    training.train_epoch([batch] * NUM_STEPS)
    training.evaluate([batch])
    return _resident_mib("VmHWM") - before


def run_ours(batch_size: int, image_size: int, num_threads: int) -> float:
    """MiB above the start, for a run as `canopoint train` makes it."""
    config = TrainConfig(
        encoder="resnet50",
        weights="none",
        points_per_image=NUM_POINTS,
        epochs=1,
        batch_size=batch_size,
        image_size=image_size,
        num_threads=num_threads,
    )
    store = noise_store(NUM_STEPS * batch_size, batch_size, image_size)
    before = _resident_mib("VmRSS")
    for _ in TrainingRun(config, store).epochs():
        pass
    return _resident_mib("VmHWM") - before


def _resident_mib(field: str) -> float:
    """A field of this process's status, which Linux gives in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(value) / 1024


if __name__ == "__main__":
    measure = {"notebook": run_notebook, "ours": run_ours}[sys.argv[1]]
    print(measure(*map(int, sys.argv[2:])))
