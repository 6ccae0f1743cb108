"""How much a difference of two levels varies between seeds, as a pilot shows it.

The spread of paired differences is pooled over all pairs of levels, as if all were as noisy. Where nothing pairs, as in
a study without seed blocks, it is that of two independent runs.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.findings import Findings
from analysis.grid import tabulate
from analysis.reading.runs import StudyRuns
from analysis.repeats import RepeatNoise, knows_seeds, repeat_noise
from analysis.statistics import shows_noise
from analysis.variances import sum_interval


@dataclass(frozen=True)
class Spread:
    """How much a difference of two levels varies between seeds.

    Attributes:
        value: standard deviation, in the metric's unit; above 0.
        low, high: 95 % interval of it, were all levels as noisy and the noise normal.
        degrees_of_freedom: behind it; where nothing pairs, those of the seeds that cells share.
        paired: whether it is of differences within seeds; else of two independent runs, which is rather too much.
    """

    value: float
    low: float
    high: float
    degrees_of_freedom: int
    paired: bool


def find_spread(runs: StudyRuns, findings: Findings) -> Spread | None:
    """The spread of a difference between two levels.

    None where there are no two, where nothing is replicated, and where seeds make no difference.
    """
    arms = findings.arms
    seeds = sorted({seed for arm in arms for seed in arm.seeds})
    read = [dict(zip(arm.seeds, arm.readings, strict=True)) for arm in arms]
    table = np.array([[each.get(seed, np.nan) for seed in seeds] for each in read])
    if len(arms) < 2:
        return None
    if replicated := _replicated(table):
        return _paired_spread(replicated, len(arms))
    grid = tabulate(runs, findings.phase, "test" if findings.is_confirmed else "objective")
    noise = repeat_noise(grid, are_blocks=knows_seeds(runs))
    return _unpaired_spread(noise) if noise else None


def _replicated(table: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """(2, num_shared) of each pair of levels that share seeds enough: their values there."""
    shared = [pair[:, ~np.isnan(pair).any(axis=0)] for pair in map(np.array, combinations(table, 2))]
    return [pair for pair in shared if pair.shape[1] > 1]


def _paired_spread(pairs: list[NDArray[np.float64]], num_levels: int) -> Spread | None:
    """Pooled over all pairs of levels; of k levels with n seeds each, (k - 1) (n - 1) degrees of freedom."""
    freedom = sum(pair.shape[1] - 1 for pair in pairs)
    squares = sum(float(np.var(first - second)) * first.size for first, second in pairs if shows_noise(first, second))
    if squares == 0:
        return None
    # k (k - 1) / 2 pairs of k levels are not independent of each other: as many as k / 2 say the same.
    value, freedom = float(np.sqrt(squares / freedom)), max(round(2 * freedom / num_levels), 1)
    ends = [value * float(np.sqrt(freedom / special.chdtri(freedom, tail))) for tail in (0.025, 0.975)]
    return Spread(value, ends[0], ends[1], freedom, paired=True)


def _unpaired_spread(noise: RepeatNoise) -> Spread:
    """Of two independent runs; cells that rise and fall with a seed tell no more than one does (Graybill and Wang)."""
    of_run = sum_interval(noise.squares, noise.degrees_of_freedom + 1)
    low, high = (float(np.sqrt(2)) * (end or 0.0) for end in (of_run.low, of_run.high))
    return Spread(float(np.sqrt(2)) * noise.spread, low, high, noise.degrees_of_freedom, paired=False)
