"""Simulated studies with known truth, and what our own functions make of them. `bench/calibrate.py` runs them.

A seed is a block, as in a real study: it shifts all its runs by five times what each run varies by itself. Only
drawing is done for all studies at once; everything that is judged goes through the functions that read real studies.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.arms import Confirmation, confirmed_arms, explored_arms
from analysis.findings import Arm
from analysis.grid import Exploration, Grid
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import CONFIRM, EXPLORE, SearchTerms

NOISE, BLOCKS = 0.01, 0.05
MARGIN = 0.01
LEVEL = 0.7
NAMES = ["points_per_image", "learning_rate"]
COLLAPSE_RATE, COLLAPSE = 0.05, 0.15
ONE_COLLAPSES, ONE_RATE = "one collapses", 0.10
MISSING_RATE = 0.15
BATCH = 100

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A kind of study.

    Attributes:
        truth: `equal`: all levels are as good. `margin`: all but the last lie exactly one margin below it, so that
            "enough" is wrong of each, and "not enough" too. `real`: the first lies five margins below, the others are
            equal.
        noise: of a run: `normal`; `t3`, Student's t with 3 degrees of freedom; `collapses`, normal but that one run in
            twenty falls by fifteen times the noise; `unequal`, of the first level four times that of the last;
            `one collapses`, three tenths of the noise, and the first level alone falls so in one run of ten, which
            puts it one and a half margins behind: few seeds rarely see it.
        missing: whether each run is missing with 15 %; two of each level are always there.
        margin: that is judged by; 0 is the hardest for differences between equals.
        num_settings: tried at each level in exploration, all equal but at the last level, which has a clear winner.
        confirmed: whether the settings are read on fresh seeds.
        additions: seeds that `extend` adds to what is undecided, look after look.
        blocks: standard deviation of what a seed shifts all its runs by.
    """

    truth: str
    num_levels: int
    num_seeds: int
    noise: str = "normal"
    missing: bool = False
    margin: float = MARGIN
    num_settings: int = 1
    confirmed: bool = True
    additions: tuple[int, ...] = ()
    blocks: float = BLOCKS

    @property
    def means(self) -> Values:
        """(num_levels,) true means over seeds."""
        gaps = np.zeros(self.num_levels)
        if self.truth == "margin":
            gaps[:-1] = MARGIN
        if self.truth == "real":
            gaps[0] = 5 * MARGIN
        if self.noise == ONE_COLLAPSES:
            gaps[0] += ONE_RATE * COLLAPSE
        return LEVEL - gaps - (COLLAPSE_RATE * COLLAPSE if self.noise == "collapses" else 0.0)


def draw_readings(case: Case, rng: np.random.Generator, num_studies: int, num_settings: int = 1) -> Values:
    """(num_studies, num_levels, num_settings, num_seeds) of equal settings; NaN where a run is missing."""
    num_seeds = case.num_seeds + sum(case.additions)
    shape = (num_studies, case.num_levels, num_settings, num_seeds)
    blocks = rng.normal(0, case.blocks, (num_studies, 1, 1, num_seeds))
    values = case.means[:, None, None] + blocks + _noise(case, rng, shape)
    if case.missing:
        order = rng.random(shape).argsort(axis=3).argsort(axis=3)  # of each level, two seeds have order 0 and 1
        values[(rng.random(shape) < MISSING_RATE) & (order > 1)] = np.nan
    return values


