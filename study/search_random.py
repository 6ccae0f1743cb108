"""Random settings: drawn independently, each number evenly over its range's own scale."""

from collections.abc import Iterator

import numpy as np

from study.space import Setting, Space

NUM_DRAWS = 1000  # so many known ones in a row, and little can be left of a space


def draw_settings(space: Space, seed: int) -> Iterator[Setting]:
    """Settings at random, repetitions included."""
    generator = np.random.default_rng(seed)
    for _ in range(NUM_DRAWS):
        yield space.from_unit(generator.random(len(space.axes)).tolist())
