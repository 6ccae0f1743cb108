"""Whatever becomes of a trial's files, it is noticed, named and mended; training again is the last resort."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainable import checkpoint
from trainable.config import TrainConfig
from trainable.sealed import write_sealed
from trainable.store import Store
from trainable.trial import run_trial
from trainable.trial_files import check_trial, read_attempts, read_result, read_rows

SameResult = Callable[[Path, Path], None]
Damage = Callable[[bytes], bytes]


pytestmark = pytest.mark.slow  # a hundred damages; test_trial.py has the quick ones


def keep(share: float) -> Damage:
    return lambda content: content[: int(share * len(content))]


def flip(share: float) -> Damage:
    def flipped(content: bytes) -> bytes:
        place = int(share * (len(content) - 1))
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    return flipped


DAMAGES = [pytest.param(keep(share), id=f"{share:.0%} left") for share in (0, 0.25, 0.5, 0.75, 0.99)]
DAMAGES += [pytest.param(flip(share), id=f"flipped at {share:.0%}") for share in (0, 0.5, 1)]
FILES = ("config.json", "metrics.jsonl", "counts.npz", "counts_test.npz", "result.json")


@pytest.fixture(scope="module")
def confirming(config: TrainConfig) -> TrainConfig:
    return replace(config, epochs=2, evaluate_test=True)


@pytest.fixture(scope="module")
def finished(confirming: TrainConfig, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A trial with all the files that one can have."""
    folder = tmp_path_factory.mktemp("finished") / "trial"
    list(run_trial(confirming, store, folder))
    yield folder
    shutil.rmtree(folder)


def damage(path: Path, how: Damage) -> bytes:
    damaged = how(path.read_bytes())
    path.write_bytes(damaged)
    return damaged


def small_files(folder: Path) -> dict[str, bytes]:
    """All but the checkpoint, and but what differs with each attempt at writing it."""
    names = set(FILES) - {"result.json"}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name in names}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_finished_trial_is_mended_without_training(
    confirming: TrainConfig,
    store: Store,
    finished: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    how: Damage,
) -> None:
    shutil.copytree(finished, folder)
    damaged = damage(folder / name, how)
    (problem,) = check_trial(folder)
    assert problem.startswith(f"{folder / name}: damaged (")
    assert list(run_trial(confirming, store, folder)) == read_rows(finished)[-1:]
    assert small_files(folder) == small_files(finished)  # to the byte
    assert check_trial(folder) == []
    assert result_of(folder) == result_of(finished)
    assert (folder / f"{name}.damaged").read_bytes() == damaged
    assert f"{folder / name} is damaged" in caplog.text
    assert len(read_attempts(folder)) == 1  # the one that trained it
    assert list(run_trial(confirming, store, folder)) == read_rows(finished)[-1:]
    assert not list(folder.glob("*.damaged-2"))


def result_of(folder: Path) -> dict[str, object]:
    result = read_result(folder)
    assert result is not None
    del result["finished_at"]
    return result


@pytest.mark.parametrize("name", [name for name in FILES if name != "result.json"])
def test_a_file_that_is_gone_is_written_again(
    confirming: TrainConfig, store: Store, finished: Path, folder: Path, name: str
) -> None:
    shutil.copytree(finished, folder)
    (folder / name).unlink()
    assert check_trial(folder) == [f"{folder / name}: absent"]
    assert list(run_trial(confirming, store, folder)) == read_rows(finished)[-1:]
    assert small_files(folder) == small_files(finished)


def test_a_trial_without_result_is_not_finished_and_not_damaged(stopped: dict[int, Path], tmp_path: Path) -> None:
    assert check_trial(stopped[1]) == check_trial(tmp_path / "absent") == []


def test_the_result_needs_no_weights(confirming: TrainConfig, store: Store, finished: Path, folder: Path) -> None:
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "checkpoint")
    assert check_trial(folder) == []
    assert list(run_trial(confirming, store, folder)) == read_rows(finished)[-1:]
    assert not (folder / "checkpoint").exists()  # nothing was trained


