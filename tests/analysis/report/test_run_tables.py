import csv
import io
import time

import numpy as np
import pandas as pd
import pytest

from analysis.report.run_tables import epochs_parquet, runs_csv

FORMULA = '=HYPERLINK("http://evil.example","x")'


def test_a_row_for_each_run_and_what_ended_early_besides(make_runs):
    ended = pd.DataFrame([{"run_id": "demo-dead", "trial_id": "dead", "seed": 9, "state": "diverged", "time_s": 3.0}])
    rows = list(csv.DictReader(io.StringIO(runs_csv(make_runs(ended_early=ended)))))
    assert len(rows) == 8 * 3 + 1
    assert (rows[0]["run_id"], rows[0]["state"], float(rows[0]["objective"])) == ("demo-000000000000", "complete", 0.5)
    assert (rows[-1]["run_id"], rows[-1]["state"], rows[-1]["objective"]) == ("demo-dead", "diverged", "")


def test_no_cell_is_a_formula(hostile_runs):
    rows = list(csv.reader(io.StringIO(runs_csv(hostile_runs))))
    cells = [cell for row in rows for cell in row]
    assert f"'{FORMULA}" in cells
    assert "'--> $x_{1$ | `b`" in rows[0]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *((text, f"'{text}") for text in ("=1+1", "+1", "-1+1", "@SUM(A1)", "  =1", "＝1+1")),
        *((f"{end}=1", "' =1") for end in "\t\r\n"),
        ("a\r=1", "a =1"),  # else a row of its own would begin with it
    ],
)
def test_text_is_inert_and_numbers_stay_numbers(text, shown, make_runs):
    runs = make_runs()
    runs.trials["encoder"] = text
    runs.trials["objective"] = -0.5
    row = next(csv.DictReader(io.StringIO(runs_csv(runs), newline="")))
    assert row["encoder"] == shown
    assert row["objective"] == "-0.5"


def test_every_epoch_is_in_the_parquet_file_as_it_was(make_runs):
    runs = make_runs()
    runs.epochs["mixed"] = ["dense", 50] * (len(runs.epochs) // 2)
    read = pd.read_parquet(io.BytesIO(epochs_parquet(runs.epochs)))
    assert len(read) == 8 * 3 * 2
    assert read["val/miou"].tolist() == runs.epochs["val/miou"].tolist()
    assert read["epoch"].tolist() == [1, 2] * 24
    assert read["run_id"].astype(str).tolist() == runs.epochs["run_id"].tolist()
    assert read["mixed"].astype(str).tolist()[:2] == ["dense", "50"]


def test_missing_values_stay_missing():
    read = pd.read_parquet(io.BytesIO(epochs_parquet(pd.DataFrame({"run": ["a", None], "value": [1.0, np.nan]}))))
    assert read["run"].isna().tolist() == [False, True]
    assert read["value"].isna().tolist() == [False, True]


@pytest.mark.slow
def test_a_million_epochs_are_written_in_seconds():
    ids = np.repeat([f"demo-{n:012x}" for n in range(10_000)], 100)
    metrics = {f"val/{n}": np.random.default_rng(n).random(len(ids)) for n in range(10)}
    epochs = pd.DataFrame({"run_id": ids, "epoch": np.tile(np.arange(100), 10_000), **metrics})
    start = time.process_time()
    content = epochs_parquet(epochs)
    assert time.process_time() - start < 20  # 1 s on an idle core
    assert len(content) < 100e6
