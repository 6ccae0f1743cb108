"""Image folders: read, checked, grouped by scene and split by whole scenes.

A data folder holds `images/`, `masks/` and `meta_data.csv` (columns image, mask and, optionally, the scene). Nothing is
decoded here: sizes and modes come from the file headers, and the pixels enter by their hash alone.
"""

import csv
import hashlib
import random
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from trainable.atomic import MAX_NAME_BYTES
from trainable.config import DataConfig, InputError, SplitConfig
from trainable.randomness import derive_seed

SPLITS = ("train", "val", "test")
FORMATS = ("JPEG", "PNG", "TIFF")
# Four-band TIFF opens as RGBA, but its fourth band is near infra-red. In a PNG it is transparency, which is no band.
IMAGE_BANDS = {"L": 1, "RGB": 3, "RGBA": 4}
MASK_MODES = ("1", "L", "RGB")
META_DATA = "meta_data.csv"


@dataclass(frozen=True)
class ImagePair:
    """One image, its mask, and the scene that it was cut from."""

    image: Path
    mask: Path
    scene: str
    split: str = ""


@dataclass(frozen=True)
class SceneIndex:
    """The images of a study, checked and split.

    Attributes:
        pairs: in the order of their names.
        num_bands: bands of every image.
        num_available: images in the folder, of which `pairs` may be a part (`max_images`).
        fingerprint: SHA-256 over names, scenes, splits and file contents: what a run sees.
    """

    root: Path
    pairs: tuple[ImagePair, ...]
    num_bands: int
    num_available: int
    fingerprint: str

    def scenes(self, split: str) -> list[str]:
        """The scenes of a split, sorted."""
        return sorted({pair.scene for pair in self.pairs if pair.split == split})


def read_index(config: DataConfig, root: Path) -> SceneIndex:
    """Reads and checks a data folder.

    Raises:
        InputError: a folder, file, row or header is missing or not as it must be.
    """
    pairs = _read_rows(root, config.group)
    num_bands = _check_headers(root, pairs)
    kept = _take_whole_scenes(pairs, config)
    if len({pair.scene for pair in kept}) < len(SPLITS) and config.max_images:
        raise InputError(
            f"data.max_images: {config.max_images} images hold fewer than {len(SPLITS)} whole scenes; raise it"
        )
    split_of = split_scenes(Counter(pair.scene for pair in kept), config.split)
    kept = [ImagePair(pair.image, pair.mask, pair.scene, split_of[pair.scene]) for pair in kept]
    return SceneIndex(root, tuple(kept), num_bands, len(pairs), _fingerprint(kept))


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


def _read_rows(root: Path, group: str) -> list[ImagePair]:
    for folder in (root, root / "images", root / "masks"):
        if not folder.is_dir():
            raise InputError(f"data.root: {folder}: no such folder; a data folder holds images/, masks/, {META_DATA}")
    for folder in (root / "images", root / "masks"):
        if not any(folder.iterdir()):
            raise InputError(f"data.root: {folder}: the folder is empty; it must hold the files that {META_DATA} names")
    table = root / META_DATA
    if not table.is_file():
        raise InputError(f"{table}: no such file; write one with the columns image,mask (and scene)")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_columns(table, reader.fieldnames or [], group)
            pairs = [_read_row(root, table, reader.line_num, row, group) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a UTF-8 csv file ({error}); save it as one") from error
    _check_unique(table, pairs)
    return sorted(pairs, key=lambda pair: pair.image.name)


def _check_columns(table: Path, columns: object, group: str) -> None:
    assert isinstance(columns, list | tuple)
    needed = ["image", "mask"] + ([] if group == "scene" else [group])
    for column in needed:
        if column not in columns:
            raise InputError(f"{table}: no column {column!r}; it has {', '.join(map(str, columns)) or 'none'}")


def _read_row(root: Path, table: Path, number: int, row: dict[str, str], group: str) -> ImagePair:
    where = f"{table}: row {number}"
    image = _member(root, "images", row["image"], where)
    mask = _member(root, "masks", row["mask"], where)
    scene = (row[group] or "").strip() if group in row else _scene_from_name(image.name, where)
    if not scene:
        raise InputError(f"{where}: {group} is empty; every image needs the scene that it was cut from")
    return ImagePair(image, mask, scene)


def _member(root: Path, folder: str, name: str | None, where: str) -> Path:
    """The file `root/folder/name`, refused where it is absent or would leave the folder."""
    if not name or Path(name).name != name or "\\" in name or len(name.encode()) > MAX_NAME_BYTES:
        raise InputError(f"{where}: {folder[:-1]} must be a plain file name inside {folder}/, got {name!r}")
    path = root / folder / name
    if not path.is_file():
        raise InputError(f"{where}: {folder[:-1]} {path} is absent; add the file or remove the row")
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{where}: {folder[:-1]} {path} points outside {root}; copy the file into the folder")
    return path


def _scene_from_name(name: str, where: str) -> str:
    match = re.match(r"([^_]+)_", name)
    if not match:
        raise InputError(
            f"{where}: {name} does not start with its scene and an underscore (as in 10452_sat_08.jpg);"
            f" add a scene column to {META_DATA} or name one with data.group"
        )
    return match.group(1)


def _check_unique(table: Path, pairs: list[ImagePair]) -> None:
    if not pairs:
        raise InputError(f"{table}: no rows; a row names an image and its mask")
    name, count = Counter(pair.image.name for pair in pairs).most_common(1)[0]
    if count > 1:
        raise InputError(f"{table}: image {name} stands in {count} rows; each image has one row")


def _check_headers(root: Path, pairs: list[ImagePair]) -> int:
    """Every mask has its image's size, every image the same number of bands, which is returned."""
    bands: Counter[int] = Counter()
    for pair in pairs:
        size, mode, kind = read_header(pair.image)
        mask_size, mask_mode, _ = read_header(pair.mask)
        if mode not in IMAGE_BANDS or (mode == "RGBA" and kind != "TIFF"):
            raise InputError(f"{pair.image}: {kind} of mode {mode}; save it as 8-bit RGB (or grey, or four-band TIFF)")
        if mask_mode not in MASK_MODES:
            raise InputError(f"{pair.mask}: mask of mode {mask_mode}; save it as 8-bit grey, 0 background, 255 forest")
        if mask_size != size:
            raise InputError(
                f"{pair.mask}: mask is {mask_size[0]}x{mask_size[1]} pixels, its image {pair.image.name}"
                f" {size[0]}x{size[1]}; they must be equal"
            )
        bands[IMAGE_BANDS[mode]] += 1
    if len(bands) > 1:
        raise InputError(
            f"{root / 'images'}: images with {' and '.join(map(str, sorted(bands)))} bands; use one number"
        )
    return next(iter(bands))


def read_header(path: Path) -> tuple[tuple[int, int], str, str]:
    """(width, height), mode and format of an image file, without decoding it.

    Raises:
        InputError: not an image of an allowed format, or one so large that decoding it would be an attack.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return image.size, image.mode, str(image.format)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not a whole {', '.join(FORMATS)} image; replace it or remove its row") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: more than {Image.MAX_IMAGE_PIXELS} pixels; cut it into smaller images") from error


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


def _fingerprint(pairs: list[ImagePair]) -> str:
    digest = hashlib.sha256()
    for pair in pairs:
        contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (pair.image, pair.mask)]
        digest.update("\0".join([pair.image.name, pair.scene, pair.split, *contents]).encode() + b"\n")
    return digest.hexdigest()
