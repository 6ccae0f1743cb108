"""Numbers and intervals over seed blocks: arrays in, estimates out; nothing here knows a study.

Population: every interval speaks of *seeds*. It says where the mean would lie if the points were drawn again, the
network started again and the images shuffled again, on the very same images and split. It says nothing about other
scenes. Seeds are few, so intervals are Student's t: a percentile bootstrap over 3 seeds covers 76 % where it claims 95.
They hold as claimed for values named beforehand; `arms.py` says what choosing settings on the same seeds costs, and
`make calibrate` how well they do.

A level may lack a seed that others have: NaN stands there. Two levels are compared on the seeds that both have.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import floor, log10
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

CONFIDENCE = 0.95

ROUNDING = 1e-6
"""Differences that vary by less than this share of what they are taken of may do so by rounding alone (float32)."""

FIRST_SHOWN = 0.0005
"""What is smaller would read 0.000."""
MOST_DECIMALS = 6
"""Beyond these, powers of ten."""

Mode = Literal["max", "min"]
Verdict = Literal["within", "beyond", "undecided"]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its t interval.

    Attributes:
        value: the mean, in the metric's own unit.
        low: lower end; None where one seed gives no interval.
        high: upper end; None likewise.
        num_seeds: seed blocks behind the mean; 0 for a difference of two levels that share no seed. An interval at 1
            or 0 stands on the noise of repeated cells (`repeats.py`), unpaired.
        confidence: coverage of this one interval, in (0, 1).
    """

    value: float
    low: float | None
    high: float | None
    num_seeds: int
    confidence: float

    def text(self, sign: Literal["", "+"] = "") -> str:
        """`0.713 [0.660, 0.766]`, or the bare number where one seed gives no interval; `+` for differences."""
        if self.low is None or self.high is None:
            return number_text(self.value, sign)
        width = self.high - self.low
        numbers = (self.value, self.low, self.high)
        # Ends must differ on paper, too; a width of rounding errors alone is none.
        finest = min(width, max(map(abs, numbers))) if width > 1e-9 * abs(self.value) else max(map(abs, numbers))
        value, low, high = (number_text(number, sign, finest) for number in numbers)
        return f"{value} [{low}, {high}]"


def number_text(value: float, sign: Literal["", "+"] = "", finest: float | None = None) -> str:
    """Three decimals, and more where these do not show `finest`: `0.713`, `0.00012`, `2.0e-09`; 0 has no sign.

    Args:
        value: the number.
        sign: `+` shows that of a difference.
        finest: what must not be rounded away; by default the number itself.
    """
    size = abs(value if finest is None else finest)
    if not size or size >= FIRST_SHOWN:
        return f"{0.0 if abs(value) < FIRST_SHOWN else value:{sign}.3f}"
    decimals = 1 - floor(log10(size))
    if decimals > MOST_DECIMALS and abs(value) < FIRST_SHOWN:
        return f"{value:{sign}.1e}"
    return f"{value:{sign}.{min(decimals, MOST_DECIMALS)}f}"


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Mean over seeds with its t interval. Population: seeds (points, initial weights, order), not scenes.

    Args:
        values: (num_seeds,) one number per seed.
        confidence: coverage, in (0, 1).

    Returns:
        The estimate; without interval for a single seed. Equal values give an interval of no width.

    Raises:
        ValueError: no value, or one that is not finite; a missing metric is a failed trial and must not get here.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"values must be a non-empty row of finite numbers, got {array!r}")
    mean = float(array.mean())
    if array.size == 1:
        return Estimate(mean, None, None, 1, confidence)
    # ptp, not std: the mean of equal numbers may be off by one bit, and noise of 1e-17 is no spread.
    spread = float(array.std(ddof=1)) if np.ptp(array) > 0 else 0.0
    half_width = t_quantile(confidence, array.size - 1) * spread / float(np.sqrt(array.size))
    return Estimate(mean, mean - half_width, mean + half_width, array.size, confidence)


