"""The files of real annotators -> point annotations.

Every format is brought to one convention: continuous pixel coordinates whose origin is the outer corner of the first
pixel, so that pixel (r, c) covers [r, r + 1) x [c, c + 1). How each format measures, and where that is said:

- `csv`: whole numbers are indices of pixels, and the point is at the pixel's centre; as soon as one coordinate of a
  file is written with decimals, all are positions from the outer corner. There is no standard; this is ours, and the
  pixel that a whole number falls into is the same either way.
- `geojson`: map coordinates through the image's geotransform, which refers to the outer corner (GDAL's data model), or
  pixels as in `csv`; `point_geojson.py` says when.
- `label_studio`: hundredths of width and height from the outer corner (Label Studio's documentation of KeyPointLabels:
  0 to 100 is the image).
- `cvat`: from the outer corner (its XML format's own example reaches y = 1200.00 in an image of height 1200).
- `labelme`: from the outer corner (its canvas holds 0 to width; labelme issue 278).
- `napari`: whole numbers are centres of pixels, (0, 0) that of the first (napari pull request 1660, issue 2778).
- `coco`: whole numbers are indices of pixels (Detectron2's documentation of its data sets: 0.5 is added to COCO's
  keypoints). Decimals, which COCO's own files have not, come from labelling tools and are positions, as in `csv`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainable.config import CLASS_NAMES, AnnotationConfig, InputError, known_or_nearest, nearest
from trainable.decode import read_header
from trainable.point_geojson import read_geojson
from trainable.point_marks import ImageFile, MarkedImage, brief
from trainable.point_tables import read_csv, read_napari
from trainable.point_tools import read_coco, read_cvat, read_label_studio, read_labelme

Reader = Callable[[Path], list[MarkedImage]]
READERS: dict[str, tuple[Reader, tuple[str, ...]]] = {
    "csv": (read_csv, (".csv",)),
    "geojson": (read_geojson, (".geojson", ".json")),
    "label_studio": (read_label_studio, (".json",)),
    "cvat": (read_cvat, (".xml",)),
    "labelme": (read_labelme, (".json",)),
    "napari": (read_napari, (".csv",)),
    "coco": (read_coco, (".json",)),
}
"""Format -> its reader, and the suffixes of its files in a folder."""


@dataclass(frozen=True)
class PointAnnotation:
    """A point that somebody labelled; pixels of the image file, measured from the outer corner of its first pixel."""

    row: float
    column: float
    class_index: int


def read_annotations(
    config: AnnotationConfig, root: Path, images: Mapping[str, Path]
) -> dict[str, list[PointAnnotation]]:
    """Reads the annotation files of a data folder.

    Args:
        config: which files, and what their classes mean.
        root: the data folder, which the files must lie in.
        images: name -> path of every image that the files may speak of, used or not.

    Returns:
        Image name -> its points in the order of the file. An image that is mentioned without points has an empty list,
        one that no file mentions is absent: nobody has looked at it.

    Raises:
        InputError: names the file and the row, feature or shape.
    """
    reader, suffixes = READERS[config.format]
    by_stem: dict[str, list[str]] = {}
    for name in sorted(images):
        by_stem.setdefault(Path(name).stem, []).append(name)
    found: dict[str, list[PointAnnotation]] = {}
    for file in _files(config, root, suffixes):
        for marked in reader(file):
            name = _find_image(marked, images, by_stem)
            if name in found:
                raise InputError(f"{marked.where}: {name} stands elsewhere too; keep its points in one place")
            found[name] = _annotations(marked, images[name], config)
    return {name: found[name] for name in sorted(found)}


def _files(config: AnnotationConfig, root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    path = _inside(root / config.path, root)
    if path.is_file():
        return [path]
    # Hidden files are the desktop's, such as ._a.csv.
    files = sorted(each for each in path.iterdir() if each.suffix.lower() in suffixes and each.name[0] != ".")
    if not files:
        raise InputError(
            f"data.annotations.path: {path}: no file in it ends in {' or '.join(suffixes)}; check"
            f" data.annotations.format"
        )
    return [_inside(file, root) for file in files]


def _inside(path: Path, root: Path) -> Path:
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # absent; a loop of links; a NUL in the name
        raise InputError(f"data.annotations.path: {brief(str(path))}: no such file or folder; put it there") from error
    if not resolved.is_relative_to(root.resolve()) or not (resolved.is_file() or resolved.is_dir()):
        raise InputError(f"data.annotations.path: {path} must be a file or folder inside {root}; copy it there")
    return path


def _find_image(marked: MarkedImage, images: Mapping[str, Path], by_stem: Mapping[str, list[str]]) -> str:
    """The image that a file means, by the end of a path to it, with or without suffix."""
    names = [re.split(r"[/\\]", name)[-1] for name in marked.names]
    for name in names:
        found = [name] if name in images else by_stem.get(name, [])
        if len(found) > 1:
            raise InputError(f"{marked.where}: {name} could be {found[0]} or {found[1]}; name it with its suffix")
        if found:
            return found[0]
    hint = nearest(names[-1], images) or f"; they are called like {min(images, default='none')}"
    raise InputError(f"{marked.where}: no image is called {names[-1][:80]!r}{hint}")


def _annotations(marked: MarkedImage, path: Path, config: AnnotationConfig) -> list[PointAnnotation]:
    image = ImageFile(path, read_header(path).size)
    if marked.size not in (None, image.size):
        raise InputError(
            f"{marked.where}: {path.name} was labelled at {_times(marked.size)} pixels, but has {_times(image.size)};"
            f" use the image that was labelled"
        )
    if not marked.marks:
        return []
    places = marked.convention(np.array([(mark.x, mark.y) for mark in marked.marks]), image)
    is_inside = np.all((places >= 0) & (places < image.size), axis=1)
    if not is_inside.all():
        mark = marked.marks[int(np.argmin(is_inside))]
        raise InputError(
            f"{mark.where}: the point {mark.x:.10g}, {mark.y:.10g} lies outside {path.name}"
            f" ({_times(image.size)} pixels); correct or remove it"
        )
    classes = [_class_index(mark.name, config, mark.where) for mark in marked.marks]
    return [PointAnnotation(y, x, index) for (x, y), index in zip(places.tolist(), classes, strict=True)]


def _times(size: tuple[int, int] | None) -> str:
    return "x".join(map(str, size or ()))


def _class_index(name: str, config: AnnotationConfig, where: str) -> int:
    """Index of a class by its name in the files; YAML may have read a name such as 1 as a number."""
    meanings = {each: each for each in CLASS_NAMES} | {str(key): meant for key, meant in config.classes.items()}
    if name in meanings:
        return CLASS_NAMES.index(meanings[name])
    if name:
        hint = known_or_nearest(name, meanings)
        raise InputError(f"{where}: unknown class {name[:80]!r}{hint}; say what it means in data.annotations.classes")
    if config.default_class is None:
        raise InputError(f"{where}: the point has no class; give it one, or set data.annotations.default_class")
    return CLASS_NAMES.index(config.default_class)
