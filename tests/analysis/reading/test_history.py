"""Columns against the rows that they came from."""

import math

import numpy as np
import pytest

from analysis.reading import history as module
from analysis.reading.history import History

ROWS = [
    {"epoch": 1, "a": 0.5, "note": "text", "n": None},
    {"epoch": 2, "b": math.nan, "a": True},
    {"epoch": 3.0, "a": 2**63, "b": -math.inf},
]


def test_rows_become_columns_and_rows_again() -> None:
    history = History.from_rows(ROWS)
    assert history.num_rows == 3
    assert history.epochs.tolist() == [1, 2, 3]
    assert str(history.rows()) == str(
        [
            {"epoch": 1, "a": 0.5, "note": "'text'", "n": math.nan},
            {"epoch": 2, "a": "True", "b": math.nan},
            {"epoch": 3, "a": "9223372036854775808", "b": -math.inf},
        ]
    )
    assert history.odd == {(0, "note"): "'text'", (1, "a"): "True", (2, "a"): "9223372036854775808"}
    assert [history.has(1, name) for name in ("epoch", "a", "b", "n", "other")] == [True, True, True, False, False]
    assert history.said(0, "note") == "'text'"
    assert history.said(0, "b") == "None"


@pytest.mark.parametrize(
    ("epochs", "numbers", "last", "in_order"),
    [
        ([1, 2, 3], [1, 2, 3], 2, True),
        ([2, 1, 3], [2, 1, 3], 2, False),
        ([1, 2, 2], [1, 2, 2], 1, False),
        ([1, 2.5, math.nan], [1, 0, 0], 0, False),
        ([0, -1, 1e300], [0, 0, 0], 0, False),
        ([None, "x", True], [0, 0, 0], 0, False),
    ],
)
def test_an_epoch_is_a_whole_number_from_one(
    epochs: list[object], numbers: list[int], last: int, in_order: bool
) -> None:
    history = History.from_rows([{"epoch": epoch} for epoch in epochs])
    assert history.epochs.tolist() == numbers
    assert (history.last, history.in_order) == (last, in_order)
    assert history.epochs[history.order].tolist() == sorted(numbers)


def test_without_rows_there_is_no_last_one() -> None:
    empty = History.from_rows([])
    assert (empty.last, empty.rows(), empty.values("a").tolist()) == (None, [], [])


def test_rows_are_taken_and_joined_with_all_that_is_odd_about_them() -> None:
    history = History.from_rows(ROWS)
    swapped = history.take([2, 0])
    assert str(swapped.rows()) == str([history.rows()[2], history.rows()[0]])
    joined = swapped.followed_by(History.from_rows([{"epoch": 4, "c": "x"}]))
    assert str(joined.rows()) == str([*swapped.rows(), {"epoch": 4, "c": "'x'"}])
    assert joined.lacks("c").tolist() == [True, True, False]
    assert joined.lacks("nowhere").all()


def test_of_a_name_that_stands_twice_in_a_row_the_last_value_counts() -> None:
    draft = module.HistoryDraft()
    draft.add([("a", "odd"), ("a", 1.0)])
    draft.add([("b", 1.0)])
    history = draft.finish()
    assert history.rows() == [{"a": 1.0}, {"b": 1.0}]
    assert history.odd == {}


def test_a_hostile_run_of_very_many_metrics_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CELLS", 20)
    draft = module.HistoryDraft()
    for row in range(10):
        draft.add([("epoch", row + 1), (f"m{row}", "odd")])
    assert draft.num_too_many == 9  # two columns of ten rows
    assert list(draft.finish().columns) == ["epoch", "m0"]
    assert list(draft.finish().odd) == [(0, "m0")]
    assert np.isnan(draft.finish().values("m5")).all()
