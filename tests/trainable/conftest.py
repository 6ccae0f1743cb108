"""What the tests share: a tiny store and one finished trial for all that trains, a small folder for all that reads."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainable import checkpoint
from trainable.config import DataConfig, SplitConfig, SyntheticConfig, TrainConfig
from trainable.data import load_index, load_store
from trainable.store import Store, open_store
from trainable.trial import run_trial
from trainable.trial_files import check_trial, read_result, read_rows, result_hash

torch.set_num_threads(1)

WriteFolder = Callable[..., Path]
SameResult = Callable[[Path, Path], None]


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Deterministic algorithms, and what was there before afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made landscapes: 4 scenes of 4 images of 32 px, split 8 / 4 / 4."""
    cache = tmp_path_factory.mktemp("cache")
    made = SyntheticConfig(num_scenes=4, images_per_scene=4, image_size=32)
    config = DataConfig(synthetic=made, split=SplitConfig(train=0.5, val=0.25, test=0.25))
    return load_store(load_index(config, cache), 32, cache, lambda done: None)


@pytest.fixture(scope="session")
def store(store_folder: Path) -> Store:
    return open_store(store_folder)


@pytest.fixture(scope="session")
def config() -> TrainConfig:
    """Three epochs of two steps each on that store; of all encoders this one has the smallest checkpoints."""
    return TrainConfig(
        encoder="mobilenet_v2", weights="none", image_size=32, learning_rate=1e-3, epochs=3, batch_size=4,
        schedule="cosine", precision="float32",
    )  # fmt: skip


@pytest.fixture(scope="session")
def stopped(config: TrainConfig, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Path]]:
    """Finished epochs -> the trial's directory as a process stopped there leaves it; 3 is never interrupted."""
    folder = tmp_path_factory.mktemp("trial")
    copies = {epoch: folder / f"after-{epoch}" for epoch in range(1, config.epochs + 1)}
    for copy, _ in zip(copies.values(), run_trial(config, store, folder / "running"), strict=True):
        shutil.copytree(folder / "running", copy)
    yield copies
    shutil.rmtree(folder)  # 48 MB a checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A place for a trial, cleared away at once: pytest would keep it for three sessions."""
    yield tmp_path / "trial"
    shutil.rmtree(tmp_path / "trial", ignore_errors=True)


@pytest.fixture(scope="session")
def assert_same_result() -> SameResult:
    """A function that compares two trials: metrics of all epochs, counts and weights, bit by bit."""
    return _assert_same_result


@pytest.fixture(scope="session")
def write_folder() -> WriteFolder:
    """A function that writes a sound data folder: scenes a, b, c of two images of 8 x 8 px each, all of it forest."""
    return _write_folder


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """Such a folder, of PNG files named a_0.png to c_1.png."""
    return _write_folder(tmp_path / "data")


def _assert_same_result(folder: Path, reference: Path) -> None:
    rows, expected_rows = read_rows(folder), read_rows(reference)
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in expected_rows]
    result, expected = read_result(folder), read_result(reference)
    assert result is not None
    assert expected is not None
    assert result["result_sha256"] == expected["result_sha256"] == result_hash(rows)
    assert result["environment"] == expected["environment"]
    assert check_trial(folder) == check_trial(reference) == []
    for kind in (_counts, _state):
        mine, theirs = kind(folder), kind(reference)
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if mine[name].tobytes() != theirs[name].tobytes()] == []


def _counts(folder: Path) -> Mapping[str, np.ndarray]:
    with np.load(folder / "counts.npz", allow_pickle=False) as archive:
        return dict(archive)


def _state(folder: Path) -> Mapping[str, np.ndarray]:
    found = checkpoint.load_latest(folder / "checkpoint")
    assert found is not None
    return {name: array for name, array in found[1].items() if not name.startswith("file/")}  # rows tell their times


def _write_folder(root: Path, mode: str = "RGB", suffix: str = ".png", mask_value: int = 255) -> Path:
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = ["image,mask"]
    for stem in ("a_0", "a_1", "b_0", "b_1", "c_0", "c_1"):
        Image.new(mode, (8, 8)).save(root / "images" / f"{stem}{suffix}")
        Image.new("L", (8, 8), mask_value).save(root / "masks" / f"{stem}.png")
        rows.append(f"{stem}{suffix},{stem}.png")
    (root / "meta_data.csv").write_text("\n".join(rows) + "\n")
    return root
