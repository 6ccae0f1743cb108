import pytest

from analysis.find import find
from analysis.reading.study_terms import SearchTerms
from analysis.sample_size import further_seeds
from analysis.statistics import paired_difference
from analysis.wording import findings_text


def factor(findings, name):
    return next(factor for factor in findings.factors if factor.name == name)


def verdicts(findings, name="points_per_image"):
    return {level.level: level.verdict for level in factor(findings, name).levels}


def test_each_point_count_is_read_at_its_setting_of_the_best_mean_over_all_seeds(make_study):
    # 10 points: gamma 2 has .58, .58, .62, mean .5933; gamma 0 has .60, .62, .50, mean .5733.
    findings = find(make_study())
    ten, fifty = findings.arms
    assert ten.readings == [0.58, 0.58, 0.62]
    assert ten.value.value == pytest.approx(1.78 / 3)
    assert ten.parameters == {"points_per_image": 10, "learning_rate": 0.001, "focal_gamma": 2.0}
    assert ten.run_ids == ["demo-000000000064", "demo-000000000065", "demo-000000000066"]
    assert fifty.readings == [0.70, 0.71, 0.72]
    assert [arm.value for arm in findings.arms] == [findings.cell(arm.parameters).value for arm in findings.arms]


def test_the_difference_of_point_counts_is_paired_by_seed(make_study):
    # -.12, -.13, -.10: mean -.116667, sd .015275; 4.302653 * .015275 / sqrt(3) = .037946.
    (ten, fifty) = factor(find(make_study()), "points_per_image").levels
    assert ten.difference.value == pytest.approx(-0.35 / 3)
    assert (ten.difference.low, ten.difference.high) == pytest.approx((-0.154613, -0.078721), abs=2e-6)
    assert (ten.verdict, fifty.verdict, fifty.difference) == ("not enough", "best", None)


def test_the_same_difference_is_undecided_at_a_larger_margin(make_study):
    objective = {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.08}  # the upper end is -.0787
    assert verdicts(find(make_study(objective=objective))) == {10: "undecided", 50: "best"}


def test_nuisance_levels_are_means_over_all_other_cells(make_study):
    # 0.001 at seed 0: (.60 + .58 + .70 + .65) / 4 = .6325; seed 1: .64; seed 2: .6225. 0.01: .425 at each.
    rates = factor(find(make_study()), "learning_rate")
    assert rates.levels[0].readings == pytest.approx([0.6325, 0.64, 0.6225])
    assert rates.levels[1].readings == pytest.approx([0.425] * 3)
    assert rates.levels[1].difference.value == pytest.approx(-0.62 / 3)
    assert verdicts(find(make_study()), "learning_rate") == {0.001: "best", 0.01: "worse"}
    assert len(rates.levels[0].run_ids) == 4 * 3


def test_the_smallest_enough_count_is_recommended_not_the_best_mean(points_study):
    # 50 - 100: -.002, -.002, -.003, within .01 for sure; 10 - 100: about -.1.
    rows = {10: [0.60, 0.62, 0.61], 50: [0.698, 0.708, 0.717], 100: [0.700, 0.710, 0.720]}
    findings = points_study(rows)
    assert verdicts(findings) == {10: "not enough", 50: "enough", 100: "best"}
    assert findings.recommended.parameters["points_per_image"] == 50
    assert factor(findings, "points_per_image").best_level == 100
    assert "50 is enough" in findings_text(findings)


def test_enough_is_within_the_margin_of_every_other_level_not_of_the_best_mean_alone(points_study):
    # 50 - 100: -.001, -.001, -.0011, within .01 for sure; but 200 swings so much that it may be far better than both.
    rows = {50: [0.699, 0.709, 0.719], 100: [0.700, 0.710, 0.7201], 200: [0.60, 0.80, 0.70]}
    findings = points_study(rows)
    assert verdicts(findings) == {50: "undecided", 100: "best", 200: "undecided"}
    assert [level.rivals for level in factor(findings, "points_per_image").levels] == [[200], [200], [50, 100]]
    assert findings.recommended.parameters["points_per_image"] == 100
    text = factor(findings, "points_per_image").levels[0].text
    assert "against 100; 200 may lead by more than the margin; some " in text
    steady = points_study({**rows, 200: [0.6995, 0.7095, 0.7196]})  # now 50 - 200 is about -.0005 at every seed
    assert verdicts(steady)[50] == "enough"
    assert steady.recommended.parameters["points_per_image"] == 50


