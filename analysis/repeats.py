"""Noise where levels have one run each: from the cells that were run more than once, and nothing else.

A study without seed blocks, as the notebook's was, has nothing to pair. What two runs of one and the same cell differ
by is then all that is known of noise: their variance within cells, pooled over cells, with as many degrees of freedom
as there are runs beyond the first of each; where seeds are known, with those of the seeds alone, as all cells may rise
and fall with a seed. Intervals stand on that one number, on the assumption that all cells are as noisy; they hold
together for all pairs of levels by Tukey's range (Kramer 1956 for unequal numbers, where Hayter 1984 shows that they
cover at least what they claim).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.family import pair_confidence
from analysis.findings import Caveat, CellFinding, FactorFinding
from analysis.grid import Grid
from analysis.reading.column_map import REPEATS
from analysis.reading.runs import StudyRuns
from analysis.sample_size import POWER, seeds_to_detect
from analysis.statistics import CONFIDENCE, Estimate, Mode, t_quantile
from analysis.variances import MeanSquare, seed_squares
from analysis.wording import counted, listed, settings_text


@dataclass(frozen=True)
class RepeatNoise:
    """What repeated cells show of noise.

    Attributes:
        spread: standard deviation of a single run, in the metric's unit; above 0.
        degrees_of_freedom: at least 1; where cells share seeds, what these alone tell.
        squares: its square as a sum of independent mean squares.
        num_cells: that were repeated.
        widest: the one whose runs differ most.
    """

    spread: float
    degrees_of_freedom: int
    squares: list[MeanSquare]
    num_cells: int
    widest: CellFinding

    @property
    def gap(self) -> float:
        """The most that two runs of one cell differ by."""
        return float(np.ptp(self.widest.readings))


def repeat_noise(grid: Grid, *, are_blocks: bool = True) -> RepeatNoise | None:
    """What the grid's repeated cells show; None where no cell was repeated, or all repetitions read the very same.

    Args:
        grid: cells, and the seeds that each has.
        are_blocks: whether a seed may shift all its runs; not where seeds only number repetitions.
    """
    repeated = np.flatnonzero((~np.isnan(grid.values)).sum(axis=1) > 1)
    values = grid.values[repeated]
    gaps = np.nanmax(values, axis=1) - np.nanmin(values, axis=1) if repeated.size else np.zeros(0)
    if not gaps.any():
        return None
    degrees_of_freedom = int((~np.isnan(values)).sum()) - len(values)
    variance = float(np.nansum((values - np.nanmean(values, axis=1, keepdims=True)) ** 2)) / degrees_of_freedom
    widest = grid.finding(int(repeated[gaps.argmax()]))
    squares = [MeanSquare(variance, degrees_of_freedom)]
    if are_blocks:
        groups = list(_seed_groups(values))
        squares = _pooled(groups)
        degrees_of_freedom = sum(group.shape[1] - 1 for group in groups)
    spread = float(np.sqrt(sum(each.value for each in squares)))
    return RepeatNoise(spread, degrees_of_freedom, squares, len(values), widest) if spread > 0 else None


def knows_seeds(runs: StudyRuns) -> bool:
    """Whether seeds are blocks; where runs of another project name none, they number repetitions."""
    return REPEATS not in runs.notes


def _seed_groups(values: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Tables of cells by the seeds that all of them have, at least two; no two tables share a seed."""
    there = ~np.isnan(values)
    while there.sum(axis=1).max(initial=0) > 1:
        seeds = there[there.sum(axis=1).argmax()]
        yield values[there[:, seeds].all(axis=1)][:, seeds]
        there[there[:, seeds].any(axis=1)] = False


def _pooled(groups: Sequence[NDArray[np.float64]]) -> list[MeanSquare]:
    """The variance of a run over all tables, each weighed by its runs beyond the first of each cell."""
    weights = [len(group) * (group.shape[1] - 1) for group in groups]
    return [
        MeanSquare(each.value * weight / sum(weights), each.dof)
        for group, weight in zip(groups, weights, strict=True)
        for each in seed_squares(group)
    ]


def lacks_seeds(table: NDArray[np.float64], family: Mapping[tuple[int, int], Estimate]) -> bool:
    """Whether no two levels share seeds enough for an interval of their own, and most levels have a single run."""
    shares = any(estimate.low is not None for estimate in family.values())
    return len(table) > 1 and not shares and float(np.median((~np.isnan(table)).sum(axis=1))) == 1


