"""Quasi-random settings: points that fill the space more evenly than random ones.

Halton's sequence, scrambled (Owen 2017), is even after any number of points; Sobol's only at powers of two.
"""

from collections.abc import Iterator

from scipy.stats import qmc

from study.space import Setting, Space

POINTS_PER_SETTING = 20  # in a coarse space many points give one setting
CHUNK = 64


def follow_sequence(space: Space, seed: int, num_settings: int) -> Iterator[Setting]:
    """The settings along one sequence, repetitions included."""
    sequence = qmc.Halton(len(space.axes), scramble=True, rng=seed)
    for _ in range(-(-POINTS_PER_SETTING * num_settings // CHUNK)):
        for point in sequence.random(CHUNK).tolist():
            yield space.from_unit(point)
