"""From a finished run's folder to masks of images of any size."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainable.config import InputError, TrainConfig
from trainable.predict import predict_image
from trainable.sealed import read_sealed, write_sealed
from trainable.store import Store
from trainable.train import TrainingRun, unit_scale
from trainable.trained import load_trained, predict_file, predict_files

Finished = dict[int, Path]


def write_image(path: Path, size: tuple[int, int], mode: str = "RGB") -> Path:
    bands = {"RGB": 3, "L": 1}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)
    return path


def test_the_loaded_model_is_the_trained_one(config: TrainConfig, store: Store, stopped: Finished) -> None:
    run = TrainingRun(config, store)
    list(run.epochs())
    trained = load_trained(stopped[3])
    assert (trained.num_bands, trained.scale) == (3, 1.0)
    images = unit_scale(torch.from_numpy(np.array(store.images[:2])))
    with torch.no_grad():
        run.model.eval()
        torch.testing.assert_close(trained.model(images), run.model(images), rtol=0, atol=0)


def test_a_mask_has_the_size_of_its_image_whatever_that_is(stopped: Finished, tmp_path: Path) -> None:
    images = [write_image(tmp_path / "wide.png", (75, 50)), write_image(tmp_path / "small.jpg", (9, 7))]
    said: list[str] = []
    predict_files(stopped[3], images, tmp_path / "out", None, said.append)
    shapes = {}
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as mask:
            shapes[path.name] = (mask.size, mask.mode)
            assert set(np.unique(np.asarray(mask))) <= {0, 255}
    assert shapes == {"wide.png": ((75, 50), "L"), "small.png": ((9, 7), "L")}
    assert [line.partition(":")[0] for line in said] == [str(tmp_path / "out" / f"{n}.png") for n in ("wide", "small")]


def test_the_ground_looks_as_large_as_in_training(stopped: Finished, tmp_path: Path) -> None:
    # A run on images shrunk to a half: an image of 64 x 96 is predicted at 32 x 48, and its mask enlarged again.
    folder = shutil.copytree(stopped[3], tmp_path / "trial")
    described = read_sealed(folder / "config.json")
    assert described is not None
    described["images"]["scale"] = 0.5
    write_sealed(folder / "config.json", described)
    trained = load_trained(folder)
    path = write_image(tmp_path / "image.png", (96, 64))
    mask = predict_file(trained, path, 8, lambda line: None)
    assert mask.shape == (64, 96)
    with Image.open(path) as image:
        half = np.asarray(image.resize((48, 32), Image.Resampling.BILINEAR))
    cpu = torch.device("cpu")
    expected = predict_image(trained.model, half, tile=32, overlap=8, normalise=unit_scale, device=cpu)
    forest = np.asarray(Image.fromarray(expected[1]).resize((96, 64), Image.Resampling.BILINEAR)) > 0.5
    np.testing.assert_array_equal(mask, forest)


def test_where_the_weights_are_damaged_it_says_so_and_takes_no_older_ones(stopped: Finished, tmp_path: Path) -> None:
    folder = shutil.copytree(stopped[3], tmp_path / "trial")
    (path,) = (folder / "checkpoint").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    shutil.copytree(stopped[1] / "checkpoint", folder / "checkpoint", dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"checkpoint: the trained weights are damaged or gone; .* remove .*trial and"):
        load_trained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: damaged"):
        load_trained(folder)


def test_what_cannot_be_predicted_is_refused_before_anything_is_written(stopped: Finished, tmp_path: Path) -> None:
    sound = write_image(tmp_path / "sound.png", (40, 40))
    grey = write_image(tmp_path / "grey.png", (40, 40), "L")
    out = tmp_path / "out"
    cases = [
        (stopped[2], [sound], r"holds no finished run"),
        (stopped[3], [sound, grey], r"grey\.png: 1 bands; the model was trained on 3 bands"),
        (stopped[3], [sound, tmp_path / "absent.png"], r"absent\.png"),
        (stopped[3], [sound, sound], r"same name"),
    ]
    for folder, images, message in cases:
        with pytest.raises(InputError, match=message):
            predict_files(folder, images, out, None, lambda line: None)
    assert not out.exists()
