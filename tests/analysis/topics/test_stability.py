from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.find import find
from analysis.reading.study_terms import Range, SearchTerms
from analysis.report.tables import topic_table
from analysis.topics.stability import find_stability, share_interval

ROLES = {"points_per_image": "scientific", "learning_rate": "nuisance"}
CELLS = {
    (10, 0.001): [0.50, 0.52, 0.54],
    (50, 0.001): [0.60, 0.62, 0.64],
    (10, 0.1): [0.40, 0.50, 0.60],
}
ENDED = {(50, 0.1): ["diverged", "diverged", "stopped early"]}


def topic(runs):
    return find_stability(runs, find(runs))


def test_each_rate_has_its_share_of_diverged_runs_and_its_spread(make_runs):
    found = topic(make_runs(ROLES, CELLS, ended=ENDED))
    calm, wild = found.claims
    assert [calm.subject, wild.subject] == ["learning rate 0.001", "learning rate 0.1"]
    assert (calm.values["diverged"], calm.values["runs"], calm.verdict) == (0, 6, "no divergence seen")
    assert (wild.values["diverged"], wild.values["runs"], wild.verdict) == (2, 6, "diverged")
    exact = stats.binomtest(2, 6).proportion_ci(0.975, method="exact")  # two rates: each at 97.5 %
    assert (wild.estimate.value, wild.estimate.low, wild.estimate.high) == pytest.approx((1 / 3, exact.low, exact.high))
    assert calm.values["spread"] == pytest.approx(0.02)
    assert wild.values["spread"] == pytest.approx(0.1)
    assert len(wild.run_ids) == 6
    assert found.text.startswith("Diverged: 2 of 6 at learning rate 0.1.")


def test_the_table_names_the_runs_behind_each_share(make_runs):
    """The interval is over six runs, whatever seeds they are of, and both hold together."""
    table = topic_table(topic(make_runs(ROLES, CELLS, ended=ENDED)), 0)
    assert [row[1].note for row in table.rows] == ["6 runs", "6 runs"]
    assert table.caption.endswith("95 % for all rows together")


def test_epochs_to_95_per_cent_are_the_first_that_reach_it(make_runs):
    def curve(value):
        return [0.5 * value, 0.94 * value, 0.96 * value, value] if value < 0.5 else [value, 0.5 * value, value]

    calm, wild = topic(make_runs(ROLES, CELLS, curve=curve)).claims
    assert calm.values["epochs"] == 1.0  # already the first, whatever follows
    assert wild.values["epochs"] == pytest.approx((3 + 1 + 1) / 3)
    assert wild.values["epochs_low"] == 1.0  # no mean lies before the first epoch


def test_where_smaller_is_better_the_curve_comes_from_above(make_runs):
    objective = {"metric": "val/miou", "mode": "min", "at": "last", "margin": 0.01}
    runs = make_runs(
        ROLES, CELLS, curve=lambda value: [2 * value, 1.1 * value, 1.04 * value, value], objective=objective
    )
    assert [claim.values["epochs"] for claim in topic(runs).claims] == [3.0, 3.0]


def test_a_searched_range_is_read_by_decades(make_runs):
    cells = {(10, rate): [0.5, 0.6] for rate in (0.001, 0.002, 0.0099, 0.01, 0.5)}
    search = SearchTerms(is_grid=False, ranges={"learning_rate": Range(1e-3, 1, True)})
    claims = topic(make_runs(ROLES, cells, search=search)).claims
    assert [(claim.subject, claim.values["runs"]) for claim in claims] == [
        ("learning rate 0.001 to 0.01", 6),
        ("learning rate 0.01 to 0.1", 2),
        ("learning rate 0.1 to 1", 2),
    ]


def test_without_a_varied_rate_there_is_no_topic(make_runs):
    assert topic(make_runs({"points_per_image": "scientific"}, {(10,): [0.5, 0.6]})) is None
    assert topic(make_runs(ROLES, {(10, "auto"): [0.5, 0.6], (10, 0.1): [0.5, 0.6]})) is None


def test_a_rate_at_which_all_diverged_has_no_spread(make_runs):
    claims = topic(make_runs(ROLES, {(10, 0.001): [0.5, 0.6]}, ended={(10, 1.0): ["diverged"]})).claims
    assert (claims[1].estimate.value, claims[1].estimate.high) == (1.0, 1.0)
    assert "spread" not in claims[1].values


@pytest.mark.parametrize(("hits", "runs"), [(0, 9), (9, 9), (1, 30), (17, 40)])
def test_shares_equal_scipys_exact_interval(hits, runs):
    exact = stats.binomtest(hits, runs).proportion_ci(0.95, method="exact")
    found = share_interval(hits, runs, 3, 0.95)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_ten_thousand_runs_of_a_hundred_epochs_take_no_time(make_runs):
    import time

    import pandas as pd

    num_runs, num_epochs = 10_000, 100
    small = make_runs(ROLES, CELLS)
    rng = np.random.default_rng(0)
    ids = np.array([f"demo-{i:012x}" for i in range(num_runs)], dtype=object)
    trials = pd.DataFrame(
        {
            "run_id": ids,
            "trial_id": ids,
            "seed": np.tile(np.arange(5), num_runs // 5),
            "phase": "explore",
            "points_per_image": np.repeat(np.arange(20) * 10, num_runs // 20),
            "learning_rate": np.repeat(np.tile([0.001, 0.01, 0.1, 1.0], 500), 5),
            "objective": rng.normal(0.6, 0.01, num_runs),
        }
    )
    epochs = pd.DataFrame(
        {
            "run_id": np.repeat(ids, num_epochs),
            "epoch": np.tile(np.arange(1, num_epochs + 1), num_runs),
            "val/miou": np.tile(np.linspace(0.1, 0.6, num_epochs), num_runs),
        }
    )
    runs = replace(small, trials=trials, epochs=epochs)
    findings = find(small)
    start = time.perf_counter()
    claims = find_stability(runs, findings).claims
    assert time.perf_counter() - start < 1.0  # 0.05 s alone on a core; the bound allows for a busy machine
    assert [claim.values["runs"] for claim in claims] == [2500] * 4
