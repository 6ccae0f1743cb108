"""A finished run as a folder that others can use."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from trainable.config import InputError
from trainable.exported import ModelExport, export_models
from trainable.graphs import Agreement
from trainable.sealed import read_sealed
from trainable.train import unit_scale
from trainable.trained import load_trained, predict_files
from trainable.weights_file import WEIGHTS, read_weights, write_weights

Finished = dict[int, Path]
TEXTS = {"config.yaml": "data: {}\n", "model_card.md": "# A model\n"}
FILES = ["config.yaml", "manifest.json", "model.pt2", "model_card.md", "weights.safetensors"]


@pytest.fixture(scope="module")
def made(stopped: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("export") / "recommended"
    export_models([the_export(stopped[3], out)], onnx=False, say=lambda line: None)
    yield out
    shutil.rmtree(out)


def the_export(trial: Path, out: Path, texts: dict[str, str] = TEXTS) -> ModelExport:
    return ModelExport(trial, out, texts, {"study": "demo", "data_fingerprint": "f00d"})


def test_the_folder_holds_what_it_says(made: Path, stopped: Finished) -> None:
    assert sorted(path.name for path in made.iterdir()) == FILES
    manifest = read_sealed(made / "manifest.json")
    assert manifest is not None
    for name, checksum in manifest["files"].items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == checksum
    assert set(manifest["files"]) == set(FILES) - {"manifest.json"}
    assert manifest["source"]["trial_id"] == stopped[3].name
    assert manifest["checked"]["model.pt2"]["num_different"] == 0
    assert manifest["checked"]["model.pt2"]["num_images"] == 12


def test_the_weights_say_where_they_come_from(made: Path, stopped: Finished) -> None:
    with safe_open(made / WEIGHTS, framework="pt") as file:
        header = file.metadata()
    assert (header["study"], header["data_fingerprint"], header["trial_id"]) == ("demo", "f00d", stopped[3].name)
    described = read_sealed(stopped[3] / "config.json")
    assert described is not None
    assert header["trainer_version"] == described["trainer_version"]
    assert json.loads(header["class_names"]) == ["background", "forest"]


def test_the_loaded_model_is_the_very_same(made: Path, stopped: Finished) -> None:
    ours, loaded = load_trained(stopped[3]), load_trained(made)
    assert (loaded.num_bands, loaded.scale, loaded.config) == (ours.num_bands, ours.scale, ours.config)
    images = unit_scale(torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8))
    with torch.inference_mode():
        assert torch.equal(loaded.model(images), ours.model(images))


def test_an_exported_folder_predicts_the_same_files(made: Path, stopped: Finished, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 75, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    for folder, out in ((made, "exported"), (stopped[3], "trial")):
        predict_files(folder, [tmp_path / "image.png"], tmp_path / out, None, lambda line: None)
    masks = [(tmp_path / out / "image.png").read_bytes() for out in ("exported", "trial")]
    assert masks[0] == masks[1]


def test_a_second_export_does_nothing(made: Path, stopped: Finished) -> None:
    said: list[str] = []
    before = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    export_models([the_export(stopped[3], made)], onnx=False, say=said.append)
    assert said == [f"{made}: there already, and sound"]
    assert {path.name: path.stat().st_mtime_ns for path in made.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("card", ["# A model\n", "# A model, with more seeds\n"])
def test_what_is_damaged_or_has_other_texts_is_made_anew(
    made: Path, stopped: Finished, tmp_path: Path, card: str
) -> None:
    out = shutil.copytree(made, tmp_path / "recommended")
    (out / "config.yaml").write_text("spoilt")
    said: list[str] = []
    export_models([the_export(stopped[3], out, {**TEXTS, "model_card.md": card})], onnx=False, say=said.append)
    assert said == [f"{out}: model.pt2 gives our masks on 12 made images"]
    assert (out / "config.yaml").read_text() == TEXTS["config.yaml"]
    assert (out / "model_card.md").read_text() == card
    shutil.rmtree(out)


@pytest.mark.slow
def test_a_graph_that_differs_leaves_nothing(
    stopped: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainable.graphs.compare", lambda *_: Agreement(12, 100, 1, 0, 0.5))
    with pytest.raises(InputError, match=r"model\.pt2: 1 of 100 pixels differ"):
        export_models([the_export(stopped[3], tmp_path / "out" / "points_50")], onnx=False, say=lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_bit_in_a_weight_is_noticed(made: Path, tmp_path: Path) -> None:
    for name in (WEIGHTS, "manifest.json"):
        shutil.copy(made / name, tmp_path / name)
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    content[-1000] ^= 1
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.safetensors: damaged .*export again"):
        load_trained(tmp_path)
    (tmp_path / WEIGHTS).unlink()


def test_what_is_not_ours_is_not_replaced(stopped: Finished, tmp_path: Path) -> None:
    (tmp_path / "points_50").mkdir()
    exports = [the_export(stopped[3], tmp_path / name) for name in ("recommended", "points_50")]
    with pytest.raises(InputError, match=r"points_50: exists, and is not what canopoint made"):
        export_models(exports, onnx=False, say=lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["points_50"]


@pytest.mark.parametrize("gone", ["result.json", "checkpoint"])
def test_without_its_weights_nothing_of_a_study_is_exported(stopped: Finished, tmp_path: Path, gone: str) -> None:
    trial = tmp_path / "trials" / "0123456789ab"
    shutil.copytree(stopped[3], trial, ignore=shutil.ignore_patterns(gone))
    exports = [the_export(stopped[3], tmp_path / "out" / "a"), the_export(trial, tmp_path / "out" / "b")]
    with pytest.raises(InputError, match=r"0123456789ab: the trained weights are not at hand"):
        export_models(exports, onnx=False, say=lambda line: None)
    assert not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path / "trials")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"encoder": "resnet18"}, "its tensors are not those of resnet18"),
        ({"encoder": "resnet19"}, r"encoder: must be one of .*did you mean resnet18"),
        ({"num_bands": 9}, "must tell 1 to 8 num_bands"),
        ({"num_bands": True}, "must tell 1 to 8 num_bands"),
        ({"scale": -1.0}, "a scale above 0"),
        ({"scale": float("nan")}, "a scale above 0"),
    ],
)
def test_weights_that_lie_about_themselves_are_refused_in_a_line(
    made: Path, tmp_path: Path, header: dict[str, object], message: str
) -> None:
    tensors, told = read_weights(made)
    changed = {
        "training": {**told["training"], **{k: v for k, v in header.items() if k == "encoder"}},
        "images": {**told["images"], **{k: v for k, v in header.items() if k != "encoder"}},
    }
    write_weights(tmp_path, tensors, changed)
    with pytest.raises(InputError, match=message) as caught:
        load_trained(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / WEIGHTS).unlink()


@pytest.mark.slow
def test_onnx_is_added_where_it_was_not_and_stays(made: Path, stopped: Finished, tmp_path: Path) -> None:
    out = shutil.copytree(made, tmp_path / "recommended")
    said: list[str] = []
    for onnx in (True, False):
        export_models([the_export(stopped[3], out)], onnx=onnx, say=said.append)
    assert said == [
        f"{out}: model.pt2 and model.onnx give our masks on 12 made images",
        f"{out}: there already, and sound",
    ]
    assert (out / "model.onnx").is_file()
    shutil.rmtree(out)
