from collections.abc import Callable
from typing import Any

import pytest

from analysis.costs import Cost, cost_of
from analysis.findings import Arm
from analysis.reading.runs import StudyRuns
from analysis.statistics import mean_interval
from study.sections import Effort

DATA = {"splits": {"train": {"num_images": 3600}}}


def arm(**parameters: Any) -> Arm:
    return Arm(parameters, parameters, mean_interval([0.5]), [0], [0.5], ["aa"], ["demo-aa"])


@pytest.fixture
def runs(make_study: Callable[..., StudyRuns]) -> Callable[..., StudyRuns]:
    """A function that makes a study whose one trial was trained with these settings."""
    return lambda **changes: make_study(**{"training": {"aa": {"points_per_image": 50}}, "data": DATA, **changes})


def test_hours_and_money_of_an_arm(runs: Callable[..., StudyRuns]) -> None:
    # 3,600 images of 20 + 2.4 + 10 x 0.9 = 31.4 s are 31.4 hours.
    rates = Effort(hourly_rate=20, currency="EUR")
    assert cost_of(runs(effort=rates), arm(points_per_image=10)) == Cost(10, 3600, pytest.approx(31.4), 628)
    assert cost_of(runs(), arm(points_per_image=10)) == Cost(10, 3600, pytest.approx(31.4), None)
    assert cost_of(runs(), arm(points_per_image="dense")) == Cost("dense", 3600, pytest.approx(239.7), None)


def test_what_does_not_vary_is_what_the_trial_was_trained_with(runs: Callable[..., StudyRuns]) -> None:
    assert cost_of(runs(), arm(learning_rate=1e-3)) == Cost(50, 3600, pytest.approx(67.4), None)
    fewer = runs(training={"aa": {"points_per_image": 50, "train_images": 36}})
    assert cost_of(fewer, arm()) == Cost(50, 36, pytest.approx(0.674), None)
    assert cost_of(fewer, arm(train_images=72)) == Cost(50, 72, pytest.approx(1.348), None)


def test_where_people_labelled_some_images_alone_those_are_paid_for(runs: Callable[..., StudyRuns]) -> None:
    some = {"splits": {"train": {"num_images": 3600, "num_labelled": 36}}}
    assert cost_of(runs(data=some), arm()) == Cost(50, 36, pytest.approx(0.674), None)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {}},
        {"data": {"splits": [3600]}},
        {"data": {"splits": {"train": {"num_images": "many"}}}},
        {"data": {"splits": {"train": {"num_images": 0}}}},
        {"training": {}},
        {"training": {"aa": {"points_per_image": "all"}}},
        {"training": {"aa": {"points_per_image": True}}},
    ],
)
def test_what_nobody_knows_has_no_price(changes: dict[str, Any], runs: Callable[..., StudyRuns]) -> None:
    assert cost_of(runs(**changes), arm()) is None
