from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.find import find
from analysis.reading.study_terms import Range, SearchTerms
from analysis.topics.interactions import find_interactions

ROLES = {"points_per_image": "scientific", "learning_rate": "nuisance", "focal_gamma": "nuisance"}
BLOCK = [0.0, 0.05, -0.02]
NOISE = [0.001, -0.001, 0.0005]


def grid(effect, points=(10, 50), rates=(0.001, 0.01), gammas=(0, 2)):
    """Readings with main effects, a block for each seed, and `effect` at the second rate and gamma alone."""
    return {
        (n, rate, gamma): [
            0.5 + n / 1000 - rate + gamma / 100 + block + effect * (rate == 0.01) * (gamma == 2) + noise * (gamma == 2)
            for block, noise in zip(BLOCK, NOISE, strict=True)
        ]
        for n in points
        for rate in rates
        for gamma in gammas
    }


def topic(runs):
    return find_interactions(runs, find(runs))


def test_a_difference_of_differences_is_paired_by_seed_and_averaged_over_the_rest(make_runs):
    cells = grid(0.04)
    cells[50, 0.01, 2] = [value + extra for value, extra in zip(cells[50, 0.01, 2], (0.01, 0.02, 0.0), strict=True)]
    (claim,) = topic(make_runs(ROLES, cells)).claims
    # At 10 points .04 at every seed; at 50 points .05, .06, .04: in the mean .045, .05, .04.
    half = stats.t.ppf(0.975, 2) * 0.005 / 3**0.5
    assert (claim.estimate.value, claim.estimate.low) == pytest.approx((0.045, 0.045 - half))
    assert claim.subject == "gamma 0 to 2, 0.001 to 0.01"
    assert claim.values == {"with": "learning rate", "seeds": 3, "settings": 2}
    assert claim.verdict == "interact"
    assert len(claim.run_ids) == 24


def test_main_effects_alone_show_no_interaction(make_runs):
    found = topic(make_runs(ROLES, {cell: [v + 0.001 * i * len(str(cell)) for i, v in enumerate(values)]
                                    for cell, values in grid(0.0).items()}))  # fmt: skip
    assert [claim.verdict for claim in found.claims] == ["no interaction shown"]
    assert found.text == "No interaction of gamma with the learning rate is shown."


def test_three_levels_each_give_adjacent_tetrads_that_hold_together(make_runs):
    cells = grid(0.04, points=(10,), rates=(0.001, 0.01, 0.1), gammas=(0, 1, 2))
    claims = topic(make_runs(ROLES, cells)).claims
    assert [claim.subject for claim in claims] == [
        "gamma 0 to 1, 0.001 to 0.01",
        "gamma 0 to 1, 0.01 to 0.1",
        "gamma 1 to 2, 0.001 to 0.01",
        "gamma 1 to 2, 0.01 to 0.1",
    ]
    assert [claim.estimate.value for claim in claims] == pytest.approx([0, 0, 0.04, -0.04])
    assert {round(claim.estimate.confidence, 6) for claim in claims} == {1 - 0.05 / 4}


def test_in_equal_noise_one_study_in_twenty_shows_an_interaction_that_is_none(make_runs):
    rng = np.random.default_rng(3)
    runs = make_runs(ROLES, grid(0, rates=(1e-3, 1e-2, 1e-1)))
    findings = find(runs)
    found = 0
    for _ in range(1000):
        blocks = rng.normal(0, 0.05, 3)
        cells = [replace(cell, readings=list(blocks + rng.normal(0, 0.02, 3))) for cell in findings.cells]
        claims = find_interactions(runs, replace(findings, cells=cells)).claims
        found += any(claim.verdict == "interact" for claim in claims)
    assert found <= 70  # at most 50 expected, and 6.9 the standard deviation


def test_a_class_balance_factor_is_held_against_its_usual_level(make_runs):
    roles = {"class_weights": "nuisance", "focal_gamma": "nuisance"}
    cells = {
        (weights, gamma): [0.5 + block + 0.03 * (weights == "balanced") * gamma + NOISE[i] * gamma
                           for i, block in enumerate(BLOCK)]
        for weights in ("balanced", "none", "prior")
        for gamma in (0, 2)
    }  # fmt: skip
    found = topic(make_runs(roles, cells))
    assert [claim.subject for claim in found.claims] == [
        "gamma 0 to 2, none to balanced",
        "gamma 0 to 2, none to prior",
    ]
    assert [claim.estimate.value for claim in found.claims] == pytest.approx([0.06, 0.0])
    assert found.text.startswith("What gamma does depends on the class weights")


def test_the_rarer_class_is_held_against_the_commoner_one(make_runs):
    def ious(levels, value):
        return {"val/iou_forest": value - 0.2 + 0.05 * levels["focal_gamma"], "val/iou_background": value}

    roles = {"points_per_image": "scientific", "focal_gamma": "nuisance"}
    cells = {(n, gamma): [0.5 + n / 100, 0.6, 0.7] for n in (10, 20) for gamma in (0, 1)}
    share = {"source": "x", "forest_share": {"val": 0.3}}
    (claim,) = topic(make_runs(roles, cells, more=ious, data=share)).claims
    assert claim.subject == "gamma 0 to 1, forest against background"
    assert claim.estimate.value == pytest.approx(0.05)
    assert (claim.verdict, claim.values["settings"]) == ("interact", 2)
    common = {"source": "x", "forest_share": {"val": 0.7}}
    (claim,) = topic(make_runs(roles, cells, more=ious, data=common)).claims
    assert claim.estimate.value == pytest.approx(-0.05)
    equal = {"source": "x", "forest_share": {"val": 0.5}}
    assert topic(make_runs(roles, cells, more=ious, data=equal)) is None


def test_a_missing_run_costs_its_own_setting_at_its_own_seed(make_runs):
    cells = grid(0.04)
    cells[10, 0.01, 2] = [cells[10, 0.01, 2][0], None, cells[10, 0.01, 2][2]]
    (claim,) = topic(make_runs(ROLES, cells)).claims
    assert (claim.values["seeds"], claim.values["settings"]) == (3, 2)
    assert claim.estimate.value == pytest.approx(0.04)


def test_a_searched_or_a_single_gamma_is_no_topic(make_runs):
    assert topic(make_runs(ROLES, grid(0, gammas=(0,)))) is None
    search = SearchTerms(is_grid=False, ranges={"focal_gamma": Range(0, 5, False)})
    assert topic(make_runs(ROLES, grid(0), search=search)) is None