def unpaired_value(readings: NDArray[np.float64], num_cells: int, noise: RepeatNoise) -> Estimate:
    """A level's mean with the interval that the repeated cells give it; each reading is a mean over `num_cells`."""
    half = t_quantile(CONFIDENCE, noise.degrees_of_freedom) * noise.spread / np.sqrt(len(readings) * num_cells)
    mean = float(np.mean(readings))
    return Estimate(mean, mean - float(half), mean + float(half), len(readings), CONFIDENCE)


def unpaired_family(
    table: NDArray[np.float64],
    num_cells: int,
    noise: RepeatNoise,
    paired: Mapping[tuple[int, int], Estimate],
    confidence: float = CONFIDENCE,
) -> dict[tuple[int, int], Estimate]:
    """All differences of level means, simultaneous, on the noise of the repeated cells.

    Args:
        table: (num_levels, num_seeds) NaN where a level lacks a run.
        num_cells: cells that each value is the mean of.
        noise: of a single run.
        paired: of the same levels, which says how many seeds two of them share.
        confidence: probability that all intervals hold, in (0, 1).

    Returns:
        (i, j) -> estimate of level i - level j. `confidence` of each is that of its own t interval.
    """
    means, numbers = np.nanmean(table, axis=1), (~np.isnan(table)).sum(axis=1) * num_cells
    range_quantile, each = _range_quantile(len(table), noise.degrees_of_freedom, confidence)
    found = {}
    for i, j in permutations(range(len(table)), 2):
        half = range_quantile * noise.spread * float(np.sqrt(1 / numbers[i] + 1 / numbers[j]))
        value = float(means[i] - means[j])
        found[i, j] = replace(paired[i, j], value=value, low=value - half, high=value + half, confidence=each)
    return found


@lru_cache
def _range_quantile(num_levels: int, degrees_of_freedom: int, confidence: float) -> tuple[float, float]:
    """In standard errors of a difference, half the width of Tukey's intervals; and what each covers by itself."""
    from scipy import stats  # here, as its import takes longer than all else and such studies are few

    quantile = float(stats.studentized_range.ppf(confidence, num_levels, degrees_of_freedom)) / float(np.sqrt(2))
    return quantile, float(1 - 2 * stats.t.sf(quantile, degrees_of_freedom))


def seeds_for_noise(
    difference: Estimate,
    margin: float,
    mode: Mode,
    noise: RepeatNoise,
    num_levels: int,
    at_least: int = 2,
    power: float = POWER,
) -> int | None:
    """Seeds at each level that a study with seed blocks would need, as noisy as the repeated cells and not paired."""
    signed = difference.value if mode == "max" else -difference.value
    distance = abs(signed + margin) / (float(np.sqrt(2)) * noise.spread)
    return seeds_to_detect(distance, pair_confidence(num_levels), at_least, power)


def order_text(levels: Sequence[Any], table: NDArray[np.float64], noise: RepeatNoise) -> str:
    """Which levels' order the repeated cells do not support; read at the first seed that all levels have."""
    whole = np.flatnonzero(~np.isnan(table).any(axis=0))
    readings = table[:, whole[0]] if whole.size else np.nanmean(table, axis=1)
    near = _within(readings, noise.gap)
    repeated = noise.widest
    noted = f"runs of {settings_text(repeated.parameters)} differ by {noise.gap:.4f}"
    known = f"the only noise known of these runs ({counted(noise.degrees_of_freedom, 'degree')} of freedom)"
    if len(near) < 2:
        return f"Single runs: {noted}, {known}."
    spread = float(np.ptp(readings[near]))
    named = listed([levels[i] for i in near])
    return f"The order of {named} is not supported: they differ by {spread:.4f}, {noted}, {known}."


def single_run_caveats(factors: Sequence[FactorFinding], noise: RepeatNoise | None) -> Iterator[Caveat]:
    """Where differences of single runs have an interval, what it stands on."""
    differences = [level.difference for factor in factors for level in factor.levels if level.difference]
    if noise and any(each.num_seeds < 2 and each.low is not None for each in differences):
        yield Caveat(
            "single_runs",
            f"Single runs: noise is known from {counted(noise.num_cells, 'repeated cell')} alone, nothing is paired by"
            f" seed, and all cells are taken to be as noisy; no difference counts as settled.",
        )


def _within(readings: NDArray[np.float64], gap: float) -> list[int]:
    """The most levels whose readings all differ by less than the gap, ascending."""
    ranked, best = np.argsort(readings, kind="stable"), np.zeros(0, dtype=int)
    for start in range(len(ranked)):
        near = ranked[start:][readings[ranked[start:]] - readings[ranked[start]] < gap]
        best = max(best, near, key=len)
    return sorted(best.tolist())
