import dataclasses
import json
import time
from pathlib import Path

import pytest

from bench.driver import Side, bench_driver, run_side
from bench.driver_side import Record, trivial_study
from bench.driver_trainable import run_trivial_trial
from bench.scale import Scale
from trainable.config import TrainConfig
from trainable.sealed import read_sealed
from trainable.trial_files import check_trial, read_result, read_rows

TRAINING = TrainConfig(encoder="resnet18", weights="none", image_size=32, epochs=1, seed=3).to_mapping()


def test_the_figures_of_a_side_by_hand() -> None:
    """400 trials, ten a second at first and five a second in the last hundred."""
    ended = [100 + 0.1 * trial for trial in range(300)] + [130 + 0.2 * trial for trial in range(100)]
    resident = [(99.0, 400.0), (109.0, 500.0), (140.0, 600.0), (149.5, 700.0), (151.0, 800.0)]
    side = Side.of(Record(60.0, ended, resident))
    assert side.trial_s == 0.15
    assert side.first_s == pytest.approx(10.0)
    assert side.last_s == pytest.approx(20.0, abs=0.2)
    assert (side.early_mib, side.late_mib) == (500.0, 700.0)
    slower = dataclasses.replace(side, trial_s=0.35)
    assert Side.median([side, slower]) == dataclasses.replace(side, trial_s=0.25)


def test_a_record_survives_the_pipe() -> None:
    record = Record(1.5, [1.0, 2.0], [(0.5, 100.0)])
    read = Record.from_json(json.dumps(dataclasses.asdict(record)).encode())
    assert (read.seconds, read.ended, [*map(tuple, read.resident)]) == (1.5, [1.0, 2.0], [(0.5, 100.0)])


def test_a_trivial_trial_leaves_a_whole_directory(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    row = run_trivial_trial(TRAINING, folder)
    assert read_sealed(folder / "config.json") == {"training": TRAINING}
    assert read_rows(folder) == [row]
    result = read_result(folder)
    assert result
    assert (result["state"], result["epochs"], result["metrics"]) == ("completed", 1, row)
    assert check_trial(folder) == []
    assert run_trivial_trial(TRAINING, folder) == row
    assert read_result(folder) == result


def test_a_trivial_trial_takes_milliseconds(tmp_path: Path) -> None:
    started = time.perf_counter()
    for number in range(20):
        run_trivial_trial(TRAINING, tmp_path / str(number))
    assert (time.perf_counter() - started) / 20 < 0.1  # 0.002 on a quiet machine


def test_the_study_has_as_many_trials_as_asked_for(tmp_path: Path) -> None:
    spec = trivial_study(10, tmp_path)
    assert len(spec.parameters["points_per_image"].values or []) * len(spec.search.seeds) == 10


@pytest.mark.cluster
def test_both_sides_run_small() -> None:
    lines = bench_driver(Scale(num_trials=12, driver_rounds=1))
    assert len({line.name for line in lines}) == len(lines) == 6
    assert all(line.baseline > 0 and line.ours > 0 for line in lines)


@pytest.mark.cluster
def test_a_side_that_fails_says_so() -> None:
    with pytest.raises(RuntimeError, match="ended with 1"):
        run_side("nobody", 4)
