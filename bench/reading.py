"""10,000 W&B run files of 100 epochs: cold read, findings from the cache, memory; and `wandb.Api`, run by run.

    python -m bench.reading [--runs 10000] [--epochs 100] [--folder build/reading]

The folder keeps the run files (2.2 GB) for the next time. Writes build/reading.json. Each figure is of a process of its
own, from its start to its end; memory is the sum over it and its children, sampled (shared pages count in each).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.made_runs import GAMMAS, POINTS, RATES, STUDY, config_of, make_runs, run_id
from study.spec import parse_study
from study.yaml_file import to_yaml

RESULTS = Path("build/reading.json")
FIND = """
import sys
from pathlib import Path
from analysis.find import find
from analysis.reading.runs import load_study
if __name__ == "__main__":
    find(load_study(Path(sys.argv[1])))
"""
READ_ALL = """
import sys, wandb
runs = wandb.Api(timeout=60).runs(sys.argv[1], per_page=100)
print(sum(len(list(run.scan_history())) for run in runs))
"""
SAMPLE_S = 0.02
GIB = 2**30


def main(arguments: list[str]) -> int:
    """Measures all of it and returns the exit code, which no timing decides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=Path("build/reading"))
    parser.add_argument("--baseline", type=int, default=100, help="runs that wandb.Api reads; 0 leaves it out")
    asked = parser.parse_args(arguments)
    study_dir = asked.folder / f"{asked.runs}x{asked.epochs}" / STUDY
    if not (study_dir / "study.yaml").is_file():
        print(f"making {asked.runs} run files in {study_dir}")
        shutil.rmtree(study_dir.parent, ignore_errors=True)
        study_dir.mkdir(parents=True)
        make_runs(study_dir, asked.runs, asked.epochs)
        (study_dir / "study.yaml").write_text(study_text(asked.runs, asked.epochs))
    shutil.rmtree(study_dir / "analysis", ignore_errors=True)
    results: dict[str, Any] = {"runs": asked.runs, "epochs": asked.epochs, "cores": len(os.sched_getaffinity(0))}
    results["cold"] = measured([sys.executable, "-c", FIND, str(study_dir)])
    results["cached"] = [measured([sys.executable, "-c", FIND, str(study_dir)]) for _ in range(5)]
    results["cache_mib"] = round(sum(path.stat().st_size for path in study_dir.rglob("*.parquet")) / 2**20, 1)
    if asked.baseline:
        results["wandb_api"] = measured_api(asked.baseline, asked.epochs)
        per_run = results["wandb_api"]["wall_s"] / asked.baseline
        results["times_faster_than_api_cold"] = round(per_run / (results["cold"]["wall_s"] / asked.runs), 1)
        fastest = min(each["wall_s"] for each in results["cached"])
        results["times_faster_than_api_cached"] = round(per_run / (fastest / asked.runs), 1)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    return 0


def study_text(num_runs: int, num_epochs: int) -> str:
    """The study file of the made runs, as a driver writes it."""
    num_seeds = -(-num_runs // (len(POINTS) * len(RATES) * len(GAMMAS)))
    levels = {"points_per_image": POINTS, "learning_rate": RATES, "focal_gamma": GAMMAS}
    parameters = {name: {"role": "nuisance", "values": list(values)} for name, values in levels.items()}
    parameters["points_per_image"]["role"] = "scientific"
    mapping = {
        "study": STUDY,
        "data": {"root": "/data"},
        "training": {"epochs": num_epochs},
        "parameters": parameters,
        "search": {"method": "grid", "seeds": list(range(num_seeds))},
    }
    return to_yaml(parse_study(mapping, "bench").to_mapping())


def measured(command: list[str], **environment: str) -> dict[str, float]:
    """Seconds and memory of a process and its children."""
    load, start = os.getloadavg()[0], time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=Path(__file__).parent.parent)
    peak = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, sum(map(resident_bytes, process_tree(process.pid))))
        time.sleep(SAMPLE_S)
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[:3]} ended with exit code {process.returncode}")
    return {
        "wall_s": round(wall_s, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_gib": round(peak / GIB, 2),
        "load_before": round(load, 1),
    }


def process_tree(pid: int) -> list[int]:
    """A process and all below it, as far as they still live."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in process_tree(int(child)))]


def resident_bytes(pid: int) -> int:
    """What a process holds in memory; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def measured_api(num_runs: int, num_epochs: int) -> dict[str, float]:
    """`wandb.Api` as its documentation has it: the runs of a project, and each run's history, one after the other.

    From a server on loopback, which answers at once: the best case for it.
    """
    from bench.wandb_server import ENTITY, wandb_server

    row = {f"val/metric_{n}": 0.123456789012345 + n for n in range(21)} | {"time/total_s": 1.5, "time/epoch_s": 2.5}
    with wandb_server() as server, TemporaryDirectory() as home:
        for number in range(num_runs):
            rows = [{**row, "epoch": epoch} for epoch in range(1, num_epochs + 1)]
            config = config_of(number, (number, GAMMAS[0], RATES[0], POINTS[0]))
            server.add_run("many", run_id(number), rows, config=config, group=STUDY)
        folders = {f"WANDB_{name}_DIR": home for name in ("DATA", "CACHE", "CONFIG")}
        return measured([sys.executable, "-c", READ_ALL, f"{ENTITY}/many"], **server.environment, **folders)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
