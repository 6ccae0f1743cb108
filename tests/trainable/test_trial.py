"""A trial that stopped, in whatever state it left its directory, goes on as if it never had."""

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainable import checkpoint
from trainable.config import InputError, TrainConfig
from trainable.store import Store
from trainable.trial import run_trial
from trainable.trial_files import Row, read_result, read_rows, result_hash

Stopped = dict[int, Path]
SameResult = Callable[[Path, Path], None]
Leave = Callable[[Path, Stopped], None]


def state(folder: Path) -> checkpoint.Arrays:
    found = checkpoint.load_latest(folder / "checkpoint")
    assert found is not None
    return found[1]


def epochs(rows: Iterable[Row]) -> list[float]:
    return [row["epoch"] for row in rows]


def nothing(folder: Path, stopped: Stopped) -> None:
    """Stopped between two epochs."""


def torn_row(folder: Path, stopped: Stopped) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "train/lo')


def row_and_counts(folder: Path, stopped: Stopped) -> None:
    """Of an epoch whose checkpoint is not there yet; half of it lies aside."""
    for name in ("metrics.jsonl", "counts.npz"):
        shutil.copy(stopped[3] / name, folder / name)
    (newest,) = (stopped[3] / "checkpoint").iterdir()
    (folder / "checkpoint" / ".writing-1").write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])


def older_checkpoint(folder: Path, stopped: Stopped) -> None:
    """Stopped before the checkpoint that has been replaced was removed."""
    shutil.copytree(stopped[1] / "checkpoint", folder / "checkpoint", dirs_exist_ok=True)


@pytest.mark.parametrize(
    ("num_done", "leave"),
    [(1, nothing), (2, nothing), (2, torn_row), (2, row_and_counts), (2, older_checkpoint)],
    ids=lambda each: each.__name__ if callable(each) else f"after {each}",
)
def test_a_stopped_trial_goes_on_as_if_never_stopped(
    config: TrainConfig,
    store: Store,
    stopped: Stopped,
    folder: Path,
    assert_same_result: SameResult,
    num_done: int,
    leave: Leave,
) -> None:
    shutil.copytree(stopped[num_done], folder)
    leave(folder, stopped)
    assert epochs(run_trial(config, store, folder)) == list(range(num_done + 1, 4))  # and none twice
    assert_same_result(folder, stopped[3])
    total = [row["time/total_s"] for row in read_rows(folder)]
    assert total == pytest.approx(np.cumsum([row["time/epoch_s"] for row in read_rows(folder)]))
    assert len(os.listdir(folder / "checkpoint")) == 1


def test_without_the_optimizers_state_it_would_not(
    config: TrainConfig, store: Store, stopped: Stopped, folder: Path
) -> None:
    # The negative control; test_resume.py has the others. What is compared above does notice a lost moment.
    shutil.copytree(stopped[2], folder)
    weights = {name: array for name, array in state(folder).items() if not name.startswith("optimizer/")}
    checkpoint.save(folder / "checkpoint", 2, weights)
    list(run_trial(config, store, folder))
    assert epochs(read_rows(folder)) == [1, 2, 3]
    assert result_hash(read_rows(folder)) != result_hash(read_rows(stopped[3]))


@pytest.mark.slow
def test_a_damaged_checkpoint_starts_the_trial_anew(
    config: TrainConfig, store: Store, stopped: Stopped, folder: Path, assert_same_result: SameResult
) -> None:
    shutil.copytree(stopped[2], folder)
    (path,) = (folder / "checkpoint").glob("state-*.npz")
    path.write_bytes(path.read_bytes()[:-1])
    assert epochs(run_trial(config, store, folder)) == [1, 2, 3]
    assert_same_result(folder, stopped[3])


@pytest.mark.parametrize("result", [None, '{"state": "comp'])
def test_stopped_between_last_checkpoint_and_result(
    config: TrainConfig,
    store: Store,
    stopped: Stopped,
    folder: Path,
    assert_same_result: SameResult,
    result: str | None,
) -> None:
    shutil.copytree(stopped[3], folder)
    (folder / "result.json").unlink()
    if result:
        (folder / "result.json").write_text(result)
    assert list(run_trial(config, store, folder)) == read_rows(stopped[3])[-1:]
    assert_same_result(folder, stopped[3])


