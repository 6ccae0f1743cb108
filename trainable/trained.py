"""A finished run's model, from its folder or from an exported one: to predict with."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from trainable import checkpoint
from trainable.atomic import check_parent
from trainable.config import MAX_BANDS, InputError, TrainConfig, from_mapping
from trainable.decode import read_header, read_image, resize
from trainable.model import Segmenter, build_model
from trainable.predict import plan_windows, predict_image, save_prediction
from trainable.sealed import read_sealed
from trainable.train import unit_scale
from trainable.trial_files import CONFIG, read_result
from trainable.weights_file import WEIGHTS, read_weights

MAX_SCALE = 4096.0
"""Of an image or its inverse: the largest `image_size`, of a single pixel."""

TILES_TO_TELL = 32
"""An image of more tiles takes long enough to say how far it is."""


@dataclass(frozen=True)
class TrainedModel:
    """A segmenter and what its images must be like.

    Attributes:
        scale: side of a training image over that of its file, so that the ground looks as large as in training;
            1/4096 to 4096.
    """

    model: Segmenter
    config: TrainConfig
    num_bands: int
    scale: float


def load_trained(folder: Path) -> TrainedModel:
    """Loads a finished run, or what was exported of one.

    Args:
        folder: of the run or the export; or the file of its weights there.

    Raises:
        InputError: neither, or a damaged one.
    """
    if folder.name == WEIGHTS and folder.is_file():
        folder = folder.parent
    if (folder / WEIGHTS).is_file():
        return _load_exported(folder)
    result = read_result(folder) if folder.is_dir() else None
    if result is None or result["state"] != "completed":
        raise InputError(
            f"{folder}: holds no finished run (result.json) and no exported one ({WEIGHTS}); name a trial's folder, as"
            f" in trials/<id>, or one that canopoint export made"
        )
    described = read_sealed(folder / CONFIG)
    if described is None:
        raise InputError(f"{folder / CONFIG}: absent; run the trial again, which writes it anew")
    config = _config(described["training"], str(folder / CONFIG))
    epoch, arrays = checkpoint.load_latest(folder / "checkpoint") or (0, {})
    if epoch != result["epochs"]:  # an older checkpoint is another model
        raise InputError(
            f"{folder / 'checkpoint'}: the trained weights are damaged or gone; the result stays valid, but to predict"
            f" remove {folder} and run again"
        )
    images = described["images"]
    model = _untrained(config, images["num_bands"])
    checkpoint.unpack_model(arrays, model)
    return TrainedModel(model.eval(), config, images["num_bands"], images["scale"])


def _load_exported(folder: Path) -> TrainedModel:
    """The model of `weights.safetensors`, a file that may come from anywhere."""
    tensors, header = read_weights(folder)
    where = str(folder / WEIGHTS)
    config = _config(header["training"], where)
    num_bands, scale = _checked_images(header["images"], where)
    model = _untrained(config, num_bands)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: its tensors are not those of {config.encoder} ({told}); export again") from error
    for name, own in model.state_dict().items():  # others would be converted, silently
        if tensors[name].dtype != own.dtype:
            raise InputError(f"{where}: {name} must be {own.dtype}, is {tensors[name].dtype}; export again")
    return TrainedModel(model.eval(), config, num_bands, scale)


def _untrained(config: TrainConfig, num_bands: int) -> Segmenter:
    model = build_model(replace(config, weights="none"), num_bands)
    return model.to(memory_format=torch.channels_last)


def _config(training: Any, where: str) -> TrainConfig:
    try:
        return from_mapping(TrainConfig, training, "training")
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _checked_images(images: Any, where: str) -> tuple[int, float]:
    """(bands, scale) of a header."""
    found = images if isinstance(images, dict) else {}
    num_bands, scale = found.get("num_bands", 0), found.get("scale", 0.0)
    are_numbers = type(num_bands) is int and type(scale) is float
    if are_numbers and 1 <= num_bands <= MAX_BANDS and 1 / MAX_SCALE <= scale <= MAX_SCALE:
        return num_bands, scale
    raise InputError(
        f"{where}: images: must tell 1 to {MAX_BANDS} num_bands and a scale from 1/{MAX_SCALE:.0f} to {MAX_SCALE:.0f};"
        f" export again"
    )


def predict_files(folder: Path, images: list[Path], out: Path, overlap: int | None, say: Callable[[str], None]) -> None:
    """Writes a mask, 255 where forest is predicted, for every image file.

    Args:
        folder: of a finished run or an exported one.
        images: image files of any size, with the bands that the run was trained on.
        out: folder of the masks, `<image's name>.png`.
        overlap: pixels that neighbouring tiles share; None for a quarter of a tile.
        say: told of every mask.

    Raises:
        InputError: no finished run, or an image that is not as it must be.
    """
    check_parent(out, "--out")
    trained = load_trained(folder)
    tile = trained.config.image_size
    overlap = tile // 4 if overlap is None else overlap
    plan_windows(1, 1, tile, overlap)  # refuses an overlap before anything is written
    targets = [out / f"{path.stem}.png" for path in images]
    _check_targets(targets)
    for path in images:
        _check_image(path, trained)
    out.mkdir(parents=True, exist_ok=True)
    for path, target in zip(images, targets, strict=True):
        mask = predict_file(trained, path, overlap, say)
        save_prediction(target, mask)
        say(f"{target}: {mask.mean():.1%} forest")


def _check_targets(targets: list[Path]) -> None:
    """No file is overwritten: `--out` may be a folder of images, or of masks that people drew."""
    if len(set(targets)) < len(targets):
        raise InputError("images: two of them have the same name without suffix; predict them into two folders")
    for target in targets:
        if target.exists():
            raise InputError(f"--out: {target} exists already; name another folder, or remove it")


def _check_image(path: Path, trained: TrainedModel) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    header = read_header(path)
    if header.kind or header.num_bands != trained.num_bands:
        raise InputError(
            f"{path}: {header.kind or f'{header.num_bands} bands'}; the model was trained on {trained.num_bands} bands"
            f" of 8 bits"
        )
    num_pixels = math.prod(_scaled(header.size, trained.scale))
    if Image.MAX_IMAGE_PIXELS and num_pixels > Image.MAX_IMAGE_PIXELS:
        raise InputError(
            f"{path}: {num_pixels} pixels at the model's scale, {trained.scale:g}; at most {Image.MAX_IMAGE_PIXELS}:"
            f" cut it into smaller images"
        )


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """A size at the scale of the training images; no side is lost."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def predict_file(trained: TrainedModel, path: Path, overlap: int, say: Callable[[str], None]) -> NDArray[np.uint8]:
    """(H, W) class indices at the size of the file, predicted at the scale of the training images.

    Args:
        trained: the model.
        path: an image file with its bands.
        overlap: pixels that neighbouring tiles share.
        say: told of every batch of tiles, where there are many.
    """
    pixels, _ = read_image(path, trained.num_bands)
    height, width = pixels.shape[:2]
    scaled = _scaled((height, width), trained.scale)
    tile = trained.config.image_size
    num_tiles = len(plan_windows(*scaled, tile, overlap))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    probabilities = predict_image(
        trained.model.to(device),
        resize(pixels, scaled),
        tile=tile,
        overlap=overlap,
        normalise=unit_scale,
        device=device,
        progress=lambda done: say(f"{path}: {done}/{num_tiles} tiles") if num_tiles > TILES_TO_TELL else None,
    )
    forest = Image.fromarray(probabilities[1]).resize((width, height), Image.Resampling.BILINEAR)
    return (np.asarray(forest) > 0.5).astype(np.uint8)
