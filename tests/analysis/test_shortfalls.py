from dataclasses import replace

import pytest

from analysis.find import find
from analysis.reading.study_terms import SearchTerms
from analysis.wording import findings_text


def texts(findings, kind):
    return [caveat.text for caveat in findings.caveats if caveat.kind == kind]


def test_runs_are_left_out_by_kind_as_if_nothing_were_wrong(make_study):
    excluded = [
        *(
            (f"demo-{i}", "stopped early at epoch 1 of 9 by the scheduler: never compared with finished runs")
            for i in "ab"
        ),
        ("demo-c", "diverged: loss is nan"),
        ("demo-d", "no W&B run"),
        ("demo-e", "1 of 2 epochs"),
    ]
    assert texts(find(make_study(excluded=excluded)), "excluded_runs") == [
        "Left out: 2 stopped early, 1 diverged and 2 incomplete runs; the report gives each reason."
    ]
    assert texts(find(make_study(excluded=excluded[:1])), "excluded_runs") == [
        "Left out: 1 stopped early run; the report gives each reason."
    ]


def test_levels_without_a_result_are_named_with_the_reason(make_study, cells):
    cells |= {(20, rate, 0.0): [0.1, 0.1, 0.1] for rate in (0.1, 0.2)}
    cells |= {(5, 0.1, 0.0): [0.1, 0.1, 0.1]}
    ended = [((20, rate, 0.0), seed, "diverged") for rate in (0.1, 0.2) for seed in range(3)]
    ended += [((5, 0.1, 0.0), 0, "stopped early")]
    levels = [{"points_per_image": n} for n in (5, 10, 20, 50, 400)]
    findings = find(make_study(cells, ended=ended, search=SearchTerms(levels=levels)))
    assert [arm.scientific["points_per_image"] for arm in findings.arms] == [10, 50]
    assert texts(findings, "no_result") == [
        "No result at points per image 5: no setting ran to its end at every seed.",
        "No result at points per image 20: every setting diverged.",
        "No result at points per image 400: no run is complete.",
    ]
    without_file = find(make_study(cells, ended=ended))  # what the runs tell by themselves
    assert len(texts(without_file, "no_result")) == 2


def test_a_level_that_diverged_has_nothing_to_confirm(make_study, cells):
    cells[20, 0.1, 0.0] = [0.1]
    winners = {(10, 0.001, 2.0): [0.5, 0.5, 0.51], (50, 0.001, 0.0): [0.65, 0.66, 0.67]}
    findings = find(make_study(cells, ended=[((20, 0.1, 0.0), 0, "diverged")], confirm=winners))
    assert findings.phase == "confirm"
    assert texts(findings, "no_result") == ["No result at points per image 20: every setting diverged."]


def test_few_seeds_are_those_of_the_level_that_has_fewest(make_study):
    winners = {(10, 0.001, 2.0): [0.5], (50, 0.001, 0.0): [0.65, 0.66, 0.67]}
    findings = find(make_study(confirm=winners))
    assert texts(findings, "few_seeds") == ["Few seeds: one seed gives no interval; run at least 3 seeds."]
    assert findings.scientific[0].levels[0].verdict == "undecided"


def drawn(make_study, role):
    """Two counts at three draws of points, the last the luckiest, in place of gamma."""
    cells = {
        (n, 0.001, float(draw)): [n / 1000 + draw / 10 + each for each in (0.5, 0.51, 0.53)]
        for n in (10, 50)
        for draw in (0, 1, 2)
    }
    runs = make_study(cells, roles={"points_per_image": "scientific", "learning_rate": "nuisance", "focal_gamma": role})
    return replace(
        runs,
        parameters={name.replace("focal_gamma", "points_seed"): each for name, each in runs.parameters.items()},
        trials=runs.trials.rename(columns={"focal_gamma": "points_seed"}),
        epochs=runs.epochs.rename(columns={"focal_gamma": "points_seed"}),
    )


def test_draws_of_points_are_no_question_and_the_first_is_recommended(make_study):
    findings = find(drawn(make_study, "scientific"))
    assert [factor.name for factor in findings.factors] == ["points_per_image", "learning_rate"]
    assert findings.scientific[0].levels[0].value.value == pytest.approx(0.01 + 0.1 + 1.54 / 3)  # over all draws
    assert findings.recommended.parameters["points_seed"] == 0
    assert texts(findings, "same_points") == [
        "One draw of 3: the recommended arm is that of points seed 0; no interval speaks of other points."
    ]
    assert not texts(findings, "not_comparable")
    assert "over new starting weights and order" in findings_text(findings)


def test_a_draw_that_was_chosen_settles_nothing(make_study):
    findings = find(drawn(make_study, "nuisance"))
    assert "points_seed" not in [factor.name for factor in findings.factors]
    assert findings.provisional
    (text,) = texts(findings, "same_points")
    assert text.startswith("The luckiest of 3 draws of points was chosen")


def test_where_one_draw_of_points_serves_every_seed_no_interval_speaks_of_others(make_study):
    runs = make_study()
    fixed = find(replace(runs, training={key: {**each, "points_seed": 7} for key, each in runs.training.items()}))
    assert texts(fixed, "same_points") == [
        "One draw of points (points seed 7) at every seed; no interval speaks of other points."
    ]
    assert "new points" not in findings_text(fixed)
    assert not texts(find(runs), "same_points")
    assert "over new points, starting weights and order" in findings_text(find(runs))


def test_every_new_caveat_fits_on_a_line_of_the_terminal(make_study, cells):
    excluded = [("a", "stopped early at"), ("b", "diverged"), ("c", "no W&B run")]
    cells[20, 0.1, 0.0] = [0.1]
    terms = SearchTerms(is_grid=False, confirm_seeds=[100, 101])
    ended = [((20, 0.1, 0.0), 0, "diverged"), ((50, 0.01, 2.0), 0, "diverged")]
    winners = {(10, 0.001, 0.0): [0.5], (50, 0.001, 0.0): [0.65, 0.66, 0.67]}
    caveats = find(make_study(cells, ended=ended, confirm=winners, search=terms, excluded=excluded)).caveats
    kinds = {caveat.kind for caveat in caveats}
    assert kinds >= {"other_winner", "confirmation_incomplete", "unequal_seeds", "no_result", "broken_settings"}
    assert max(len(caveat.text) for caveat in caveats) <= 96
