"""All differences among the levels of a factor, simultaneous. Population: seeds, as everywhere in `statistics.py`."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.looks import num_looks, share_of_error
from analysis.statistics import CONFIDENCE, Estimate, paired_difference, t_quantile


def paired_family(
    table: ArrayLike, confidence: float = CONFIDENCE, additions: Sequence[Sequence[int]] | None = None
) -> dict[tuple[int, int], Estimate]:
    """All paired differences among k levels, simultaneous. Population: seeds, not scenes.

    Bonferroni over all k (k - 1) / 2 pairs, not over k - 1: the level that the others are held against, the best one,
    is chosen from the same data, and only the whole family stays right whichever it is. Each pair has its own variance,
    as levels may differ in noise, and the degrees of freedom of the seeds that both levels have. So few degrees of
    freedom leave little to gain: simulated exactly (max-t), intervals would be 1 to 4 % narrower (docs/LOG.md).

    Args:
        table: (k, num_seeds) one row a level, one column a seed block; NaN where a level lacks a seed.
        confidence: probability that *all* intervals of the family hold, in (0, 1).
        additions: where the data may be looked at again, the columns of each addition since the first look (none yet:
            empty). `confidence` is then that of all looks together (`looks.py`). None where there is one look alone.

    Returns:
        (i, j) -> estimate of row i - row j, for every ordered pair i != j.
    """
    rows = np.asarray(table, dtype=np.float64)
    pairs = list(combinations(range(len(rows)), 2))
    there = ~np.isnan(rows)
    family: dict[tuple[int, int], Estimate] = {}
    for shared, members in _by_shared_seeds(there, pairs).items():
        columns = np.frombuffer(shared, dtype=np.bool_)
        look = None if additions is None else num_looks(columns, additions)
        family |= _differences(rows, members, columns, pair_confidence(len(rows), look, confidence))
    return {(i, j): family[i, j] for a, b in pairs for i, j in ((a, b), (b, a))}


def pair_confidence(num_levels: int, look: int | None = None, confidence: float = CONFIDENCE) -> float:
    """What one interval of the family covers by itself, so that all hold with `confidence`.

    Args:
        num_levels: at least 2.
        look: the how manieth of the pair, from 1; None where the data are looked at once.
        confidence: of the family, over all looks.
    """
    num_pairs = num_levels * (num_levels - 1) // 2
    return 1 - (1 - confidence) / num_pairs * (1.0 if look is None else share_of_error(look))


def _by_shared_seeds(there: NDArray[np.bool_], pairs: list[tuple[int, int]]) -> dict[bytes, list[tuple[int, int]]]:
    """The seeds that both levels have, as bytes of (num_seeds,) bool -> the pairs that have just these."""
    if there.all():
        return {there[0].tobytes(): pairs} if pairs else {}
    groups: dict[bytes, list[tuple[int, int]]] = {}
    for i, j in pairs:
        groups.setdefault((there[i] & there[j]).tobytes(), []).append((i, j))
    return groups


def _differences(
    rows: NDArray[np.float64], pairs: list[tuple[int, int]], shared: NDArray[np.bool_], confidence: float
) -> dict[tuple[int, int], Estimate]:
    """`paired_difference` of many pairs at once, both ways round; all share the same seeds."""
    num_seeds = int(shared.sum())
    if num_seeds < 2:
        each = {(i, j): paired_difference(rows[i], rows[j], confidence) for i, j in pairs}
        return each | {(j, i): _negative(estimate) for (i, j), estimate in each.items()}
    first, second = np.array(pairs).T
    differences = np.ascontiguousarray((rows[first] - rows[second])[:, shared])
    means = differences.mean(axis=1)
    spreads = np.where(np.ptp(differences, axis=1) > 0, differences.std(axis=1, ddof=1), 0.0)
    halves = t_quantile(confidence, num_seeds - 1) * spreads / np.sqrt(num_seeds)
    found: dict[tuple[int, int], Estimate] = {}
    for (i, j), mean, half in zip(pairs, means.tolist(), halves.tolist(), strict=True):
        found[i, j] = Estimate(mean, mean - half, mean + half, num_seeds, confidence)
        found[j, i] = _negative(found[i, j])
    return found


def _negative(estimate: Estimate) -> Estimate:
    low, high = estimate.low, estimate.high
    if low is None or high is None:
        return replace(estimate, value=0.0 - estimate.value)  # 0 - 0 is 0, where -0 would be shown as such
    return replace(estimate, value=0.0 - estimate.value, low=0.0 - high, high=0.0 - low)
