import numpy as np
import pandas as pd
import pytest

from analysis.curves import read_curves


def with_epochs(make_study, rows):
    frame = pd.DataFrame(rows, columns=["run_id", "epoch", "val/miou"])
    return make_study(epochs=frame)


def test_runs_are_told_apart_by_their_epochs_of_any_number(make_study):
    rows = [("a", 1, 0.1), ("a", 2, 0.5), ("b", 1, 0.3), ("c", 1, 0.2), ("c", 2, 0.3), ("c", 3, 0.4)]
    curves = read_curves(with_epochs(make_study, rows), "val/miou")
    assert curves.run_ids.tolist() == ["a", "b", "c"]
    assert curves.values[curves.lasts].tolist() == [0.5, 0.3, 0.4]
    assert curves.last_steps.tolist() == pytest.approx([0.4, 0.1])  # none of the run of one epoch
    some = read_curves(with_epochs(make_study, rows), "val/miou", ["c", "no such run"])
    assert (some.run_ids.tolist(), some.values.tolist()) == (["c"], [0.2, 0.3, 0.4])
    assert read_curves(make_study(), "val/miou", []) is None


def test_the_first_epoch_at_a_threshold_is_found_from_either_side(make_study):
    rows = [("a", 1, 0.1), ("a", 2, 0.5), ("a", 3, 0.4), ("b", 1, 0.3), ("b", 2, np.nan), ("b", 3, 0.2)]
    curves = read_curves(with_epochs(make_study, rows), "val/miou")
    up = curves.first_epochs(np.array([0.4, 0.9]), is_max=True)
    down = curves.first_epochs(np.array([0.1, 0.25]), is_max=False)
    assert (up[0], down.tolist()) == (2.0, [1.0, 3.0])
    assert np.isnan(up[1])


def test_a_metric_that_no_run_has_has_no_curves(make_study):
    assert read_curves(make_study(), "val/no_such") is None


def test_curves_equal_a_plain_group_by(make_study):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 6, 40)
    rows = [(f"r{i:02d}", e, float(rng.random())) for i, n in enumerate(lengths) for e in range(1, n + 1)]
    runs = with_epochs(make_study, rows)
    curves = read_curves(runs, "val/miou")
    expected = runs.epochs.groupby("run_id")["val/miou"].last()
    assert dict(zip(curves.run_ids, curves.values[curves.lasts], strict=True)) == pytest.approx(expected.to_dict())
