from dataclasses import replace

import pandas as pd
import pytest

from analysis.find import find
from analysis.reading.study_terms import Range, SearchTerms
from analysis.wording import findings_text, num_seeds_text
from trainable.config import InputError


def factor(findings, name):
    return next(factor for factor in findings.factors if factor.name == name)


def texts(findings, kind):
    return [caveat.text for caveat in findings.caveats if caveat.kind == kind]


def test_settings_are_chosen_on_whole_seed_blocks_and_read_at_every_seed(make_study, cells):
    # 10 points at gamma 0 has .60 and .50 at the whole seeds 0 and 2, at gamma 2 .58 and .62. Its .90 at seed 1, where
    # a cell is missing, chooses nothing; what gamma 2 has there is read.
    cells[10, 0.001, 0.0][1] = 0.90
    findings = find(make_study(cells, without={((10, 0.01, 2.0), 1)}))
    assert texts(findings, "cells_missing") == ["Seed 1: cells are missing; settings are chosen on the others."]
    assert findings.arms[0].parameters["focal_gamma"] == 2.0
    assert findings.arms[0].readings == [0.58, 0.58, 0.62]
    assert findings.seeds == [0, 1, 2]
    assert factor(findings, "learning_rate").levels[0].seeds == [0, 2]


def test_where_no_seed_block_is_whole_the_incomplete_cells_are_left_out(make_study):
    gaps = {((10, 0.01, 2.0), 0), ((10, 0.01, 2.0), 1), ((50, 0.01, 2.0), 2)}
    findings = find(make_study(without=gaps))
    assert findings.seeds == [0, 1, 2]
    assert "Left out: 2 cells with fewer seeds than others at their level." in findings_text(findings)
    # Rates now compare at gamma 0 alone: at seed 0 (.60 + .70) / 2 against (.40 + .45) / 2.
    assert [level.readings[0] for level in factor(findings, "learning_rate").levels] == pytest.approx([0.65, 0.425])


def test_a_cell_without_any_run_keeps_levels_comparable(make_study, cells):
    findings = find(make_study({cell: values for cell, values in cells.items() if cell != (50, 0.01, 2.0)}))
    # Rate .01 lacks (50, gamma 2), so .001 leaves it out too: at seed 0 (.60 + .58 + .70) / 3.
    assert factor(findings, "learning_rate").levels[0].readings[0] == pytest.approx(1.88 / 3)
    assert "Cells missing: 1 of 8 have no complete run at any seed." in findings_text(findings)


def test_no_runs_and_runs_that_collide_are_refused(make_study, cells):
    with pytest.raises(InputError, match="no setting has a complete run at every seed"):
        find(make_study(cells={}, trials=pd.DataFrame()))
    runs = make_study()
    twins = pd.concat([runs.trials, runs.trials.iloc[:1].assign(run_id="demo-twin")])
    with pytest.raises(InputError, match="demo-twin have the same levels"):
        find(make_study(trials=twins))


# Searched settings ----------------------------------------------------------------------------------------------------

RATES = {10: (1.1e-3, 2.3e-3, 4.5e-3), 50: (1.2e-3, 3.4e-3, 7.8e-3)}
SEARCHED = {(count, rate, 0.0): [0.5 + 10 * rate, 0.51 + 10 * rate] for count, rates in RATES.items() for rate in rates}


@pytest.fixture
def search():
    return SearchTerms(is_grid=False, ranges={"learning_rate": Range(1e-4, 1e-2, is_log=True)})


def test_settings_that_differ_at_each_level_are_no_incomplete_study(make_study, search):
    findings = find(make_study(SEARCHED, search=search))
    assert texts(findings, "cells_missing") == texts(findings, "not_comparable") == []
    assert texts(findings, "searched") == [
        "Searched, not compared: learning rate was tuned at each level of points per image."
    ]
    assert [arm.parameters["learning_rate"] for arm in findings.arms] == [4.5e-3, 7.8e-3]
    assert [f.name for f in findings.factors] == ["points_per_image", "focal_gamma"]


