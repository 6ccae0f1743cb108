"""Which kinds of studies `bench/calibrate.py` simulates."""

from collections.abc import Iterator

from bench.simulated_studies import MARGIN, NOISE, ONE_COLLAPSES, Case


def at_one_look() -> Iterator[Case]:
    """Numbers of levels and seeds, kinds of noise, missing runs, small blocks, and settings chosen among ties."""
    for num_levels in (2, 4, 6):
        for num_seeds in (3, 5, 8):
            for noise in ("normal", "t3"):
                yield from _equal_and_margin(num_levels, num_seeds, noise)
    for num_levels, num_seeds in ((2, 3), (4, 5), (6, 8)):
        yield Case("real", num_levels, num_seeds)
        yield from _equal_and_margin(num_levels, num_seeds, missing=True)
        yield from _equal_and_margin(num_levels, num_seeds, "unequal")
        yield from _equal_and_margin(num_levels, num_seeds, "collapses")
        yield Case("equal", num_levels, num_seeds, blocks=NOISE / 2)
    for num_seeds in (3, 5, 8):
        yield Case("equal", 2, num_seeds, ONE_COLLAPSES)
    for num_settings, num_seeds in ((4, 3), (6, 8)):
        yield from _equal_and_margin(2, num_seeds, num_settings=num_settings, confirmed=False)
        yield from _equal_and_margin(2, num_seeds, num_settings=num_settings)


def looked_at_again() -> Iterator[Case]:
    """Studies that are extended, three times at most, until no level is undecided."""
    for num_levels in (2, 4):
        for num_seeds, added in ((3, 2), (3, 3), (5, 3)):
            yield from _equal_and_margin(num_levels, num_seeds, additions=(added,) * 3)
    yield from _equal_and_margin(2, 3, "t3", additions=(2, 2, 2))


def whole_studies() -> Iterator[Case]:
    """Studies that go through `find`, run by run."""
    yield from _equal_and_margin(4, 5)
    yield from _equal_and_margin(4, 5, "t3", missing=True)


def _equal_and_margin(
    num_levels: int,
    num_seeds: int,
    noise: str = "normal",
    *,
    missing: bool = False,
    num_settings: int = 1,
    confirmed: bool = True,
    additions: tuple[int, ...] = (),
) -> Iterator[Case]:
    """Both hard truths. Between equals a margin of 0 is the hardest: any difference for sure is then reported."""
    for truth, margin in (("equal", 0.0), ("margin", MARGIN)):
        yield Case(truth, num_levels, num_seeds, noise, missing, margin, num_settings, confirmed, additions)
