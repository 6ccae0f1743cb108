"""The images of a data folder as its table lists them, with their masks and the scenes that they were cut from."""

import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trainable.atomic import MAX_NAME_BYTES
from trainable.config import InputError
from trainable.point_files import PointAnnotation

META_DATA = "meta_data.csv"
SIDECARS = (".aux.xml", ".ovr", ".prj", ".tfw", ".jgw", ".pgw", ".wld")
"""What geographic information systems put beside an image."""


@dataclass(frozen=True)
class ImagePair:
    """One image, what is known of its pixels, and the scene that it was cut from.

    Attributes:
        mask: a file of the image's size; None where points were annotated instead.
        points: those points, in pixels of the image.
    """

    image: Path
    mask: Path | None
    scene: str
    split: str = ""
    points: tuple[PointAnnotation, ...] = ()


def read_pairs(root: Path, group: str, with_masks: bool) -> list[ImagePair]:
    """Lists the images in the order of their names.

    Args:
        root: the data folder: `images/`, and `masks/` and `meta_data.csv` (columns image, mask and, optionally, the
            scene). Without masks the table is optional: all of `images/` is taken.
        group: column that names the scene. Where `scene` is asked for and there is none, the image's name starts
            with it.
        with_masks: whether every image needs its mask.

    Raises:
        InputError: a folder, file, column or row is missing or not as it must be. No image is opened here.
    """
    _check_folders(root, ("images", "masks") if with_masks else ("images",))
    table = root / META_DATA
    if table.is_file():
        pairs = _read_table(root, table, group, with_masks)
    elif with_masks or group != "scene":
        raise InputError(f"{table}: no such file; write one with the columns image,mask (and {group})")
    else:
        pairs = _list_folder(root)
    return sorted(pairs, key=lambda pair: pair.image.name)


def _check_folders(root: Path, folders: tuple[str, ...]) -> None:
    for folder in (root, *(root / name for name in folders)):
        if not folder.is_dir():
            wanted = ", ".join(f"{name}/" for name in folders)
            raise InputError(f"data.root: {folder}: no such folder; a data folder holds {wanted}, {META_DATA}")
        if not folder.resolve().is_relative_to(root.resolve()):
            raise InputError(f"data.root: {folder} points outside {root}; copy its files into the folder")
        if not any(folder.iterdir()):
            raise InputError(f"data.root: {folder}: the folder is empty; it must hold the files that {META_DATA} names")


def _read_table(root: Path, table: Path, group: str, with_masks: bool) -> list[ImagePair]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            needed = ["image"] + ["mask"] * with_masks + [group] * (group != "scene")
            _check_columns(table, list(reader.fieldnames or []), needed)
            pairs = [_read_row(root, f"{table}: row {reader.line_num}", row, group, with_masks) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a UTF-8 csv file ({error}); save it as one") from error
    if not pairs:
        raise InputError(f"{table}: no rows; a row names an image and its mask")
    name, count = Counter(pair.image.name for pair in pairs).most_common(1)[0]
    if count > 1:
        raise InputError(f"{table}: image {name} stands in {count} rows; each image has one row")
    return pairs


def _check_columns(table: Path, columns: list[str], needed: list[str]) -> None:
    for column in needed:
        if column not in columns:
            raise InputError(f"{table}: no column {column!r}; it has {', '.join(columns) or 'none'}")


def _read_row(root: Path, where: str, row: dict[str, str], group: str, with_masks: bool) -> ImagePair:
    image = _member(root, "images", row["image"], where)
    mask = _member(root, "masks", row["mask"], where) if with_masks else None
    scene = (row[group] or "").strip() if group in row else _scene_from_name(image.name, where)
    if not scene:
        raise InputError(f"{where}: {group} is empty; every image needs the scene that it was cut from")
    return ImagePair(image, mask, scene)


def list_images(root: Path) -> dict[str, Path]:
    """Name -> path of every file in `images/`, but those that systems hide and those that go with an image."""
    files = {path.name: path for path in (root / "images").iterdir() if path.is_file()}
    return {name: path for name, path in files.items() if name[0] != "." and not name.lower().endswith(SIDECARS)}


def _list_folder(root: Path) -> list[ImagePair]:
    where = str(root / "images")
    names = list(list_images(root))
    if not names:
        raise InputError(f"data.root: {where}: holds no image; put them there")
    return [ImagePair(_member(root, "images", name, where), None, _scene_from_name(name, where)) for name in names]


def _member(root: Path, folder: str, name: str | None, where: str) -> Path:
    """The file `root/folder/name`, refused where it is absent or would leave the folder."""
    if not name or Path(name).name != name or "\\" in name or len(name.encode()) > MAX_NAME_BYTES:
        raise InputError(f"{where}: {folder[:-1]} must be a plain file name inside {folder}/, got {name!r}")
    path = root / folder / name
    if not path.is_file():
        raise InputError(f"{where}: {folder[:-1]} {path} is absent; add the file or remove the row")
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
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
