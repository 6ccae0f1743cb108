"""`make calibrate`: how often our findings are wrong, in simulated studies with known truth; build/calibrate.json.

    python -m bench.calibrate                  2,000 studies a case, some minutes
    python -m bench.calibrate --studies 200    fewer, to try

What must hold: 95 % intervals cover the truth in 93 to 97 % of studies, "enough" is wrongly claimed in at most 5 %, and
a difference between equal levels is reported in at most 5 %. Every row says of which intervals a coverage speaks.

Two kinds of intervals may cover more than 97 %, and are then listed as wide: those that hold for all pairs and all
looks together, as "at least 95 %" is all that they claim (96 % at the first look); and those of studies in which single
runs collapse, of which a t interval knows nothing. Rows of unconfirmed settings show what the winner's curse costs,
which the report says; nothing need hold there.
"""

import argparse
import json
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from analysis.family import paired_family
from analysis.find import find
from analysis.findings import Arm, FactorFinding
from analysis.levels import scientific_factors
from analysis.looks import additions_of
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import CONFIRM, EXPLORE
from analysis.statistics import Estimate, mean_interval, paired_difference
from bench.calibrate_cases import at_one_look, looked_at_again, whole_studies
from bench.simulated_studies import Case, Values, draw_readings, make_runs, make_studies, read_arms
from trainable.atomic import write_atomically

RESULTS = Path("build/calibrate.json")
NUM_STUDIES = 2000
COVERAGE, MOST_WRONG = (0.93, 0.97), 0.05
MEAN, DIFFERENCE = "mean of a level, alone", "difference of two levels, alone"
FAMILY = "all differences together, over all looks"
WRONG_ENOUGH, WRONG_DIFFERENCE = "enough wrongly claimed", "difference wrongly reported"
RIGHT = "some level decided rightly"


@dataclass(frozen=True)
class Look:
    """What was found when a study was looked at: all differences of its levels, and its verdicts."""

    readings: Values
    family: dict[tuple[int, int], Estimate]
    factor: FactorFinding


@dataclass(frozen=True)
class Row:
    """What a case showed.

    Attributes:
        through: `find` where whole studies were read, else `arms`.
        coverage: which nominal 95 % intervals -> share of studies in which they hold (of intervals, of a mean alone).
        rates: claim -> share of studies that make it, at any look.
        problems: what must hold and does not.
        wide: intervals that cover more than 97 % and may.
    """

    case: Case
    through: str
    num_studies: int
    coverage: dict[str, float]
    rates: dict[str, float]
    problems: list[str]
    wide: list[str]


def calibrate(case: Case, num_studies: int, through: str = "arms") -> Row:
    """Draws and judges studies of one kind."""
    rng = np.random.default_rng(zlib.crc32(repr(case).encode()))
    judge = _looks_by_find if through == "find" else _looks_again if case.additions else _one_look
    claims, held = [], []
    for looks in judge(case, rng, num_studies):
        claims.append([any(made) for made in zip(*(_claims(case, look.factor) for look in looks), strict=True)])
        held.append(_coverage(case, looks))
    rates = dict(zip((WRONG_ENOUGH, WRONG_DIFFERENCE, RIGHT), np.mean(claims, axis=0).tolist(), strict=True))
    coverage = dict(zip((MEAN, DIFFERENCE, FAMILY), np.mean(held, axis=0).tolist(), strict=True))
    return Row(case, through, num_studies, coverage, rates, *_judged(case, coverage, rates))


def _one_look(case: Case, rng: np.random.Generator, num_studies: int) -> Iterator[list[Look]]:
    runs = make_runs(case)
    for arms in read_arms(case, rng, num_studies):
        yield [_look(runs, arms)]


def _looks_by_find(case: Case, rng: np.random.Generator, num_studies: int) -> Iterator[list[Look]]:
    for runs in make_studies(case, rng, num_studies):
        findings = find(runs, with_topics=False)
        (factor,) = findings.scientific
        yield [replace(_look(runs, findings.arms), factor=factor)]


def _looks_again(case: Case, rng: np.random.Generator, num_studies: int) -> Iterator[list[Look]]:
    for table in draw_readings(case, rng, num_studies)[:, :, 0]:
        yield list(_extended(case, table))


def _extended(case: Case, table: Values) -> Iterator[Look]:
    """One study, look after look: further seeds where `canopoint extend` gives them (cluster/extension.py)."""
    runs, has = make_runs(case), np.zeros(table.shape, dtype=bool)
    has[:, : case.num_seeds] = True
    start = case.num_seeds
    for added in (*case.additions, 0):
        look = _look(runs, _as_arms(np.where(has, table, np.nan)))
        yield look
        undecided = [level for level in look.factor.levels if level.verdict == "undecided"]
        if not undecided:
            return
        faced = {each for level in undecided for each in (level.level, *level.rivals, look.factor.best_level)}
        fresh = list(range(start, start + added))
        has[np.ix_(sorted(faced), fresh)] = True
        runs = replace(runs, search=replace(runs.search, extensions=[*runs.search.extensions, fresh]))
        start += added


