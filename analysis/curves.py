"""Learning curves of all runs at once: the epochs' table as blocks of rows, without a loop over a million of them."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.reading.runs import StudyRuns


@dataclass(frozen=True)
class Curves:
    """One metric by run and epoch, the runs one after the other and each by ascending epoch.

    Attributes:
        run_ids: (num_runs,) in the order of the blocks.
        starts: (num_runs,) each run's first row.
        epochs: (num_rows,)
        values: (num_rows,) NaN where a row lacks the metric.
    """

    run_ids: NDArray[np.object_]
    starts: NDArray[np.intp]
    epochs: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def lasts(self) -> NDArray[np.intp]:
        """(num_runs,) each run's last row."""
        return np.append(self.starts[1:], len(self.epochs)) - 1

    @property
    def last_steps(self) -> NDArray[np.float64]:
        """What each run's last epoch added; nothing of runs of one epoch."""
        longer = self.lasts[self.lasts > self.starts]
        return np.asarray(self.values[longer] - self.values[longer - 1])

    def first_epochs(self, thresholds: NDArray[np.float64], *, is_max: bool) -> NDArray[np.float64]:
        """(num_runs,) the epoch at which each run first reaches its threshold; NaN where it never does.

        Args:
            thresholds: (num_runs,)
            is_max: whether to reach it is to be as large, or as small.
        """
        each = np.repeat(thresholds, self.lasts - self.starts + 1)
        reached = self.values >= each if is_max else self.values <= each
        first = np.minimum.reduceat(np.where(reached, self.epochs, np.inf), self.starts)
        return np.where(np.isfinite(first), first, np.nan)


def read_curves(runs: StudyRuns, metric: str, run_ids: Collection[str] | None = None) -> Curves | None:
    """The curves of a metric, of these runs or of all; None where none of them has it."""
    table = runs.curves([metric], run_ids)
    if metric not in table or table.empty:
        return None
    epochs = table["epoch"].to_numpy(dtype=np.float64)
    # A run has each epoch once, in order: where epochs do not go up, the next run begins.
    starts = np.flatnonzero(np.append(True, np.diff(epochs) <= 0))
    names = table["run_id"].iloc[starts].to_numpy(dtype=object)  # a million names would take a tenth of a second
    return Curves(names, starts, epochs, table[metric].to_numpy(dtype=np.float64))
