"""What the driver itself costs: a thousand trials that do nothing, beside Ray Tune alone on the same trials.

    python -m bench.driver             1,000 trials on each side, twice, in turn; some minutes
    python -m bench.driver --trials 100 --rounds 1

A side's seconds are those of the whole command but for imports and the start of Ray, which both need. Ours keep a
ledger, a directory for each trial with its synced files, a W&B run for each, and an Optuna journal; the other side's
trials write nothing, and Tune has its defaults (class Trainable, reuse_actors, grid_search; it logs JSON, CSV and
TensorBoard). Each side runs in a process of its own, with as many trials at once as there are cores.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.compare import Line, print_header, print_line, times_less, write_lines
from bench.driver_side import SIDES, Record
from bench.processes import kill_trees, process
from bench.scale import Scale

CEILING_S = 0.25
CEILING_RATIO = 1.7
STEADY = 0.9
"""The last trials may take this much longer than the first, as noise makes them: first / last."""
GROUP = 100
TIMEOUT_S = 1800
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Side:
    """The figures of a side.

    Attributes:
        trial_s: seconds a trial, of the whole command.
        first_s, last_s: seconds that the first and the last trials took to end, a hundred each or a quarter of all.
        early_mib, late_mib: resident memory of the driver at the end of the first hundred, and of all.
    """

    trial_s: float
    first_s: float
    last_s: float
    early_mib: float
    late_mib: float

    @classmethod
    def of(cls, record: Record) -> Self:
        """The figures of one run."""
        ended = sorted(record.ended)
        group = min(GROUP, len(ended) // 4)
        return cls(
            trial_s=record.seconds / len(ended),
            first_s=ended[group] - ended[0],
            last_s=ended[-1] - ended[-1 - group],
            early_mib=_resident_at(record, ended[group - 1]),
            late_mib=_resident_at(record, ended[-1]),
        )

    @classmethod
    def median(cls, sides: Sequence[Self]) -> Self:
        """The median of each figure."""
        return cls(**{name: statistics.median(getattr(side, name) for side in sides) for name in vars(sides[0])})


def bench_driver(scale: Scale) -> list[Line]:
    """Both sides in turn, round by round."""
    records: dict[str, list[Side]] = {name: [] for name in SIDES}
    for _ in range(scale.driver_rounds):
        for name in SIDES:
            records[name].append(Side.of(run_side(name, scale.num_trials)))
    ours, tune = Side.median(records["canopoint"]), Side.median(records["tune"])
    group = min(GROUP, scale.num_trials // 4)
    what = f"driver, {scale.num_trials} trivial trials"
    return [
        times_less(f"{what}: of each, beside Ray Tune alone", tune.trial_s, ours.trial_s, "s", ceiling=CEILING_S),
        Line(f"{what}: Ray Tune alone is 1", 1.0, ours.trial_s / tune.trial_s, tune.trial_s / ours.trial_s, "times",
             ceiling=CEILING_RATIO),
        times_less(f"driver, the last {group}, beside the first", ours.first_s, ours.last_s, "s", floor=STEADY),
        times_less(f"Ray Tune alone, the last {group}, beside the first", tune.first_s, tune.last_s, "s"),
        times_less(f"driver, memory at trial {scale.num_trials}, beside {group}", ours.early_mib, ours.late_mib, "MiB"),
        times_less("driver, memory at the end, beside Ray Tune alone", tune.late_mib, ours.late_mib, "MiB"),
    ]  # fmt: skip


def run_side(side: str, num_trials: int) -> Record:
    """Runs a side in a process of its own, in a folder of its own; both are gone afterwards.

    Raises:
        subprocess.TimeoutExpired: it took too long.
        RuntimeError: it did not end well.
    """
    # Ray's sockets may have 107 characters in all, so the folder's name is short.
    with tempfile.TemporaryDirectory(prefix="bd-", ignore_cleanup_errors=True) as scratch:
        command = [sys.executable, "-m", "bench.driver_side", side, str(num_trials), scratch]
        environment = {**os.environ, "TMPDIR": scratch, "PYTHONPATH": str(ROOT)}  # Ray's workers import bench, too
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as popen:
            try:
                output, _ = popen.communicate(timeout=TIMEOUT_S)
            finally:
                if found := process(popen.pid):
                    kill_trees([found])
    if popen.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {popen.returncode}")
    return Record.from_json(output)


def _resident_at(record: Record, moment: float) -> float:
    """Memory when it was last looked at before a moment."""
    before = [mib for sampled, mib in record.resident if sampled <= moment]
    return before[-1] if before else record.resident[0][1]


def main(argv: list[str] | None = None) -> None:
    """Prints the lines and adds them to build/bench.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.driver", description="What the driver itself costs.")
    parser.add_argument("--trials", type=int, default=Scale().num_trials)
    parser.add_argument("--rounds", type=int, default=Scale().driver_rounds)
    arguments = parser.parse_args(argv)
    print(f"{len(os.sched_getaffinity(0))} cores; {arguments.trials} trials a side, {arguments.rounds} rounds")
    print_header()
    lines = bench_driver(Scale(num_trials=arguments.trials, driver_rounds=arguments.rounds))
    for line in lines:
        print_line(line)
    write_lines(lines)


if __name__ == "__main__":
    main()
