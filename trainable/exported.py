"""A finished run's model as a folder that others can use: weights, graphs, and the texts that go with them.

weights.safetensors  the tensors; in the header the run's settings and what identifies it
model.pt2            a program of `torch.export` (graphs.py says what it takes and gives)
model.onnx           the same for ONNX runtimes, where it was asked for
manifest.json        sealed: the checksum of every other file, what they were made from, how the graphs were checked

The texts are the caller's: a configuration and a model card. The folder appears whole or not at all, and is left as it
is where it holds all that already.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainable.atomic import check_parent, write_atomically
from trainable.config import CLASS_NAMES, InputError, TrainConfig
from trainable.graphs import (
    ONNX_FILE,
    PROGRAM_FILE,
    Agreement,
    check_graph,
    check_onnx_installed,
    open_onnx,
    open_program,
    trace,
    write_onnx,
    write_program,
)
from trainable.replaced_folder import check_replaceable, file_checksum, is_sound, read_mark, replaced_folder
from trainable.sealed import read_sealed, write_sealed
from trainable.trained import TrainedModel, load_trained
from trainable.trial_files import CONFIG, RESULT, read_result
from trainable.weights_file import MANIFEST, WEIGHTS, write_weights

OWN_FILES = (WEIGHTS, PROGRAM_FILE, ONNX_FILE, MANIFEST)


@dataclass(frozen=True)
class ModelExport:
    """One model to be exported.

    Attributes:
        trial: folder of the finished run.
        out: folder to be made, `<parent>/<name>`.
        texts: file name -> content of what goes beside the weights.
        header: what else the weights' header says, as text by name: data fingerprint, study, ...
    """

    trial: Path
    out: Path
    texts: Mapping[str, str]
    header: Mapping[str, str]


def export_models(exports: list[ModelExport], *, onnx: bool, say: Callable[[str], None]) -> list[Path]:
    """Makes every folder that is not there yet as it would be made.

    Args:
        exports: that all of them can be exported is checked before the first is made; but whether a checkpoint is
            sound shows only when it is read.
        onnx: whether to write `model.onnx` too.
        say: told of every folder, and before the first how many there will be and how large.

    Returns:
        The folders, those included that were there.

    Raises:
        InputError: a run whose weights are gone, packages that are absent, or a graph whose masks differ from ours.
    """
    if onnx:
        check_onnx_installed()
    planned = [(each, _source(each, onnx)) for each in exports]
    missing = []
    for each, source in planned:
        if _is_made(each.out, source):
            say(f"{each.out}: there already, and sound")
        else:
            missing.append((each, source))
    if len(missing) > 1:
        size = sum(_num_bytes(each, source) for each, source in missing)
        say(f"exporting {len(missing)} models, some {size / 1e6:,.1f} MB")
    for each, source in missing:
        checked = _export(each, source, onnx)
        ties = sum(agreement.num_ties for agreement in checked.values())
        told = f"; {ties} pixels are ties that rounding decides" if ties else ""
        gives = "give" if len(checked) > 1 else "gives"
        say(f"{each.out}: {' and '.join(checked)} {gives} our masks on {num_images(checked)} made images{told}")
    return [each.out for each in exports]


def _num_bytes(export: ModelExport, source: Mapping[str, Any]) -> int:
    """About what a folder takes: the last checkpoint holds the weights, and so does every graph."""
    state = export.trial / "checkpoint" / str(source["checkpoint"])
    return state.stat().st_size * (1 + len(source["graphs"]))


def num_images(checked: Mapping[str, Agreement]) -> int:
    """Images that each graph was checked on."""
    return min(agreement.num_images for agreement in checked.values())


def _source(export: ModelExport, onnx: bool) -> dict[str, Any]:
    """What a folder is made from: where this is the same, so is the folder."""
    assert not set(export.texts) & set(OWN_FILES), "the caller's texts have names of their own"
    check_parent(export.out, "--out")
    check_replaceable(export.out, MANIFEST)
    result = read_result(export.trial)
    states = sorted((export.trial / "checkpoint").glob("state-*.npz"))  # named by their hashes
    if result is None or result["state"] != "completed" or not states:
        raise InputError(
            f"{export.trial}: the trained weights are not at hand ({RESULT}, checkpoint/); export where the study ran,"
            f" or remove the folder and run the study again"
        )
    texts = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in export.texts.items()}
    return {
        "trial_id": export.trial.name,
        "checkpoint": states[-1].name,
        "texts": texts,
        "header": dict(export.header),
        "graphs": [PROGRAM_FILE, *([ONNX_FILE] if onnx else [])],
        "torch": str(torch.__version__),
    }


def _is_made(folder: Path, source: Mapping[str, Any]) -> bool:
    manifest = read_mark(folder / MANIFEST)  # check_replaceable has read it
    return manifest is not None and manifest.source == source and is_sound(folder, manifest)


def _export(export: ModelExport, source: Mapping[str, Any], onnx: bool) -> dict[str, Agreement]:
    trained = load_trained(export.trial)
    with replaced_folder(export.out, MANIFEST) as scratch:
        for name, text in export.texts.items():
            write_atomically(scratch / name, text)
        write_weights(scratch, trained.model.state_dict(), _header(export, trained))
        checked = _write_graphs(trained, scratch, onnx)
        files = {path.name: file_checksum(path) for path in sorted(scratch.iterdir())}
        agreements = {name: agreement.to_mapping() for name, agreement in checked.items()}
        write_sealed(scratch / MANIFEST, {"files": files, "source": source, "checked": agreements})
    return checked


def _write_graphs(trained: TrainedModel, folder: Path, onnx: bool) -> dict[str, Agreement]:
    """Writes the graphs, reads them back and holds them against the model."""
    program = trace(trained.model, trained.num_bands)
    write_program(program, folder / PROGRAM_FILE)
    opened = {PROGRAM_FILE: open_program(folder / PROGRAM_FILE)}
    if onnx:
        write_onnx(program, folder / ONNX_FILE)
        opened[ONNX_FILE] = open_onnx(folder / ONNX_FILE)
    return {name: check_graph(trained.model, graph, trained.num_bands, name) for name, graph in opened.items()}


def _header(export: ModelExport, trained: TrainedModel) -> dict[str, object]:
    described = read_sealed(export.trial / CONFIG)
    assert described is not None, "load_trained read it"
    return {
        **export.header,
        "trial_id": export.trial.name,
        "trainer_version": described["trainer_version"],
        "class_names": list(CLASS_NAMES),
        "training": _without_paths(trained.config),
        "images": described["images"],
    }


def _without_paths(config: TrainConfig) -> dict[str, Any]:
    """The settings; of a file of initial weights its name alone, for where it lay is nobody's business."""
    return {**config.to_mapping(), "weights": Path(config.weights).name}
