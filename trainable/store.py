"""The memory-mapped store: every image decoded and resized once, then shared by all trials of a node.

A store is a folder with `images.npy` (N, H, W, bands) uint8, `masks.npy` (N, H, W) uint8 class indices and
`store.json`. It appears whole or not at all: packed beside its place and renamed into it.
"""

import json
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainable.atomic import new_folder
from trainable.config import TRAINER_VERSION, InputError
from trainable.scenes import FORMATS, SPLITS, ImagePair, SceneIndex

FOREST_THRESHOLD = 128
"""JPEG masks hold 0 to 9 and 246 to 255: at least this is forest."""


@dataclass(frozen=True)
class Store:
    """The pixels of a study at one image size.

    Attributes:
        images: (N, H, W, bands) uint8, memory-mapped.
        masks: (N, H, W) uint8, 0 background and 1 forest, memory-mapped.
        names: N image file names.
        splits: split -> indices into the N images, int64.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    names: tuple[str, ...]
    splits: dict[str, NDArray[np.int64]]


def store_path(cache: Path, index: SceneIndex, image_size: int) -> Path:
    """Where the store of these images at this size lies."""
    return cache / f"{index.fingerprint[:16]}-{image_size}-v{TRAINER_VERSION}"


def pack_store(index: SceneIndex, image_size: int, path: Path, progress: Callable[[int], None]) -> None:
    """Decodes, resizes and packs all images, unless the store is there already.

    Args:
        index: the checked images.
        image_size: side of the stored squares, pixels.
        path: the store's folder.
        progress: called with the number of images packed so far.

    Raises:
        InputError: a file that cannot be decoded, or masks without any forest. Nothing is left behind.
    """
    if path.is_dir():
        return
    with new_folder(path) as scratch:
        _pack(index, image_size, scratch, progress)


def open_store(path: Path) -> Store:
    """Maps a packed store into memory; costs nothing per trial."""
    described = json.loads((path / "store.json").read_text())
    return Store(
        images=np.load(path / "images.npy", mmap_mode="r", allow_pickle=False),
        masks=np.load(path / "masks.npy", mmap_mode="r", allow_pickle=False),
        names=tuple(described["names"]),
        splits={split: np.array(described["splits"][split], dtype=np.int64) for split in SPLITS},
    )


def _pack(index: SceneIndex, image_size: int, folder: Path, progress: Callable[[int], None]) -> None:
    count = len(index.pairs)
    shape = (count, image_size, image_size)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (*shape, index.num_bands))
    masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, shape)
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # Pillow decodes outside the interpreter lock
        decoded = threads.map(lambda pair: decode_pair(pair, image_size), index.pairs)
        for position, (image, mask) in enumerate(decoded):
            images[position], masks[position] = image.reshape(images.shape[1:]), mask
            progress(position + 1)
    if not masks.any():
        raise InputError(
            f"{index.root / 'masks'}: no pixel of any mask reaches {FOREST_THRESHOLD}; forest must be 255, background 0"
        )
    images.flush()
    masks.flush()
    (folder / "store.json").write_text(json.dumps(_description(index)))


def decode_pair(pair: ImagePair, image_size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One image (H, W) or (H, W, bands) uint8 and its mask (H, W) uint8 class indices, both resized.

    Raises:
        InputError: the file is damaged.
    """
    size = (image_size, image_size)
    image = _decode(pair.image)
    mask = _decode(pair.mask).convert("L").point(lambda value: 1 if value >= FOREST_THRESHOLD else 0)
    # Nearest for masks: a class index has no value between two classes.
    return _resized(image, size), np.asarray(mask.resize(size, Image.Resampling.NEAREST))


def _resized(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W) or (H, W, bands), band by band: Pillow would weight the colours of RGBA by what is near infra-red here."""
    bands = [np.asarray(band.resize(size, Image.Resampling.BILINEAR)) for band in image.split()]
    return bands[0] if len(bands) == 1 else np.stack(bands, axis=-1)


def _decode(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                return image.copy()
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: cannot be decoded ({error}); replace the file or remove its row") from error


def _description(index: SceneIndex) -> dict[str, Any]:
    members = {split: [i for i, pair in enumerate(index.pairs) if pair.split == split] for split in SPLITS}
    return {"names": [pair.image.name for pair in index.pairs], "splits": members}
