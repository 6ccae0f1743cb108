import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.single import Trained, train_file
from study.training_file import TrainingFile
from trainable.config import DataConfig, InputError, SyntheticConfig, TrainConfig

DATA = DataConfig(synthetic=SyntheticConfig(num_scenes=3, images_per_scene=2, image_size=32))
TRAINING = TrainConfig(encoder="resnet18", weights="none", image_size=32, epochs=2, batch_size=2, points_per_image=5)
FILE = TrainingFile(DATA, TRAINING, {})


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def trained(out: Path, said: list[str]) -> Trained:
    """Two epochs, trained once for all tests of this file."""
    return train_file(FILE, out, said.append)


def train_again(out: Path, **reproduces: str) -> Trained:
    return train_file(TrainingFile(DATA, TRAINING, dict(reproduces)), out, lambda line: None)


def result_of(trained: Trained) -> dict[str, str]:
    result: dict[str, str] = json.loads((trained.folder / "result.json").read_text())
    return result


def test_a_run_leaves_a_trial_s_directory(trained: Trained, out: Path) -> None:
    assert trained.folder.parent == out
    assert len((trained.folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert {"config.json", "checkpoint", "counts.npz", "result.json"} <= {p.name for p in trained.folder.iterdir()}
    assert trained.same_trial is None  # the file names none


def test_every_epoch_is_said(trained: Trained, said: list[str]) -> None:
    assert [line.partition(":")[0] for line in said] == ["epoch 1/2", "epoch 2/2"]
    assert all("val/miou 0." in line for line in said)


def test_a_finished_run_is_not_trained_again_nor_said_to_be(trained: Trained, out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*") if path.suffix in (".npz", ".jsonl")}
    finished_at = result_of(trained)["finished_at"]
    said: list[str] = []
    assert train_file(FILE, out, said.append) == replace(trained, trained_before=True)
    assert result_of(trained)["finished_at"] == finished_at
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not any(line.startswith("epoch") for line in said)  # looks like training


def test_the_exported_trial_is_recognised(trained: Trained, out: Path) -> None:
    origin = {"trial_id": trained.folder.name, "result_sha256": str(result_of(trained)["result_sha256"])}
    again = train_again(out, **origin)
    assert again.same_trial is True
    assert again.same_bits is True


def test_other_bits_of_the_same_trial_are_noticed(trained: Trained, out: Path) -> None:
    again = train_again(out, trial_id=trained.folder.name, result_sha256="0" * 64)
    assert again.same_trial is True
    assert again.same_bits is False


def test_another_trial_is_noticed(trained: Trained, out: Path) -> None:
    assert train_again(out, trial_id="0" * 12, result_sha256="0" * 64).same_trial is False


def test_an_origin_without_a_hash_is_not_called_different(trained: Trained, out: Path) -> None:
    # Exported from W&B alone, where the trial's directory was not at hand: there is nothing to compare with.
    again = train_again(out, trial_id=trained.folder.name)
    assert again.same_trial is True
    assert again.same_bits is None


def test_a_fresh_run_elsewhere_gives_the_same_bits(trained: Trained, tmp_path: Path) -> None:
    again = train_file(FILE, tmp_path / "elsewhere", lambda line: None)
    assert again.folder.name == trained.folder.name
    assert result_of(again)["result_sha256"] == result_of(trained)["result_sha256"]


def test_more_images_than_there_are_are_refused(tmp_path: Path) -> None:
    file = replace(FILE, training=replace(TRAINING, train_images=3))
    with pytest.raises(InputError, match=r"^train_images: must be at most the 2 labelled training images, got 3"):
        train_file(file, tmp_path / "out", lambda line: None)


def test_bad_data_leave_nothing_behind(tmp_path: Path) -> None:
    file = replace(FILE, data=DataConfig(root=str(tmp_path / "absent")))
    with pytest.raises(InputError, match=r"absent: no such folder"):
        train_file(file, tmp_path / "out", lambda line: None)
    assert list(tmp_path.iterdir()) == []
