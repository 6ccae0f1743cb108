from dataclasses import replace

import pytest

from analysis.findings import Claim, Topic
from analysis.report.tables import excluded_table, topic_table
from analysis.statistics import Estimate


def topic(columns, *claims):
    return Topic("x", "A title", "unit", "seeds", "Text.", columns, list(claims))


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_a_value_and_its_ends_are_one_column():
    columns = {"gain": "gain", "gain_low": "from", "gain_high": "to", "n": "seeds", "from_hour": "from"}
    rows = ({"gain": 0.0972, "gain_low": 0.05188, "gain_high": 0.1425, "n": 3}, {"gain": 0.5, "n": 1, "from_hour": 2})
    table = topic_table(topic(columns, *(Claim("a", None, row, "", [str(row["n"])]) for row in rows)), 0)
    assert table.head == ["what", "gain", "seeds", "runs"]
    assert texts(table) == [["a", "0.0972 [0.0519, 0.142]", "3", ""], ["a", "0.5", "1", ""]]
    assert [row[1].order for row in table.rows] == [0.0972, 0.5]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "yes"), (False, "no"), (12, "12"), (12345, "12,345"), (12345.6, "12,346"), (0.012345, "0.0123"),
     ("dense", "dense"), ([10, "dense"], "10, dense")],
)  # fmt: skip
def test_values_read_as_people_write_them(value, text):
    table = topic_table(topic({"v": "value"}, Claim("a", None, {"v": value}, "", [])), 0)
    assert texts(table)[0][1] == text


def test_columns_that_no_claim_fills_are_left_out_and_n_is_said():
    estimate = Estimate(0.5, 0.4, 0.6, 18, 0.95)
    table = topic_table(topic({"subject": "step"}, Claim("a", estimate, {}, "dominated", ["r1", "r2"])), 4)
    assert table.head == ["step", "unit", "verdict", "runs"]
    assert table.caption == "unit; intervals over seeds"
    (row,) = table.rows
    assert (row[1].text, row[1].note, row[2].tone) == ("0.500 [0.400, 0.600]", "18 seeds", "bad")
    assert (row[3].runs.text, row[3].runs.where) == ("r1, r2", "topics[4].claims[0].run_ids")
    bare = topic_table(topic({}, Claim("a", None, {}, "", [])), 0)
    assert bare.head == ["what", "runs"]
    assert bare.caption == "unit"  # no interval is over anything


def test_n_is_that_of_the_interval_and_intervals_that_hold_together_say_so():
    """Eight runs at two seeds: the interval is over the runs."""
    joint = Claim("0.1", Estimate(0.25, 0.03, 0.65, 2, 0.975), {"runs": 8, "spread": 0.1}, "diverged", ["r1"])
    found = Topic("x", "Title", "share", "runs; seeds, of spread", "Text.", {}, [joint])
    table = topic_table(found, 0)
    assert table.rows[0][1].note == "8 runs"
    assert table.caption == "share; intervals over runs; seeds, of spread, 95 % for all rows together"
    alone = replace(joint, estimate=replace(joint.estimate, confidence=0.95))
    assert topic_table(replace(found, claims=[alone]), 0).caption == "share; intervals over runs; seeds, of spread"
    scenes = replace(found, population="scenes", claims=[replace(joint, values={"scenes": 1})])
    assert topic_table(scenes, 0).rows[0][1].note == "1 scene"


def test_rows_that_share_their_runs_name_them_once():
    same = [Claim(name, None, {}, "", ["r1", "r2"]) for name in "ab"]
    table = topic_table(topic({}, *same), 3)
    assert (table.head, [len(row) for row in table.rows]) == (["what"], [1, 1])
    assert table.runs.text == "r1, r2"
    other = topic_table(topic({}, *same, Claim("c", None, {}, "", ["r1"])), 3)
    assert (other.head, other.runs) == (["what", "runs"], None)
    assert topic_table(topic({}, same[0]), 3).head == ["what", "runs"]


def test_reasons_that_differ_in_numbers_alone_are_one_row_the_commonest_first():
    excluded = [["a", "twin of run 7f3a"], ["b", "3 of 90 epochs"], ["c", "4 of 90 epochs"], ["d", "no run"]]
    table = excluded_table(excluded)
    assert texts(table) == [
        ["3 of 90 epochs; or with other numbers", "2", ""],
        ["twin of run 7f3a", "1", ""],
        ["no run", "1", ""],
    ]
    assert table.rows[0][2].runs.run_ids == ["b", "c"]
