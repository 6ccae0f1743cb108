"""What a run says of its data is anyone's: what the reports could not read is named."""

from typing import Any

import pytest

from analysis.reading.data_shape import data_problem, once_each

SOUND = {
    "fingerprint": "f00d",
    "source": "synthetic",
    "annotations": "masks",
    "num_images": 30,
    "class_names": ["background", "forest"],
    "splits": {"train": {"num_images": 20, "scenes": ["a", "b"]}, "val": {"num_images": 10, "scenes": []}},
    "forest_share": {"train": 0.5},
    "floors": {"coin_flip": {"val/miou": 0.33}},
    "warnings": [],
}


def test_what_ours_says_is_sound() -> None:
    assert data_problem(SOUND) == ""
    assert data_problem({"fingerprint": ""}) == ""


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"fingerprint": 1}, "fingerprint: must be text"),
        ({"source": ["a"]}, "source: must be text"),
        ({"splits": [1]}, "splits: must be sections by name"),
        ({"splits": {"train": 3}}, "splits: must be sections by name"),
        ({"splits": {"train": {"scenes": 5}}}, "splits: scenes must be a list of names"),
        ({"splits": {"train": {"scenes": [[]]}}}, "splits: scenes must be a list of names"),
        ({"splits": {"train": {"num_images": 1e308}}}, "splits: numbers of images must be numbers"),
        ({"forest_share": None}, "forest_share: must be numbers by split"),
        ({"forest_share": {"train": "x"}}, "forest_share: must be numbers by split"),
        ({"floors": [3]}, "floors: must be sections by name"),
        ({"floors": {"a": {"val/miou": "x"}}}, "floors: must hold numbers by metric"),
        ({"floors": {"a": {"val/miou": float("nan")}}}, "floors: must hold numbers by metric"),
        ({"class_names": 3}, "class_names: must be a list of names"),
        ({"warnings": "text"}, "warnings: must be a list of texts"),
    ],
)
def test_what_a_report_could_not_read_is_named(changes: dict[str, Any], problem: str) -> None:
    assert data_problem({**SOUND, **changes}) == f"config.data.{problem}"


def test_what_many_runs_share_is_looked_at_once() -> None:
    asked = []

    def problem(content: dict[str, Any]) -> str:
        asked.append(content)
        return str(content["name"])

    ask, first = once_each(problem), {"name": "a"}
    assert [ask(first), ask(first), ask({"name": "b"}), ask(first)] == ["a", "a", "b", "a"]
    assert asked == [{"name": "a"}, {"name": "b"}]
