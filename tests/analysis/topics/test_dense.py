import numpy as np
import pytest
from scipy import optimize, stats

from analysis.find import find
from analysis.reading.study_terms import SearchTerms
from analysis.topics.dense import find_dense, paired_ratio

POINTS = {"points_per_image": "scientific"}
CELLS = {
    (10,): [0.60, 0.62, 0.67, 0.61],
    (50,): [0.698, 0.711, 0.722, 0.699],
    ("dense",): [0.70, 0.71, 0.72, 0.70],
}


def test_the_share_of_dense_is_the_ratio_of_means_with_both_verdicts(make_runs):
    topic = find_dense(runs := make_runs(POINTS, CELLS), find(runs))
    few, many = topic.claims
    assert [few.subject, many.subject] == ["10 points", "50 points"]
    assert few.estimate.value == pytest.approx(2.5 / 2.83)
    assert (few.verdict, many.verdict) == ("beyond the margin", "within the margin")
    assert many.values["difference"] == pytest.approx(0.0)
    assert topic.text.startswith("Of what labelling every pixel reaches, 10 points reach 88.3 % [")
    assert topic.text.endswith("Within 0.01 of it for sure: 50 points.")


def test_every_look_at_a_confirmed_study_spends_of_the_same_5_percent(make_runs):
    search = SearchTerms(confirm_seeds=[100, 101], extensions=[[102, 103]])
    topic = find_dense(runs := make_runs(POINTS, CELLS, CELLS, search=search), find(runs))
    few = topic.claims[0]
    # Two counts against dense, at the second look: a tenth of 5 % for the two.
    assert few.estimate.confidence == pytest.approx(1 - 0.1 * 0.05 / 2)
    half = stats.t.ppf(1 - 0.1 * 0.05 / 4, 3) * np.std([0.10, 0.09, 0.05, 0.09], ddof=1) / 2
    assert (few.values["low"], few.values["high"]) == pytest.approx((-0.0825 - half, -0.0825 + half))


def test_fiellers_interval_holds_the_ratios_that_a_paired_t_test_does_not_reject():
    values, dense = np.array([0.60, 0.62, 0.67]), np.array([0.70, 0.71, 0.73])
    estimate = paired_ratio(values, dense, 0.95)

    def p_value(ratio):
        return stats.ttest_1samp(values - ratio * dense, 0).pvalue - 0.05

    middle = estimate.value
    assert estimate.low == pytest.approx(optimize.brentq(p_value, middle - 0.5, middle), abs=1e-6)
    assert estimate.high == pytest.approx(optimize.brentq(p_value, middle, middle + 0.5), abs=1e-6)


def test_fiellers_interval_covers_as_claimed():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        block = rng.normal(0, 0.05, 3)
        dense = 0.7 + block + rng.normal(0, 0.01, 3)
        estimate = paired_ratio(0.63 + block + rng.normal(0, 0.03, 3), dense, 0.95)
        hits += estimate.low is None or estimate.low <= 0.9 <= estimate.high
    assert 0.935 <= hits / 2000 <= 0.965


def test_seeds_that_one_lacks_are_left_out_and_single_ones_give_no_interval():
    nan = np.nan
    whole = paired_ratio(np.array([0.6, nan, 0.7]), np.array([0.8, 0.1, 0.8]), 0.95)
    assert (whole.value, whole.num_seeds) == (pytest.approx(1.3 / 1.6), 2)
    single = paired_ratio(np.array([0.6, nan]), np.array([0.8, 0.9]), 0.95)
    assert (single.value, single.low, single.num_seeds) == (pytest.approx(0.75), None, 1)
    none = paired_ratio(np.array([0.6, nan]), np.array([nan, 0.8]), 0.95)
    assert (none.value, none.low, none.num_seeds) == (pytest.approx(0.75), None, 0)


def test_a_reference_that_may_be_0_gives_no_ends():
    assert paired_ratio(np.array([0.6, 0.7]), np.array([0.01, 0.4]), 0.95).low is None
    assert paired_ratio(np.array([0.6, 0.7]), np.zeros(2), 0.95) is None


@pytest.mark.parametrize("other", [50, "many"])
def test_no_dense_arm_is_no_topic(make_runs, other):
    runs = make_runs(POINTS, {(10,): [0.5, 0.6], (other,): [0.7, 0.8]})
    assert find_dense(runs, find(runs)) is None
