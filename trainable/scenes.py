"""The images of a study: checked, grouped by scene, split by whole scenes, and fingerprinted.

A data folder holds `images/` and `masks/`, or `images/` and point annotations of people. Nothing is decoded here: sizes
and bands come from the file headers, and the pixels enter by their hash alone.
"""

import hashlib
import json
import os
import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from trainable.config import CLASS_NAMES, MAX_BANDS, AnnotationConfig, DataConfig, InputError, SplitConfig
from trainable.decode import Header, read_header
from trainable.image_table import ImagePair, list_images, read_pairs
from trainable.point_files import PointAnnotation, read_annotations
from trainable.point_negatives import require_both_classes
from trainable.randomness import derive_seed

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SceneIndex:
    """The images of a study, checked and split.

    Attributes:
        pairs: in the order of their names.
        num_bands: bands of every image.
        side: of an image file, pixels: the median over the images of the mean of width and height.
        num_available: images in the folder, of which `pairs` may be a part (`max_images`).
        fingerprint: SHA-256 over names, scenes, splits, file contents and points: what a run sees.
        warnings: what was accepted and should be known, one line each.
    """

    root: Path
    pairs: tuple[ImagePair, ...]
    num_bands: int
    side: float
    num_available: int
    fingerprint: str
    warnings: tuple[str, ...] = ()

    @property
    def sparse(self) -> bool:
        """Whether people's points take the place of masks."""
        return self.pairs[0].mask is None

    def scenes(self, split: str) -> list[str]:
        """The scenes of a split, sorted."""
        return sorted({pair.scene for pair in self.pairs if pair.split == split})


def read_index(config: DataConfig, root: Path) -> SceneIndex:
    """Reads and checks a data folder.

    Raises:
        InputError: a folder, file, row, header or point is missing or not as it must be.
    """
    pairs = read_pairs(root, config.group, with_masks=config.annotations is None)
    num_bands, side, warnings = _check_headers(root, pairs)
    kept = _take_whole_scenes(pairs, config)
    if len({pair.scene for pair in kept}) < len(SPLITS) and config.max_images:
        raise InputError(
            f"data.max_images: {config.max_images} images hold fewer than {len(SPLITS)} whole scenes; raise it"
        )
    split_of = split_scenes(Counter(pair.scene for pair in kept), config.split)
    kept = [replace(pair, split=split_of[pair.scene]) for pair in kept]
    if config.annotations:
        if (root / "masks").is_dir():
            warnings.append(f"{root / 'masks'} is not used: data.annotations takes its place, in evaluation too")
        # The files may speak of images that are not used.
        annotations = read_annotations(config.annotations, root, list_images(root))
        kept, told = _with_points(kept, config.annotations, annotations)
        warnings += told
    return SceneIndex(root, tuple(kept), num_bands, side, len(pairs), _fingerprint(kept), tuple(warnings))


def split_scenes(num_images: Counter[str], config: SplitConfig) -> dict[str, str]:
    """Assigns whole scenes to train, val and test so that the shares of images come close to those asked for.

    In a seeded order, each scene goes to the split that lacks the largest part of its share; no split stays empty.

    Args:
        num_images: images per scene.
        config: the shares.

    Raises:
        InputError: fewer scenes than splits.
    """
    if len(num_images) < len(SPLITS):
        raise InputError(
            f"data: {len(num_images)} scene(s) cannot be split by scene into train, val and test;"
            f" at least {len(SPLITS)} are needed"
        )
    scenes = sorted(num_images)
    random.Random(derive_seed(config.seed, "split")).shuffle(scenes)
    wanted = {split: getattr(config, split) * num_images.total() for split in SPLITS}
    assigned: dict[str, str] = {}
    filled: Counter[str] = Counter()
    for scene in scenes:
        split = max(SPLITS, key=lambda name: 1 - filled[name] / wanted[name])  # 1 for one that is still empty
        assigned[scene] = split
        filled[split] += num_images[scene]
    return assigned


def _check_headers(root: Path, pairs: list[ImagePair]) -> tuple[int, float, list[str]]:
    """Every mask has its image's size, every image the same number of bands.

    Returns:
        That number, the usual side of an image, and what is to be known of their sizes.
    """
    bands: dict[int, str] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    for pair in pairs:
        header = read_header(pair.image)
        if header.kind or not 1 <= header.num_bands <= MAX_BANDS:
            raise InputError(
                f"{pair.image}: {header.kind or f'{header.num_bands} bands'}; save it as 8-bit grey or RGB (or as TIFF"
                f" with 1 to {MAX_BANDS} bands of 8 bits)"
            )
        bands.setdefault(header.num_bands, pair.image.name)
        sizes[header.size] += 1
        if pair.mask:
            _check_mask(pair.mask, read_header(pair.mask), header.size, pair.image.name)
    if len(bands) > 1:
        found = ", ".join(f"{number} ({name})" for number, name in sorted(bands.items()))
        raise InputError(f"{root / 'images'}: images with different numbers of bands: {found}; use one number")
    side = statistics.median(sum(size) / 2 for size in sizes.elements())
    return next(iter(bands)), side, _size_warnings(sizes)


