import pytest

from analysis.find import find
from analysis.reading.study_terms import Range, SearchTerms


def kinds(findings):
    return [caveat.kind for caveat in findings.caveats]


def test_factors_that_never_meet_are_not_compared(make_study):
    cells = {(10, 0.001, 0.0): [0.5, 0.6, 0.7], (10, 0.01, 2.0): [0.6, 0.7, 0.8]}
    findings = find(make_study(cells))
    assert [factor.name for factor in findings.factors] == ["points_per_image"]
    assert kinds(findings).count("not_comparable") == 2


def test_a_metric_without_floor_is_a_caveat(make_study):
    findings = find(make_study(data={"source": "x", "floors": {"all_forest": {"val/accuracy": 0.6}}}))
    assert findings.floors == []
    assert "no_floor" in kinds(findings)


def test_a_rising_curve_is_a_caveat_only_beyond_the_margin(make_study):
    assert "rising" in kinds(find(make_study(last_gain=0.011)))
    assert "rising" not in kinds(find(make_study(last_gain=0.009)))
    assert "rising" not in kinds(find(make_study(last_gain=-0.05)))


def test_the_edge_of_a_range_is_a_caveat_but_gamma_0_is_no_edge(make_study):
    texts = [caveat.text for caveat in find(make_study()).caveats if caveat.kind == "edge"]
    assert texts == [
        "Largest tried: points per image 50 leads; a larger one may do better.",
        "Smallest tried: learning rate 0.001 is chosen; a smaller one may do better.",
    ]


def test_yes_and_no_are_no_numbers_of_which_one_is_the_largest(make_study):
    runs = make_study({(1, 0.001, 0.0): [0.5, 0.51, 0.52], (2, 0.001, 0.0): [0.6, 0.61, 0.63]})
    for table in (runs.trials, runs.epochs):
        table["points_per_image"] = [n == 2 for n in table["points_per_image"]]
    findings = find(runs)
    assert findings.recommended.parameters["points_per_image"] is True
    assert "edge" not in kinds(findings)


def test_what_the_findings_rest_on_is_said(make_study):
    training = {trial_id: {**training, "weights": "none"} for trial_id, training in make_study().training.items()}
    data = {"source": "synthetic", "floors": {}}
    findings = find(make_study(training=training, data=data, excluded=[("demo-1", "1 of 2 epochs")]))
    expected = {"random_weights", "made_data", "excluded_runs", "unconfirmed", "seeds_not_scenes"}
    assert expected <= set(kinds(findings))
    assert {"random_weights", "made_data", "excluded_runs"}.isdisjoint(kinds(find(make_study())))
    assert findings.excluded == [["demo-1", "1 of 2 epochs"]]


def test_equal_seeds_are_no_certainty(points_study):
    assert "no_spread" in kinds(points_study({10: [0.5] * 3, 50: [0.7] * 3}))


def test_a_difference_that_is_the_same_at_every_seed_is_no_certainty(points_study):
    def texts(rows):
        return [caveat.text for caveat in points_study(rows).caveats if caveat.kind == "no_spread"]

    # .6 - .5 and .7 - .6 differ in the last bit.
    assert texts({10: [0.5, 0.6], 50: [0.6, 0.7]}) == [
        "Differences in points per image are the very same at every seed: nothing is known of their noise, and their"
        " verdicts are no certainty."
    ]
    assert texts({10: [0.5, 0.6], 50: [0.6, 0.701]}) == []


def test_the_smallest_count_where_recommended_is_an_edge_too(points_study):
    texts = [caveat.text for caveat in points_study({10: [0.7, 0.71, 0.72], 50: [0.6, 0.61, 0.63]}).caveats]
    assert "Smallest tried: points per image 10 is recommended; a smaller one may do as well." in texts


def test_every_caveat_fits_on_a_line_of_the_terminal(make_study):
    training = {trial_id: {**training, "weights": "none"} for trial_id, training in make_study().training.items()}
    data = {"source": "synthetic", "floors": {}}
    excluded = [("demo-1", "1 of 2 epochs")]
    runs = make_study(training=training, data=data, excluded=excluded, last_gain=0.1, without={((10, 0.01, 2.0), 1)})
    caveats = find(runs).caveats
    assert len({caveat.kind for caveat in caveats}) == 9
    assert max(len(caveat.text) for caveat in caveats) <= 96  # beside the four columns of "  - "


# Ranges ---------------------------------------------------------------------------------------------------------------


def searched(low, high, is_log=True):
    return SearchTerms(is_grid=False, ranges={"learning_rate": Range(low, high, is_log)})


@pytest.mark.parametrize(
    ("rate", "terms", "text"),
    [
        # Five per cent of three decades are .15 of one: a factor of 1.41.
        (8e-3, searched(1e-5, 1e-2), "Largest searched: learning rate 0.008 at points per image 10 is chosen"),
        (7e-3, searched(1e-5, 1e-2), ""),
        (1.3e-5, searched(1e-5, 1e-2), "Smallest searched: learning rate 1.3e-05 at points per image 10 is chosen"),
        (7e-3, searched(1e-5, 7.2e-3, is_log=False), "Largest searched: learning rate 0.007 at points per image 10"),
        (0.1, searched(1e-5, 1e-2), ""),  # given by hand, outside of the range
    ],
)
def test_a_winner_near_the_end_of_its_range_is_a_caveat(make_study, rate, terms, text):
    cells = {(10, rate, 0.0): [0.5, 0.6, 0.7], (50, 1e-3, 0.0): [0.6, 0.7, 0.81]}
    texts = [caveat.text for caveat in find(make_study(cells, search=terms)).caveats if " searched: " in caveat.text]
    assert [t[: len(text)] for t in texts] == ([text] if text else [])


