"""How many seeds decide: the chance that an interval clears a value, and the seeds that make it large enough.

A difference decides where its whole interval lies on one side of a value (the margin, or 0). Here it is a distance from
that value in units of its standard deviation between seeds, taken as what seeds were seen to show. That is a guess
as good as the seeds behind it: from 3 seeds, the true standard deviation may well be half or twice as large.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.statistics import Estimate, Mode, t_quantile

POWER = 0.8
"""The chance to decide that is aimed at: of a level, against all rivals that it needs to be decided against."""
MAX_SEEDS = 1000
"""More seeds than that nobody runs, and `canopoint extend` would refuse them."""


def chance_to_decide(distance: float, num_before: int, num_more: int, confidence: float) -> float:
    """Chance that the t interval over all seeds clears the value, given the seeds so far.

    Those so far have exactly the mean `distance` and standard deviation 1, which are taken for the truth of those to
    come. With none so far, it is the power of the t test.

    Args:
        distance: mean difference on the good side of the value, in standard deviations of the difference.
        num_before: seeds that are there.
        num_more: seeds to come, at least 1; 2 where none are there.
        confidence: of the interval, in (0, 1).
    """
    num = num_before + num_more
    nodes, weights = _normal_nodes()
    fresh = distance + nodes / np.sqrt(num_more)  # (num_nodes,) possible means of those to come
    mean = (num_before * distance + num_more * fresh) / num
    # The sum of squares about the mean over all seeds is that of those so far, that of those to come (chi-squared) and
    # that of the two means. It must stay below `room`.
    room = (num - 1) * num * (mean / t_quantile(confidence, num - 1)) ** 2
    room -= max(num_before - 1, 0) + num_before * num_more / num * (fresh - distance) ** 2
    within = special.chdtr(num_more - 1, np.maximum(room, 0.0)) if num_more > 1 else 1.0
    return float(np.sum(weights * np.where((mean > 0) & (room > 0), within, 0.0)))


def joint_power(num_decided: int) -> float:
    """The chance of each of some differences to be decided so that all are, together, with `POWER` (Bonferroni)."""
    return 1 - (1 - POWER) / num_decided


def further_seeds(
    difference: Estimate, margin: float, mode: Mode, confidence: float, at_least: int = 1, power: float = POWER
) -> int | None:
    """How many further seeds decide, with the chance `power`, on which side of the margin a paired difference lies.

    Args:
        difference: level - other, undecided as it stands.
        margin: difference that is negligible, at least 0.
        mode: whether large or small is good.
        confidence: of the interval that will be read then.
        at_least: seeds that are needed in any case, for other differences.
        power: of `joint_power`, where other differences must be decided, too.

    Returns:
        Seeds that both levels need, or `at_least`; None where the spread is not known, or `MAX_SEEDS` would not
        do: the difference looks to be the margin itself.
    """
    if difference.low is None or difference.high is None or difference.num_seeds < 2:
        return None
    half = (difference.high - difference.low) / 2
    spread = half * np.sqrt(difference.num_seeds) / t_quantile(difference.confidence, difference.num_seeds - 1)
    signed = difference.value if mode == "max" else -difference.value
    if spread == 0 or signed == -margin:
        return None
    distance = abs(signed + margin) / spread
    return fewest(lambda more: chance_to_decide(distance, difference.num_seeds, more, confidence), at_least, power)


def seeds_to_detect(distance: float, confidence: float, at_least: int = 2, power: float = POWER) -> int | None:
    """How many seeds a new study needs to decide, with the chance `power`, a true difference of this distance."""
    return fewest(lambda num: chance_to_decide(distance, 0, num, confidence), at_least, power)


@lru_cache(maxsize=1024)
def detectable(num_seeds: int, confidence: float) -> float:
    """The smallest true distance that a new study of so many seeds, at least 2, decides with `POWER`."""
    low, high = 0.0, 1.0
    while chance_to_decide(high, 0, num_seeds, confidence) < POWER:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        is_enough = chance_to_decide(middle, 0, num_seeds, confidence) >= POWER
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def fewest(chance: Callable[[int], float], least: int, power: float = POWER) -> int | None:
    """The smallest number from `least` to `MAX_SEEDS` of which the chance, which grows with it, reaches `power`."""
    if chance(least) >= power:
        return least
    if chance(MAX_SEEDS) < power:
        return None
    low, high = least, MAX_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= power else (middle, high)
    return high


@lru_cache
def _normal_nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the standard normal distribution is read to average over it, and with which weight."""
    # Even steps: with many seeds the integrand is nearly a step itself, where Gauss's few nodes are off by 5 %.
    nodes = np.linspace(-6, 6, 241)
    weights = np.exp(-(nodes**2) / 2)
    return nodes, weights / weights.sum()
