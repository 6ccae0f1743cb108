"""The rows of all runs as one table, made when it is asked for: of 10,000 runs, all metrics would take 200 MB."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.reading.history import EPOCH
from analysis.reading.study_terms import TOO_LARGE
from analysis.reading.wandb_runs import WandbRun


@dataclass(frozen=True)
class EpochTable:
    """The complete runs, in the order of the table, and what identifies each: its columns before the epoch."""

    runs: Sequence[WandbRun]
    keys: Sequence[dict[str, Any]]

    def whole(self) -> pd.DataFrame:
        """One row per run and epoch: the key, the epoch and every metric that any run has."""
        names = dict.fromkeys(name for run in self.runs for name in run.history.columns if name != EPOCH)
        lengths = [run.history.num_rows for run in self.runs]
        keys = pd.DataFrame(list(self.keys)).iloc[np.repeat(np.arange(len(lengths)), lengths)].reset_index(drop=True)
        return pd.concat([keys, pd.DataFrame(_columns(self.runs, [EPOCH, *names]))], axis=1)

    def some(self, metrics: Sequence[str], run_ids: Collection[str] | None) -> pd.DataFrame:
        """`StudyRuns.curves`."""
        if run_ids is not None:
            runs = [run for run in self.runs if run.run_id in run_ids]
            return EpochTable(runs, []).some(metrics, None)
        there = [name for name in metrics if any(name in run.history.columns for run in self.runs)]
        return pd.DataFrame({"run_id": self._run_ids, EPOCH: self._epochs, **_columns(self.runs, there)})

    @cached_property
    def _run_ids(self) -> "pd.Series[Any]":
        """(num_rows,) kept, as is the next: several questions are asked of the same million rows."""
        ids = np.array([run.run_id for run in self.runs], dtype=object)
        return pd.Series(np.repeat(ids, [run.history.num_rows for run in self.runs]), dtype=object)

    @cached_property
    def _epochs(self) -> NDArray[np.int64]:
        epochs: NDArray[np.int64] = _columns(self.runs, [EPOCH])[EPOCH]
        return epochs


def _bounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is finite but absurdly large counts as unknown, so that sums of finite values are finite."""
    is_too_large = (np.abs(values) >= TOO_LARGE) & np.isfinite(values)
    return np.where(is_too_large, np.nan, values) if is_too_large.any() else values


def _columns(runs: Sequence[WandbRun], names: Sequence[str]) -> dict[str, Any]:
    """Each name's values of all runs, each run by ascending epoch."""
    orders = [None if run.history.in_order else run.history.order for run in runs]
    columns = {}
    for name in names:
        parts = [
            run.history.values(name) if order is None else run.history.values(name)[order]
            for run, order in zip(runs, orders, strict=True)
        ]
        columns[name] = _bounded(np.concatenate([np.zeros(0), *parts]))
    if EPOCH in columns:
        columns[EPOCH] = columns[EPOCH].astype(np.int64)
    return columns
