"""The memory-mapped store: every image decoded and resized once, then shared by all trials of a node.

A store is a folder with `images.npy` (N, H, W, bands) uint8, `masks.npy` (N, H, W) uint8 class indices, `store.json`
and the checksums of these. Whoever needs it first packs it, with all cores; the others wait.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainable.array_file import ArrayFile
from trainable.atomic import write_atomically
from trainable.config import TRAINER_VERSION
from trainable.decode import read_image, resize
from trainable.image_table import ImagePair
from trainable.labels import LabelFacts, check_masks, label_warnings, mask_labels, point_labels
from trainable.scenes import SPLITS, SceneIndex
from trainable.sealed import DamagedError
from trainable.shared_folder import make_once

PAIRS_PER_TASK, BYTES_PER_TASK = 8, 32 * 1024**2
TASKS_PER_SYNC = 16

Pixels = NDArray[np.uint8]
BandSums = NDArray[np.uint64]
Packed = tuple[LabelFacts, BandSums | None]


@dataclass(frozen=True)
class Store:
    """The pixels of a study at one image size.

    Attributes:
        images: (N, H, W, bands) uint8, memory-mapped.
        masks: (N, H, W) uint8, 0 background and 1 forest, IGNORE_INDEX where nothing is known; memory-mapped.
        names: N image file names.
        splits: split -> indices into the N images, int64.
        band_mean: of each band over the training split, for pixels in [0, 1].
        band_std: likewise; 0 for a band that is the same everywhere.
        warnings: what was accepted and should be known, one line each.
        sparse: the masks hold points of people, and IGNORE_INDEX elsewhere.
        scale: side of a stored image over that of its file, as it is usual here: how large the ground looks.
    """

    images: Pixels
    masks: Pixels
    names: tuple[str, ...]
    splits: dict[str, NDArray[np.int64]]
    band_mean: tuple[float, ...]
    band_std: tuple[float, ...]
    warnings: tuple[str, ...] = ()
    sparse: bool = False
    scale: float = 1.0


def store_path(cache: Path, index: SceneIndex, image_size: int) -> Path:
    """Where the store of these images at this size lies."""
    return cache / f"{index.fingerprint[:16]}-{image_size}-v{TRAINER_VERSION}"


def pack_store(index: SceneIndex, image_size: int, path: Path, progress: Callable[[int], None]) -> None:
    """Decodes, resizes and packs all images, unless the store is there, undamaged, or becomes there while we wait.

    Args:
        index: the checked images.
        image_size: side of the stored squares, pixels.
        path: the store's folder.
        progress: called with the number of images packed so far, by the process that packs.

    Raises:
        InputError: a file that cannot be decoded, or masks that make no sense. Nothing is left behind.
    """
    make_once(path, lambda scratch: _pack(index, image_size, scratch, progress))


def open_store(path: Path) -> Store:
    """Maps a packed store into memory; costs nothing per trial.

    Raises:
        DamagedError: a file is absent, cut short or not what it must be. To read all of it is left to the driver, once
            (`make_once`).
    """
    try:
        described = json.loads((path / "store.json").read_bytes())
        return Store(
            images=np.load(path / "images.npy", mmap_mode="r", allow_pickle=False),
            masks=np.load(path / "masks.npy", mmap_mode="r", allow_pickle=False),
            names=tuple(described["names"]),
            splits={split: np.array(described["splits"][split], dtype=np.int64) for split in SPLITS},
            band_mean=tuple(described["band_mean"]),
            band_std=tuple(described["band_std"]),
            warnings=tuple(described["warnings"]),
            sparse=described["sparse"],
            scale=described["scale"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path}: damaged ({error!r}); run again, which packs it anew") from error


def _pack(index: SceneIndex, image_size: int, folder: Path, progress: Callable[[int], None]) -> None:
    count, shape = len(index.pairs), (image_size, image_size)
    with (
        ArrayFile(folder / "images.npy", (count, *shape, index.num_bands)) as images,
        ArrayFile(folder / "masks.npy", (count, *shape)) as masks,
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads,  # decoders run outside the interpreter lock
    ):

        def pack_some(positions: range) -> list[Packed]:
            pairs = [index.pairs[position] for position in positions]
            decoded = [decode_pair(pair, index.num_bands, image_size) for pair in pairs]
            images.write(positions.start, [image for image, _, _ in decoded])
            masks.write(positions.start, [labels for _, labels, _ in decoded])
            return [
                (facts, band_sums(image) if pair.split == "train" else None)
                for pair, (image, _, facts) in zip(pairs, decoded, strict=True)
            ]

        packed: list[Packed] = []
        for number, some in enumerate(threads.map(pack_some, _tasks(count, image_size**2 * (index.num_bands + 1)))):
            for each in some:
                packed.append(each)
                progress(len(packed))
            if number % TASKS_PER_SYNC == TASKS_PER_SYNC - 1:  # the disk writes while the cores decode
                images.sync()
                masks.sync()
        images.sync()
        masks.sync()
    description = _description(index, [facts for facts, _ in packed], image_size)
    statistics = band_statistics([sums for _, sums in packed if sums is not None], image_size**2)
    write_atomically(folder / "store.json", json.dumps(description | statistics))


def _tasks(count: int, bytes_per_pair: int) -> list[range]:
    """What a thread does at once: several pairs, since passing each to it alone takes a third as long as decoding."""
    step = max(1, min(PAIRS_PER_TASK, BYTES_PER_TASK // bytes_per_pair))
    return [range(start, min(start + step, count)) for start in range(0, count, step)]


def decode_pair(pair: ImagePair, num_bands: int, image_size: int) -> tuple[Pixels, Pixels, LabelFacts]:
    """One image (H, W, bands) uint8 and its labels (H, W) uint8, both of `image_size`.

    Raises:
        InputError: the file is damaged.
    """
    image, _ = read_image(pair.image, num_bands)
    if pair.mask:
        labels, facts = decode_mask(pair.mask, image_size)
    else:
        labels, facts = point_labels(pair.points, (image.shape[0], image.shape[1]), image_size)
    return resize(image, (image_size, image_size)), labels, facts


def decode_mask(path: Path, image_size: int) -> tuple[Pixels, LabelFacts]:
    """The labels (H, W) uint8 that a mask file holds, of `image_size`.

    Raises:
        InputError: the file is damaged.
    """
    grey, is_lossy = read_image(path, 1)
    return mask_labels(grey[..., 0], is_lossy, image_size)


def band_sums(pixels: Pixels) -> BandSums:
    """(2, bands): the sums of an image's values and of their squares, exact."""
    rows = pixels.reshape(len(pixels), -1)  # whole rows are added at once, and the bands told apart in the end
    sums = np.stack([rows.sum(axis=0, dtype=np.uint32), np.einsum("ij,ij->j", rows, rows, dtype=np.uint32)])
    per_band: BandSums = sums.reshape(2, -1, pixels.shape[2]).sum(axis=1, dtype=np.uint64)
    return per_band


def band_statistics(sums: Sequence[BandSums], num_pixels: int) -> dict[str, list[float]]:
    """Mean and standard deviation of each band for pixels in [0, 1], rounded once: the sums are whole numbers.

    Args:
        sums: those of each image.
        num_pixels: in each image.
    """
    count = len(sums) * num_pixels
    # Python's whole numbers, which do not overflow.
    bands = [
        (sum(int(each[0, band]) for each in sums), sum(int(each[1, band]) for each in sums))
        for band in range(sums[0].shape[1])
    ]
    return {
        "band_mean": [total / (255 * count) for total, _ in bands],
        "band_std": [math.sqrt(count * squares - total**2) / (255 * count) for total, squares in bands],
    }


def _description(index: SceneIndex, facts: list[LabelFacts], image_size: int) -> dict[str, Any]:
    if not index.sparse:
        check_masks(index, facts)
    return {
        "names": [pair.image.name for pair in index.pairs],
        "splits": {split: [i for i, pair in enumerate(index.pairs) if pair.split == split] for split in SPLITS},
        "warnings": [*index.warnings, *label_warnings(index, facts, image_size)],
        "sparse": index.sparse,
        "scale": image_size / index.side,
    }
