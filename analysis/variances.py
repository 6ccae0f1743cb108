"""Variances and their intervals: arrays in, estimates out; nothing here knows a study.

For normal noise, as between seeds: Graybill and Wang 1980 for the sum of two mean squares; Ting, Burdick, Graybill,
Jeyaratnam and Lu 1990 for their difference. Both keep what they claim where Satterthwaite's degrees of freedom,
estimated from few seeds, do not. For any other: Bonett 2006, who takes account of heavy tails.
"""

from dataclasses import dataclass
from math import exp, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.statistics import CONFIDENCE, Estimate

Values = NDArray[np.float64]


@dataclass(frozen=True)
class MeanSquare:
    """An estimated variance, and the degrees of freedom of the chi-square that it is distributed like."""

    value: float
    dof: int


def spread_interval(table: Values, confidence: float = CONFIDENCE) -> Estimate | None:
    """The standard deviation between seeds, pooled over cells. Population: seeds, not scenes.

    A seed is a block that cells share: where they rise and fall together, many cells tell no more than one. So the
    variance is the sum of what is common to a seed's cells and of what is not, each with its own degrees of freedom.

    Args:
        table: (num_cells, num_seeds) one row a cell, one column a seed block; a row with a NaN does not count.
        confidence: coverage, in (0, 1).

    Returns:
        None where no row has two seeds.
    """
    rows = table[~np.isnan(table).any(axis=1)]
    num_cells, num_seeds = rows.shape
    if not num_cells or num_seeds < 2:
        return None
    return sum_interval(seed_squares(rows), num_seeds, confidence)


def seed_squares(rows: Values) -> list[MeanSquare]:
    """The variance between seeds of a single run, pooled over cells, as a sum: common to a seed's cells, and not.

    Args:
        rows: (num_cells, num_seeds) finite, at least one cell and two seeds.
    """
    num_cells, num_seeds = rows.shape
    deviations = rows - rows.mean(axis=1, keepdims=True)
    common = deviations.mean(axis=0)
    own_dof = (num_cells - 1) * (num_seeds - 1)
    squares = [MeanSquare(float((common**2).sum()) / (num_seeds - 1), num_seeds - 1)]
    if own_dof:
        own = float(((deviations - common) ** 2).sum()) / own_dof
        squares.append(MeanSquare(own * (1 - 1 / num_cells), own_dof))
    return squares


def sum_interval(squares: list[MeanSquare], num_seeds: int, confidence: float = CONFIDENCE) -> Estimate:
    """The root of a sum of variances with its interval; of a single one, the interval of its chi-square.

    Args:
        squares: independent.
        num_seeds: seed blocks behind them.
        confidence: coverage, in (0, 1).
    """
    tail = (1 - confidence) / 2
    below = sum((_share_below(each.dof, tail) * each.value) ** 2 for each in squares)
    above = sum((_share_above(each.dof, tail) * each.value) ** 2 for each in squares)
    total = sum(each.value for each in squares)
    return Estimate(sqrt(total), sqrt(max(total - sqrt(below), 0)), sqrt(total + sqrt(above)), num_seeds, confidence)


def component_interval(
    of: MeanSquare, error: MeanSquare, repeats: int, num_levels: int, confidence: float = CONFIDENCE
) -> Estimate:
    """The standard deviation of a random effect, from its mean square and that of the error.

    Its variance is (of - error) / repeats; where that is below 0, it reads 0, and so do ends of the interval.

    Args:
        of: mean square of the effect, of expectation error + repeats * variance.
        error: mean square of the error, independent of the first.
        repeats: readings behind each mean of the effect, at least 1.
        num_levels: levels of the effect.
        confidence: coverage, in (0, 1).
    """
    tail = (1 - confidence) / 2
    low = of.value - error.value - sqrt(_below(of, error, tail))
    high = of.value - error.value + sqrt(_above(of, error, tail))
    value, low, high = (sqrt(max(each, 0.0) / repeats) for each in (of.value - error.value, low, high))
    return Estimate(value, low, high, num_levels, confidence)


def tailed_interval(values: Values, num_seeds: int, confidence: float = CONFIDENCE) -> Estimate:
    """The standard error of the mean of values that need not be normal, with Bonett's interval.

    Args:
        values: (num_values,) at least five.
        num_seeds: seed blocks behind each of them.
        confidence: coverage, in (0, 1).
    """
    n, z = len(values), float(special.ndtri(0.5 + confidence / 2))
    cut = int(n / (2 * sqrt(n - 4)))
    middle = np.sort(values)[cut : n - cut].mean()
    squares = float(((values - values.mean()) ** 2).sum())
    if not squares:
        return Estimate(0.0, 0.0, 0.0, num_seeds, confidence)
    kurtosis = n * float(((values - middle) ** 4).sum()) / squares**2
    correction = n / (n - z)
    width = z * correction * sqrt((kurtosis - (n - 3) / n) / (n - 1))
    error = squares / (n - 1) / n
    low, high = (sqrt(correction * error * exp(sign * width)) for sign in (-1, 1))
    return Estimate(sqrt(error), low, high, num_seeds, confidence)


def _below(of: MeanSquare, error: MeanSquare, tail: float) -> float:
    """The square of how far the lower end lies below the difference."""
    f = float(special.fdtri(of.dof, error.dof, 1 - tail))
    g, h = _share_below(of.dof, tail), _share_above(error.dof, tail)
    cross = ((f - 1) ** 2 - (g * f) ** 2 - h**2) / f
    return max(0.0, (g * of.value) ** 2 + (h * error.value) ** 2 + cross * of.value * error.value)


def _above(of: MeanSquare, error: MeanSquare, tail: float) -> float:
    """The square of how far the upper end lies above the difference."""
    f = float(special.fdtri(of.dof, error.dof, tail))
    h, g = _share_above(of.dof, tail), _share_below(error.dof, tail)
    cross = ((1 - f) ** 2 - (h * f) ** 2 - g**2) / f
    return max(0.0, (h * of.value) ** 2 + (g * error.value) ** 2 + cross * of.value * error.value)


def _share_below(dof: int, tail: float) -> float:
    """By which share of itself a mean square may be too large."""
    return 1 - dof / _chi_square(1 - tail, dof)


def _share_above(dof: int, tail: float) -> float:
    """By which share of itself a mean square may be too small."""
    return dof / _chi_square(tail, dof) - 1


def _chi_square(probability: float, dof: int) -> float:
    return 2 * float(special.gammaincinv(dof / 2, probability))
