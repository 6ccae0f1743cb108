import json

import numpy as np
import pandas as pd
import pytest

from analysis.findings import Findings, find, findings_text, level_text, listed
from analysis.runs import StudyRuns
from trainable.config import InputError, TrainConfig

# (points, learning rate, gamma) -> val/miou at seeds 0, 1, 2
CELLS = {
    (10, 0.001, 0.0): [0.60, 0.62, 0.50],
    (10, 0.001, 2.0): [0.58, 0.58, 0.62],
    (10, 0.01, 0.0): [0.40, 0.40, 0.40],
    (10, 0.01, 2.0): [0.40, 0.40, 0.40],
    (50, 0.001, 0.0): [0.70, 0.71, 0.72],
    (50, 0.001, 2.0): [0.65, 0.65, 0.65],
    (50, 0.01, 0.0): [0.45, 0.45, 0.45],
    (50, 0.01, 2.0): [0.45, 0.45, 0.45],
}
NAMES = ("points_per_image", "learning_rate", "focal_gamma")
ROLES = dict(zip(NAMES, ("scientific", "nuisance", "nuisance"), strict=True))


def make_runs(cells=CELLS, without=(), roles=ROLES, last_gain=0.0, **changes):
    """A study with one run for every cell and seed but those in `without`; two epochs each."""
    trials, epochs, training = [], [], {}
    for i, (cell, values) in enumerate(cells.items()):
        for seed, value in enumerate(values):
            if (cell, seed) in without:
                continue
            trial_id = f"{100 * i + seed:012x}"
            levels = dict(zip(NAMES, cell, strict=True))
            key = {"run_id": f"demo-{trial_id}", "trial_id": trial_id, "seed": seed, **levels}
            trials.append({**key, "objective": value, "time_s": 5.0})
            epochs += [{**key, "epoch": 2 - back, "val/miou": value - back * last_gain} for back in (1, 0)]
            training[trial_id] = TrainConfig(**levels, seed=seed, epochs=2).to_mapping()
    settings = {
        "study": "demo",
        "parameters": roles,
        "objective": {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
        "data": {"source": "/data/forest", "floors": {"all_forest": {"val/miou": 0.3}}},
        "data_config": {"root": "/data/forest"},
        "epochs": pd.DataFrame(epochs),
        "trials": pd.DataFrame(trials),
        "training": training,
        "excluded": [],
    }
    return StudyRuns(**{**settings, **changes})


def points_study(rows, **changes):
    """A study of point counts alone: {count: values by seed}."""
    return find(make_runs({(count, 0.001, 0.0): values for count, values in rows.items()}, **changes))


def factor(findings: Findings, name):
    return next(factor for factor in findings.factors if factor.name == name)


def verdicts(findings: Findings, name="points_per_image"):
    return {level.level: level.verdict for level in factor(findings, name).levels}


def kinds(findings: Findings):
    return [caveat.kind for caveat in findings.caveats]


def test_each_point_count_is_read_at_the_setting_that_the_other_seeds_choose():
    # 10 points: without seed 0 gamma 2 leads (.60 to .56), without seed 1 too (.60 to .55), without seed 2 gamma 0 does
    # (.61 to .58). So .58, .58 and .50 are read: mean .5533, though gamma 2's own mean over all seeds is .5933.
    ten, fifty = find(make_runs()).arms
    assert ten.readings == [0.58, 0.58, 0.50]
    assert [chosen["focal_gamma"] for chosen in ten.chosen] == [2.0, 2.0, 0.0]
    assert ten.value.value == pytest.approx(1.66 / 3)
    assert ten.parameters == {"points_per_image": 10, "learning_rate": 0.001, "focal_gamma": 2.0}
    assert ten.run_ids == ["demo-000000000064", "demo-000000000065", "demo-000000000002"]
    assert fifty.readings == [0.70, 0.71, 0.72]


def test_the_difference_of_point_counts_is_paired_by_seed():
    # -.12, -.13, -.22: mean -.15667, sd .055076; 4.302653 * .055076 / sqrt(3) = .136816.
    (ten, fifty) = factor(find(make_runs()), "points_per_image").levels
    assert ten.difference.value == pytest.approx(-0.47 / 3)
    assert (ten.difference.low, ten.difference.high) == pytest.approx((-0.293483, -0.019850), abs=2e-6)
    assert (ten.verdict, fifty.verdict, fifty.difference) == ("not enough", "best", None)


def test_the_same_difference_is_undecided_at_a_larger_margin():
    objective = {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.02}  # the upper end is -.01985
    assert verdicts(find(make_runs(objective=objective))) == {10: "undecided", 50: "best"}


def test_nuisance_levels_are_means_over_all_other_cells():
    # 0.001 at seed 0: (.60 + .58 + .70 + .65) / 4 = .6325; seed 1: .64; seed 2: .6225. 0.01: .425 at each.
    rates = factor(find(make_runs()), "learning_rate")
    assert rates.levels[0].readings == pytest.approx([0.6325, 0.64, 0.6225])
    assert rates.levels[1].readings == pytest.approx([0.425] * 3)
    assert rates.levels[1].difference.value == pytest.approx(-0.62 / 3)
    assert verdicts(find(make_runs()), "learning_rate") == {0.001: "best", 0.01: "worse"}
    assert len(rates.levels[0].run_ids) == 4 * 3


def test_the_recommended_configuration_is_the_best_setting_over_all_seeds():
    findings = find(make_runs())
    assert findings.recommended.parameters == {"points_per_image": 50, "learning_rate": 0.001, "focal_gamma": 0.0}
    assert findings.headline.startswith(
        "Label 50 points per image, with learning rate 0.001 and focal gamma 0: val/miou"
    )
    assert "0.710 [0.685, 0.735] over 3 seeds" in findings.headline  # .71 +- 4.302653 * .01 / sqrt(3) = .0248
    assert not findings.provisional


def test_the_smallest_enough_count_is_recommended_not_the_best_mean():
    # 50 - 100: -.002, -.002, -.003, within .01 for sure; 10 - 100: about -.1.
    rows = {10: [0.60, 0.62, 0.61], 50: [0.698, 0.708, 0.717], 100: [0.700, 0.710, 0.720]}
    findings = points_study(rows)
    assert verdicts(findings) == {10: "not enough", 50: "enough", 100: "best"}
    assert findings.recommended.parameters["points_per_image"] == 50
    assert factor(findings, "points_per_image").best_level == 100
    assert "50 is enough" in findings_text(findings)


def test_where_smaller_is_better_everything_is_mirrored():
    mirrored = {cell: [1 - value for value in values] for cell, values in CELLS.items()}
    objective = {"metric": "val/miou", "mode": "min", "at": "last", "margin": 0.01}
    data = {"floors": {"above": {"val/miou": 0.32}, "inside": {"val/miou": 0.30}, "below": {"val/miou": 0.26}}}
    plain, mirror = find(make_runs()), find(make_runs(mirrored, objective=objective, data=data))
    assert mirror.recommended.parameters == plain.recommended.parameters
    for name in NAMES:
        assert verdicts(mirror, name) == verdicts(plain, name)
    # 1 - .71 = .29 [.265, .315], and a floor is a loss that ought to be undercut.
    assert [floor.verdict for floor in mirror.floors] == ["beats", "undecided", "does not beat"]


def test_one_seed_is_exploratory_and_has_no_interval():
    findings = find(make_runs({cell: values[:1] for cell, values in CELLS.items()}))
    assert findings.provisional
    assert findings.headline.startswith("Provisional")
    assert all(level.value.low is None for f in findings.factors for level in f.levels)
    assert verdicts(findings) == {10: "undecided", 50: "best"}
    assert "few_seeds" in kinds(findings)
    assert findings.floors[0].verdict == "undecided"
    assert "[" not in findings_text(findings)


def test_where_everything_is_undecided_the_best_mean_is_recommended_provisionally():
    findings = points_study({10: [0.60, 0.72, 0.66], 50: [0.70, 0.66, 0.68], 100: [0.66, 0.69, 0.72]})
    assert verdicts(findings) == {10: "undecided", 50: "undecided", 100: "best"}
    assert findings.recommended.parameters["points_per_image"] == 100
    assert findings.provisional
    assert "Provisional, as no difference is settled yet. Label 100 points" in findings.headline


def test_a_level_that_may_beat_the_enough_one_is_named():
    # 50 is within the margin of 100 for sure; 200 swings so much that it may be far better than both.
    rows = {50: [0.699, 0.709, 0.719], 100: [0.700, 0.710, 0.7201], 200: [0.60, 0.80, 0.70]}
    findings = points_study(rows)
    assert verdicts(findings)[50] == "enough"
    (rival,) = [caveat.text for caveat in findings.caveats if caveat.kind == "rival"]
    assert rival == "Points per image 200 may yet prove better than 50 by more than the margin."


def test_a_seed_block_with_a_missing_cell_is_left_out_and_named():
    findings = find(make_runs(without={((10, 0.01, 2.0), 1)}))
    assert findings.seeds == [0, 2]
    assert all(len(cell.run_ids) == 2 for cell in findings.cells)
    texts = [caveat.text for caveat in findings.caveats if caveat.kind == "cells_missing"]
    assert texts == ["Cells are missing at seed 1: these seed blocks are left out."]


def test_where_no_seed_block_is_whole_the_incomplete_cells_are_left_out():
    gaps = {((10, 0.01, 2.0), 0), ((10, 0.01, 2.0), 1), ((50, 0.01, 2.0), 2)}
    findings = find(make_runs(without=gaps))
    assert findings.seeds == [0, 1, 2]
    assert len(findings.cells) == 6
    assert "No seed has all its runs: 2 cells" in findings_text(findings)
    # Rates now compare at gamma 0 alone: at seed 0 (.60 + .70) / 2 against (.40 + .45) / 2.
    assert [level.readings[0] for level in factor(findings, "learning_rate").levels] == pytest.approx([0.65, 0.425])


def test_a_cell_without_any_run_keeps_levels_comparable():
    findings = find(make_runs({cell: values for cell, values in CELLS.items() if cell != (50, 0.01, 2.0)}))
    # Rate .01 lacks (50, gamma 2), so .001 leaves it out too: at seed 0 (.60 + .58 + .70) / 3.
    assert factor(findings, "learning_rate").levels[0].readings[0] == pytest.approx(1.88 / 3)
    assert "1 of 8 cells have no complete run at any seed." in findings_text(findings)


def test_factors_that_never_meet_are_not_compared():
    cells = {(10, 0.001, 0.0): [0.5, 0.6, 0.7], (10, 0.01, 2.0): [0.6, 0.7, 0.8]}
    findings = find(make_runs(cells))
    assert [factor.name for factor in findings.factors] == ["points_per_image"]
    assert kinds(findings).count("not_comparable") == 2


def test_no_runs_and_runs_that_collide_are_refused():
    with pytest.raises(InputError, match="no complete run"):
        find(make_runs(cells={}, trials=pd.DataFrame()))
    runs = make_runs()
    twins = pd.concat([runs.trials, runs.trials.iloc[:1].assign(run_id="demo-twin")])
    with pytest.raises(InputError, match="demo-twin have the same levels"):
        find(make_runs(trials=twins))


def test_a_study_without_scientific_factor_recommends_the_best_setting():
    cells = {cell: values for cell, values in CELLS.items() if cell[0] == 50}
    findings = find(make_runs(cells, roles=dict.fromkeys(NAMES, "nuisance")))
    assert len(findings.arms) == 1
    assert findings.headline.startswith(
        "Use points per image 50, learning rate 0.001 and focal gamma 0: val/miou 0.710"
    )
    assert verdicts(findings, "learning_rate") == {0.001: "best", 0.01: "worse"}


def test_two_scientific_factors_are_averaged_over_each_other():
    roles = {"points_per_image": "scientific", "learning_rate": "scientific", "focal_gamma": "nuisance"}
    findings = find(make_runs(roles=roles))
    # Arms at seed 0: (10, .001) .58, (10, .01) .40, (50, .001) .70, (50, .01) .45; a level is the mean of its two.
    assert [arm.readings[0] for arm in findings.arms] == [0.58, 0.40, 0.70, 0.45]
    assert [x.readings[0] for x in factor(findings, "points_per_image").levels] == pytest.approx([0.49, 0.575])
    assert [x.readings[0] for x in factor(findings, "learning_rate").levels] == pytest.approx([0.64, 0.425])


@pytest.mark.parametrize(
    ("floor", "verdict", "phrase"),
    [(0.68, "beats", "beat"), (0.70, "undecided", "may or may not beat"), (0.74, "does not beat", "do NOT beat")],
)
def test_floors_are_told_plainly(floor, verdict, phrase):
    # The recommended 50 points reach .71 [.685, .735].
    data = {"source": "x", "floors": {"image_majority": {"val/miou": floor, "val/accuracy": 0.9}}}
    (finding,) = find(make_runs(data=data)).floors
    assert (finding.floor, finding.verdict) == (floor, verdict)
    assert finding.text.startswith(f"The networks {phrase} an oracle")


def test_a_metric_without_floor_is_a_caveat():
    findings = find(make_runs(data={"source": "x", "floors": {"all_forest": {"val/accuracy": 0.6}}}))
    assert findings.floors == []
    assert "no_floor" in kinds(findings)


def test_a_rising_curve_is_a_caveat_only_beyond_the_margin():
    assert "rising" in kinds(find(make_runs(last_gain=0.011)))
    assert "rising" not in kinds(find(make_runs(last_gain=0.009)))
    assert "rising" not in kinds(find(make_runs(last_gain=-0.05)))


def test_the_edge_of_a_range_is_a_caveat_but_gamma_0_is_no_edge():
    texts = [caveat.text for caveat in find(make_runs()).caveats if caveat.kind == "edge"]
    assert texts == [
        "The best points per image, 50, is the largest tried: more may do better.",
        "The chosen learning rate, 0.001, is the smallest tried: a smaller one may do better.",
    ]


def test_what_the_findings_rest_on_is_said():
    training = {trial_id: {**training, "weights": "none"} for trial_id, training in make_runs().training.items()}
    data = {"source": "synthetic", "floors": {}}
    findings = find(make_runs(training=training, data=data, excluded=[("demo-1", "1 of 2 epochs")]))
    expected = {"random_weights", "made_data", "excluded_runs", "unconfirmed", "seeds_not_scenes"}
    assert expected <= set(kinds(findings))
    assert {"random_weights", "made_data", "excluded_runs"}.isdisjoint(kinds(find(make_runs())))
    assert findings.excluded == [["demo-1", "1 of 2 epochs"]]


def test_equal_seeds_are_no_certainty():
    assert "no_spread" in kinds(points_study({10: [0.5] * 3, 50: [0.7] * 3}))


def test_findings_are_plain_json_with_a_version():
    mapping = find(make_runs()).to_mapping()
    assert mapping == json.loads(json.dumps(mapping, allow_nan=False))
    assert mapping["schema_version"] == "1"
    assert mapping["factors"][0]["levels"][0]["difference"]["num_seeds"] == 3


def test_numpy_levels_become_plain_numbers():
    levels = {type(level) for cell in find(make_runs()).cells for level in cell.parameters.values()}
    assert levels <= {int, float}
    assert not levels & {np.int64, np.float64}


def test_the_text_has_a_line_for_every_level():
    lines = findings_text(find(make_runs())).splitlines()
    assert "  10: 0.553, not enough; -0.157 [-0.293, -0.020] against 50" in lines
    assert "  50: 0.710, best" in lines
    assert 10 <= len(lines) <= 20


@pytest.mark.parametrize(("level", "text"), [(50, "50"), (1e-5, "1e-05"), (0.0, "0"), ("resnet18", "resnet18")])
def test_levels_read_as_people_write_them(level, text):
    assert level_text(level) == text


def test_lists_read_as_people_write_them():
    assert [listed([]), listed([1]), listed([1, 2, 3])] == ["", "1", "1, 2 and 3"]
