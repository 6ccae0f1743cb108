import pytest
from scipy import stats

from analysis.find import find
from analysis.reading.study_terms import SearchTerms
from analysis.topics.effort import find_effort
from analysis.topics.returns import find_returns

POINTS = {"points_per_image": "scientific"}
# From 10 to 40, two doublings: .08, .10 and .12 more; from 40 to 80, one: .002, .000 and .001 less.
STEPS = {(10,): [0.50, 0.60, 0.70], (40,): [0.58, 0.70, 0.82], (80,): [0.578, 0.70, 0.819]}


def topic(runs):
    return find_returns(runs, find(runs))


def test_gains_per_doubling_and_per_hour_hold_together(make_runs):
    first, second = topic(make_runs(POINTS, STEPS)).claims
    assert [first.subject, second.subject] == ["10 to 40", "40 to 80"]
    # Two steps: each at 97.5 %. Half width of the gain: t times .02 / sqrt(3).
    half = stats.t.ppf(1 - 0.05 / 4, 2) * 0.02 / 3**0.5
    assert (first.estimate.value, first.estimate.low) == pytest.approx((0.05, (0.10 - half) / 2))
    assert (first.values["gain"], first.values["gain_high"]) == pytest.approx((0.10, 0.10 + half))
    # 30 points of 0.9 s more in 100 images: three quarters of an hour.
    assert first.values["hours"] == pytest.approx(0.75)
    assert (first.values["per_hour"], first.values["per_hour_low"]) == pytest.approx((0.1 / 0.75, (0.10 - half) / 0.75))
    assert (first.verdict, second.verdict) == ("gains", "no gain shown")
    assert second.estimate.value == pytest.approx(-0.001)
    assert first.run_ids == [f"demo-{i:012x}" for i in range(6)]


def test_the_text_answers_first_and_names_what_a_doubling_surely_lacks(make_runs):
    text = topic(make_runs(POINTS, STEPS)).text
    assert text.startswith("40 points are better than 10; 80 points are not shown to be better than 40.")
    assert "A doubling gains less than the margin of 0.01 for sure from 40 to 80." in text


def test_where_smaller_is_better_a_gain_is_a_fall_and_a_sure_fall_of_the_metric_loses(make_runs):
    worse = {(10,): [0.8, 0.7, 0.6], (20,): [0.7, 0.59, 0.51]}
    objective = {"metric": "val/miou", "mode": "min", "at": "last", "margin": 0.01}
    (claim,) = topic(make_runs(POINTS, worse, objective=objective)).claims
    assert claim.verdict == "gains"
    assert claim.estimate.value == pytest.approx(0.1)
    (claim,) = topic(make_runs(POINTS, worse)).claims
    assert claim.verdict == "loses"


def test_steps_are_taken_within_the_other_scientific_levels(make_runs):
    roles = {**POINTS, "point_strategy": "scientific"}
    cells = {
        (n, s): [0.5 + n / 100 + extra for extra in (0, 0.01, 0.03)] for n in (10, 20) for s in ("grid", "uniform")
    }
    subjects = [claim.subject for claim in topic(make_runs(roles, cells)).claims]
    assert subjects == ["10 to 20 (point strategy grid)", "10 to 20 (point strategy uniform)"]


def test_hours_follow_the_images_that_are_labelled_and_are_left_out_where_unknown(make_runs):
    few = topic(make_runs(POINTS, STEPS, training={"train_images": 50})).claims[0]
    assert few.values["hours"] == pytest.approx(0.375)
    unknown = topic(make_runs(POINTS, STEPS, data={"source": "x"})).claims[0]
    assert "hours" not in unknown.values
    assert unknown.verdict == "gains"
    odd = topic(make_runs(POINTS, STEPS, data={"splits": {"train": "?"}}, training={"train_images": "all"})).claims[0]
    assert "hours" not in odd.values


def test_hours_are_those_of_the_images_that_people_labelled(make_runs):
    data = {"splits": {"train": {"num_images": 100, "num_labelled": 40}}}
    claim = topic(make_runs(POINTS, STEPS, data=data)).claims[0]
    assert claim.values["hours"] == pytest.approx(0.3)
    runs = make_runs(POINTS, STEPS, data=data)
    prices = {row.values["points"]: row.values["hours"] for row in find_effort(runs, find(runs)).claims}
    assert claim.values["hours"] == pytest.approx(prices[40] - prices[10])


@pytest.mark.parametrize(
    ("extensions", "seeds", "confidence"), [([], 3, 0.96), ([[103, 104]], 5, 0.995), ([[103], [104]], 5, 0.9975)]
)
def test_every_look_at_confirmed_counts_spends_of_the_same_5_percent(make_runs, extensions, seeds, confidence):
    readings = {(10,): [0.50, 0.60, 0.70, 0.61, 0.69], (40,): [0.58, 0.70, 0.82, 0.65, 0.76]}
    confirm = {counts: values[:seeds] for counts, values in readings.items()}
    search = SearchTerms(confirm_seeds=[100, 101, 102], extensions=extensions)
    runs = make_runs(POINTS, readings, confirm, search=search)
    findings = find(runs)
    (claim,) = topic(runs).claims
    ten = findings.scientific[0].levels[0]
    assert claim.estimate.confidence == ten.difference.confidence == pytest.approx(confidence)
    assert claim.values["gain_high"] == pytest.approx(-ten.difference.low)


def test_one_seed_shows_no_gain_and_one_count_is_no_topic(make_runs):
    (claim,) = topic(make_runs(POINTS, {(10,): [0.5], (20,): [0.9]})).claims
    assert (claim.verdict, claim.estimate.low, claim.values["seeds"]) == ("no gain shown", None, 1)
    assert topic(make_runs(POINTS, {(10,): [0.5, 0.6], ("dense",): [0.9, 0.8]})) is None
    assert topic(make_runs({"learning_rate": "nuisance"}, {(0.1,): [0.5, 0.6], (0.2,): [0.9, 0.8]})) is None
