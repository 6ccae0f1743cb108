"""`make calibrate`: how often our findings are wrong, in simulated studies with known truth; build/calibrate.json.

    python -m bench.calibrate                  2,000 studies a case, some ten minutes
    python -m bench.calibrate --studies 200    fewer, to try: bounds are wider by three standard errors

Everything is read off the findings as they are published, `LevelFinding.value`, `.difference` and `.verdict`. What
must hold:

- The interval of a level's mean (95 %) covers the truth in 93 to 97 % of levels.
- The intervals of all differences to the leading level cover jointly in 94 to 98 % at a first look, where they claim
  at least 96 %, and in 93 to 98 % over all looks of a study that is extended, where they claim at least 95 %. Of more
  than two levels it may be 99 %: they hold for all pairs, of which only those with the leading level are published.
- "Enough" is wrongly claimed in at most 5 %, and so is a difference between equals, at any look.
- Where a level lies five margins behind, some level is decided rightly in at least half of the studies.

Exempt, by name. Wider than that may be (`MAY_BE_WIDE`) differences under heavy tails, of which a t interval takes too
much account, and everything where all levels collapse alike. Published and not bounded (`UNBOUNDED`): a level that
alone collapses now and then, of which no interval from few seeds can know; settings that nobody confirmed, which show
what the winner's curse costs; and the value of the recommended level (`RECOMMENDED`), which was chosen on the very
readings that it is read from.
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

from analysis.find import find
from analysis.findings import Arm, FactorFinding
from analysis.levels import scientific_factors
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import CONFIRM, EXPLORE
from analysis.statistics import Estimate, mean_interval
from bench.calibrate_cases import at_one_look, looked_at_again, whole_studies
from bench.simulated_studies import (
    BLOCKS,
    NAMES,
    ONE_COLLAPSES,
    Case,
    Values,
    draw_readings,
    make_runs,
    make_studies,
    read_arms,
)
from trainable.atomic import write_atomically

RESULTS = Path("build/calibrate.json")
NUM_STUDIES = 2000
COVERAGE, MOST_WRONG, LEAST_RIGHT = (0.93, 0.97), 0.05, 0.5
FIRST_LOOK, ALL_LOOKS, MOST_OF_TWO, MOST_OF_MORE = 0.94, 0.93, 0.98, 0.99
MEAN, FAMILY = "mean of a level", "all differences to the leading level, over all looks"
RECOMMENDED = "mean of the recommended level"
WRONG_ENOUGH, WRONG_DIFFERENCE = "enough wrongly claimed", "difference wrongly reported"
RIGHT = "some level decided rightly"
MAY_BE_WIDE = {"t3": {FAMILY}, "collapses": {MEAN, FAMILY}}
UNBOUNDED = {ONE_COLLAPSES}


@dataclass(frozen=True)
class Row:
    """What a case showed.

    Attributes:
        through: `find` where whole studies were read, else `arms`.
        coverage: which published intervals -> share of studies in which they hold (of levels, for their means).
        rates: claim -> share of studies that make it, at any look.
        problems: what must hold and does not.
        wide: intervals that cover more than they should and may.
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
        claims.append([any(made) for made in zip(*(_claims(case, look) for look in looks), strict=True)])
        held.append(_coverage(case, looks))
    rates = dict(zip((WRONG_ENOUGH, WRONG_DIFFERENCE, RIGHT), np.mean(claims, axis=0).tolist(), strict=True))
    coverage = dict(zip((MEAN, FAMILY, RECOMMENDED), np.mean(held, axis=0).tolist(), strict=True))
    return Row(case, through, num_studies, coverage, rates, *_judged(case, num_studies, coverage, rates))


def _one_look(case: Case, rng: np.random.Generator, num_studies: int) -> Iterator[list[FactorFinding]]:
    runs = make_runs(case)
    for arms in read_arms(case, rng, num_studies):
        yield [_look(runs, arms)]


def _looks_by_find(case: Case, rng: np.random.Generator, num_studies: int) -> Iterator[list[FactorFinding]]:
    for runs in make_studies(case, rng, num_studies):
        yield find(runs, with_topics=False).scientific


def _looks_again(case: Case, rng: np.random.Generator, num_studies: int) -> Iterator[list[FactorFinding]]:
    for table in draw_readings(case, rng, num_studies)[:, :, 0]:
        yield list(_extended(case, table))