def test_where_the_checkpoint_is_damaged_too_it_is_trained_anew(
    confirming: TrainConfig,
    store: Store,
    finished: Path,
    folder: Path,
    assert_same_result: SameResult,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(finished, folder)
    (state,) = (folder / "checkpoint").iterdir()
    for path in (folder / "counts_test.npz", state):
        damage(path, flip(0.5))
    assert [row["epoch"] for row in run_trial(confirming, store, folder)] == [1, 2]
    assert_same_result(folder, finished)
    assert f"{state} is damaged" in caplog.text
    assert f"{folder / 'result.json'} is damaged (files that it tells of are" in caplog.text
    assert [(each["rows"], each["from_epoch"]) for each in read_attempts(folder)] == [(0, 0), (2, 0)]


@pytest.mark.parametrize("how", [keep(0.5), flip(0.5)], ids=["half left", "flipped"])
def test_an_unfinished_trial_goes_on_from_its_checkpoint(
    config: TrainConfig,
    store: Store,
    stopped: dict[int, Path],
    folder: Path,
    assert_same_result: SameResult,
    caplog: pytest.LogCaptureFixture,
    how: Damage,
) -> None:
    shutil.copytree(stopped[2], folder)
    for name in ("config.json", "metrics.jsonl", "counts.npz", "attempts.jsonl"):
        damage(folder / name, how)
    assert [row["epoch"] for row in run_trial(config, store, folder)] == [3]
    assert_same_result(folder, stopped[3])
    assert [each["from_epoch"] for each in read_attempts(folder)] == [2]  # the first one's line is damaged
    for name in ("config.json", "metrics.jsonl", "attempts.jsonl"):  # counts are written again by every epoch
        assert f"{folder / name} is damaged" in caplog.text


def test_a_damaged_row_beyond_the_checkpoint_is_cut(
    config: TrainConfig, store: Store, stopped: dict[int, Path], folder: Path, assert_same_result: SameResult
) -> None:
    shutil.copytree(stopped[2], folder)
    shutil.copy(stopped[3] / "metrics.jsonl", folder)
    damage(folder / "metrics.jsonl", flip(0.9))
    assert [row["epoch"] for row in run_trial(config, store, folder)] == [3]
    assert_same_result(folder, stopped[3])
    assert not list(folder.glob("*.damaged"))


def test_lost_checkpoints_are_told(
    config: TrainConfig, store: Store, stopped: dict[int, Path], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(stopped[2], folder)
    shutil.rmtree(folder / "checkpoint")
    assert next(run_trial(config, store, folder))["epoch"] == 1
    assert f"{folder}: trained 2 epochs, but its checkpoints end at 0" in caplog.text
    assert [(each["rows"], each["from_epoch"]) for each in read_attempts(folder)] == [(0, 0), (2, 0)]


def test_a_trial_that_diverged_is_mended_too(
    config: TrainConfig, store: Store, stopped: dict[int, Path], folder: Path
) -> None:
    shutil.copytree(stopped[1], folder)
    epoch, arrays = checkpoint.load_latest(folder / "checkpoint") or (0, {})
    arrays["model/head.bias"][:] = np.inf
    checkpoint.save(folder / "checkpoint", epoch, arrays)
    assert list(run_trial(config, store, folder)) == []
    before, result = small_files(folder), result_of(folder)
    for name, trained in (("metrics.jsonl", [1]), ("counts.npz", [1]), ("result.json", [])):
        damage(folder / name, flip(0.5))
        assert len(check_trial(folder)) == 1
        assert [row["epoch"] for row in run_trial(config, store, folder)] == trained
        assert (small_files(folder), result_of(folder)) == (before, result)


def test_a_sound_config_that_is_not_a_trials_is_refused(config: TrainConfig, store: Store, folder: Path) -> None:
    folder.mkdir()
    write_sealed(folder / "config.json", {})
    with pytest.raises(ValueError, match="holds a trial with other settings"):
        next(run_trial(config, store, folder))
    assert [path.name for path in folder.iterdir()] == ["config.json"]
