import json

import numpy as np
import pytest

from bench import calibrate
from bench.calibrate import FAMILY, MEAN, WRONG_ENOUGH, Row, row_text
from bench.calibrate_cases import at_one_look, looked_at_again, whole_studies
from bench.simulated_studies import BLOCKS, MARGIN, NOISE, Case, draw_readings, make_studies


@pytest.mark.parametrize("noise", ["normal", "t3", "collapses", "unequal"])
def test_noise_has_the_means_that_are_called_true(noise):
    case = Case("margin", 3, 4, noise)
    values = draw_readings(case, np.random.default_rng(0), 20_000)[:, :, 0]
    assert values.mean(axis=(0, 2)) == pytest.approx(case.means, abs=0.001)
    assert case.means[2] - case.means[0] == pytest.approx(MARGIN)


def test_seeds_are_blocks_and_a_run_has_its_own_noise():
    values = draw_readings(Case("equal", 2, 3), np.random.default_rng(0), 20_000)[:, :, 0]
    assert np.std(values[:, 0, 0] - values[:, 1, 0]) == pytest.approx(NOISE * np.sqrt(2), rel=0.03)
    assert np.std(values[:, 0, 0]) == pytest.approx(np.hypot(BLOCKS, NOISE), rel=0.03)


def test_missing_runs_leave_two_of_each_level():
    values = draw_readings(Case("equal", 4, 5, missing=True), np.random.default_rng(0), 2000)[:, :, 0]
    there = (~np.isnan(values)).sum(axis=2)
    assert there.min() == 2
    assert there.mean() == pytest.approx(5 - 3 * 0.15, abs=0.03)  # three of five may be missing, with 15 %


def test_whole_studies_have_every_run():
    (runs,) = make_studies(Case("equal", 2, 3), np.random.default_rng(0), 1)
    assert runs.trials.groupby("phase").size().to_dict() == {"confirm": 6, "explore": 12}
    assert sorted(runs.trials["points_per_image"].unique()) == [10, 20]


def test_the_table_holds_all_that_is_promised():
    cases = [*at_one_look(), *looked_at_again(), *whole_studies()]
    assert {case.truth for case in cases} == {"equal", "margin", "real"}
    assert {case.noise for case in cases} == {"normal", "t3", "collapses", "unequal"}
    assert {case.num_levels for case in cases} >= {2, 4, 6}
    assert {case.num_seeds for case in cases} >= {3, 5, 8}
    assert {case.missing for case in cases} == {case.confirmed for case in cases} == {True, False}
    assert len({repr(case) for case in at_one_look()}) == len([*at_one_look()])


def test_the_command_writes_its_rows_and_fails_where_a_bound_does_not_hold(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cases = [(Case("margin", 2, 3), "arms"), (Case("equal", 2, 3, margin=0.0, num_settings=4, confirmed=False), "arms")]
    monkeypatch.setattr(calibrate, "every_case", lambda: iter(cases[1:]))
    assert calibrate.main(["--studies", "4", "--processes", "1"]) == 0  # unconfirmed: nothing need hold
    monkeypatch.setattr(calibrate, "every_case", lambda: iter(cases))
    assert calibrate.main(["--studies", "1", "--processes", "1"]) == 1  # of one study, nothing is between 93 and 97 %
    document = json.loads((tmp_path / "build" / "calibrate.json").read_bytes())
    assert [row["case"]["truth"] for row in document["rows"]] == ["margin", "equal"]
    assert MEAN in document["rows"][0]["problems"]
    assert "1 with problems; build/calibrate.json" in capsys.readouterr().out


def test_a_row_names_its_case_and_what_is_wrong():
    rates = {WRONG_ENOUGH: 0.06}
    row = Row(Case("margin", 4, 5, "t3", missing=True), "find", 10, {FAMILY: 0.98}, rates, [WRONG_ENOUGH], [FAMILY])
    assert row_text(row).split("  ")[0] == "margin 4 x 5 t3 missing find"
    assert row_text(row).endswith(
        "0.980  0.060  enough wrongly claimed; wide: all differences together, over all looks"
    )
