"""Stability of each learning rate, over all cells that exploration tried at it.

Divergence: the share of runs that diverged, with the interval of Clopper and Pearson, which takes runs for independent;
runs of one seed or cell may not be. Spread: the standard deviation between seeds within a cell (`variances.py`). Speed:
the first epoch at which the objective is within 5 % of its value after the last one. Where the rate was searched in a
range, its decades take the place of levels. All rates hold together by Bonferroni over their number.

Source: Clopper and Pearson 1934.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import floor, log10

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from analysis.curves import read_curves
from analysis.findings import Claim, Findings, Topic
from analysis.reading.completeness import DIVERGED
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import EXPLORE, is_number
from analysis.statistics import CONFIDENCE, Estimate, mean_interval
from analysis.topics.readings import RATE, jointly, named
from analysis.variances import spread_interval
from analysis.wording import counted, level_text, listed

REACHED = 0.95
"""Share of its final value at which a curve has arrived."""
MOST_LEVELS = 12
"""Of more values than that, decades are told apart: they were drawn from a range, even if no study file says so."""

COLUMNS = {
    "subject": "learning rate",
    "diverged": "diverged runs",
    "runs": "all runs",
    "spread": "standard deviation of the objective between seeds",
    "spread_low": "from",
    "spread_high": "to",
    "epochs": "epochs until within 5 % of the final value",
    "epochs_low": "from",
    "epochs_high": "to",
}


@dataclass(frozen=True)
class _Rate:
    """One learning rate, or a decade of them: its explored runs, complete or not, one row each."""

    subject: str
    rows: pd.DataFrame


def find_stability(runs: StudyRuns, findings: Findings) -> Topic | None:
    """Every explored learning rate; None where it is no factor, or no number above 0."""
    table = _explored(runs)
    if RATE not in runs.parameters or table.empty or not all(is_number(rate) and rate > 0 for rate in table[RATE]):
        return None
    rates = list(_rates(runs, table))
    each = jointly(len(rates), CONFIDENCE)
    claims = [_claim(runs, rate, each) for rate in rates]
    return Topic(
        name="stability",
        title="Stability of each learning rate",
        unit="share of runs that diverged",
        population="runs; seeds, of spread and epochs",
        text=_text(runs, claims),
        columns=COLUMNS,
        claims=claims,
    )


def _explored(runs: StudyRuns) -> pd.DataFrame:
    """Every run of exploration that has a result: what it read, in how many epochs, or how it ended."""
    complete = runs.trials.assign(state="", arrived=_arrivals(runs))
    tables = [each[each["phase"] == EXPLORE] for each in (complete, runs.ended_early) if len(each)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _arrivals(runs: StudyRuns) -> NDArray[np.float64]:
    """(num_trials,) the first epoch within 5 % of the final value; NaN where that is not above 0."""
    curves = read_curves(runs, runs.objective["metric"])
    if curves is None:
        return np.full(len(runs.trials), np.nan)
    is_max, finals = runs.objective["mode"] == "max", curves.values[curves.lasts]
    thresholds = np.where(finals > 0, finals * REACHED if is_max else finals / REACHED, np.nan)
    arrived = pd.Series(curves.first_epochs(thresholds, is_max=is_max), index=curves.run_ids)
    return np.asarray(arrived.reindex(runs.trials["run_id"]), dtype=np.float64)


def _rates(runs: StudyRuns, table: pd.DataFrame) -> Iterator[_Rate]:
    """Levels, or of a range its decades, ascending."""
    values = table[RATE].astype(float)
    if RATE not in runs.search.ranges and values.nunique() <= MOST_LEVELS:
        for value, rows in table.groupby(values):
            yield _Rate(f"learning rate {level_text(value)}", rows)
        return
    for decade, rows in table.groupby(values.map(lambda value: floor(log10(value) + 1e-9))):
        yield _Rate(f"learning rate {10.0**decade:g} to {10.0 ** (decade + 1):g}", rows)


def _claim(runs: StudyRuns, rate: _Rate, confidence: float) -> Claim:
    num_diverged = int((rate.rows["state"] == DIVERGED).sum())
    complete = rate.rows[rate.rows["state"] == ""]
    spread = spread_interval(_cells_by_seeds(runs, complete), confidence)
    arrived = complete.groupby("seed")["arrived"].mean().dropna()
    speed = mean_interval(arrived.to_numpy(), confidence) if len(arrived) else None
    if speed and speed.low is not None:
        speed = replace(speed, low=max(speed.low, 1.0))  # no mean lies before the first epoch
    values = {"diverged": num_diverged, "runs": len(rate.rows)}
    return Claim(
        subject=rate.subject,
        estimate=share_interval(num_diverged, len(rate.rows), rate.rows["seed"].nunique(), confidence),
        values={**values, **named("spread", spread), **named("epochs", speed)},
        verdict="diverged" if num_diverged else "no divergence seen",
        run_ids=rate.rows["run_id"].tolist(),
    )


def share_interval(num_hits: int, num_runs: int, num_seeds: int, confidence: float) -> Estimate:
    """A share of runs with Clopper and Pearson's interval, which covers at least as claimed. Population: runs.

    Args:
        num_hits: from 0 to `num_runs`.
        num_runs: at least 1.
        num_seeds: seed blocks behind them.
        confidence: coverage, in (0, 1).
    """
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(num_hits, num_runs - num_hits + 1, tail)) if num_hits else 0.0
    high = float(special.betaincinv(num_hits + 1, num_runs - num_hits, 1 - tail)) if num_hits < num_runs else 1.0
    return Estimate(num_hits / num_runs, low, high, num_seeds, confidence)


def _cells_by_seeds(runs: StudyRuns, rows: pd.DataFrame) -> NDArray[np.float64]:
    """(num_cells, num_seeds) the objective; NaN where a cell lacks a seed."""
    if rows.empty:
        return np.zeros((0, 0))
    cells = rows.groupby(list(runs.parameters), sort=False).ngroup().to_numpy()
    seeds, columns = np.unique(rows["seed"].to_numpy(), return_inverse=True)
    table = np.full((cells.max() + 1, len(seeds)), np.nan)
    table[cells, columns] = rows["objective"].to_numpy(dtype=np.float64)
    return table


def _text(runs: StudyRuns, claims: list[Claim]) -> str:
    total = sum(claim.values["runs"] for claim in claims)
    diverged = [claim for claim in claims if claim.verdict == "diverged"]
    texts = [f"{claim.values['diverged']} of {claim.values['runs']} at {claim.subject}" for claim in diverged]
    first = f"Diverged: {listed(texts)}." if texts else f"None of {counted(total, 'explored run')} diverged."
    spreads = [f"{claim.values['spread']:.3f} at {claim.subject}" for claim in claims if "spread" in claim.values]
    second = f" Between seeds, {runs.objective['metric']} varies by a standard deviation of {listed(spreads)}."
    return first + (second if spreads else "")
