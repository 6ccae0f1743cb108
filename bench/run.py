"""`make bench`: ours against the notebook's algorithm, alternately in one run; medians and ratios.

    python -m bench.run                 everything, some fifteen minutes
    python -m bench.run loss metrics    these groups alone; their lines in build/bench.json are replaced

Writes build/bench.json. The machines are shared and noisy: quote ratios, not times. On a GPU: `python -m bench.gpu`.
"""

import os
import sys
from collections.abc import Callable

import torch

from bench.compare import RESULTS, Line, print_header, print_line, write_lines
from bench.driver import bench_driver
from bench.memory import bench_memory
from bench.parts import bench_batch, bench_last_stage, bench_loss, bench_metrics, bench_packing
from bench.scale import Scale
from bench.steps import bench_epochs, bench_precision, bench_steps, bench_waiting

GROUPS: dict[str, Callable[[Scale], list[Line]]] = {
    "batch": bench_batch,
    "packing": bench_packing,
    "loss": bench_loss,
    "last_stage": bench_last_stage,
    "metrics": bench_metrics,
    "steps": bench_steps,
    "epochs": bench_epochs,
    "waiting": bench_waiting,
    "memory": bench_memory,
    "precision": bench_precision,
    "driver": bench_driver,
}


def main(names: list[str]) -> int:
    """Runs the groups named, or all; returns the exit code, which no timing decides."""
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        print(f"bench: no such group: {', '.join(unknown)}; known: {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    if not names:
        RESULTS.unlink(missing_ok=True)  # lines of an older run that this one no longer has
    scale = Scale()
    print(f"{os.cpu_count()} cores, {scale.num_threads} threads, torch {torch.__version__}, {scale.image_size} px")
    print_header()
    for name in names or GROUPS:
        lines = GROUPS[name](scale)
        for line in lines:
            print_line(line)
        write_lines(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
