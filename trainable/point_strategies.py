"""The strategies by which points are chosen: a mask -> its pixels in the order in which an annotator labels them.

A strategy gives the first n of a ranked list that does not depend on n: whatever it draws at random comes from streams
of its own, each of which is read from its beginning and in one go. Unknown pixels (IGNORE_INDEX) are in no list, and no
pixel is in a list twice.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainable.config import CLASS_NAMES, IGNORE_INDEX
from trainable.randomness import derive_seed

Mask = NDArray[np.uint8]  # (H, W) class indices, IGNORE_INDEX where nothing is known
Pixels = NDArray[np.int64]  # (n,) positions in the flattened mask: row * W + column

AVOIDED_PX = 5
"""`boundary_avoiding` keeps this distance: the least margin of simulated clicks in Xu et al. 2016 (CVPR)."""

BAND_PX = 3
"""`boundary` labels within this distance first: the tolerance of boundary F1."""

POINTS_PER_CLUMP, CLUMP_PX = 5, 5.0
"""`clustered`: throws at one place before the next, and their standard deviation in each direction, pixels."""

NUM_THROWS = 1024
"""So many are thrown at once: more than points are asked for as a rule."""


@dataclass(frozen=True)
class Streams:
    """The random streams of one image's list."""

    seed: int
    strategy: str
    image_name: str

    def __call__(self, *parts: int | str) -> np.random.Generator:
        """A new generator at the beginning of the stream that these parts name."""
        return np.random.Generator(
            np.random.PCG64(derive_seed(self.seed, "points", self.strategy, self.image_name, *parts))
        )


Strategy = Callable[[Mask, int, Streams], Pixels]


def uniform(mask: Mask, num_points: int, streams: Streams) -> Pixels:
    """Every known pixel alike; where a list ends, all are in it."""
    return _shuffled(np.flatnonzero(mask != IGNORE_INDEX), num_points, streams())


def positive_only(mask: Mask, num_points: int, streams: Streams) -> Pixels:
    """Forest alone, a negative control; fewer than asked, or none, where there is less of it."""
    return _shuffled(np.flatnonzero(mask == CLASS_NAMES.index("forest")), num_points, streams())


def per_class(mask: Mask, num_points: int, streams: Streams) -> Pixels:
    """The classes take turns; where one has no pixel left, the others go on without it.

    Which class begins is drawn as well: at an odd count one of them has a point more.
    """
    num_classes = len(CLASS_NAMES)
    turns = streams("turns").permutation(num_classes)
    lists = [_shuffled(np.flatnonzero(mask == index), num_points, streams(index)) for index in range(num_classes)]
    ranks = [np.arange(pixels.size) * num_classes + turn for pixels, turn in zip(lists, turns, strict=True)]
    return np.concatenate(lists)[np.argsort(np.concatenate(ranks))][:num_points]


def boundary(mask: Mask, num_points: int, streams: Streams) -> Pixels:
    """Pixels within BAND_PX of another class first, then by distance; from AVOIDED_PX on all alike."""
    return _in_tiers(np.maximum(squared_distance(mask), BAND_PX**2), mask, num_points, streams)


def boundary_avoiding(mask: Mask, num_points: int, streams: Streams) -> Pixels:
    """As people click: pixels at least AVOIDED_PX from another class; then, where those are used up, the farthest."""
    return _in_tiers(AVOIDED_PX**2 - squared_distance(mask), mask, num_points, streams)


def grid(mask: Mask, num_points: int, streams: Streams) -> Pixels:
    """A jittered grid of every size at once: any first 4^k throws lie one in each cell of a 2^k x 2^k grid.

    The throws are a Sobol' sequence in two dimensions, a (0, 2)-sequence, with a random shift of its digits, which
    keeps that property; so every prefix covers the image evenly. Throws at unknown pixels are left out.
    Source: Sobol' 1967; Kollig & Keller 2002 for the recurrence and the shift.
    """
    height, width = mask.shape
    shifts = streams().integers(0, 2**32, 2)

    def throw(count: int) -> Pixels:
        rows, columns = _sobol(count) ^ shifts[:, None]
        hits: Pixels = (rows * height >> 32) * width + (columns * width >> 32)
        return hits

    return _thrown(throw, mask, num_points, streams)