def _extended(case: Case, table: Values) -> Iterator[FactorFinding]:
    """One study, look after look: further seeds where `canopoint extend` gives them (cluster/extension.py)."""
    runs, has = make_runs(case), np.zeros(table.shape, dtype=bool)
    has[:, : case.num_seeds] = True
    start = case.num_seeds
    for added in (*case.additions, 0):
        look = _look(runs, _as_arms(np.where(has, table, np.nan)))
        yield look
        undecided = [level for level in look.levels if level.verdict == "undecided"]
        if not undecided:
            return
        faced = {each for level in undecided for each in (level.level, *level.rivals, look.best_level)}
        fresh = list(range(start, start + added))
        has[np.ix_(sorted(faced), fresh)] = True
        runs = replace(runs, search=replace(runs.search, extensions=[*runs.search.extensions, fresh]))
        start += added


def _as_arms(table: Values) -> list[Arm]:
    arms = []
    for level, row in enumerate(table):
        seeds, settings = np.flatnonzero(~np.isnan(row)).tolist(), {NAMES[0]: level}
        arms.append(
            Arm(settings, {**settings, NAMES[1]: 0}, mean_interval(row[seeds]), seeds, row[seeds].tolist(), [], [])
        )
    return arms


def _look(runs: StudyRuns, arms: list[Arm]) -> FactorFinding:
    (factor,) = scientific_factors(runs, arms, CONFIRM if runs.search.confirm_seeds else EXPLORE)
    return factor


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


def _coverage(case: Case, looks: list[FactorFinding]) -> tuple[float, bool, bool]:
    """Of the levels' means and of the recommended one's at the first look; of all differences at every look."""
    held = [_holds(level.value, mean) for level, mean in zip(looks[0].levels, case.means, strict=True)]
    names = [level.level for level in looks[0].levels]
    together = all(_differences_hold(case, look) for look in looks)
    return float(np.mean(held)), together, held[names.index(looks[0].recommended_level)]


def _differences_hold(case: Case, factor: FactorFinding) -> bool:
    truth = dict(zip((level.level for level in factor.levels), case.means, strict=True))
    return all(
        _holds(level.difference, truth[level.level] - truth[factor.best_level])
        for level in factor.levels
        if level.difference
    )


def _holds(estimate: Estimate, truth: float) -> bool:
    """An interval that is not there claims nothing."""
    if estimate.low is None or estimate.high is None:
        return True
    return bool(estimate.low <= truth <= estimate.high)


def _judged(
    case: Case, num_studies: int, coverage: dict[str, float], rates: dict[str, float]
) -> tuple[list[str], list[str]]:
    """What does not hold, and which intervals are wide."""
    if not case.confirmed or case.noise in UNBOUNDED:
        return [], []
    problems, wide = [], []
    together = (ALL_LOOKS if case.additions else FIRST_LOOK, MOST_OF_TWO if case.num_levels == 2 else MOST_OF_MORE)
    for name, (low, high) in {MEAN: COVERAGE, FAMILY: together}.items():
        if coverage[name] > high + _slack(high, num_studies) and name in MAY_BE_WIDE.get(case.noise, {}):
            wide.append(name)
        elif not low - _slack(low, num_studies) <= coverage[name] <= high + _slack(high, num_studies):
            problems.append(name)
    most = MOST_WRONG + _slack(MOST_WRONG, num_studies)
    problems += [name for name in (WRONG_ENOUGH, WRONG_DIFFERENCE) if rates[name] > most]
    if case.truth == "real" and rates[RIGHT] < LEAST_RIGHT - _slack(LEAST_RIGHT, num_studies):
        problems.append(RIGHT)
    return problems, wide


def _slack(share: float, num_studies: int) -> float:
    """Three standard errors of a share, where there are fewer studies than the bounds are made for."""
    return 3 * float(np.sqrt(share * (1 - share) / num_studies)) if num_studies < NUM_STUDIES else 0.0


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
    """One line: the case, what the three kinds of intervals cover, rates of wrong claims, of right ones."""
    case = row.case
    notes = [case.noise, *(["missing"] if case.missing else []), *(["unconfirmed"] if not case.confirmed else [])]
    notes += ["small blocks"] if case.blocks < BLOCKS else []
    notes += [f"{case.num_settings} settings"] if case.num_settings > 1 else []
    notes += [f"+{added}" for added in case.additions] + ([row.through] if row.through == "find" else [])
    shares = " ".join(f"{share:6.3f}" for share in (*row.coverage.values(), *row.rates.values()))
    name = f"{case.truth} {case.num_levels} x {case.num_seeds} {' '.join(notes)}"
    said = [*row.problems, *(f"wide: {each}" for each in row.wide)]
    return f"{name:<44}{shares}  {'; '.join(said)}".rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