def test_a_level_surely_beyond_the_best_mean_is_not_enough_whatever_the_others_do(points_study):
    # 10 - 100: -.1 at every seed; 200 swings, so that 10 - 200 is undecided.
    findings = points_study({10: [0.60, 0.61, 0.62], 100: [0.700, 0.710, 0.7201], 200: [0.55, 0.80, 0.70]})
    assert verdicts(findings) == {10: "not enough", 100: "best", 200: "undecided"}


def test_nuisance_levels_are_judged_by_the_same_rule(points_study):
    rows = {50: [0.699, 0.709, 0.719], 100: [0.700, 0.710, 0.7201], 200: [0.60, 0.80, 0.70]}
    names = ("points_per_image", "learning_rate", "focal_gamma")
    findings = points_study(rows, roles=dict.fromkeys(names, "nuisance"))
    assert verdicts(findings) == {50: "undecided", 100: "best", 200: "undecided"}


def test_where_smaller_is_better_everything_is_mirrored(make_study, cells):
    mirrored = {cell: [1 - value for value in values] for cell, values in cells.items()}
    objective = {"metric": "val/miou", "mode": "min", "at": "last", "margin": 0.01}
    data = {"floors": {"above": {"val/miou": 0.32}, "inside": {"val/miou": 0.30}, "below": {"val/miou": 0.26}}}
    plain, mirror = find(make_study()), find(make_study(mirrored, objective=objective, data=data))
    assert mirror.recommended.parameters == plain.recommended.parameters
    for name in mirror.recommended.parameters:
        assert verdicts(mirror, name) == verdicts(plain, name)
    # 1 - .71 = .29 [.265, .315], and a floor is a loss that ought to be undercut.
    assert [floor.verdict for floor in mirror.floors] == ["beats", "undecided", "does not beat"]


def test_two_scientific_factors_are_averaged_over_each_other(make_study):
    roles = {"points_per_image": "scientific", "learning_rate": "scientific", "focal_gamma": "nuisance"}
    findings = find(make_study(roles=roles))
    # Arms at seed 0: (10, .001) .58, (10, .01) .40, (50, .001) .70, (50, .01) .45; a level is the mean of its two.
    assert [arm.readings[0] for arm in findings.arms] == [0.58, 0.40, 0.70, 0.45]
    assert [x.readings[0] for x in factor(findings, "points_per_image").levels] == pytest.approx([0.49, 0.575])
    assert [x.readings[0] for x in factor(findings, "learning_rate").levels] == pytest.approx([0.64, 0.425])


# Looks and seeds needed -----------------------------------------------------------------------------------------------


def test_confirmed_levels_spend_their_error_by_looks(make_study):
    # Three pairs. 10 points were settled at the first look, so that seeds 103 and 104 went to 50 and 100 alone.
    confirm = {
        (10, 0.001, 2.0): [0.50, 0.52, 0.51],
        (50, 0.001, 0.0): [0.60, 0.62, 0.64, 0.61, 0.63],
        (100, 0.001, 0.0): [0.61, 0.62, 0.66, 0.60, 0.65],
    }
    terms = {"confirm_seeds": [100, 101, 102], "extensions": [[103, 104]]}
    findings = find(make_study(confirm=confirm, search=SearchTerms(**terms)))
    ten, fifty, _ = factor(findings, "points_per_image").levels
    assert ten.difference.confidence == pytest.approx(1 - 0.04 / 3)
    assert (fifty.difference.num_seeds, fifty.difference.confidence) == (5, pytest.approx(1 - 0.005 / 3))
    # Without the ledger's word each of the two seeds counts as a look.
    alone = find(make_study(confirm=confirm, search=SearchTerms(confirm_seeds=[100, 101, 102])))
    assert factor(alone, "points_per_image").levels[1].difference.confidence == pytest.approx(1 - 0.0025 / 3)
    # Where nothing says what was planned, the seeds that all levels have were.
    unknown = find(make_study(confirm=confirm))
    assert factor(unknown, "points_per_image").levels[1].difference.confidence == pytest.approx(1 - 0.0025 / 3)