def test_a_setting_with_fewer_seeds_than_others_of_a_search_cannot_win(make_study, search):
    # The best rate at 50 points was to be run at seed 1 when the search was interrupted.
    findings = find(make_study(SEARCHED, search=search, without={((50, 7.8e-3, 0.0), 1)}))
    assert findings.arms[1].parameters["learning_rate"] == 3.4e-3
    assert texts(findings, "cells_missing") == ["Left out: 1 cell with fewer seeds than others at their level."]


@pytest.mark.parametrize("is_grid", [True, False])
@pytest.mark.parametrize("state", ["stopped early", "diverged"])
def test_a_setting_that_one_seed_stopped_or_saw_diverge_cannot_win(make_study, search, state, is_grid):
    ended = {((50, 7.8e-3, 0.0), 1, state)}
    findings = find(make_study(SEARCHED, search=replace(search, is_grid=is_grid), ended=ended))
    assert findings.arms[1].parameters["learning_rate"] == 3.4e-3
    assert findings.arms[0].seeds == findings.arms[1].seeds == [0, 1]  # the seed is not lost to the others
    assert texts(findings, "broken_settings") == [
        "No candidates: 1 setting that some seed stopped early or saw diverge."
    ]


def test_cells_of_a_grid_that_diverged_are_not_missing(make_study, cells):
    ended = [((10, 0.01, 2.0), seed, "diverged") for seed in range(3)]
    findings = find(make_study(ended=ended))
    assert texts(findings, "cells_missing") == []
    assert findings.seeds == [0, 1, 2]


def test_a_factor_of_ranges_has_no_levels_to_compare_even_where_they_meet(make_study, search):
    one = {cell: values for cell, values in SEARCHED.items() if cell[0] == 10}
    roles = dict.fromkeys(("points_per_image", "learning_rate", "focal_gamma"), "nuisance")
    findings = find(make_study(one, search=search, roles=roles))
    assert "learning_rate" not in {f.name for f in findings.factors}
    assert texts(findings, "searched") == ["Searched, not compared: learning rate was tuned."]


# Seeds that were added at some levels ---------------------------------------------------------------------------------


def test_seeds_that_some_levels_alone_have_are_used_where_both_have_them(points_study):
    rows = {10: [0.60, 0.61, 0.62], 50: [0.68, 0.70, 0.72, 0.69, 0.71], 100: [0.69, 0.705, 0.725, 0.70, 0.71]}
    findings = points_study(rows)
    assert [arm.seeds for arm in findings.arms] == [[0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    ten, fifty, hundred = factor(findings, "points_per_image").levels
    assert (ten.difference.num_seeds, fifty.difference.num_seeds, hundred.difference) == (3, 5, None)
    assert ten.difference.value == pytest.approx((0.60 + 0.61 + 0.62 - 0.69 - 0.705 - 0.725) / 3)
    assert hundred.value.value == pytest.approx(0.706)
    assert texts(findings, "unequal_seeds")
    assert "3 to 5 seeds" in draw_text(findings)


def test_with_other_seeds_the_level_that_no_other_beats_leads_not_the_best_mean(points_study):
    # Seeds 3 and 4 are hard ones, which 50 alone was run on: its mean is lower, and at every shared seed it is better.
    findings = points_study({10: [0.70, 0.71, 0.72], 50: [0.72, 0.73, 0.7401, 0.50, 0.51]})
    assert factor(findings, "points_per_image").best_level == 50
    assert findings.arms[0].value.value > findings.arms[1].value.value
    assert findings.recommended.parameters["points_per_image"] == 50
    assert "50 leads on the seeds that levels share" in findings_text(findings)


def draw_text(findings):
    return num_seeds_text([level.value for level in factor(findings, "points_per_image").levels])
