"""Effort against the metric: prices, who is dominated, what a further hour gains."""

from collections.abc import Callable
from typing import Any

import pytest

from analysis.find import find
from analysis.findings import Claim, Topic
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import SearchTerms
from analysis.topics.effort import find_effort, price
from study.sections import Effort

DATA = {"data": {"splits": {"train": {"num_images": 3600}}}}
"""3,600 images: seconds per image are hours."""
POINTS_ALONE = {"points_per_image": "scientific", "learning_rate": "nuisance", "focal_gamma": "nuisance"}
SEARCHED = dict.fromkeys(POINTS_ALONE, "nuisance")


@pytest.fixture
def study(make_study: Callable[..., StudyRuns]) -> Callable[..., StudyRuns]:
    """A function that makes a study of point counts alone: {count: values by seed}."""
    return lambda rows, **changes: make_study({(n, 0.001, 0.0): row for n, row in rows.items()}, **{**DATA, **changes})


def effort_of(runs: StudyRuns) -> Topic:
    topic = find_effort(runs, find(runs))
    assert topic is not None
    return topic


def row(topic: Topic, points: object) -> Claim:
    (claim,) = (claim for claim in topic.claims if claim.values["points"] == points)
    return claim


# 10, 50, 200 points: 31.4, 67.4 and 202.4 hours.
CLEAR = {10: [0.60, 0.61, 0.62], 50: [0.70, 0.71, 0.72], 200: [0.65, 0.66, 0.67]}


def test_every_arm_has_its_price_the_cheapest_first(study: Callable[..., StudyRuns]) -> None:
    topic = effort_of(study(CLEAR, effort=Effort(hourly_rate=10, currency="EUR")))
    assert [claim.values["points"] for claim in topic.claims] == [10, 50, 200]
    assert [claim.values["hours"] for claim in topic.claims] == pytest.approx([31.4, 67.4, 202.4])
    assert [claim.values["money"] for claim in topic.claims] == pytest.approx([314, 674, 2024])
    assert topic.columns["money"] == "cost, EUR"
    assert topic.text.startswith("Points per image 50: 67.4 hours of annotation (674 EUR) for 3600 images.")
    assert row(topic, 50).estimate == find(study(CLEAR)).arms[1].value
    assert len(row(topic, 50).run_ids) == 3


def test_without_a_rate_nothing_is_said_of_money(study: Callable[..., StudyRuns]) -> None:
    topic = effort_of(study(CLEAR))
    assert "money" not in topic.columns
    assert {claim.values["money"] for claim in topic.claims} == {None}
    assert "hours of annotation for 3600 images" in topic.text


def test_what_is_better_for_less_surely_dominates(study: Callable[..., StudyRuns]) -> None:
    # All seeds move together, so that every difference is known exactly.
    topic = effort_of(study(CLEAR))
    assert [claim.verdict for claim in topic.claims] == ["on the front", "on the front", "dominated"]
    assert [claim.values["on_front"] for claim in topic.claims] == [True, True, False]
    assert "Surely dominated, as something better takes no more effort: Points per image 200." in topic.text


def test_noise_leaves_it_open_and_says_so(study: Callable[..., StudyRuns]) -> None:
    noisy = {10: [0.60, 0.70, 0.50], 50: [0.70, 0.55, 0.72], 200: [0.65, 0.66, 0.52]}
    topic = effort_of(study(noisy))
    assert [claim.verdict for claim in topic.claims] == ["on the front", "undecided", "undecided"]  # nothing is cheaper
    assert [claim.values["on_front"] for claim in topic.claims] == [True, True, False]
    assert "Of 3 settings, 2 may or may not be on the front." in topic.text


def test_one_seed_judges_nothing(study: Callable[..., StudyRuns]) -> None:
    topic = effort_of(study({10: [0.6], 50: [0.7], 200: [0.65]}))
    assert [claim.verdict for claim in topic.claims] == ["on the front", "undecided", "undecided"]
    assert [claim.values["on_front"] for claim in topic.claims] == [True, True, False]


def test_every_look_at_confirmed_counts_spends_of_the_same_5_percent(make_study: Callable[..., StudyRuns]) -> None:
    rows = {(n, 0.001, 0.0): [0.6 + n / 1000, 0.61, 0.62, 0.63] for n in (10, 50)}
    search = SearchTerms(confirm_seeds=[100, 101], extensions=[[102], [103]])
    runs = make_study(rows, confirm=rows, search=search, **DATA)
    findings = find(runs)
    priced = price(runs, findings, list(findings.arms))
    assert priced is not None
    difference = findings.scientific[0].levels[0].difference
    assert priced.gains[0, 1] == difference
    assert priced.gains[0, 1].confidence == pytest.approx(1 - 0.05 * 0.05)


