import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainable.config import CLASS_NAMES, METRIC_NAMES, TRAINER_VERSION, TrainConfig
from trainable.metrics import all_metrics
from trainable.sealed import read_sealed
from trainable.store import Store
from trainable.trial_files import (
    Row,
    append_attempt,
    append_row,
    check_trial,
    parse_rows,
    read_attempts,
    read_result,
    read_rows,
    result_hash,
    rows_content,
    write_result,
)

ENVIRONMENT = {"torch": "9.9"}


def result_of(folder: Path) -> dict[str, Any]:
    result = read_result(folder)
    assert result is not None
    return result


def test_the_files_of_a_trial(config: TrainConfig, store: Store, stopped: dict[int, Path]) -> None:
    folder = stopped[3]
    names = {"config.json", "metrics.jsonl", "result.json", "counts.npz", "attempts.jsonl", "checkpoint"}
    assert {path.name for path in folder.iterdir()} == names
    assert read_sealed(folder / "config.json") == {
        "training": config.to_mapping(),
        "images": {"num_bands": 3, "scale": 1.0},
        "trainer_version": TRAINER_VERSION,
        "precision": "float32",
    }
    rows, result = read_rows(folder), result_of(folder)
    assert (result["state"], result["epochs"], result["metrics"]) == ("completed", 3, rows[-1])
    assert (result["reason"], result["diverged_at"]) == ("", None)
    assert result["time_s"] == rows[-1]["time/total_s"]
    assert result["files"].keys() == {"config.json", "metrics.jsonl", "counts.npz"}
    assert check_trial(folder) == []


def test_a_result_says_what_its_bits_depend_on(stopped: dict[int, Path]) -> None:
    assert result_of(stopped[3])["environment"] == {
        "torch": torch.__version__,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "precision": "float32",
        "weights": "none (random)",
    }


def test_rows_hold_every_metric(stopped: dict[int, Path]) -> None:
    shares = {f"val/{kind}{name}" for name in METRIC_NAMES for kind in ("", "image_")} | {"val/ece"}
    shares |= {f"val/iou_{name}" for name in CLASS_NAMES} | {f"points/{name}_share" for name in CLASS_NAMES}
    others = {"epoch", "train/loss", "val/nll", "val/image_absent_classes", "val/image_absent_borders"}
    others |= {f"points/{name}" for name in ("per_image", "fewest", "images_of_one_class", "images_without")}
    others |= {"time/epoch_s", "time/total_s", "time/data_wait_s"}
    for row in read_rows(stopped[3]):
        assert row.keys() == shares | others
        assert all(0 <= row[name] <= 1 for name in shares)
        assert all(row[name] >= 0 for name in others)
        assert row["points/per_image"] == row["points/fewest"] == 50
        assert row["points/background_share"] + row["points/forest_share"] == 1


@pytest.mark.parametrize("epoch", [1, 3])
def test_counts_give_the_last_rows_metrics_again(store: Store, stopped: dict[int, Path], epoch: int) -> None:
    with np.load(stopped[epoch] / "counts.npz", allow_pickle=False) as archive:
        counts = dict(archive)
    assert counts.pop("names").tolist() == [store.names[index] for index in store.splits["val"]]
    last = read_rows(stopped[epoch])[-1]
    expected = {name.removeprefix("val/"): value for name, value in last.items() if name.startswith("val/")}
    assert all_metrics(counts) == expected  # to the last bit


ROWS: list[Row] = [{"epoch": 1, "val/miou": 0.5, "time/total_s": 1.0}, {"epoch": 2, "val/miou": 0.1 + 0.2}]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == []
    for row in ROWS:
        append_row(tmp_path, row)
    assert read_rows(tmp_path) == ROWS
    assert (tmp_path / "metrics.jsonl").read_bytes() == rows_content(ROWS)
    assert parse_rows(rows_content(ROWS)) == ROWS
    assert parse_rows(rows_content([])) == []


