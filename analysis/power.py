"""Power: what a study as noisy as this pilot would show with more seeds, and what that costs.

The spread of paired differences between seeds is pooled over all pairs of levels, as if all were as noisy; power is
then that of the very intervals that findings stand on (simultaneous over all pairs, each with its own variance). Where
nothing pairs, as in a study of one level or without seed blocks, the spread is that of two independent runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.family import pair_confidence
from analysis.findings import Findings
from analysis.grid import tabulate
from analysis.reading.runs import StudyRuns
from analysis.repeats import repeat_noise
from analysis.sample_size import MAX_SEEDS, POWER, detectable, seeds_to_detect
from analysis.statistics import CONFIDENCE
from analysis.wording import counted, level_text
from trainable.config import InputError

SEEDS = tuple(range(2, 21))
MARGIN = "margin"


@dataclass(frozen=True)
class Spread:
    """How much a difference of two levels varies between seeds.

    Attributes:
        value: standard deviation, in the metric's unit; above 0.
        low, high: 95 % interval of it, were all levels as noisy and the noise normal.
        degrees_of_freedom: behind it.
        paired: whether it is of differences within seeds; else of two independent runs, which is rather too much.
    """

    value: float
    low: float
    high: float
    degrees_of_freedom: int
    paired: bool


@dataclass(frozen=True)
class PowerRow:
    """A number of seeds at each level: the smallest true difference that is found with 80 %, and what it costs."""

    num_seeds: int
    detectable: float
    num_trials: int
    hours: float | None


@dataclass(frozen=True)
class PowerTarget:
    """A difference, and the seeds at each level that tell it from none with 80 %; None where `MAX_SEEDS` do not."""

    subject: str
    difference: float
    num_seeds: int | None
    num_trials: int | None
    hours: float | None


@dataclass(frozen=True)
class Power:
    """What more seeds would show.

    Attributes:
        num_levels: that are compared; the intervals of all their pairs hold jointly.
        seed_hours: training of one seed at every level; GPU-hours where each trial has a GPU to itself. None where
            the runs do not say.
        margin: the difference that is negligible.
        rows: by number of seeds.
        targets: the margin first, then the observed differences to the leading levels.
        run_ids: the pilot's.
    """

    study: str
    metric: str
    margin: float
    num_levels: int
    confidence: float
    power: float
    spread: Spread
    seed_hours: float | None
    rows: list[PowerRow]
    targets: list[PowerTarget]
    run_ids: list[str]


def plan_power(runs: StudyRuns, findings: Findings, seeds: Sequence[int] = SEEDS, margin: float | None = None) -> Power:
    """What a study of these levels would show with other numbers of seeds, judged from this one as a pilot.

    Args:
        runs: the pilot.
        findings: what `find` makes of it.
        seeds: numbers of seeds, each 2 to `MAX_SEEDS`.
        margin: in place of the study's own; above 0.

    Raises:
        InputError: no cell has two runs, so that nothing is known of noise, or a number is out of its range.
    """
    for number in seeds:
        if not 2 <= number <= MAX_SEEDS:
            raise InputError(f"--seeds: must be 2 to {MAX_SEEDS}, got {number}")
    if margin is not None and not (isfinite(margin) and margin > 0):
        raise InputError(f"--margin: must be a number above 0, got {margin:g}")
    spread = find_spread(runs, findings)
    if spread is None:
        raise InputError(
            f"study {runs.study}: power needs a pilot that shows noise, and no cell ran at two seeds that differ; run"
            f" it with more, as in search: {{seeds: [0, 1, 2]}}"
        )
    num_levels, hours = len(findings.arms), _seed_hours(runs, findings)
    # A study that declares confirmation may be extended, so that its first look has less than all of the error.
    each = pair_confidence(max(num_levels, 2), 1 if runs.search.confirm_seeds else None)
    differences = _targets(findings, runs.objective["margin"] if margin is None else margin)
    return Power(
        study=runs.study,
        metric=findings.metric,
        margin=float(runs.objective["margin"] if margin is None else margin),
        num_levels=num_levels,
        confidence=CONFIDENCE,
        power=POWER,
        spread=spread,
        seed_hours=hours,
        rows=[_row(number, spread.value * detectable(number, each), num_levels, hours) for number in seeds],
        targets=[_target(name, size, spread, each, num_levels, hours) for name, size in differences],
        run_ids=[run_id for arm in findings.arms for run_id in arm.run_ids],
    )


def find_spread(runs: StudyRuns, findings: Findings) -> Spread | None:
    """The spread of a difference between two levels; None where nothing is replicated, or nothing differs."""
    arms = findings.arms
    seeds = sorted({seed for arm in arms for seed in arm.seeds})
    read = [dict(zip(arm.seeds, arm.readings, strict=True)) for arm in arms]
    table = np.array([[each.get(seed, np.nan) for seed in seeds] for each in read])
    if len(arms) > 1 and (paired := _paired_spread(table)):
        return paired
    grid = tabulate(runs, findings.phase, "test" if findings.is_confirmed else "objective")
    noise = repeat_noise(grid)
    return _spread(float(np.sqrt(2)) * noise.spread, noise.degrees_of_freedom, paired=False) if noise else None


def _paired_spread(table: NDArray[np.float64]) -> Spread | None:
    """Pooled over all pairs of levels; of k levels with n seeds each, (k - 1) (n - 1) degrees of freedom."""
    pairs = [first - second for first, second in combinations(table, 2)]
    differences = [each[~np.isnan(each)] for each in pairs]
    replicated = [each for each in differences if each.size > 1]
    freedom = sum(each.size - 1 for each in replicated)
    squares = sum(float(np.var(each)) * each.size for each in replicated if np.ptp(each) > 0)
    if squares == 0:
        return None
    # k (k - 1) / 2 pairs of k levels are not independent of each other: as many as k / 2 say the same.
    return _spread(float(np.sqrt(squares / freedom)), max(round(2 * freedom / len(table)), 1), paired=True)


def _spread(value: float, freedom: int, *, paired: bool) -> Spread:
    ends = [value * float(np.sqrt(freedom / special.chdtri(freedom, tail))) for tail in (0.025, 0.975)]
    return Spread(value, ends[0], ends[1], freedom, paired)


def _seed_hours(runs: StudyRuns, findings: Findings) -> float | None:
    times = runs.trials.set_index("run_id")["time_s"]
    hours = sum(float(times.loc[arm.run_ids].mean()) for arm in findings.arms) / 3600
    return hours if isfinite(hours) and hours > 0 else None


def _targets(findings: Findings, margin: float) -> Iterator[tuple[str, float]]:
    """(what it is, difference): the margin, unless it is 0, and what the levels were seen to differ by."""
    if margin > 0:
        yield MARGIN, float(margin)
    for factor in findings.scientific:
        for level in factor.levels:
            if level.difference is not None and level.difference.value != 0:
                yield f"{level_text(level.level)} against {level_text(factor.best_level)}", abs(level.difference.value)


def _row(num_seeds: int, difference: float, num_levels: int, hours: float | None) -> PowerRow:
    return PowerRow(num_seeds, difference, num_seeds * num_levels, None if hours is None else num_seeds * hours)


def _target(
    subject: str, difference: float, spread: Spread, confidence: float, num_levels: int, hours: float | None
) -> PowerTarget:
    number = seeds_to_detect(difference / spread.value, confidence)
    if number is None:
        return PowerTarget(subject, difference, None, None, None)
    row = _row(number, difference, num_levels, hours)
    return PowerTarget(subject, difference, number, row.num_trials, row.hours)


def describe_power(power: Power) -> dict[str, Any]:
    """Plain JSON values."""
    return asdict(power)


def power_text(power: Power) -> str:
    """The answer, then a table, for a terminal."""
    spread, hours = power.spread, "GPU-hours, at one GPU a trial" if power.seed_hours else ""
    kind = "of paired differences" if spread.paired else "of a difference of two independent runs"
    lines = [
        *target_sentences(power),
        f"Spread between seeds {kind}: {spread.value:.4f} (95 %: {spread.low:.4f} to {spread.high:.4f},"
        f" {counted(spread.degrees_of_freedom, 'degree')} of freedom).",
        "",
        f"{'seeds':>7}{'finds a difference of':>25}{'trials':>10}{hours:>34}".rstrip(),
    ]
    for row in power.rows:
        spent = f"{row.hours:>34.2f}" if row.hours is not None else ""
        lines.append(f"{row.num_seeds:>7}{row.detectable:>25.4f}{row.num_trials:>10}{spent}")
    return "\n".join(lines)


def target_sentences(power: Power) -> list[str]:
    """What each difference takes, the margin first."""
    return [f"{_aim(target)}: {_cost(power, target)}." for target in power.targets]


def _aim(target: PowerTarget) -> str:
    if target.subject == MARGIN:
        return f"To call a level enough that is as good (margin {target.difference:.4f})"
    return f"To find a difference such as {target.subject} showed ({target.difference:.4f})"


def _cost(power: Power, target: PowerTarget) -> str:
    if target.num_seeds is None:
        return f"more than {MAX_SEEDS} seeds at each level"
    hours = f", {target.hours:.2f} GPU-hours at one GPU a trial" if target.hours is not None else ""
    levels = f"each of {counted(power.num_levels, 'level')}" if power.num_levels > 1 else "the level"
    return f"some {target.num_seeds} seeds at {levels}, {target.num_trials} trials{hours}"