def _noise(case: Case, rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Of mean 0."""
    if case.noise == "t3":
        return NOISE * rng.standard_t(3, shape) / np.sqrt(3)  # of standard deviation 1
    noise = rng.normal(0, NOISE, shape)
    if case.noise == "collapses":
        noise += COLLAPSE * (COLLAPSE_RATE - (rng.random(shape) < COLLAPSE_RATE))
    if case.noise == ONE_COLLAPSES:
        noise *= 0.3
        noise[:, 0] += COLLAPSE * (ONE_RATE - (rng.random(noise[:, 0].shape) < ONE_RATE))
    if case.noise == "unequal":
        noise *= np.geomspace(2, 0.5, shape[1])[:, None, None]
    return noise


def read_arms(case: Case, rng: np.random.Generator, num_studies: int) -> Iterator[list[Arm]]:
    """The arms of each study, as exploration chooses them and confirmation reads them."""
    explored = draw_readings(case, rng, num_studies, case.num_settings)
    explored[:, -1, 1:] -= 1.0  # never chosen: the last level has a clear winner
    fresh = draw_readings(case, rng, num_studies)
    runs = make_runs(case)
    for start in range(0, num_studies, BATCH):
        arms = _batch(case, runs, explored[start : start + BATCH], fresh[start : start + BATCH])
        yield from (arms[i : i + case.num_levels] for i in range(0, len(arms), case.num_levels))


def _batch(case: Case, runs: StudyRuns, explored: Values, fresh: Values) -> list[Arm]:
    """Of many studies at once: level j of study i is count i * num_levels + j of one long study."""
    grid = _grid(explored.reshape(-1, *explored.shape[2:]))
    exploration = Exploration(grid, grid, list(range(len(grid.seeds))), [])
    arms = explored_arms(runs, exploration)
    if not case.confirmed:
        return arms
    cells = [(arm.parameters["points_per_image"], arm.parameters["learning_rate"]) for arm in arms]
    again = Grid(NAMES, cells, grid.seeds, fresh.reshape(len(arms), -1), grid.trial_ids, grid.run_ids)
    return confirmed_arms(runs, exploration, Confirmation(again, again))


def _grid(values: Values) -> Grid:
    num_counts, num_settings, num_seeds = values.shape
    cells = [(count, setting) for count in range(num_counts) for setting in range(num_settings)]
    ids = [["-"] * num_seeds] * len(cells)
    return Grid(NAMES, cells, list(range(num_seeds)), values.reshape(len(cells), num_seeds), ids, ids)


def make_runs(case: Case, trials: pd.DataFrame | None = None) -> StudyRuns:
    """A study of these terms; its runs are given, or come as arms."""
    table = pd.DataFrame() if trials is None else trials
    return StudyRuns(
        study="simulated",
        parameters=dict(zip(NAMES, ("scientific", "nuisance"), strict=True)),
        objective={"metric": "val/miou", "mode": "max", "at": "last", "margin": case.margin},
        data={},
        data_config={},
        epochs=table.assign(epoch=1, **{"val/miou": table["objective"]}) if len(table) else table,
        trials=table,
        training={trial_id: {} for trial_id in table["trial_id"]} if len(table) else {},
        excluded=[],
        search=SearchTerms(confirm_seeds=list(range(case.num_seeds)) if case.confirmed else []),
    )


def make_studies(case: Case, rng: np.random.Generator, num_studies: int) -> Iterator[StudyRuns]:
    """Whole studies, run by run: exploration at two settings a level, of which the second is never the better one."""
    explored, fresh = (draw_readings(case, rng, num_studies) for _ in range(2))
    for study in range(num_studies):
        rows = [
            {"phase": phase, "seed": seed, "points_per_image": 10 * (level + 1), "learning_rate": rate, **read}
            for phase, values in ((EXPLORE, explored[study, :, 0]), (CONFIRM, fresh[study, :, 0]))
            for rate in ((0.001, 0.1) if phase == EXPLORE else (0.001,))
            for (level, seed), value in np.ndenumerate(values)
            if not np.isnan(value)
            for read in [{"objective": value - (rate > 0.01), "test": value, "time_s": 1.0}]
        ]
        names = [f"{number:012x}" for number in range(len(rows))]
        trials = pd.DataFrame(rows).assign(run_id=names, trial_id=names)
        yield make_runs(case, trials)
