"""One side of `bench.driver`, in a process of its own: `python -m bench.driver_side canopoint|tune NUM_TRIALS FOLDER`.

Prints a Record as JSON. `canopoint` is the driver as `canopoint run` calls it, with all that it keeps: ledger, trial
directories, W&B files, Optuna journal. `tune` is Ray Tune as somebody would use it for these trials, with its defaults;
nothing is written but what Tune writes itself.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from bench.driver_trainable import BareTrainable, TrivialTrainable
from study.ledger import read_ledger
from study.spec import StudySpec, parse_study
from trainable.config import TrainConfig

LEVELS = [2, 20]
IMPORTED_WHEN_NEEDED = ("cluster.schedulers", "cluster.tracking", "cluster.tune_run", "trainable.encoders")
SAMPLE_EVERY_S = 0.1


@dataclass(frozen=True)
class Record:
    """What was seen of a side.

    Attributes:
        seconds: from its first line to its last, but for the start of Ray.
        ended: when each trial ended, unix seconds.
        resident: (unix seconds, MiB of resident memory of the driver), in the order of time.
    """

    seconds: float
    ended: list[float]
    resident: list[tuple[float, float]]

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """What `main` prints."""
        return cls(**json.loads(text))


def run_canopoint(num_trials: int, folder: Path) -> tuple[float, list[float]]:
    """Seconds but for the start of Ray, and when each trial ended."""
    from cluster.tuner import run_study

    for name in IMPORTED_WHEN_NEEDED:
        import_module(name)
    spec = trivial_study(num_trials, folder)
    said: list[tuple[float, str]] = []
    started = time.time()
    outcome = run_study(spec, lambda line: said.append((time.time(), line)), trainable=TrivialTrainable)
    seconds = time.time() - started
    assert outcome.complete, f"every trial is trivial: {outcome}"
    (asked,) = (number for number, (_, line) in enumerate(said) if line.startswith("starting Ray"))
    ray_s = said[asked + 1][0] - said[asked][0]
    ended = [event["time"] for event in read_ledger(spec.folder) if event["event"] == "trial_ended"]
    return seconds - ray_s, ended


def run_tune(num_trials: int, folder: Path) -> tuple[float, list[float]]:
    """The same for Ray Tune alone."""
    import ray
    from ray import tune

    ended: list[float] = []

    class Ends(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            ended.append(time.time())

    settings = [{"trial_id": f"{seed:012x}", "training": config.to_mapping()} for seed, config in _configs(num_trials)]
    num_cpus = len(os.sched_getaffinity(0))
    ray.init(
        address="local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
        object_store_memory=128 * 2**20, _temp_dir=str(folder / "ray"),
    )  # fmt: skip
    started = time.time()
    results = tune.Tuner(
        tune.with_resources(BareTrainable, {"CPU": 1.0}),
        param_space={"trial": tune.grid_search(settings)},
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=num_cpus),
        run_config=tune.RunConfig(name="trivial", storage_path=str(folder / "tune"), verbose=0, callbacks=[Ends()]),
    ).fit()
    ray.shutdown()
    assert (len(results), results.num_errors) == (num_trials, 0), "every trial is trivial"
    return time.time() - started, ended


SIDES: dict[str, Callable[[int, Path], tuple[float, list[float]]]] = {"canopoint": run_canopoint, "tune": run_tune}


def trivial_study(num_trials: int, folder: Path) -> StudySpec:
    """A grid of that many trials of one epoch, as many at once as there are cores."""
    study = {
        "study": "trivial",
        "data": {"synthetic": {"num_scenes": 3, "images_per_scene": 4, "image_size": 32}},
        "training": {"encoder": "resnet18", "weights": "none", "image_size": 32, "epochs": 1, "batch_size": 4},
        "parameters": {"points_per_image": {"role": "scientific", "values": LEVELS}},
        "search": {"method": "grid", "seeds": list(range(num_trials // len(LEVELS)))},
        "storage": str(folder / "studies"),
    }
    return parse_study(study, "bench.driver")


def _configs(num_trials: int) -> Iterator[tuple[int, TrainConfig]]:
    """The settings of the same trials."""
    for seed in range(num_trials):
        yield seed, TrainConfig(encoder="resnet18", weights="none", image_size=32, epochs=1, batch_size=4, seed=seed)


@contextmanager
def _resident_memory() -> Iterator[list[tuple[float, float]]]:
    """Samples this process's memory while the block runs."""
    samples: list[tuple[float, float]] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_EVERY_S):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            samples.append((time.time(), pages * os.sysconf("SC_PAGESIZE") / 2**20))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def main(side: str, num_trials: int, folder: Path) -> None:
    """Runs a side and prints its record; whatever else it says goes to the error output."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with redirect_stdout(sys.stderr), _resident_memory() as resident:
        seconds, ended = SIDES[side](num_trials, folder)
    print(json.dumps(asdict(Record(seconds, ended, resident))))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
