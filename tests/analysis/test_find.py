import pytest

from analysis.find import find
from analysis.wording import findings_text


def verdicts(findings, name="points_per_image"):
    levels = next(factor.levels for factor in findings.factors if factor.name == name)
    return {level.level: level.verdict for level in levels}


def kinds(findings):
    return [caveat.kind for caveat in findings.caveats]


def test_the_recommended_configuration_is_the_best_setting_over_all_seeds(make_study):
    findings = find(make_study())
    assert findings.recommended.parameters == {"points_per_image": 50, "learning_rate": 0.001, "focal_gamma": 0.0}
    assert findings.headline.startswith(
        "Label 50 points per image, with learning rate 0.001 and focal gamma 0: val/miou"
    )
    assert "0.710 [0.685, 0.735] over 3 seeds" in findings.headline  # .71 +- 4.302653 * .01 / sqrt(3) = .0248
    assert not findings.provisional


def test_the_headline_s_number_is_that_of_the_exported_cell(make_study):
    # Seed 0 alone would choose gamma 2 (.74), all seeds choose gamma 0: .71, not a mixture of the two.
    cells = {(50, 0.001, 0.0): [0.70, 0.71, 0.72], (50, 0.001, 2.0): [0.74, 0.65, 0.66]}
    findings = find(make_study(cells))
    cell = findings.cell(findings.recommended.parameters)
    assert cell.parameters["focal_gamma"] == 0.0
    assert findings.recommended.value == findings.floors[0].value == cell.value
    assert findings.recommended.run_ids == cell.run_ids
    assert cell.value.text() in findings.headline


def test_a_factor_that_does_not_compare_leaves_the_others_recommendation_in_force(make_study):
    # No count has all three rates; at rate .001 both counts meet, and 50 is best by .1. Rate .01 at 10 points has the
    # best mean of all, but 10 points are not enough; of the two cells at 50 points, rate .1 has the better mean.
    cells = {
        (10, 0.001, 0.0): [0.60, 0.61, 0.62],
        (50, 0.001, 0.0): [0.70, 0.71, 0.7201],
        (10, 0.01, 0.0): [0.80, 0.81, 0.82],
        (50, 0.1, 0.0): [0.73, 0.74, 0.75],
    }
    roles = {"points_per_image": "scientific", "learning_rate": "scientific", "focal_gamma": "nuisance"}
    findings = find(make_study(cells, roles=roles))
    assert verdicts(findings) == {10: "not enough", 50: "best"}
    assert "learning_rate" not in {factor.name for factor in findings.factors}
    assert findings.recommended.scientific == {"points_per_image": 50, "learning_rate": 0.1}


def test_a_study_without_scientific_factor_recommends_the_best_setting(make_study, cells):
    fifty = {cell: values for cell, values in cells.items() if cell[0] == 50}
    roles = dict.fromkeys(("points_per_image", "learning_rate", "focal_gamma"), "nuisance")
    findings = find(make_study(fifty, roles=roles))
    assert len(findings.arms) == 1
    assert findings.headline.startswith(
        "Use points per image 50, learning rate 0.001 and focal gamma 0: val/miou 0.710"
    )
    assert verdicts(findings, "learning_rate") == {0.001: "best", 0.01: "worse"}


def test_where_everything_is_undecided_the_best_mean_is_recommended_provisionally(points_study):
    findings = points_study({10: [0.60, 0.72, 0.66], 50: [0.70, 0.66, 0.68], 100: [0.66, 0.69, 0.72]})
    assert verdicts(findings) == {10: "undecided", 50: "undecided", 100: "best"}
    assert findings.recommended.parameters["points_per_image"] == 100
    assert findings.provisional
    assert findings.headline.startswith("Provisional: label 100 points")
    assert findings.headline.endswith("; no difference in points per image is settled.")


def test_one_seed_is_exploratory_and_has_no_interval(make_study, cells):
    findings = find(make_study({cell: values[:1] for cell, values in cells.items()}))
    assert findings.provisional
    assert findings.headline.startswith("Provisional")
    assert all(level.value.low is None for f in findings.factors for level in f.levels)
    assert verdicts(findings) == {10: "undecided", 50: "best"}
    assert "few_seeds" in kinds(findings)
    assert findings.floors[0].verdict == "undecided"
    assert "[" not in findings_text(findings)


@pytest.mark.parametrize(
    ("floor", "verdict", "phrase"),
    [(0.68, "beats", "beat"), (0.70, "undecided", "may or may not beat"), (0.74, "does not beat", "do NOT beat")],
)
def test_floors_are_told_plainly(make_study, floor, verdict, phrase):
    # The recommended 50 points reach .71 [.685, .735].
    data = {"source": "x", "floors": {"image_majority": {"val/miou": floor, "val/accuracy": 0.9}}}
    (finding,) = find(make_study(data=data)).floors
    assert (finding.floor, finding.verdict) == (floor, verdict)
    assert finding.text.startswith(f"The networks {phrase} an oracle")


def test_known_results_count_like_floors(make_study):
    objective = {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01, "references": {"boosting": 0.633}}
    findings = find(make_study(objective=objective))
    assert (findings.floors[-1].name, findings.floors[-1].floor, findings.floors[-1].verdict) == (
        "boosting", 0.633, "beats",
    )  # fmt: skip
    assert findings.floors[-1].text == "The networks beat boosting (known result 0.633)."


def test_every_pixel_is_more_than_any_number_of_points(points_study):
    # 100 points are within the margin of dense supervision, 10 are not: 100 is the smallest count that is enough.
    findings = points_study({"dense": [0.700, 0.701, 0.702], 10: [0.600, 0.601, 0.602], 100: [0.6981, 0.6991, 0.7001]})
    factor = findings.factors[0]
    assert [level.level for level in factor.levels] == [10, 100, "dense"]
    assert verdicts(findings) == {10: "not enough", 100: "enough", "dense": "best"}
    assert factor.recommended_level == 100


def test_where_no_count_is_enough_every_pixel_is_to_be_labelled(points_study):
    findings = points_study({"dense": [0.800, 0.801, 0.802], 10: [0.600, 0.601, 0.602]})
    assert findings.headline.startswith("Label every pixel, with learning rate 0.001 and focal gamma 0: val/miou 0.801")
