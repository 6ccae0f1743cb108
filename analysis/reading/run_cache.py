"""Runs that were read before, in a handful of Parquet files that each hold many runs (`cache_file.py`)."""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from analysis.reading.cache_file import (
    MAX_RUNS,
    MAX_VALUES,
    DamagedCacheError,
    find_files,
    number_of,
    open_file,
    write_file,
)
from analysis.reading.run_table import KeyedRun, RunTable, to_table
from analysis.reading.wandb_runs import WandbRun

_LOG = logging.getLogger(__name__)

MAX_FILES = 8
"""With more files than these, what is wanted of them becomes one."""


class RunCache:
    """What is at hand of runs, by key and fingerprint; the fingerprint tells the states of a run apart."""

    def __init__(self, folder: Path | None) -> None:
        """From what lies in `folder`, which is made when something is added; None keeps all in memory alone."""
        self._folder = folder
        self._tables: list[RunTable] = []
        self._paths: list[Path] = []
        for path in find_files(folder) if folder else ():
            with contextlib.suppress(DamagedCacheError):  # it is named and set aside, and its runs are read again
                self._open(path)

    def load(self, wanted: Mapping[str, str], root: Path = Path()) -> dict[str, WandbRun]:
        """The runs that are at hand with the very fingerprint that is wanted.

        Args:
            wanted: key -> fingerprint.
            root: each run's `path` is its key below it.
        """
        found: dict[str, WandbRun] = {}
        for table in reversed(self._tables):  # the newest first
            with contextlib.suppress(DamagedCacheError):  # as above
                found.update(table.runs(_keys(table, wanted) - found.keys(), root))
        return found

    def add(self, runs: Iterable[KeyedRun]) -> None:
        """Keeps (key, fingerprint, run)."""
        self.add_table(to_table(runs))

    def add_table(self, table: pa.Table) -> None:
        """Keeps what `to_table` made; where no file can be written, as on a full disk, in memory alone."""
        if self._folder is not None and table.num_rows:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                path = write_file(self._folder, 1 + max(map(number_of, self._paths), default=0), table)
            except OSError as error:
                _LOG.warning("%s: cannot be written (%s): the runs will be read anew each time", self._folder, error)
                self._folder = None
            else:
                self._open(path)
        if self._folder is None:
            self._tables.append(RunTable(lambda names: table.select(names) if names else table, DamagedCacheError))

    def tidy(self, wanted: Mapping[str, str]) -> None:
        """Where there are more than `MAX_FILES` files, one with what is wanted takes their place."""
        if len(self._paths) <= MAX_FILES:
            return
        parts = list(self._wanted_parts(wanted))
        num_values = sum(part.num_columns * int(np.sum(part["num_rows"].to_numpy())) for part in parts)
        if sum(part.num_rows for part in parts) > MAX_RUNS or num_values > MAX_VALUES:
            return
        old = list(self._paths)
        self.add_table(pa.concat_tables(parts, promote_options="default"))
        if self._folder is None:  # it could not be written
            return
        self._tables, self._paths = self._tables[-1:], self._paths[-1:]
        for path in old:
            path.unlink(missing_ok=True)

    def _wanted_parts(self, wanted: Mapping[str, str]) -> Iterator[pa.Table]:
        """The wanted rows of every file, each run once."""
        taken: set[str] = set()
        for table in reversed(self._tables):
            keys, whole = _keys(table, wanted) - taken, table.read(None)
            yield whole.filter(pa.array([key in keys for key in whole["key"].to_pylist()]))
            taken |= keys

    def _open(self, path: Path) -> None:
        self._tables.append(open_file(path))
        self._paths.append(path)


def _keys(table: RunTable, wanted: Mapping[str, str]) -> set[str]:
    """The runs of a table that are wanted as they are in it."""
    return {key for key, fingerprint in table.fingerprints().items() if wanted.get(key) == fingerprint}