def test_a_row_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    append_row(tmp_path, ROWS[0])
    whole = (tmp_path / "metrics.jsonl").read_text()
    for length in range(len(whole)):
        (tmp_path / "metrics.jsonl").write_text(whole + whole[:length])
        assert read_rows(tmp_path) == ROWS[:1]


def test_the_hash_is_over_results_and_not_over_times() -> None:
    rows: list[Row] = [{"epoch": 1, "val/miou": 0.5, "time/epoch_s": 1.0}]
    assert result_hash(rows) == result_hash([{"val/miou": 0.5, "epoch": 1, "time/epoch_s": 2.0}])
    assert result_hash(rows) != result_hash([{"epoch": 1, "val/miou": 0.5000000000000001, "time/epoch_s": 1.0}])
    assert result_hash(rows) != result_hash([{"epoch": 2, "val/miou": 0.5, "time/epoch_s": 1.0}])
    assert result_hash(rows) != result_hash(rows * 2)


def test_an_infeasible_result_says_where_and_why(tmp_path: Path) -> None:
    where = {"epoch": 1, "step": 2}
    write_result(tmp_path, [], ENVIRONMENT, infeasible="diverged", diverged_at=where)
    result = result_of(tmp_path)
    assert (result["state"], result["reason"], result["diverged_at"]) == ("infeasible", "diverged", where)
    assert (result["epochs"], result["metrics"], result["time_s"]) == (0, {}, 0.0)


def test_a_damaged_result_is_none_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_result(tmp_path, ROWS[:1], ENVIRONMENT)
    path = tmp_path / "result.json"
    path.write_text(path.read_text()[:-10])
    assert read_result(tmp_path) is None
    assert f"{path} is damaged" in caplog.text
    assert list(tmp_path.iterdir()) == [path]  # a reader changes nothing


def test_a_result_knows_the_files_that_it_was_written_with(tmp_path: Path) -> None:
    append_row(tmp_path, ROWS[0])
    write_result(tmp_path, ROWS[:1], ENVIRONMENT)
    assert check_trial(tmp_path) == []
    append_row(tmp_path, ROWS[0])
    assert check_trial(tmp_path) == [
        f"{tmp_path / 'metrics.jsonl'}: damaged (its checksum differs from the one in result.json)"
    ]


def test_rows_end_before_a_damaged_one_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = rows_content([{"epoch": epoch} for epoch in (1, 2, 3)])
    for damaged in (content.replace(b"2}", b"2"), content.replace(b'{"epoch": 2}', b"\xff"), content[:14] + b"[]\n"):
        (tmp_path / "metrics.jsonl").write_bytes(damaged)
        assert read_rows(tmp_path) == [{"epoch": 1}]
        assert caplog.messages[-1].startswith(f"{tmp_path / 'metrics.jsonl'} is damaged in line 2")


def test_attempts_are_read_as_they_were_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_attempts(tmp_path) == []
    started = time.time()
    append_attempt(tmp_path, 0, 0)
    append_attempt(tmp_path, 3, 2)
    first, second = read_attempts(tmp_path)
    assert (first["rows"], first["from_epoch"], second["rows"], second["from_epoch"]) == (0, 0, 3, 2)
    assert (first["pid"], started <= first["time"] <= second["time"] <= time.time()) == (os.getpid(), True)
    assert caplog.messages == []


def test_an_attempt_after_a_torn_one_has_its_own_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "attempts.jsonl"
    append_attempt(tmp_path, 0, 0)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole + whole[:length])
        append_attempt(tmp_path, 1, 1)
        told = [attempt["from_epoch"] for attempt in read_attempts(tmp_path)]
        # Where the line end alone is missing, nothing is lost.
        assert told == ([0, 0, 1] if length == len(whole) - 1 else [0, 1])
    assert "attempts.jsonl is damaged in line 2" in caplog.text
