import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainable import checkpoint
from trainable.config import METRIC_NAMES, TRAINER_VERSION, InputError, TrainConfig
from trainable.metrics import dataset_metrics, image_metrics
from trainable.store import Store
from trainable.trial import run_trial
from trainable.trial_files import Row, read_result, read_rows, result_hash

IN_ANOTHER_PROCESS = """
import json, sys
from pathlib import Path
from typing import Any
from trainable.config import TrainConfig, from_mapping
from trainable.store import open_store
from trainable.trial import run_trial

settings, store, folder = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
for row in run_trial(from_mapping(TrainConfig, settings, "training"), open_store(store), folder):
    pass
"""


def state(folder: Path) -> checkpoint.Arrays:
    found = checkpoint.load_latest(folder / "checkpoint")
    assert found is not None
    return found[1]


def epochs(rows: Iterable[Row]) -> list[float]:
    return [row["epoch"] for row in rows]


def assert_same_result(folder: Path, reference: Path) -> None:
    """Equal rows, wall-clock times apart, and equal weights, bit by bit."""
    assert epochs(read_rows(folder)) == epochs(read_rows(reference))
    result, expected = read_result(folder), read_result(reference)
    assert result is not None
    assert expected is not None
    assert result["result_sha256"] == expected["result_sha256"] == result_hash(read_rows(folder))
    mine, theirs = state(folder), state(reference)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name].tobytes() != theirs[name].tobytes()] == []


# What a killed writer leaves behind the rows that its checkpoint covers.
TORN_ROW = '{"epoch": 3, "train/lo'
ROW_WITHOUT_CHECKPOINT = '{"epoch": 3, "train/loss": 0.0, "time/total_s": 1.0}\n'


@pytest.mark.parametrize(
    ("num_done", "tail"),
    [(1, ""), (2, TORN_ROW), (2, ROW_WITHOUT_CHECKPOINT)],
    ids=["between epochs", "torn row", "row without checkpoint"],
)
def test_a_stopped_trial_goes_on_as_if_never_stopped(
    config: TrainConfig, store: Store, stopped: dict[int, Path], folder: Path, num_done: int, tail: str
) -> None:
    shutil.copytree(stopped[num_done], folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(tail)
    assert epochs(run_trial(config, store, folder)) == list(range(num_done + 1, 4))  # and none twice
    assert_same_result(folder, stopped[3])
    total = [row["time/total_s"] for row in read_rows(folder)]
    assert total == pytest.approx(np.cumsum([row["time/epoch_s"] for row in read_rows(folder)]))


def test_without_the_optimizers_state_it_would_not(
    config: TrainConfig, store: Store, stopped: dict[int, Path], folder: Path
) -> None:
    # The negative control: what the tests above compare does notice a lost moment.
    shutil.copytree(stopped[2], folder)
    weights = {name: array for name, array in state(folder).items() if name.startswith("model/")}
    checkpoint.save(folder / "checkpoint", 2, weights)
    list(run_trial(config, store, folder))
    assert epochs(read_rows(folder)) == [1, 2, 3]
    assert result_hash(read_rows(folder)) != result_hash(read_rows(stopped[3]))


@pytest.mark.slow
def test_a_damaged_checkpoint_starts_the_trial_anew(
    config: TrainConfig, store: Store, stopped: dict[int, Path], folder: Path
) -> None:
    shutil.copytree(stopped[1], folder)
    (path,) = (folder / "checkpoint").glob("state-*.npz")
    path.write_bytes(path.read_bytes()[:-1])
    assert epochs(run_trial(config, store, folder)) == [1, 2, 3]
    assert_same_result(folder, stopped[3])


def test_stopped_between_last_checkpoint_and_result(
    config: TrainConfig, store: Store, stopped: dict[int, Path], folder: Path
) -> None:
    shutil.copytree(stopped[3], folder)
    (folder / "result.json").unlink()
    assert list(run_trial(config, store, folder)) == read_rows(stopped[3])[-1:]
    assert_same_result(folder, stopped[3])


def test_a_finished_trial_yields_its_last_row_and_trains_nothing(
    config: TrainConfig, store: Store, stopped: dict[int, Path], folder: Path
) -> None:
    shutil.copytree(stopped[3], folder)
    empty = replace(store, images=store.images[:0])  # nothing that could be trained on
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    assert list(run_trial(config, empty, folder)) == read_rows(folder)[-1:]
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"learning_rate": 2e-3}, {"epochs": 4}])
@pytest.mark.parametrize("num_done", [1, 3])
def test_another_config_is_refused(
    config: TrainConfig, store: Store, stopped: dict[int, Path], num_done: int, change: dict[str, Any]
) -> None:
    rows = read_rows(stopped[num_done])
    with pytest.raises(InputError, match=f"after-{num_done}: holds a trial with other settings"):
        next(run_trial(replace(config, **change), store, stopped[num_done]))
    assert read_rows(stopped[num_done]) == rows