def assert_nothing_is_trained(config: TrainConfig, store: Store, folder: Path) -> None:
    """Running the trial again yields its last row, and changes no file."""
    empty = replace(store, images=store.images[:0])  # nothing that could be trained on
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    assert list(run_trial(config, empty, folder)) == read_rows(folder)[-1:]
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_a_finished_trial_is_not_trained_again(
    config: TrainConfig, store: Store, stopped: Stopped, folder: Path
) -> None:
    shutil.copytree(stopped[3], folder)
    assert_nothing_is_trained(config, store, folder)


@pytest.mark.parametrize(
    ("name", "value", "step"),
    [
        ("head.bias", np.inf, 1),
        ("encoder.stages.0.0.0.weight", np.nan, 1),
        ("decoder.0.mix.1.running_var", np.nan, None),  # in training the batch's own statistics serve
    ],
)
def test_divergence_is_a_result(
    config: TrainConfig, store: Store, stopped: Stopped, folder: Path, name: str, value: float, step: int | None
) -> None:
    shutil.copytree(stopped[1], folder)
    arrays = state(folder)
    arrays[f"model/{name}"].flat[0] = value
    checkpoint.save(folder / "checkpoint", 1, arrays)
    assert list(run_trial(config, store, folder)) == []
    result = read_result(folder)
    assert result is not None
    assert (result["state"], result["epochs"]) == ("infeasible", 1)
    assert result["diverged_at"] == {"epoch": 2, "step": step}
    assert result["reason"].startswith(f"diverged in epoch 2, {f'step {step}' if step else 'after its steps'}: the ")
    assert result["result_sha256"] == result_hash(read_rows(folder))
    assert epochs(read_rows(folder)) == [1]
    assert_nothing_is_trained(config, store, folder)


def test_settings_that_cannot_be_trained_are_a_result(config: TrainConfig, store: Store, folder: Path) -> None:
    # Nothing is damaged here: AdamW at rate 10 and decay 1 multiplies every weight by -9 at each of four steps.
    hopeless = replace(
        config, optimizer="adamw", learning_rate=10.0, weight_decay=1.0, schedule="constant", batch_size=2, epochs=30
    )
    rows = list(run_trial(hopeless, store, folder))
    result = read_result(folder)
    assert result is not None
    assert (result["state"], result["epochs"]) == ("infeasible", len(rows))
    assert result["diverged_at"]["epoch"] == len(rows) + 1 < 30
    assert_nothing_is_trained(hopeless, store, folder)


@pytest.mark.parametrize("change", [{"seed": 1}, {"learning_rate": 2e-3}, {"epochs": 4}])
@pytest.mark.parametrize("num_done", [1, 3])
def test_another_config_is_refused(
    config: TrainConfig, store: Store, stopped: Stopped, num_done: int, change: dict[str, Any]
) -> None:
    rows = read_rows(stopped[num_done])
    with pytest.raises(InputError, match=f"after-{num_done}: holds a trial with other settings"):
        next(run_trial(replace(config, **change), store, stopped[num_done]))
    assert read_rows(stopped[num_done]) == rows


def test_the_last_checkpoint_is_the_model_alone(stopped: Stopped) -> None:
    kinds = [{name.partition("/")[0] for name in state(stopped[epoch])} for epoch in (2, 3)]
    assert kinds == [{"model", "optimizer", "file"}, {"model", "file"}]


def test_auto_precision_stays_what_it_was_at_the_first_start(
    config: TrainConfig, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = replace(config, precision="auto", epochs=2)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True})
    next(run_trial(auto, store, folder))
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)  # goes on where bfloat16 would not be chosen
    (folder / "config.json").unlink()  # the checkpoint knows it, too
    list(run_trial(auto, store, folder))
    result = read_result(folder)
    assert result is not None
    assert result["environment"]["precision"] == "bfloat16"
    list(run_trial(auto, store, folder.with_name("other")))
    other = read_result(folder.with_name("other"))
    assert other is not None
    assert other["environment"]["precision"] == "float32"
    shutil.rmtree(folder.with_name("other"))


def test_what_killed_writers_left_is_cleared(config: TrainConfig, store: Store, folder: Path) -> None:
    folder.mkdir()
    (folder / ".counts.npz-1234").write_bytes(b"half")
    next(run_trial(config, store, folder))
    assert not list(folder.glob(".counts*"))
