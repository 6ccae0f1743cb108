"""Single runs that fall far below the other seeds of their level, as where training collapses.

No interval from few seeds can know how often that happens: a level that alone collapses in one run of ten, and lies one
and a half margins behind by that alone, is wrongly called enough wherever no seed shows it (`make calibrate`).
"""

from collections.abc import Iterator

import numpy as np

from analysis.findings import Caveat, Findings
from analysis.statistics import direction
from analysis.wording import first_of, settings_text

MARGINS, TYPICAL = 5, 6
"""A reading is far out below by more than so many margins, and by more than so many times the typical deviation."""


def find_collapses(findings: Findings) -> Iterator[Caveat]:
    """Readings far below those of the same level at other seeds, beside what the seed does to the other levels."""
    arms = findings.arms
    seeds = sorted({seed for arm in arms for seed in arm.seeds})
    read = [dict(zip(arm.seeds, arm.readings, strict=True)) for arm in arms]
    table = np.array([[each.get(seed, np.nan) for seed in seeds] for each in read])
    if len(arms) < 2:
        return
    beside = (table - np.nanmedian(table, axis=0)) * direction(findings.objective["mode"])
    deviations = beside - np.nanmedian(beside, axis=1, keepdims=True)
    least = max(MARGINS * findings.objective["margin"], TYPICAL * float(np.nanmedian(np.abs(deviations))))
    rows, columns = np.nonzero(deviations < -least)
    if rows.size:
        places = [f"{settings_text(arms[i].scientific)} at seed {seeds[j]}" for i, j in zip(rows, columns, strict=True)]
        yield Caveat("collapse", f"Far out: {first_of(places, 1)}; few seeds cannot tell how often a run collapses.")
