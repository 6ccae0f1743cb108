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

from trainable.config import InputError, TrainConfig
from trainable.exported import ModelExport, _without_paths, export_models
from trainable.graphs import Agreement
from trainable.sealed import read_sealed, write_sealed
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


def test_the_weights_do_not_tell_where_a_file_lay(made: Path) -> None:
    told = _without_paths(TrainConfig(weights="/home/me/secret/net-0123abcd.pth"))
    assert told["weights"] == "net-0123abcd.pth"
    _, header = read_weights(made)
    assert header["training"]["weights"] == "none"


@pytest.mark.parametrize(
    "content", [{"files": [], "source": {}}, {"files": {}}, {"files": {WEIGHTS: 3}, "source": {}}, {"panels": [1]}]
)
def test_a_sealed_manifest_of_another_shape_is_refused_in_a_line(
    made: Path, stopped: Finished, tmp_path: Path, content: dict[str, object]
) -> None:
    folder = tmp_path / "points_50"
    folder.mkdir()
    (folder / WEIGHTS).symlink_to(made / WEIGHTS)
    write_sealed(folder / "manifest.json", content)
    with pytest.raises(InputError, match=r"manifest\.json: does not say which files it stands for") as caught:
        load_trained(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"points_50: exists, and is not what canopoint made here"):
        export_models([the_export(stopped[3], folder)], onnx=False, say=lambda line: None)


def test_the_size_of_many_is_said_before_the_first(
    stopped: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def stop(*_: object) -> None:
        raise InputError("stopped before the first")

    monkeypatch.setattr("trainable.exported.load_trained", stop)
    exports = [the_export(stopped[3], tmp_path / name) for name in ("points_10", "points_50")]
    with pytest.raises(InputError, match="stopped"):
        export_models(exports, onnx=False, say=said.append)
    (state,) = (stopped[3] / "checkpoint").glob("state-*.npz")
    assert said == [f"exporting 2 models, some {4 * state.stat().st_size / 1e6:,.1f} MB"]  # weights and program each


def test_what_is_not_ours_is_not_replaced(stopped: Finished, tmp_path: Path) -> None:
    (tmp_path / "points_50").mkdir()
    exports = [the_export(stopped[3], tmp_path / name) for name in ("recommended", "points_50")]
    with pytest.raises(InputError, match=r"points_50: exists, and is not what canopoint made"):
        export_models(exports, onnx=False, say=lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["points_50"]


def test_a_stranger_s_folder_with_a_manifest_stays(stopped: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "points_50"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"manifest_version": 3}')  # as of a browser's extension
    (folder / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match=r"points_50: exists, and is not what canopoint made here"):
        export_models([the_export(stopped[3], folder)], onnx=False, say=lambda line: None)
    assert (folder / "notes.txt").read_text() == "precious"


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
        ({"encoder": "resnet19"}, r"weights\.safetensors: training\.encoder: must be one of .*did you mean resnet18"),
        ({"num_bands": 9}, "must tell 1 to 8 num_bands"),
        ({"num_bands": True}, "must tell 1 to 8 num_bands"),
        ({"scale": -1.0}, "a scale from 1/4096 to 4096"),
        ({"scale": float("nan")}, "a scale from 1/4096 to 4096"),
        ({"scale": 1e6}, "a scale from 1/4096 to 4096"),
        ({"scale": 1e-300}, "a scale from 1/4096 to 4096"),
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.int32])
def test_tensors_of_another_type_are_not_converted_silently(made: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    tensors, told = read_weights(made)
    tensors["head.weight"] = tensors["head.weight"].to(dtype)
    write_weights(tmp_path, tensors, told)
    with pytest.raises(InputError, match=rf"head\.weight must be torch\.float32, is {dtype}; export again"):
        load_trained(tmp_path)
    (tmp_path / WEIGHTS).unlink()


def test_a_hostile_scale_does_not_fill_the_memory(made: Path, tmp_path: Path) -> None:
    tensors, told = read_weights(made)
    write_weights(tmp_path, tensors, {**told, "images": {**told["images"], "scale": 4096.0}})
    Image.new("RGB", (50, 75)).save(tmp_path / "image.png")
    # 204,800 x 307,200 pixels
    with pytest.raises(InputError, match=r"image\.png: 62914560000 pixels at the model's scale, 4096; at most"):
        predict_files(tmp_path, [tmp_path / "image.png"], tmp_path / "out", None, lambda line: None)
    assert not (tmp_path / "out").exists()
    (tmp_path / WEIGHTS).unlink()


def test_the_file_of_the_weights_may_be_named_too(made: Path) -> None:
    assert load_trained(made / WEIGHTS).config == load_trained(made).config
    for other in (made / "model.pt2", made / WEIGHTS / "x"):
        with pytest.raises(InputError, match="holds no finished run"):
            load_trained(other)


@pytest.mark.slow
def test_onnx_is_added_where_it_was_asked_for(made: Path, stopped: Finished, tmp_path: Path) -> None:
    out = shutil.copytree(made, tmp_path / "recommended")
    said: list[str] = []
    for _ in range(2):
        export_models([the_export(stopped[3], out)], onnx=True, say=said.append)
    assert said == [
        f"{out}: model.pt2 and model.onnx give our masks on 12 made images",
        f"{out}: there already, and sound",
    ]
    assert (out / "model.onnx").is_file()
    shutil.rmtree(out)
