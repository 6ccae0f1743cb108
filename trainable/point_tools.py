"""Points as labelling tools export them: Label Studio, CVAT, labelme and COCO keypoints.

Only points are read. A box or a polygon among them is refused, not passed over: whoever drew it meant something by it.
The pixel convention of each format is stated in `point_files.py`.
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from trainable.config import InputError
from trainable.point_marks import (
    Convention,
    Mark,
    MarkedImage,
    brief,
    from_corner,
    from_percent,
    indices_or_positions,
    make_mark,
    member,
    number,
    read_json,
    read_text,
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
CVAT_SHAPES = ("box", "polygon", "polyline", "cuboid", "ellipse", "mask", "skeleton")


def read_label_studio(file: Path) -> list[MarkedImage]:
    """The JSON export: tasks whose regions are keypoints. Predictions and answers about a whole image are not read."""
    tasks = read_json(file)
    if not isinstance(tasks, list):
        raise InputError(f"{file}: must be a list of tasks, got {brief(tasks)}; export as JSON from Label Studio")
    marked = [_label_studio_task(task, f"{file}: task {index}") for index, task in enumerate(tasks, 1)]
    return [image for image in marked if image is not None]


def _label_studio_task(task: object, where: str) -> MarkedImage | None:
    done = [
        each
        for each in member(task, "annotations", list, f"{where} (export as JSON, not JSON-MIN)")
        if not (isinstance(each, dict) and each.get("was_cancelled"))
    ]
    if not done:
        return None  # skipped by its annotator, so nothing is known about the image
    if len(done) > 1:
        raise InputError(f"{where}: {len(done)} annotations of one image; keep one of them")
    regions = [each for each in member(done[0], "result", list, where) if _is_region(each)]
    marks = [_label_studio_mark(region, f"{where}: region {index}") for index, region in enumerate(regions, 1)]
    sizes = {
        (member(region, "original_width", int, where), member(region, "original_height", int, where))
        for region in regions
    }
    if len(sizes) > 1:
        raise InputError(f"{where}: its regions claim {len(sizes)} sizes of one image; export the file again")
    names = _label_studio_names(member(task, "data", dict, where), where)
    return MarkedImage(where, names, from_percent, marks, next(iter(sizes), None))


def _is_region(result: object) -> bool:
    value = result.get("value") if isinstance(result, dict) else None
    return not isinstance(value, dict) or not {"choices", "text", "rating", "number"} & set(value)


def _label_studio_mark(region: object, where: str) -> Mark:
    kind = member(region, "type", str, where)
    if kind not in ("keypointlabels", "keypoint"):
        raise InputError(f"{where}: of type {brief(kind)}; only keypoints are points, remove it")
    assert isinstance(region, dict)
    if region.get("image_rotation"):
        raise InputError(f"{where}: drawn on a rotated image; turn it back in Label Studio and export again")
    value = member(region, "value", dict, where)
    names = value.get("keypointlabels") or [None]
    if not isinstance(names, list) or len(names) > 1:
        raise InputError(f"{where}: keypointlabels must hold one class, got {brief(names)}; keep one")
    return make_mark(where, value.get("x"), value.get("y"), names[0])


def _label_studio_names(data: dict[str, Any], where: str) -> tuple[str, ...]:
    """The image's name in a URL such as /data/upload/3/0a1b2c3d-NAME or /data/local-files/?d=folder/NAME."""
    texts = [each for each in data.values() if isinstance(each, str)]
    urls = [data["image"]] if "image" in data else [each for each in texts if each.lower().endswith(IMAGE_SUFFIXES)]
    if len(urls) != 1 or not isinstance(urls[0], str):
        raise InputError(f"{where}: data must name one image, got {brief(data)}; call it image")
    try:
        parts = urlsplit(urls[0])
    except ValueError as error:
        raise InputError(f"{where}: image {brief(urls[0])} is no address ({error}); export the file again") from error
    path = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
    name = re.split(r"[/\\]", path)[-1]
    return name, re.sub(r"^[0-9a-f]{8}-", "", name)  # uploads get a prefix


def read_cvat(file: Path) -> list[MarkedImage]:
    """`CVAT for images 1.1`: the `points` of each `image`. Tags, which speak of a whole image, are not read."""
    text = read_text(file)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{file}: declares a DOCTYPE or entities, which CVAT never does; export it again")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{file}: not XML ({error}); export it again") from error
    if root.tag != "annotations" or root.find("track") is not None:
        raise InputError(f"{file}: not `CVAT for images 1.1` ({brief(root.tag)}); export it in that format")
    return [_cvat_image(image, f"{file}: image {index}") for index, image in enumerate(root.iterfind("image"), 1)]


