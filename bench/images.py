"""Images to measure on: real ones where they are at hand, made ones elsewhere; noise where no file is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from bench.scale import Scale
from trainable.config import IGNORE_INDEX, DataConfig, SyntheticConfig
from trainable.data import load_index, load_store
from trainable.scenes import SceneIndex
from trainable.store import Store, open_store

FOREST = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "forest"


@dataclass(frozen=True)
class Images:
    """The same images twice: as files for the notebook, as a packed store for us."""

    index: SceneIndex
    store: Store

    def files(self, split: str) -> list[tuple[Path, Path]]:
        """Image and mask of each member of a split, in the store's order."""
        files = image_files(self.index)
        return [files[i] for i in self.store.splits[split]]


def find_index(scale: Scale, max_images: int | None, cache: Path) -> SceneIndex:
    """The forest images, or made landscapes of the same size."""
    if FOREST.is_dir():
        return load_index(DataConfig(root=str(FOREST), max_images=max_images), cache)
    made = SyntheticConfig(num_scenes=12, images_per_scene=16, image_size=scale.image_size)
    return load_index(DataConfig(synthetic=made), cache)


def image_files(index: SceneIndex) -> list[tuple[Path, Path]]:
    """Image and mask of every pair; benchmarks run on data with masks."""
    return [(pair.image, pair.mask) for pair in index.pairs if pair.mask]


@contextmanager
def few_images(scale: Scale) -> Iterator[Images]:
    """`num_train` training and `num_val` validation images, packed; gone with the context."""
    with TemporaryDirectory() as scratch:
        # Whole scenes are taken and go to the splits 0.6 / 0.2 / 0.2: six times as many leave enough in each.
        index = find_index(scale, max(192, 6 * max(scale.num_train, scale.num_val)), Path(scratch))
        store = open_store(load_store(index, scale.image_size, Path(scratch), lambda done: None))
        wanted = {"train": scale.num_train, "val": scale.num_val, "test": 1}
        splits = {split: members[: wanted[split]] for split, members in store.splits.items()}
        yield Images(index, replace(store, splits=splits))


def noise_store(num_train: int, num_val: int, image_size: int) -> Store:
    """A store in memory that no file stands behind: random pixels, random masks."""
    generator = np.random.default_rng(0)
    count = num_train + num_val + 1
    shape = (count, image_size, image_size)
    ends = np.arange(count)
    return Store(
        images=generator.integers(0, 256, (*shape, 3), dtype=np.uint8),
        masks=generator.integers(0, 2, shape, dtype=np.uint8),
        names=tuple(f"{number}.png" for number in range(count)),
        splits={"train": ends[:num_train], "val": ends[num_train:-1], "test": ends[-1:]},
        band_mean=(0.5, 0.5, 0.5),
        band_std=(0.29, 0.29, 0.29),
    )


def noise_batch(batch_size: int, image_size: int, num_points: int) -> tuple[Tensor, Tensor]:
    """The notebook's (B, 3, H, W) float32 images and (B, H, W) int64 labels, of so many points each."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, image_size, image_size, generator=generator)
    labels = torch.full((batch_size, image_size**2), IGNORE_INDEX, dtype=torch.int64)
    for row in labels:
        chosen = torch.randperm(image_size**2, generator=generator)[:num_points]
        row[chosen] = torch.randint(0, 2, (num_points,), generator=generator)
    return images, labels.view(batch_size, image_size, image_size)