def test_divergence_is_a_result(config: TrainConfig, store: Store, stopped: dict[int, Path], folder: Path) -> None:
    shutil.copytree(stopped[1], folder)
    arrays = state(folder)
    arrays["model/head.bias"][:] = np.inf
    checkpoint.save(folder / "checkpoint", 1, arrays)
    assert list(run_trial(config, store, folder)) == []
    result = read_result(folder)
    assert result is not None
    assert (result["state"], result["epochs"]) == ("infeasible", 1)
    assert result["reason"].startswith("diverged in epoch 2")
    assert epochs(read_rows(folder)) == [1]
    assert list(run_trial(config, store, folder)) == read_rows(folder)  # and is not tried again


def test_lost_rows_are_trained_anew(config: TrainConfig, store: Store, stopped: dict[int, Path], folder: Path) -> None:
    shutil.copytree(stopped[3], folder)
    (folder / "metrics.jsonl").unlink()
    assert epochs(list(run_trial(config, store, folder))) == [1, 2, 3]
    assert result_hash(read_rows(folder)) == read_result(stopped[3])["result_sha256"]


def test_a_damaged_result_is_made_again(
    config: TrainConfig, store: Store, stopped: dict[int, Path], folder: Path
) -> None:
    shutil.copytree(stopped[3], folder)
    (folder / "result.json").write_text('{"state": "comp')
    list(run_trial(config, store, folder))
    assert read_result(folder)["result_sha256"] == read_result(stopped[3])["result_sha256"]


def test_the_files_of_a_trial(config: TrainConfig, store: Store, stopped: dict[int, Path]) -> None:
    folder = stopped[3]
    names = {"config.json", "metrics.jsonl", "result.json", "counts.npz", "checkpoint"}
    assert {path.name for path in folder.iterdir()} == names
    described = json.loads((folder / "config.json").read_text())
    assert described == {"training": config.to_mapping(), "trainer_version": TRAINER_VERSION}
    rows, result = read_rows(folder), read_result(folder)
    assert result is not None
    assert (result["state"], result["epochs"], result["metrics"]) == ("completed", 3, rows[-1])
    assert result["time_s"] == rows[-1]["time/total_s"]


def test_rows_hold_every_metric(stopped: dict[int, Path]) -> None:
    scores = {f"val/{kind}{name}" for name in METRIC_NAMES for kind in ("", "image_")}
    scores |= {"val/iou_background", "val/iou_forest"}
    for row in read_rows(stopped[3]):
        assert row.keys() == scores | {"epoch", "train/loss", "val/nll", "time/epoch_s", "time/total_s"}
        assert all(0 <= row[name] <= 1 for name in scores)


def test_counts_are_those_of_the_last_row(store: Store, stopped: dict[int, Path]) -> None:
    with np.load(stopped[3] / "counts.npz", allow_pickle=False) as archive:
        counts, names = archive["counts"], archive["names"].tolist()
    assert names == [store.names[index] for index in store.splits["val"]]
    last = read_rows(stopped[3])[-1]
    for name, value in {**dataset_metrics(counts), **image_metrics(counts)}.items():
        assert last[f"val/{name}"] == value


def test_the_last_checkpoint_is_the_model_alone(stopped: dict[int, Path]) -> None:
    kinds = [{name.partition("/")[0] for name in state(stopped[epoch])} for epoch in (2, 3)]
    assert kinds == [{"model", "optimizer"}, {"model"}]


def test_the_hash_is_over_results_and_not_over_times() -> None:
    rows: list[Row] = [{"epoch": 1, "val/miou": 0.5, "time/epoch_s": 1.0}]
    assert result_hash(rows) == result_hash([{"val/miou": 0.5, "epoch": 1, "time/epoch_s": 2.0}])
    assert result_hash(rows) != result_hash([{"epoch": 1, "val/miou": 0.5000000000000001, "time/epoch_s": 1.0}])
    assert result_hash(rows) != result_hash(rows * 2)


def start(config: TrainConfig, store_folder: Path, folder: Path) -> subprocess.Popen[bytes]:
    arguments = [json.dumps(config.to_mapping()), str(store_folder), str(folder)]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    return subprocess.Popen([sys.executable, "-c", IN_ANOTHER_PROCESS, *arguments], env=environment)


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_bits(
    config: TrainConfig, store_folder: Path, stopped: dict[int, Path], folder: Path
) -> None:
    assert start(config, store_folder, folder).wait(timeout=120) == 0
    assert_same_result(folder, stopped[3])


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.15, 0.4, 0.7])  # while the checkpoint is written, in the next epoch, ...
def test_a_killed_process_is_taken_over(
    config: TrainConfig, store_folder: Path, store: Store, stopped: dict[int, Path], folder: Path, delay_s: float
) -> None:
    process = start(config, store_folder, folder)
    deadline = time.monotonic() + 120
    while not read_rows(folder) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert read_result(folder) is None  # killed in the middle
    assert epochs(run_trial(config, store, folder))[-1] == 3
    assert_same_result(folder, stopped[3])