def test_exploration_is_looked_at_once(points_study):
    findings = points_study({10: [0.60, 0.62, 0.61], 50: [0.698, 0.708, 0.717, 0.72]})
    assert factor(findings, "points_per_image").levels[0].difference.confidence == pytest.approx(0.95)


def test_an_undecided_level_says_what_would_decide_it(points_study):
    # 10 - 50: 0, +.0149, -.0151: it seems nearly as good, .01 above the margin, and varies by .015.
    findings = points_study({10: [0.70, 0.725, 0.695], 50: [0.70, 0.7101, 0.7101]})
    ten = factor(findings, "points_per_image").levels[0]
    assert ten.verdict == "undecided"
    assert ten.seeds_needed == further_seeds(ten.difference, 0.01, "max", 0.95) > 1
    assert ten.text.endswith(f"; some {ten.seeds_needed} further seeds would likely decide (80 %)")
    nearly = points_study({10: [0.70, 0.715, 0.705], 50: [0.70, 0.7101, 0.7101]})
    assert factor(nearly, "points_per_image").levels[0].text.endswith("; 1 further seed would likely decide (80 %)")


def test_the_rival_that_needs_most_counts(points_study):
    # 50 - 100 is settled, 50 - 200 swings by .1: what is needed is what that takes, of three pairs.
    rows = {50: [0.699, 0.709, 0.719], 100: [0.700, 0.710, 0.7201], 200: [0.60, 0.80, 0.70]}
    fifty, _, two_hundred = factor(points_study(rows), "points_per_image").levels
    swing = paired_difference(rows[50], rows[200], 1 - 0.05 / 3)
    assert fifty.seeds_needed == further_seeds(swing, 0.01, "max", 1 - 0.05 / 3) > 100
    # 200 seems .01 behind 100, the margin itself: no number of seeds is known to tell.
    assert two_hundred.seeds_needed is None
    assert two_hundred.text.endswith("; 1000 further seeds would not decide")


def test_a_level_that_seems_beyond_faces_the_best_alone(points_study):
    rows = {10: [0.62, 0.68, 0.66], 50: [0.60, 0.72, 0.63], 100: [0.70, 0.71, 0.72]}
    ten = factor(points_study(rows), "points_per_image").levels[0]
    assert (ten.verdict, ten.rivals) == ("undecided", [50, 100])
    assert ten.seeds_needed == further_seeds(ten.difference, 0.01, "max", 1 - 0.05 / 3)


def test_what_is_decided_or_unknown_needs_no_seeds(make_study, cells):
    assert [level.seeds_needed for level in factor(find(make_study()), "points_per_image").levels] == [None, None]
    single = find(make_study({cell: values[:1] for cell, values in cells.items()}))
    assert [level.seeds_needed for level in factor(single, "points_per_image").levels] == [None, None]
    assert "further seed" not in findings_text(single)


def test_names_and_yes_or_no_are_not_enough_of_anything_but_better_or_worse(make_study):
    """Of amounts less may do; of names none is less, and the best is recommended."""
    values = [[0.70, 0.71, 0.72], [0.7005, 0.7104, 0.7206], [0.50, 0.52, 0.51]]

    def found(names):
        runs = make_study({(n, 0.001, 0.0): row for n, row in zip(range(1, len(names) + 1), values, strict=False)})
        for table in (runs.trials, runs.epochs):
            table["points_per_image"] = [names[n - 1] for n in table["points_per_image"]]
        return factor(find(runs), "points_per_image")

    assert verdicts_of(found(["a", "b", "c"])) == {"a": "as good", "b": "best", "c": "worse"}
    assert found(["a", "b", "c"]).recommended_level == "b"
    assert verdicts_of(found([False, True])) == {False: "as good", True: "best"}
    assert found([False, True]).recommended_level is True
    assert verdicts_of(found([10, "dense"])) == {10: "enough", "dense": "best"}
    assert found([10, "dense"]).recommended_level == 10


def verdicts_of(found):
    return {level.level: level.verdict for level in found.levels}
