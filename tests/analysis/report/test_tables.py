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
    table = topic_table(topic(columns, *(Claim("a", None, row, "", ["r"]) for row in rows)), 0)
    assert table.head == ["subject", "gain", "seeds", "runs"]
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
    table = topic_table(topic({}, Claim("a", estimate, {}, "dominated", ["r1", "r2"])), 4)
    assert table.head == ["subject", "unit", "verdict", "runs"]
    assert table.caption == "unit; intervals over seeds"
    (row,) = table.rows
    assert (row[1].text, row[1].note, row[2].tone) == ("0.500 [0.400, 0.600]", "n = 18", "bad")
    assert (row[3].runs.text, row[3].runs.where) == ("r1, r2", "topics[4].claims[0].run_ids")
    bare = topic_table(topic({}, Claim("a", None, {}, "", [])), 0)
    assert bare.head == ["subject", "runs"]


def test_reasons_that_differ_in_numbers_alone_are_one_row_the_commonest_first():
    excluded = [["a", "twin of run 7f3a"], ["b", "3 of 90 epochs"], ["c", "4 of 90 epochs"], ["d", "no run"]]
    table = excluded_table(excluded)
    assert texts(table) == [
        ["3 of 90 epochs; or with other numbers", "2", ""],
        ["twin of run 7f3a", "1", ""],
        ["no run", "1", ""],
    ]
    assert table.rows[0][2].runs.run_ids == ["b", "c"]