def test_where_less_is_better_the_front_is_the_other_way_round(study: Callable[..., StudyRuns]) -> None:
    objective = {"metric": "val/miou", "mode": "min", "at": "last", "margin": 0.01}
    topic = effort_of(study(CLEAR, objective=objective))
    assert [claim.verdict for claim in topic.claims] == ["on the front", "dominated", "dominated"]


def test_what_a_further_hour_gains_is_counted_along_the_front(study: Callable[..., StudyRuns]) -> None:
    rows = {10: [0.60, 0.60, 0.60], 20: [0.50, 0.50, 0.50], 50: [0.70, 0.71, 0.69]}
    topic = effort_of(study(rows))
    assert "further_hours" not in row(topic, 10).values
    assert "further_hours" not in row(topic, 20).values  # dominated: nobody would go there
    values = row(topic, 50).values
    # From 31.4 to 67.4 hours, and from .60 to .70: ten hundredths for 36 hours.
    assert values["further_hours"] == pytest.approx(36)
    assert values["gain"] == pytest.approx(0.10)
    assert values["hours_per_hundredth"] == pytest.approx(3.6)
    # Three pairs share 5 %, two-sided, at 2 degrees of freedom: 7.6488 standard errors of 0.01 / sqrt(3).
    assert values["gain_low"] == pytest.approx(0.10 - 7.6488 * 0.01 / 3**0.5, abs=1e-5)
    assert values["gain_high"] == pytest.approx(0.10 + 7.6488 * 0.01 / 3**0.5, abs=1e-5)


def test_equal_effort_is_no_excuse(make_study: Callable[..., StudyRuns]) -> None:
    # Gamma is compared too and costs nothing: at 10 points, gamma 2 is beaten for the same money.
    cells = {(10, 0.001, 0.0): [0.6, 0.61], (10, 0.001, 2.0): [0.5, 0.51], (50, 0.001, 0.0): [0.7, 0.71]}
    roles = {**POINTS_ALONE, "focal_gamma": "scientific"}
    topic = effort_of(make_study(cells, roles=roles, **DATA))
    assert {claim.subject: claim.verdict for claim in topic.claims} == {
        "points per image 10, focal gamma 0": "on the front",
        "points per image 10, focal gamma 2": "dominated",
        "points per image 50, focal gamma 0": "on the front",
    }


def test_where_labels_do_not_vary_the_price_of_one_arm_is_told(make_study: Callable[..., StudyRuns]) -> None:
    roles = {"learning_rate": "nuisance", "focal_gamma": "nuisance"}
    topic = effort_of(
        make_study(roles=roles, cells={(50, 0.001, 0.0): [0.7, 0.71], (50, 0.01, 0.0): [0.6, 0.6]}, **DATA)
    )
    (claim,) = topic.claims
    assert (claim.values["points"], claim.verdict) == (50, "")
    assert claim.values["hours"] == pytest.approx(67.4)
    assert topic.text.startswith("The study: 67.4 hours")


def test_nobody_knows_the_images_so_nothing_is_claimed(study: Callable[..., StudyRuns]) -> None:
    runs = study(CLEAR, data={})
    assert find_effort(runs, find(runs)) is None


def test_points_that_are_searched_are_compared_cell_by_cell(make_study: Callable[..., StudyRuns]) -> None:
    cells = {
        (10, 0.001, 0.0): [0.60, 0.60],
        (10, 0.01, 0.0): [0.50, 0.50],
        (50, 0.001, 0.0): [0.70, 0.70],
        (200, 0.001, 0.0): [0.65, 0.65],
        (20, 0.001, 0.0): [0.99, None],
    }
    one_seed = [((20, 0.001, 0.0), 1)]  # lucky, and run once
    runs = make_study(cells, roles=SEARCHED, without=one_seed, **DATA)
    topic = effort_of(runs)
    assert [claim.values["points"] for claim in topic.claims] == [10, 50]
    assert topic.claims[0].subject == "points per image 10, learning rate 0.001, focal gamma 0"


def test_of_a_confirmed_front_all_cells_are_read_on_the_test_split(make_study: Callable[..., StudyRuns]) -> None:
    cells: dict[Any, Any] = {(10, 0.001, 0.0): [0.60], (50, 0.001, 0.0): [0.70]}
    confirm: dict[Any, Any] = {(10, 0.001, 0.0): [0.61, 0.62, 0.63], (50, 0.001, 0.0): [0.51, 0.52, 0.53]}
    topic = effort_of(make_study(cells, roles=SEARCHED, confirm=confirm, **DATA))
    assert topic.unit == "test/miou"
    assert [(claim.values["points"], claim.verdict) for claim in topic.claims] == [
        (10, "on the front"),
        (50, "dominated"),
    ]


def test_values_are_plain(study: Callable[..., StudyRuns]) -> None:
    for claim in effort_of(study(CLEAR)).claims:
        assert {type(value) for value in claim.values.values()} <= {int, float, bool, str, type(None)}
