"""Alternating measurements, and the table and the file that come of them."""

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path("build/bench.json")
TURN_S = 0.1
FIELDS = ("name", "baseline", "ours", "ratio", "unit")


@dataclass(frozen=True)
class Line:
    """One comparison.

    Attributes:
        baseline, ours: in `unit`.
        ratio: how many times ours is better.
        floor: the ratio to reach, or None.
        ceiling: what ours may be at most, in `unit`, or None.
    """

    name: str
    baseline: float
    ours: float
    ratio: float
    unit: str
    floor: float | None = None
    ceiling: float | None = None

    def verdict(self) -> str:
        """Whether the goal is reached; it is reported, never enforced: timings are not tests."""
        if self.floor is not None:
            return f"at least x{self.floor:g}: {'reached' if self.ratio >= self.floor else 'MISSED'}"
        if self.ceiling is not None:
            return f"at most {self.ceiling:g} {self.unit}: {'reached' if self.ours <= self.ceiling else 'MISSED'}"
        return ""


def times_less(
    name: str, baseline: float, ours: float, unit: str, *, floor: float | None = None, ceiling: float | None = None
) -> Line:
    """A line of which less is better: times, memory."""
    return Line(name, baseline, ours, baseline / ours, unit, floor, ceiling)


def times_more(name: str, baseline: float, ours: float, unit: str) -> Line:
    """A line of which more is better: throughput."""
    return Line(name, baseline, ours, ours / baseline, unit)


def take_turns(
    contestants: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, float]:
    """Median seconds of a call of each, over rounds in which all take their turn.

    The machines are shared and noisy: what slows one round slows all contestants of it.

    Args:
        contestants: name -> what is timed.
        rounds: timed rounds.
        warm_up: whether an untimed call comes first. It tells how many calls make a turn of `TURN_S`, so that a short
            one does not pay for the caches that a long one has swept.
    """
    calls = {name: _calls_per_turn(function) if warm_up else 1 for name, function in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, function in contestants.items():
            times[name].append(_seconds(function, calls[name]))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _calls_per_turn(function: Callable[[], object]) -> int:
    return max(1, round(TURN_S / _seconds(function, 1)))


def _seconds(function: Callable[[], object], calls: int) -> float:
    """Seconds of a call, the mean over some."""
    started = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - started) / calls


def print_header() -> None:
    """Names of the columns."""
    print(f"{'':<68} {'notebook':>10} {'ours':>10} {'':<8} ratio", flush=True)


def print_line(line: Line) -> None:
    """One row of the table."""
    figures = f"{line.baseline:>10.4g} {line.ours:>10.4g} {line.unit:<8} x{line.ratio:<7.3g}"
    print(f"{line.name:<68} {figures} {line.verdict()}".rstrip(), flush=True)


def write_lines(lines: Iterable[Line], path: Path = RESULTS) -> None:
    """Writes lines to the results; others that stand there already, from an earlier command, stay."""
    records = {record["name"]: record for record in (json.loads(path.read_text()) if path.exists() else [])}
    records |= {line.name: {field: getattr(line, field) for field in FIELDS} for line in lines}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(list(records.values()), indent=2, allow_nan=False) + "\n")