def _as_arms(table: Values) -> list[Arm]:
    arms = []
    for level, row in enumerate(table):
        seeds, settings = np.flatnonzero(~np.isnan(row)).tolist(), {"points_per_image": level}
        arms.append(Arm(settings, settings, mean_interval(row[seeds]), seeds, row[seeds].tolist(), [], []))
    return arms


def _look(runs: StudyRuns, arms: list[Arm]) -> Look:
    seeds = sorted({seed for arm in arms for seed in arm.seeds})
    read = [dict(zip(arm.seeds, arm.readings, strict=True)) for arm in arms]
    table = np.array([[each.get(seed, np.nan) for seed in seeds] for each in read])
    planned, extensions = runs.search.confirm_seeds, runs.search.extensions
    additions = additions_of(seeds, planned, extensions) if planned else None
    (factor,) = scientific_factors(runs, arms, CONFIRM if planned else EXPLORE)
    return Look(table, paired_family(table, additions=additions), factor)


def _claims(case: Case, factor: FactorFinding) -> tuple[bool, bool, bool]:
    """Whether `enough` is claimed of a level that is not, a difference of one that is as good, anything rightly.

    The leading level is claimed to be enough where no other one may yet be better by more than the margin.
    """
    enough = [level.verdict == "enough" or (level.verdict == "best" and not level.rivals) for level in factor.levels]
    behind = [level.verdict == "not enough" for level in factor.levels]
    # At exactly one margin neither claim is right. Rounding of means must not make it more or less than that.
    gaps = case.means.max() - case.means
    is_enough, is_behind = (gaps < case.margin - 1e-9) | (gaps == 0), gaps > case.margin + 1e-9
    return (
        bool((enough & ~is_enough).any()),
        bool((behind & ~is_behind).any()),
        bool((enough & is_enough & (gaps > 0)).any() or (behind & is_behind).any()),
    )


def _coverage(case: Case, looks: list[Look]) -> tuple[float, bool, bool]:
    """Of a mean alone and a difference alone, at the first look, with 95 % each; of all differences at every look."""
    means, first = case.means, looks[0]
    values = [level.value for level in first.factor.levels]
    pair = paired_difference(first.readings[0], first.readings[-1])
    return (
        float(np.mean([_holds(value, mean) for value, mean in zip(values, means, strict=True)])),
        _holds(pair, means[0] - means[-1]),
        all(_holds(each, means[i] - means[j]) for look in looks for (i, j), each in look.family.items() if i < j),
    )


def _holds(estimate: Estimate, truth: float) -> bool:
    """An interval that is not there claims nothing."""
    if estimate.low is None or estimate.high is None:
        return True
    return bool(estimate.low <= truth <= estimate.high)


def _judged(case: Case, coverage: dict[str, float], rates: dict[str, float]) -> tuple[list[str], list[str]]:
    """What does not hold, and which intervals are wide."""
    if not case.confirmed:
        return [], []
    low, high = COVERAGE
    may_be_wide = {FAMILY} if case.noise != "collapses" else {*coverage}
    wide = [name for name, share in coverage.items() if share > high and name in may_be_wide]
    problems = [
        *(name for name, share in coverage.items() if not low <= share <= high and name not in wide),
        *(name for name, share in rates.items() if name != RIGHT and share > MOST_WRONG),
    ]
    return problems, wide


def main(arguments: list[str]) -> int:
    """Runs every case and writes the table; returns 1 where something that must hold does not."""
    parser = argparse.ArgumentParser(prog="python -m bench.calibrate")
    parser.add_argument("--studies", type=int, default=NUM_STUDIES)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)
    start, rows = time.monotonic(), []
    with ProcessPoolExecutor(given.processes) as pool:
        for row in pool.map(calibrate, *zip(*((case, given.studies, how) for case, how in every_case()), strict=True)):
            rows.append(row)
            print(row_text(row), flush=True)
    document = {"seconds": round(time.monotonic() - start, 1), "rows": [asdict(row) for row in rows]}
    RESULTS.parent.mkdir(exist_ok=True)
    write_atomically(RESULTS, json.dumps(document, indent=1).encode())
    problems = [row for row in rows if row.problems]
    print(f"{len(rows)} cases in {document['seconds']} s; {len(problems)} with problems; {RESULTS}")
    return 1 if problems else 0


def every_case() -> Iterable[tuple[Case, str]]:
    """Each case, and what judges it."""
    yield from ((case, "arms") for case in (*at_one_look(), *looked_at_again()))
    yield from ((case, "find") for case in whole_studies())


def row_text(row: Row) -> str:
    """One line: the case, coverage of a mean, a difference and the family, rates of wrong claims, of right ones."""
    case = row.case
    notes = [case.noise, *(["missing"] if case.missing else []), *(["unconfirmed"] if not case.confirmed else [])]
    notes += [f"{case.num_settings} settings"] if case.num_settings > 1 else []
    notes += [f"+{added}" for added in case.additions] + ([row.through] if row.through == "find" else [])
    shares = " ".join(f"{share:6.3f}" for share in (*row.coverage.values(), *row.rates.values()))
    name = f"{case.truth} {case.num_levels} x {case.num_seeds} {' '.join(notes)}"
    said = [*row.problems, *(f"wide: {each}" for each in row.wide)]
    return f"{name:<44}{shares}  {'; '.join(said)}".rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