def paired_difference(values: ArrayLike, reference: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of values - reference, paired by seed, with its t interval. Population: seeds, not scenes.

    Args:
        values: (num_seeds,) one number per seed; NaN where there is none.
        reference: (num_seeds,) the same seeds in the same order.
        confidence: coverage, in (0, 1).

    Returns:
        The estimate over the seeds that both have; where there are none, the difference of the means, without interval.

    Raises:
        ValueError: the two do not pair, one has no value at all, or a value is infinite.
    """
    first, second = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"paired values need the same seeds, got shapes {first.shape} and {second.shape}")
    shared = ~(np.isnan(first) | np.isnan(second))
    if shared.any():
        return mean_interval((first - second)[shared], confidence)
    means = [mean_interval(row[~np.isnan(row)]).value for row in (first, second)]
    return Estimate(means[0] - means[1], None, None, 0, confidence)


def shows_noise(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(...,) whether first - second varies between seeds, the last axis, by more than rounding; of one seed it cannot.

    Args:
        first: (..., num_seeds) finite.
        second: likewise.
    """
    size = np.maximum(np.abs(first), np.abs(second)).max(axis=-1)
    return np.asarray(np.ptp(first - second, axis=-1) > ROUNDING * size, dtype=np.bool_)


def direction(mode: Mode) -> int:
    """1 where large is good, -1 where small is: times this, better is always more."""
    return 1 if mode == "max" else -1


def best_index(means: ArrayLike, mode: Mode) -> int:
    """Index of the best mean; the first of equals (to 12 digits), so order the levels with the cheapest first."""
    array = np.asarray(means, dtype=np.float64).round(12)
    return int(array.argmax() if mode == "max" else array.argmin())


def leader(num_levels: int, family: Mapping[tuple[int, int], Estimate], mode: Mode) -> int:
    """The level that no other one beats on the seeds that the two share: of levels with equal seeds, the best mean.

    Not simply the best mean: levels with other seeds differ by those seeds too. Should each level be beaten by some
    other one, it is the one that is beaten by least; of equals (to 12 digits), the first.

    Args:
        num_levels: at least 1.
        family: of `family.paired_family`.
        mode: whether large or small is good.
    """
    sign = direction(mode)
    leads = [[sign * family[i, j].value for j in range(num_levels) if j != i] for i in range(num_levels)]
    return best_index([min(lead, default=0.0) for lead in leads], "max")


def balanced_rows(keys: Sequence[Sequence[Hashable]], factor: int, levels: Sequence[Hashable]) -> list[list[int]]:
    """Rows to average so that the levels of one factor compare: only settings of the others that every level has.

    Args:
        keys: (num_cells, num_factors) the level of each factor in each cell.
        factor: column of the factor whose levels are compared.
        levels: its levels, in the order wanted.

    Returns:
        One list of rows a level, equally long and in the same order of settings; all empty where no setting is shared.
    """
    row_of = {tuple(key): row for row, key in enumerate(keys)}
    others = dict.fromkeys((tuple(key[:factor]), tuple(key[factor + 1 :])) for key in keys)
    shared = [(a, b) for a, b in others if all((*a, level, *b) in row_of for level in levels)]
    return [[row_of[(*a, level, *b)] for a, b in shared] for level in levels]


def judge(difference: Estimate, margin: float, mode: Mode) -> Verdict:
    """Where a level lies against another: `within` the margin below it, `beyond` that, or `undecided`.

    Within: the whole interval of level - other is better than -margin. Beyond: the whole interval is worse. An end that
    lies on the margin decides nothing, and neither does a single seed.

    Args:
        difference: level - other.
        margin: difference that is negligible, at least 0, in the metric's unit.
        mode: whether large or small is good.
    """
    if difference.low is None or difference.high is None:
        return "undecided"
    worst, best = (difference.low, difference.high) if mode == "max" else (-difference.high, -difference.low)
    if worst > -margin:
        return "within"
    return "beyond" if best < -margin else "undecided"


def rivals(level: int, family: Mapping[tuple[int, int], Estimate], margin: float, mode: Mode) -> list[int]:
    """Rows that may yet be better than this one by more than the margin; none are left once it is surely enough.

    Args:
        level: row of the table.
        family: of `family.paired_family`.
        margin: difference that is negligible, at least 0, in the metric's unit.
        mode: whether large or small is good.
    """
    return [j for i, j in family if i == level and judge(family[i, j], margin, mode) != "within"]


def judge_level(
    level: int, best: int, family: Mapping[tuple[int, int], Estimate], margin: float, mode: Mode
) -> Verdict:
    """One level against all others: `within` the margin of every one, `beyond` it, or `undecided`.

    Within every other level, not of the best mean alone: where levels differ in noise, the best mean is often not the
    truly best level, and a level within the margin of the former need not be within that of the latter. Beyond needs
    the best mean alone: what is surely worse than one level is surely worse than the best.

    Args:
        level: row of the table.
        best: row of the best mean.
        family: of `family.paired_family`.
        margin: difference that is negligible, at least 0, in the metric's unit.
        mode: whether large or small is good.
    """
    if not rivals(level, family, margin, mode):
        return "within"
    return "beyond" if judge(family[level, best], margin, mode) == "beyond" else "undecided"


def against_floor(estimate: Estimate, floor: float, mode: Mode) -> Literal["beats", "does not beat", "undecided"]:
    """Whether the whole interval lies on the good side of a floor, on the other side (or on it), or neither."""
    if estimate.low is None or estimate.high is None:
        return "undecided"
    worst, best = (estimate.low, estimate.high) if mode == "max" else (-estimate.high, -estimate.low)
    signed_floor = floor if mode == "max" else -floor
    if worst > signed_floor:
        return "beats"
    return "does not beat" if best <= signed_floor else "undecided"


@lru_cache
def t_quantile(confidence: float, degrees_of_freedom: int) -> float:
    """Half the width of a two-sided t interval, in standard errors."""
    # scipy.special, not scipy.stats: the same number, at half the time that an import takes.
    return float(special.stdtrit(degrees_of_freedom, 0.5 + confidence / 2))