def _size_warnings(sizes: Counter[tuple[int, int]]) -> list[str]:
    """All images become squares of one size: what differs in shape or size is stretched, and the ground with it."""
    if len(sizes) == 1 and all(width == height for width, height in sizes):
        return []
    examples = ", ".join(f"{width}x{height} ({number} images)" for (width, height), number in sizes.most_common(3))
    return [f"images are stretched to squares of one size, and have {len(sizes)} sizes or shapes: {examples}"]


def _check_mask(path: Path, header: Header, size: tuple[int, int], image_name: str) -> None:
    if header.kind not in ("", "1-bit") or header.num_bands not in (1, 3):
        raise InputError(
            f"{path}: {header.kind or f'{header.num_bands} bands'}; save masks as 8-bit grey, 0 background, 255 forest"
        )
    if header.size != size:
        raise InputError(
            f"{path}: mask is {header.size[0]}x{header.size[1]} pixels, its image {image_name} {size[0]}x{size[1]};"
            f" they must be equal"
        )


def _take_whole_scenes(pairs: list[ImagePair], config: DataConfig) -> list[ImagePair]:
    if config.max_images is None:
        return pairs
    sizes = Counter(pair.scene for pair in pairs)
    scenes = sorted(sizes)
    random.Random(derive_seed(config.split.seed, "max_images")).shuffle(scenes)
    taken: set[str] = set()
    total = 0
    for scene in scenes:
        if total + sizes[scene] <= config.max_images:
            taken.add(scene)
            total += sizes[scene]
    return [pair for pair in pairs if pair.scene in taken]


def _with_points(
    pairs: list[ImagePair], config: AnnotationConfig, annotations: Mapping[str, Sequence[PointAnnotation]]
) -> tuple[list[ImagePair], list[str]]:
    """The images with their points, and what is to be known of them."""
    images = {pair.image.name: pair.image for pair in pairs}
    made = {name: points for name, points in annotations.items() if name in images}
    used = require_both_classes(made, config, images)
    pairs = [replace(pair, points=tuple(used.get(pair.image.name, ()))) for pair in pairs]
    _require_points(pairs, "train", len(CLASS_NAMES), "points of both classes")
    _require_points(pairs, "val", 1, "a point")
    warnings = []
    empty = [pair.image.name for pair in pairs if not pair.points]
    if empty:
        warnings.append(f"{len(empty)} of {len(pairs)} images have no point and teach nothing, for example {empty[0]}")
    num_sampled = sum(map(len, used.values())) - sum(map(len, made.values()))
    if num_sampled:
        warnings.append(
            f"{num_sampled} points of {CLASS_NAMES[0]} were sampled (data.annotations.negatives); an unlabelled tree"
            f" may be among them"
        )
    return pairs, warnings


def check_test_split(index: SceneIndex) -> None:
    """Refuses to confirm on a test split of which nothing is known; without confirmation it may be so.

    Raises:
        InputError: says which scenes to label.
    """
    if index.sparse:
        _require_points(index.pairs, "test", 1, "a point")


def check_train_images(index: SceneIndex, wanted: int | None) -> None:
    """Refuses to train on more labelled images than the training split holds.

    Args:
        index: the checked images.
        wanted: the most that a run asks for (`training.train_images`); None: all that there are.

    Raises:
        InputError: says how many there are.
    """
    count = sum(pair.split == "train" and bool(pair.mask or pair.points) for pair in index.pairs)
    if wanted is not None and wanted > count:
        raise InputError(
            f"train_images: must be at most the {count} labelled training images, got {wanted}; ask for fewer, leave it"
            f" out to take all, or change data.split"
        )


def _require_points(pairs: Sequence[ImagePair], split: str, num_classes: int, what: str) -> None:
    members = [pair for pair in pairs if pair.split == split]
    if len({point.class_index for pair in members for point in pair.points}) < num_classes:
        raise InputError(
            f"data.annotations: the images of the {split} split do not have {what}; label some in"
            f" {', '.join(sorted({pair.scene for pair in members})[:5])}, or change data.split"
        )


def _fingerprint(pairs: list[ImagePair]) -> str:
    digest = hashlib.sha256()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:  # reading and hashing free the interpreter lock
        for pair, contents in zip(pairs, threads.map(_content_hashes, pairs), strict=True):
            digest.update("\0".join([pair.image.name, pair.scene, pair.split, *contents]).encode() + b"\n")
    return digest.hexdigest()


def _content_hashes(pair: ImagePair) -> list[str]:
    """Of the image, and of its mask or points."""
    known = pair.mask.read_bytes() if pair.mask else json.dumps([astuple(point) for point in pair.points]).encode()
    return [hashlib.sha256(content).hexdigest() for content in (pair.image.read_bytes(), known)]