def _cvat_image(image: ElementTree.Element, where: str) -> MarkedImage:
    name = image.get("name")
    if not name:
        raise InputError(f"{where}: has no name; export the file again")
    width, height = (int(number(image.get(side), where, side)) for side in ("width", "height"))
    marked = MarkedImage(where, (name,), from_corner, size=(width, height))
    for index, shape in enumerate(image, 1):
        if shape.tag in CVAT_SHAPES:
            raise InputError(f"{where}: shape {index}: a {shape.tag}; only points are points, remove it")
        if shape.tag == "points":
            marked.marks.extend(_cvat_marks(shape, f"{where}: shape {index}"))
    return marked


def _cvat_marks(shape: ElementTree.Element, where: str) -> list[Mark]:
    """The points of a shape, written x,y;x,y;..."""
    pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise InputError(
            f"{where}: points must be x,y;x,y;..., got {brief(shape.get('points'))}; export the file again"
        )
    return [make_mark(where, x, y, shape.get("label")) for x, y in pairs]


def read_labelme(file: Path) -> list[MarkedImage]:
    """One JSON file per image, shapes of type `point`."""
    document = read_json(file)
    where = str(file)
    shapes = member(document, "shapes", list, where)
    marks = [_labelme_mark(shape, f"{file}: shape {index}") for index, shape in enumerate(shapes, 1)]
    size = (member(document, "imageWidth", int, where), member(document, "imageHeight", int, where))
    return [MarkedImage(where, (member(document, "imagePath", str, where),), from_corner, marks, size)]


def _labelme_mark(shape: object, where: str) -> Mark:
    kind = member(shape, "shape_type", str, where)
    if kind != "point":
        raise InputError(f"{where}: a {brief(kind)}; only points are points, remove it")
    points = member(shape, "points", list, where)
    if len(points) != 1 or not isinstance(points[0], list) or len(points[0]) != 2:
        raise InputError(f"{where}: points must be [[x, y]], got {brief(points)}; save the file again")
    x, y = points[0]
    return make_mark(where, x, y, member(shape, "label", str, where))


def read_coco(file: Path) -> list[MarkedImage]:
    """Keypoints [x, y, v, ...], v = 0 meaning not labelled; the class is the name of the annotation's category."""
    document = read_json(file)
    images = _coco_by_id(document, "images", file)
    categories = _coco_by_id(document, "categories", file)
    marks: dict[int, list[Mark]] = {identity: [] for identity in images}
    for index, each in enumerate(member(document, "annotations", list, str(file)), 1):
        where = f"{file}: annotation {index}"
        category = categories[_coco_reference(each, "category_id", categories, where)]
        name = member(category, "name", str, f"{where}: its category")
        marks[_coco_reference(each, "image_id", images, where)].extend(_coco_marks(each, name, where))
    convention = indices_or_positions(mark for each in marks.values() for mark in each)
    return [_coco_image(images[key], f"{file}: image {key}", convention, marks[key]) for key in images]


def _coco_by_id(document: object, key: str, file: Path) -> dict[int, dict[str, Any]]:
    entries = member(document, key, list, str(file))
    by_id = {member(entry, "id", int, f"{file}: {key}: entry {index}"): entry for index, entry in enumerate(entries, 1)}
    if len(by_id) < len(entries):
        raise InputError(f"{file}: {key}: {len(entries)} entries share {len(by_id)} ids; export the file again")
    return by_id


def _coco_reference(annotation: object, key: str, known: dict[int, dict[str, Any]], where: str) -> int:
    identity = member(annotation, key, int, where)
    if identity not in known:
        raise InputError(f"{where}: {key} {identity} is not in the file; export it again")
    return identity


def _coco_marks(annotation: object, name: str, where: str) -> list[Mark]:
    values = member(annotation, "keypoints", list, where)
    triples = [values[start : start + 3] for start in range(0, len(values), 3)]
    if any(len(triple) != 3 or triple[2] not in (0, 1, 2) for triple in triples):
        raise InputError(f"{where}: keypoints must be [x, y, v, ...], v 0 to 2, got {brief(values)}; export it again")
    return [make_mark(where, x, y, name) for x, y, visibility in triples if visibility]


def _coco_image(image: dict[str, Any], where: str, convention: Convention, marks: list[Mark]) -> MarkedImage:
    size = (member(image, "width", int, where), member(image, "height", int, where))
    return MarkedImage(where, (member(image, "file_name", str, where),), convention, marks, size)
