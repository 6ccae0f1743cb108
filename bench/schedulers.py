"""ASHA against no scheduler, on real images: how much sooner the same nuisance setting is chosen.

    python -m bench.schedulers DATA_FOLDER [--out build/schedulers.json] [--searches 3]

The same quasi-random search (one point count; learning rate and focal gamma; 12 settings of 9 epochs) is run twice by
`canopoint run`, which stops no trial or the worse ones. ASHA saves time for sure; whether its choice is as good is said
by the other run, which took the same settings to their end. Some five minutes a search on two cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from cluster.preparation import pack_stores, prepare
from study.ledger import read_ledger
from study.spec import parse_study

RESULTS = Path("build/schedulers.json")
CONTESTANTS = ("none", "asha")
STUDY = {
    "study": "schedulers",
    "data": {"max_images": 300, "split": {"train": 0.6, "val": 0.2, "test": 0.2, "seed": 0}},
    "training": {
        "encoder": "resnet18", "weights": "none", "image_size": 64, "epochs": 9, "batch_size": 8, "schedule": "cosine",
        "weight_decay": 1e-3,
    },
    "parameters": {
        "points_per_image": {"role": "scientific", "values": [50]},
        "learning_rate": {"role": "nuisance", "min": 1e-5, "max": 1e-1, "scale": "log"},
        "focal_gamma": {"role": "nuisance", "values": [0, 1, 2, 5]},
    },
    "search": {
        "method": "quasi_random", "trials_per_level": 12, "seeds": [0], "grace_epochs": 1, "reduction_factor": 3,
    },
    "resources": {"cpus_per_trial": 1},
}  # fmt: skip


class RunError(RuntimeError):
    """A study did not come to its end."""


@dataclass(frozen=True)
class Search:
    """One search, as its ledger has it.

    Attributes:
        wall_s: of the whole command, with Ray's start and the analysis.
        search_s: from the start of the first trial to the end of the last one.
        epochs: trained, over all trials.
        states: how many trials ended in each state.
        values: setting -> objective, of the trials that ran to their end.
    """

    wall_s: float
    search_s: float
    epochs: int
    states: dict[str, int]
    values: dict[str, float]

    @property
    def choice(self) -> str:
        """The best of the settings that ran to their end; the first of equals."""
        return max(self.values, key=lambda setting: self.values[setting])


def main(arguments: list[str]) -> int:
    """Runs both contestants on each search, prints the ratios and writes them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.schedulers")
    parser.add_argument("data", type=Path, help="a folder with images/, masks/ and meta_data.csv")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--searches", type=int, default=1, help="repetitions, each with other settings (1)")
    given = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="canopoint-bench-") as storage:
        path = write_study(STUDY, given.data, Path(storage))
        rounds = [compare(seed, _run_both(path, seed)) for seed in range(given.searches)]
    for each in rounds:
        print_round(each)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    content = {"cores": os.cpu_count(), "data": str(given.data), "study": STUDY, **summarise(rounds)}
    given.out.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    return 0


def write_study(study: Mapping[str, Any], data: Path, storage: Path) -> Path:
    """Writes the study file, and packs its images, so that no contestant has to."""
    content = {**study, "data": {**study["data"], "root": str(data.resolve())}, "storage": str(storage)}
    path = storage / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    pack_stores(prepare(parse_study(content, str(path))), print)
    return path


def _run_both(path: Path, seed: int) -> dict[str, Search]:
    return {name: run_search(path, name, seed) for name in CONTESTANTS}


def run_search(path: Path, scheduler: str, seed: int) -> Search:
    """One `canopoint run`, in a study of its own.

    Raises:
        RunError: it ended before the study did; says how.
    """
    name = f"schedulers-{scheduler}-{seed}"
    changes = {"study": name, "search.scheduler": scheduler, "search.seed": seed}
    settings = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    print(f"{name} ...", flush=True)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "canopoint", "run", str(path), *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wall_s = time.monotonic() - started
    if done.returncode != 0:
        raise RunError(f"canopoint run of {name} ended with exit code {done.returncode}:\n{done.stdout[-2000:]}")
    return read_search(read_ledger(path.parent / name), wall_s)


def read_search(events: Iterable[Mapping[str, Any]], wall_s: float) -> Search:
    """What the ledger of a finished study says."""
    settings: dict[str, str] = {}
    started, ends = [], []
    for event in events:
        if event["event"] == "proposed":
            (trial_id,) = event["trials"]  # one seed
            settings[trial_id] = " ".join(f"{name}={value:g}" for name, value in event["setting"].items())
        elif event["event"] == "trial_started":
            started.append(event["time"])
        elif event["event"] == "trial_ended":
            ends.append(event)
    states = [end["state"] for end in ends]
    return Search(
        wall_s=wall_s,
        search_s=max(end["time"] for end in ends) - min(started),
        epochs=sum(end["epochs"] for end in ends),
        states={state: states.count(state) for state in sorted(set(states))},
        values={settings[end["trial_id"]]: end["value"] for end in ends if end["state"] == "completed"},
    )


def compare(seed: int, searches: Mapping[str, Search]) -> dict[str, Any]:
    """ASHA's choice and time against the run in which nothing was stopped.

    `regret` is what ASHA's choice has less than the best setting, both by the run that took all to their end. The same
    setting has the same result in both runs; `num_mismatches` counts where it has not, and should be 0.
    """
    none, asha = searches["none"], searches["asha"]
    both = none.values.keys() & asha.values.keys()
    return {
        "seed": seed,
        **{name: {**asdict(search), "choice": search.choice} for name, search in searches.items()},
        "same_choice": none.choice == asha.choice,
        "regret": none.values[none.choice] - none.values[asha.choice],
        "num_mismatches": sum(none.values[setting] != asha.values[setting] for setting in both),
        "ratios": {what: getattr(none, what) / getattr(asha, what) for what in ("wall_s", "search_s", "epochs")},
    }


def summarise(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all searches: the median of each ratio, and the worst choice."""
    names = rounds[0]["ratios"]
    return {
        "median_ratios": {name: statistics.median(each["ratios"][name] for each in rounds) for name in names},
        "largest_regret": max(each["regret"] for each in rounds),
        "same_choices": f"{sum(each['same_choice'] for each in rounds)} of {len(rounds)}",
        "searches": rounds,
    }


def print_round(found: Mapping[str, Any]) -> None:
    """Both contestants of a search, and what lies between them."""
    print(f"search {found['seed']}")
    for name in CONTESTANTS:
        each = found[name]
        times = f"{each['wall_s']:>6.0f} s  search {each['search_s']:>5.0f} s  {each['epochs']:>4} epochs"
        print(f"  {name:<5} {times}  {each['states']}  {each['choice']}: {each['values'][each['choice']]:.4f}")
    ratios = "  ".join(f"{name} x{ratio:.2f}" for name, ratio in found["ratios"].items())
    print(f"  none / asha: {ratios}; regret of ASHA's choice {found['regret']:.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
