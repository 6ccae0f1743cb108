"""The runs for further work: `runs.csv` with a row for each run, `epochs.parquet` with a row for each epoch.

A million epochs are no CSV file: it takes 14 s and 220 MB, and a spreadsheet reads the first 1,048,576 lines alone and
takes names for formulas. Parquet keeps types, takes 1 s and less than half, and pandas, R, DuckDB and Polars read it.
"""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from analysis.reading.runs import StudyRuns
from analysis.wording import printable

FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the start of a formula, also as full-width letters."""


def runs_csv(runs: StudyRuns) -> str:
    """A row for each run that is read, `state` complete, and each that was stopped early or diverged."""
    complete = runs.trials.assign(state="complete")
    table = pd.concat([complete, runs.ended_early], ignore_index=True) if len(runs.ended_early) else complete
    for name, column in table.items():
        if not pd.api.types.is_numeric_dtype(column):  # numbers stay numbers, the negative ones too
            table[name] = column.astype(object).map(_inert)
    return table.rename(columns=_inert).to_csv(index=False, lineterminator="\n")


def _inert(cell: Any) -> Any:
    """Text on one line, and with an apostrophe before what a spreadsheet would run; a line's end would begin a cell."""
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if text.lstrip().startswith(FORMULA_STARTS) else text


def epochs_parquet(epochs: pd.DataFrame) -> bytes:
    """Every epoch of every complete run, as a Parquet file."""
    columns = {str(name): _column(epochs[name]) for name in epochs}
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink, compression="zstd")
    return bytes(sink.getvalue())


def _column(column: "pd.Series[Any]") -> pa.Array:
    """Numbers as they are; all else by its few different values: a level may be `dense` beside 50."""
    if pd.api.types.is_numeric_dtype(column):
        return pa.array(column.to_numpy())
    codes, values = pd.factorize(column)
    texts = pa.array(list(map(str, values)), pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=codes < 0), texts)