def clustered(mask: Mask, num_points: int, streams: Streams) -> Pixels:
    """Clumps one after another: POINTS_PER_CLUMP throws around a known pixel, then the next place.

    Throws that miss the image, hit an unknown pixel or one already labelled are left out; a clump may be smaller.
    """
    height, width = mask.shape
    known = np.flatnonzero(mask != IGNORE_INDEX)

    def throw(count: int) -> Pixels:
        centres = known[streams("centres").integers(0, known.size, -(-count // POINTS_PER_CLUMP))]
        offsets = streams("offsets").normal(0, CLUMP_PX, (count, 2))
        places = np.stack(np.divmod(np.repeat(centres, POINTS_PER_CLUMP)[:count], width), axis=1)
        rows, columns = (places + np.rint(offsets).astype(np.int64)).T
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        hits: Pixels = rows[inside] * width + columns[inside]
        return hits

    return _thrown(throw, mask, num_points, streams) if known.size else known


STRATEGIES: dict[str, Strategy] = {
    "uniform": uniform,
    "per_class": per_class,
    "grid": grid,
    "boundary_avoiding": boundary_avoiding,
    "boundary": boundary,
    "clustered": clustered,
    "positive_only": positive_only,
}


def squared_distance(mask: Mask) -> NDArray[np.uint8]:
    """Squared distance to the nearest pixel of another class, pixel centre to pixel centre, at most AVOIDED_PX^2.

    Exact and Euclidean, one axis after the other (Felzenszwalb & Huttenlocher 2012); the limit keeps it a few steps
    long. Unknown pixels are of no class, and their own value has no meaning.

    Args:
        mask: (H, W) class indices.

    Returns:
        (H, W) squared pixels.
    """
    result = np.zeros(mask.shape, dtype=np.uint8)
    for index in range(len(CLASS_NAMES)):
        own = mask == index
        others = ~own & (mask != IGNORE_INDEX)
        start = np.where(others, np.uint8(0), np.uint8(AVOIDED_PX**2))
        result += own * _spread(_spread(start.T).T)
    return result


def _spread(squared: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Along the first axis: the least of `squared[i + step] + step^2` over all steps shorter than AVOIDED_PX."""
    least = squared.copy()
    for step in range(1, AVOIDED_PX):
        farther = squared + np.uint8(step**2)
        np.minimum(least[step:], farther[:-step], out=least[step:])
        np.minimum(least[:-step], farther[step:], out=least[:-step])
    return least


def _shuffled(pixels: Pixels, num_points: int, generator: np.random.Generator) -> Pixels:
    """The first of `pixels` in random order.

    They are thrown, and repeated hits left out, which is the beginning of a random order; a permutation of all the
    65,536 pixels of an image takes six times as long and is made only of those that the throws leave over.
    """
    if not pixels.size:
        return pixels
    order = _first_hits(generator.integers(0, pixels.size, NUM_THROWS))
    if order.size < num_points:
        rest = np.delete(np.arange(pixels.size), order)
        order = np.concatenate([order, generator.permutation(rest)])
    return pixels[order[:num_points]]


def _in_tiers(tiers: NDArray[np.uint8], mask: Mask, num_points: int, streams: Streams) -> Pixels:
    """Known pixels of the lowest tier in random order, then those of the next."""
    known = mask != IGNORE_INDEX
    ranked = np.empty(0, dtype=np.int64)
    for tier in np.flatnonzero(np.bincount(tiers[known])).tolist():
        pixels = np.flatnonzero((tiers == tier) & known)
        ranked = np.concatenate([ranked, _shuffled(pixels, num_points - ranked.size, streams(tier))])
        if ranked.size == num_points:
            break
    return ranked


def _thrown(throw: Callable[[int], Pixels], mask: Mask, num_points: int, streams: Streams) -> Pixels:
    """Known pixels in the order in which throws hit them first; after a throw a pixel the rest, in random order.

    Args:
        throw: count -> the pixels hit by the first `count` throws, or fewer where some miss the image.
        mask: (H, W).
        num_points: how many.
        streams: of this list.
    """
    missing = mask.ravel() != IGNORE_INDEX
    count = NUM_THROWS
    hits = _known_hits(throw(count), missing)
    while hits.size < num_points and count < mask.size:
        count *= 4
        hits = _known_hits(throw(count), missing)
    missing[hits] = False
    rest = num_points - hits.size
    return (
        np.concatenate([hits, _shuffled(np.flatnonzero(missing), rest, streams("rest"))])
        if rest > 0
        else hits[:num_points]
    )


def _known_hits(throws: Pixels, known: NDArray[np.bool_]) -> Pixels:
    return _first_hits(throws[known[throws]])


def _first_hits(throws: Pixels) -> Pixels:
    """The distinct values, in the order in which each comes first."""
    _, first = np.unique(throws, return_index=True)
    return throws[np.sort(first)]


def _sobol(count: int) -> NDArray[np.int64]:
    """(2, count): the first terms of the first two Sobol' dimensions, as 32-bit fractions of 1."""
    index, terms = np.arange(count), np.zeros((2, count), dtype=np.int64)
    directions = np.array([[1 << 31], [1 << 31]])
    for bit in range(count.bit_length()):
        terms ^= (index >> bit & 1) * directions
        # The first dimension's are the powers of 1/2, the second's the recurrence of the polynomial x + 1.
        directions = (directions >> 1) ^ (directions * [[0], [1]])
    return terms
