"""Looking more than once: what a verdict may cost where seeds are added until something is decided.

Whoever looks at the data again after every addition may be wrong anew each time: at the full 5 % a look, verdicts on
equal levels are wrong in 13 % of studies after four looks. So the 5 % are an allowance for *all* looks, spent as they
come: four fifths on the first, which is mostly the only one, half of what is left on each that follows. Whatever the
number of looks, the shares add up to less than 1, so that (by the union bound, however the looks depend on each other)
all intervals of all looks hold together with the probability that is claimed.

A pair of levels looks again only where it got new seeds: what was settled on the same data stays settled.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FIRST_SHARE = 0.8


def share_of_error(look: int) -> float:
    """What of the error allowed over all looks one of them may cost; the first is 1: .8, .1, .05, .025, ..."""
    return FIRST_SHARE if look == 1 else (1 - FIRST_SHARE) / 2 ** (look - 1)


def num_looks(shared: NDArray[np.bool_], additions: Sequence[Sequence[int]]) -> int:
    """How often a pair of levels was looked at: once, and once more for each addition that both have a seed of.

    Args:
        shared: (num_seeds,) whether both levels have the seed.
        additions: for each addition after the first look, the columns of its seeds.
    """
    return 1 + sum(bool(shared[list(columns)].any()) for columns in additions)


def additions_of(seeds: Sequence[int], planned: Sequence[int], extensions: Sequence[Sequence[int]]) -> list[list[int]]:
    """Columns of the seeds that came after the first look, addition by addition.

    Where nothing says with which others a further seed came, it counts as an addition of its own: rather a look too
    many than one too few.

    Args:
        seeds: of the table's columns.
        planned: the seeds that were declared before the first look; none where that is not known, so that every seed
            counts as planned.
        extensions: the seeds of each known addition.
    """
    known = {seed for batch in extensions for seed in batch}
    alone = [[seed] for seed in seeds if planned and seed not in planned and seed not in known]
    batches = [[column for column, seed in enumerate(seeds) if seed in batch] for batch in (*extensions, *alone)]
    return [batch for batch in batches if batch]
