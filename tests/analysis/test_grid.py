import pandas as pd
import pytest

from analysis.find import find
from analysis.wording import findings_text
from trainable.config import InputError


def factor(findings, name):
    return next(factor for factor in findings.factors if factor.name == name)


def test_a_seed_block_with_a_missing_cell_is_left_out_and_named(make_study, cells):
    findings = find(make_study(without={((10, 0.01, 2.0), 1)}))
    assert findings.seeds == [0, 2]
    assert all(len(cell.run_ids) == 2 for cell in findings.cells)
    texts = [caveat.text for caveat in findings.caveats if caveat.kind == "cells_missing"]
    assert texts == ["Seed 1 left out: cells are missing there."]


def test_where_no_seed_block_is_whole_the_incomplete_cells_are_left_out(make_study):
    gaps = {((10, 0.01, 2.0), 0), ((10, 0.01, 2.0), 1), ((50, 0.01, 2.0), 2)}
    findings = find(make_study(without=gaps))
    assert findings.seeds == [0, 1, 2]
    assert len(findings.cells) == 6
    assert "Left out: 2 cells that some seed lacks, as no seed has all." in findings_text(findings)
    # Rates now compare at gamma 0 alone: at seed 0 (.60 + .70) / 2 against (.40 + .45) / 2.
    assert [level.readings[0] for level in factor(findings, "learning_rate").levels] == pytest.approx([0.65, 0.425])


def test_a_cell_without_any_run_keeps_levels_comparable(make_study, cells):
    findings = find(make_study({cell: values for cell, values in cells.items() if cell != (50, 0.01, 2.0)}))
    # Rate .01 lacks (50, gamma 2), so .001 leaves it out too: at seed 0 (.60 + .58 + .70) / 3.
    assert factor(findings, "learning_rate").levels[0].readings[0] == pytest.approx(1.88 / 3)
    assert "Cells missing: 1 of 8 have no complete run at any seed." in findings_text(findings)


def test_no_runs_and_runs_that_collide_are_refused(make_study, cells):
    with pytest.raises(InputError, match="no complete run"):
        find(make_study(cells={}, trials=pd.DataFrame()))
    runs = make_study()
    twins = pd.concat([runs.trials, runs.trials.iloc[:1].assign(run_id="demo-twin")])
    with pytest.raises(InputError, match="demo-twin have the same levels"):
        find(make_study(trials=twins))
