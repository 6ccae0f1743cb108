"""From a DataConfig to images that can be trained on: folder, index, store and a description for the report."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trainable.config import CLASS_NAMES, TRAINER_VERSION, DataConfig, SyntheticConfig
from trainable.metrics import floors
from trainable.scenes import SPLITS, SceneIndex, read_index
from trainable.shared_folder import make_once
from trainable.store import Store, open_store, pack_store, store_path
from trainable.synthetic import write_synthetic


def load_index(config: DataConfig, cache: Path) -> SceneIndex:
    """Finds (or makes) the data folder, reads and checks it.

    Args:
        config: which images.
        cache: folder for made data; a real data folder is read where it is.

    Raises:
        InputError: the folder is not as it must be.
    """
    root = Path(config.root) if config.root else _made_folder(config.synthetic, cache)
    return read_index(config, root)


def load_store(index: SceneIndex, image_size: int, cache: Path, progress: Callable[[int], None]) -> Path:
    """The folder of the packed store of these images, packed now if it is not there or damaged; read to find out."""
    path = store_path(cache, index, image_size)
    pack_store(index, image_size, path, progress)
    return path


def describe_data(config: DataConfig, index: SceneIndex, store_folder: Path) -> dict[str, Any]:
    """What the report says of the data: source, scenes and classes of each split, warnings, and the floors to beat.

    Where people's points take the place of masks, shares and floors are those of the points.
    """
    store = open_store(store_folder)
    pixels = {split: _class_pixels(store, split) for split in SPLITS}
    return {
        "fingerprint": index.fingerprint,
        "source": "synthetic" if config.synthetic else str(index.root.resolve()),
        "annotations": "points" if store.sparse else "masks",
        "num_images": len(index.pairs),
        "num_images_available": index.num_available,
        "num_scenes": len({pair.scene for pair in index.pairs}),
        "num_bands": index.num_bands,
        "image_size": int(store.images.shape[1]),
        "class_names": list(CLASS_NAMES),
        "splits": {split: _describe_split(index, store, split, pixels[split]) for split in SPLITS},
        # A split of which nothing is known has no share.
        "forest_share": {
            split: each["forest"] / sum(each.values()) for split, each in pixels.items() if any(each.values())
        },
        "floors": _floors(store, [split for split in ("val", "test") if any(pixels[split].values())]),
        "warnings": list(store.warnings),
    }


def _describe_split(index: SceneIndex, store: Store, split: str, pixels: dict[str, int]) -> dict[str, Any]:
    described = {"num_images": len(store.splits[split]), "scenes": index.scenes(split)}
    if not store.sparse:
        return described
    num_labelled = sum(pair.split == split and bool(pair.points) for pair in index.pairs)
    return described | {"num_labelled": num_labelled, "num_points": pixels}


def _floors(store: Store, splits: list[str]) -> dict[str, dict[str, float]]:
    """Floor -> `<split>/<metric>` -> value, for the splits of which something is known."""
    named: dict[str, dict[str, float]] = {}
    for split in splits:
        for floor, scores in floors(store.masks[store.splits[split]]).items():
            named.setdefault(floor, {}).update({f"{split}/{name}": value for name, value in scores.items()})
    return named


def _class_pixels(store: Store, split: str) -> dict[str, int]:
    """Class -> known pixels of a split."""
    masks = store.masks[store.splits[split]]
    return {name: int(np.count_nonzero(masks == number)) for number, name in enumerate(CLASS_NAMES)}


def _made_folder(config: SyntheticConfig | None, cache: Path) -> Path:
    """The folder of the made data set with these settings, written once and whole."""
    assert config is not None, "DataConfig holds either root or synthetic"
    key = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / f"synthetic-{key}-v{TRAINER_VERSION}"
    make_once(folder, lambda scratch: write_synthetic(config, scratch))
    return folder
