"""From a DataConfig to images that can be trained on: folder, index, store and a description for the report."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trainable.atomic import new_folder
from trainable.config import CLASS_NAMES, TRAINER_VERSION, DataConfig, SyntheticConfig
from trainable.scenes import SPLITS, SceneIndex, read_index
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
    """The folder of the packed store of these images, packed now if it is not there."""
    path = store_path(cache, index, image_size)
    pack_store(index, image_size, path, progress)
    return path


def describe_data(config: DataConfig, index: SceneIndex, store_folder: Path) -> dict[str, Any]:
    """What the report says of the data: source, scenes of each split, share of forest, and the floors to beat."""
    from trainable.metrics import floors  # imports torch, which takes seconds

    store = open_store(store_folder)
    validation = store.masks[store.splits["val"]]
    return {
        "fingerprint": index.fingerprint,
        "source": "synthetic" if config.synthetic else str(index.root.resolve()),
        "num_images": len(index.pairs),
        "num_images_available": index.num_available,
        "num_scenes": len({pair.scene for pair in index.pairs}),
        "num_bands": index.num_bands,
        "image_size": int(store.images.shape[1]),
        "class_names": list(CLASS_NAMES),
        "splits": {split: {"num_images": len(store.splits[split]), "scenes": index.scenes(split)} for split in SPLITS},
        "forest_share": {split: _forest_share(store, split) for split in SPLITS},
        "floors": {
            floor: {f"val/{name}": value for name, value in scores.items()}
            for floor, scores in floors(validation).items()
        },
    }


def _made_folder(config: SyntheticConfig | None, cache: Path) -> Path:
    """The folder of the made data set with these settings, written once and whole."""
    assert config is not None, "DataConfig holds either root or synthetic"
    key = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / f"synthetic-{key}-v{TRAINER_VERSION}"
    if not folder.is_dir():
        with new_folder(folder) as scratch:
            write_synthetic(config, scratch)
    return folder


def _forest_share(store: Store, split: str) -> float:
    return float(np.mean(store.masks[store.splits[split]] == CLASS_NAMES.index("forest")))
