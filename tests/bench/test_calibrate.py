import json

import numpy as np
import pytest

from bench import calibrate
from bench.calibrate import FAMILY, MEAN, RIGHT, WRONG_DIFFERENCE, WRONG_ENOUGH, Row, row_text
from bench.calibrate_cases import at_one_look, looked_at_again, whole_studies
from bench.simulated_studies import BLOCKS, MARGIN, NOISE, ONE_COLLAPSES, Case, draw_readings, make_studies


@pytest.mark.parametrize("noise", ["normal", "t3", "collapses", "unequal"])
def test_noise_has_the_means_that_are_called_true(noise):
    case = Case("margin", 3, 4, noise)
    values = draw_readings(case, np.random.default_rng(0), 20_000)[:, :, 0]
    assert values.mean(axis=(0, 2)) == pytest.approx(case.means, abs=0.001)
    assert case.means[2] - case.means[0] == pytest.approx(MARGIN)


def test_a_level_that_alone_collapses_lies_one_and_a_half_margins_behind():
    case = Case("equal", 2, 4, ONE_COLLAPSES)
    values = draw_readings(case, np.random.default_rng(0), 20_000)[:, :, 0]
    assert values.mean(axis=(0, 2)) == pytest.approx(case.means, abs=0.001)
    assert case.means[1] - case.means[0] == pytest.approx(1.5 * MARGIN)
    assert (values[:, 0] - values[:, 1] < -0.1).mean() == pytest.approx(0.1, abs=0.005)


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
    assert {case.noise for case in cases} == {"normal", "t3", "collapses", "unequal", ONE_COLLAPSES}
    assert {case.blocks for case in cases} == {NOISE / 2, BLOCKS}
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
    monkeypatch.setattr(calibrate, "NUM_STUDIES", 1)
    assert calibrate.main(["--studies", "1", "--processes", "1"]) == 1  # of one study, nothing is between 93 and 97 %
    document = json.loads((tmp_path / "build" / "calibrate.json").read_bytes())
    assert [row["case"]["truth"] for row in document["rows"]] == ["margin", "equal"]
    assert MEAN in document["rows"][0]["problems"]
    assert "1 with problems; build/calibrate.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("case", "coverage", "rates", "problems", "wide"),
    [
        (Case("equal", 2, 3), {}, {}, [], []),
        (Case("equal", 2, 3), {MEAN: 0.98}, {}, [MEAN], []),
        (Case("equal", 2, 3), {FAMILY: 0.985}, {}, [FAMILY], []),
        (Case("equal", 2, 3), {FAMILY: 0.935}, {}, [FAMILY], []),
        (Case("equal", 2, 3, additions=(2,)), {FAMILY: 0.935}, {}, [], []),
        (Case("equal", 4, 3), {FAMILY: 0.985}, {}, [], []),
        (Case("equal", 4, 3), {FAMILY: 0.995}, {}, [FAMILY], []),
        (Case("equal", 2, 3, "t3"), {FAMILY: 0.985}, {}, [], [FAMILY]),
        (Case("equal", 2, 3, "t3"), {MEAN: 0.985}, {}, [MEAN], []),
        (Case("equal", 2, 3, "collapses"), {MEAN: 0.985}, {}, [], [MEAN]),
        (Case("equal", 2, 3), {}, {WRONG_ENOUGH: 0.06}, [WRONG_ENOUGH], []),
        (Case("equal", 2, 3), {}, {WRONG_DIFFERENCE: 0.06}, [WRONG_DIFFERENCE], []),
        (Case("real", 2, 3), {}, {}, [RIGHT], []),
        (Case("real", 2, 3), {}, {RIGHT: 0.6}, [], []),
        (Case("equal", 2, 3, ONE_COLLAPSES), {FAMILY: 0.6}, {WRONG_ENOUGH: 0.4}, [], []),
        (Case("equal", 2, 3, confirmed=False), {FAMILY: 0.9}, {WRONG_ENOUGH: 0.1}, [], []),
    ],
)
def test_each_bound_is_one_that_can_be_broken(case, coverage, rates, problems, wide):
    held = {MEAN: 0.95, FAMILY: 0.96, **coverage}
    made = {WRONG_ENOUGH: 0.03, WRONG_DIFFERENCE: 0.03, RIGHT: 0.0, **rates}
    assert calibrate._judged(case, 2000, held, made) == (problems, wide)


def test_a_row_names_its_case_and_what_is_wrong():
    rates = {WRONG_ENOUGH: 0.06}
    row = Row(Case("margin", 4, 5, "t3", missing=True), "find", 10, {FAMILY: 0.98}, rates, [WRONG_ENOUGH], [FAMILY])
    assert row_text(row).split("  ")[0] == "margin 4 x 5 t3 missing find"
    assert row_text(row).endswith(
        "0.980  0.060  enough wrongly claimed; wide: all differences to the leading level, over all looks"
    )