def test_0_ends_the_scale_and_not_the_search(make_study):
    terms = SearchTerms(is_grid=False, ranges={"focal_gamma": Range(0, 5, is_log=False)})
    cells = {(10, 0.001, 0.1): [0.5, 0.6, 0.7], (50, 0.001, 4.9): [0.6, 0.7, 0.81]}
    texts = [caveat.text for caveat in find(make_study(cells, search=terms)).caveats if " searched: " in caveat.text]
    assert texts == ["Largest searched: focal gamma 4.9 at points per image 50 is chosen; widen the range."]


def test_an_edge_at_several_levels_is_one_caveat(make_study):
    cells = {(n, 9e-3, 0.0): [0.5 + n / 1000, 0.6, 0.7] for n in (10, 20, 30, 40)}
    texts = [caveat.text for caveat in find(make_study(cells, search=searched(1e-5, 1e-2))).caveats]
    assert (
        "Largest searched: learning rate 0.009 at points per image 10 and 3 more is chosen; widen the range." in texts
    )


def test_a_confirmed_curve_that_rises_is_a_caveat_too(make_study):
    winners = {(10, 0.001, 2.0): [0.5, 0.5, 0.51], (50, 0.001, 0.0): [0.65, 0.66, 0.67]}
    assert "rising" in kinds(find(make_study(confirm=winners, last_gain=0.02)))


def test_a_metric_without_floor_on_the_test_split_is_a_caveat(make_study):
    winners = {(10, 0.001, 2.0): [0.5, 0.5, 0.51], (50, 0.001, 0.0): [0.65, 0.66, 0.67]}
    runs = make_study(confirm=winners, data={"source": "x", "floors": {"all_forest": {"val/miou": 0.3}}})
    texts = [caveat.text for caveat in find(runs).caveats]
    assert "No floor for test/miou: whether a network is worth its cost is not checked." in texts


# Each reason, found by itself -----------------------------------------------------------------------------------------


def text_of(findings, kind):
    return [caveat.text for caveat in findings.caveats if caveat.kind == kind]


def test_a_floor_that_is_not_surely_beaten_is_a_caveat_and_a_known_result_is_none(make_study):
    floors = {"all_forest": {"val/miou": 0.3}, "image_majority": {"val/miou": 0.71}}
    data = {"source": "/data/forest", "floors": floors}
    assert text_of(find(make_study(data=data)), "floor_not_beaten") == [
        "Not beaten for sure: image majority; no network is needed for that."
    ]
    objective = {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01, "references": {"paper": 0.9}}
    assert text_of(find(make_study(objective=objective)), "floor_not_beaten") == []


def test_diverged_runs_are_counted_with_their_learning_rates(make_study):
    ended = [((10, 0.01, gamma), seed, "diverged") for gamma in (0.0, 2.0) for seed in (0, 1)]
    ended += [((50, 0.01, 0.0), 0, "stopped early")]
    assert text_of(find(make_study(ended=ended)), "diverged") == ["Diverged: 4 of 24 runs, at learning rate 0.01."]
    assert text_of(find(make_study(ended=ended[-1:])), "diverged") == []
    assert text_of(find(make_study()), "diverged") == []


def test_gamma_that_works_otherwise_at_another_rate_is_a_caveat(make_study, cells):
    noise = [0.001, -0.001, 0.0005]
    cells = {cell: [0.5 + each * (1 + cell[2]) for each in noise] for cell in cells}
    assert text_of(find(make_study(cells)), "interaction") == []
    for points in (10, 50):
        cells[points, 0.01, 2.0] = [value + 0.05 for value in cells[points, 0.01, 2.0]]
    assert text_of(find(make_study(cells)), "interaction") == [
        "Interaction: what gamma does depends on learning rate; no mean says it all."
    ]


def test_trials_that_differ_from_their_mirror_are_a_caveat(make_study):
    gaps = ["trial 0000000000aa: epoch 3 is missing; run `canopoint sync`"]
    assert text_of(find(make_study(gaps=gaps)), "gaps") == [
        "W&B: 1 trial differs from their own files; run `canopoint sync`."
    ]


def test_missing_cells_are_a_caveat(make_study, cells):
    del cells[50, 0.01, 2.0]
    assert text_of(find(make_study(cells)), "cells_missing") == [
        "Cells missing: 1 of 8 have no complete run at any seed."
    ]


def test_a_sound_study_has_no_caveat_but_its_scope(make_study):
    cells = {(n, rate, gamma): [0.6 + block - abs(rate - 0.01) - 0.02 * (n == 10) + 0.001 * (i + 1) * (gamma == 1)
                                - 0.002 * (n == 90) for i, block in enumerate((0, 0.05, 0.02))]
             for n in (10, 50, 90) for rate in (0.001, 0.01, 0.1) for gamma in (0.0, 1.0, 2.0)}  # fmt: skip
    winners = {(n, 0.01, 1.0): [0.55 - 0.02 * (n != 50) + each * (1 + n / 1000) for each in (0, 0.01, 0.02)]
               for n in (10, 50, 90)}  # fmt: skip
    assert kinds(find(make_study(cells, confirm=winners))) == ["seeds_not_scenes"]
