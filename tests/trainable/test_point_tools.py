"""Exports of labelling tools: what else they may hold, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainable.config import InputError
from trainable.point_marks import ImageFile
from trainable.point_tools import read_coco, read_cvat, read_label_studio, read_labelme

READERS = {"label_studio": read_label_studio, "cvat": read_cvat, "labelme": read_labelme, "coco": read_coco}


def task(*results: Any, image: str = "a.png", **members: Any) -> str:
    return json.dumps([{"id": 7, "data": {"image": image}, "annotations": [{"result": results}], **members}])


def region(x: Any, y: Any, *labels: str, kind: str = "keypointlabels", **members: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": labels}
    return {"type": kind, "original_width": 8, "original_height": 6, "value": value, **members}


def cvat(shapes: str, image: str = 'name="a.png" width="8" height="6"') -> str:
    return f'<annotations><version>1.1</version><image id="0" {image}>{shapes}</image></annotations>'


def labelme(*shapes: Any, **members: Any) -> str:
    return json.dumps({"imagePath": "a.png", "imageWidth": 8, "imageHeight": 6, "shapes": shapes, **members})


def shape(*points: Any, label: Any = "forest", kind: str = "point") -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "flags": {}}


def coco(*annotations: Any, **members: Any) -> str:
    images = [{"id": 4, "file_name": "a.png", "width": 8, "height": 6}]
    categories = [{"id": 1, "name": "forest"}, {"id": 2, "name": "background"}]
    return json.dumps({"images": images, "categories": categories, "annotations": annotations, **members})


def keypoints(*values: Any, category: int = 1, image: int = 4) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "keypoints": values}


# Format, content, and column, row and name of every point, measured from the outer corner.
READ: dict[str, tuple[str, str, list[tuple[float, float, str]]]] = {
    "label studio, answers about the image beside its points": (
        "label_studio",
        task({"type": "choices", "value": {"choices": ["clear"]}}, region(50, 50, "oak")),
        [(4.0, 3.0, "oak")],
    ),
    "label studio, KeyPoint without labels": ("label_studio", task(region(50, 50, kind="keypoint")), [(4.0, 3.0, "")]),
    "label studio, predictions are not annotations": (
        "label_studio",
        task(region(50, 50, "oak"), predictions=[{"result": [region(1, 1, "oak")]}]),
        [(4.0, 3.0, "oak")],
    ),
    "cvat, a shape of two points": (
        "cvat",
        cvat('<points label="oak" points="5.75,2.25;1.50,3.50"/>'),
        [(5.75, 2.25, "oak"), (1.5, 3.5, "oak")],
    ),
    "cvat, whole numbers are positions": ("cvat", cvat('<points label="oak" points="5,2"/>'), [(5.0, 2.0, "oak")]),
    "cvat, a tag beside points": (
        "cvat",
        cvat('<tag label="clear"/><points label="oak" points="5,2"/>'),
        [(5, 2, "oak")],
    ),
    "labelme, whole numbers are positions": ("labelme", labelme(shape([5, 2])), [(5.0, 2.0, "forest")]),
    "coco, indices": (
        "coco",
        coco(keypoints(5, 2, 2), keypoints(0, 0, 1, category=2)),
        [(5.5, 2.5, "forest"), (0.5, 0.5, "background")],
    ),
    "coco, not labelled": ("coco", coco(keypoints(0, 0, 0, 5, 2, 2, 0, 0, 0)), [(5.5, 2.5, "forest")]),
    "coco, one decimal makes all of them positions": (
        "coco",
        coco(keypoints(5, 2, 2), keypoints(1.0, 1, 2)),
        [(5.0, 2.0, "forest"), (1.0, 1.0, "forest")],
    ),
}


@pytest.mark.parametrize("case", READ)
def test_where_points_lie_and_what_they_are_called(tmp_path: Path, case: str) -> None:
    kind, content, points = READ[case]
    (tmp_path / "export").write_text(content)
    (marked,) = READERS[kind](tmp_path / "export")
    coordinates = np.array([(mark.x, mark.y) for mark in marked.marks])
    places = marked.convention(coordinates, ImageFile(tmp_path / "a.png", (8, 6)))
    assert [(*place, mark.name) for place, mark in zip(places.tolist(), marked.marks, strict=True)] == points


def test_images_without_points_are_mentioned_and_skipped_ones_are_not(tmp_path: Path) -> None:
    skipped = json.dumps([{"data": {"image": "a.png"}, "annotations": [{"was_cancelled": True, "result": []}]}])
    contents = {"label_studio": task(), "cvat": cvat(""), "labelme": labelme(), "coco": coco()}
    for kind, content in contents.items():
        (tmp_path / "export").write_text(content)
        assert [(each.names[-1], each.marks) for each in READERS[kind](tmp_path / "export")] == [("a.png", [])]
    (tmp_path / "export").write_text(skipped)
    assert read_label_studio(tmp_path / "export") == []


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("a.png", "a.png"),
        ("/data/upload/3/0a1b2c3d-a.png", "a.png"),
        ("/data/local-files/?d=some%20folder/a%20b.png", "a b.png"),
        ("s3://bucket/folder/a.png", "a.png"),
        ("https://host/a.png?token=1", "a.png"),
    ],
)
def test_label_studio_names_images_by_address(tmp_path: Path, address: str, name: str) -> None:
    (tmp_path / "export").write_text(task(image=address))
    assert name in read_label_studio(tmp_path / "export")[0].names


BOX = '<box label="forest" xtl="0" ytl="0" xbr="1" ybr="1"/>'
BAD: dict[str, tuple[str, str, str]] = {
    "label studio: JSON-MIN": ("label_studio", '[{"image": "a.png", "kp": []}]', "task 1 .*not JSON-MIN"),
    "label studio: no list": ("label_studio", "{}", "must be a list of tasks"),
    "label studio: a box": (
        "label_studio",
        task(region(1, 1, "forest"), region(1, 1, kind="rectanglelabels")),
        "task 1: region 2: of type 'rectanglelabels'",
    ),
    "label studio: two labels": ("label_studio", task(region(1, 1, "a", "b")), "region 1: .*must hold one class"),
    "label studio: no place": ("label_studio", task(region(None, 1, "forest")), "region 1: x must be"),
    "label studio: rotated": ("label_studio", task(region(1, 1, image_rotation=90)), "region 1: .*rotated image"),
    "label studio: no size": ("label_studio", task(region(1, 1, original_width=None)), "original_width must be"),
    "label studio: two sizes": ("label_studio", task(region(1, 1), region(1, 1, original_width=9)), "claim 2 sizes"),
    "label studio: two annotators": (
        "label_studio",
        json.dumps([{"data": {"image": "a.png"}, "annotations": [{"result": []}, {"result": []}]}]),
        "task 1: 2 annotations of one image",
    ),
    "label studio: no image": (
        "label_studio",
        '[{"data": {"site": "north"}, "annotations": [{"result": []}]}]',
        "task 1: data must name one image",
    ),
    "label studio: no address": ("label_studio", task(image="http://[a.png"), "task 1: image .* is no address"),
    "cvat: a box": ("cvat", cvat(BOX), "image 1: shape 1: a box; only points"),
    "cvat: a skeleton": ("cvat", cvat('<skeleton><points points="1,1"/></skeleton>'), "shape 1: a skeleton"),
    "cvat: three numbers": ("cvat", cvat('<points label="forest" points="1,2,3"/>'), "shape 1: points must be"),
    "cvat: no points": ("cvat", cvat('<points label="forest"/>'), "shape 1: points must be"),
    "cvat: no size": ("cvat", cvat("", 'name="a.png"'), "image 1: width must be"),
    "cvat: no name": ("cvat", cvat("", 'width="8" height="6"'), "image 1: has no name"),
    "cvat: video": ("cvat", '<annotations><track id="0"/></annotations>', "not `CVAT for images"),
    "cvat: other XML": ("cvat", "<kml/>", "not `CVAT for images"),
    "cvat: billion laughs": (
        "cvat",
        '<!DOCTYPE a [<!ENTITY b "haha"><!ENTITY c "&b;&b;&b;">]><annotations>&c;</annotations>',
        "DOCTYPE or entities",
    ),
    "cvat: a file by entity": (
        "cvat",
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotations>&b;</annotations>',
        "DOCTYPE or entities",
    ),
    "labelme: a polygon": ("labelme", labelme(shape([1, 1]), shape([1, 1], kind="polygon")), "shape 2: a 'polygon'"),
    "labelme: two places": ("labelme", labelme(shape([1, 1], [2, 2])), "shape 1: points must be"),
    "labelme: a number for a place": ("labelme", labelme(shape(1)), "shape 1: points must be"),
    "labelme: no label": ("labelme", labelme(shape([1, 1], label=None)), "shape 1: label must be text"),
    "labelme: no shapes": ("labelme", "{}", "shapes must be a list"),
    "labelme: no image": ("labelme", labelme(imagePath=None), "imagePath must be text"),
    "labelme: no size": ("labelme", labelme(imageWidth=True), "imageWidth must be a whole number"),
    "coco: pairs": ("coco", coco(keypoints(1, 1)), "annotation 1: keypoints must be"),
    "coco: visibility": ("coco", coco(keypoints(1, 1, 3)), "annotation 1: keypoints must be .*v 0 to 2"),
    "coco: a box alone": ("coco", coco({"image_id": 4, "category_id": 1, "bbox": []}), "annotation 1: keypoints must"),
    "coco: unknown category": ("coco", coco(keypoints(1, 1, 2, category=3)), "annotation 1: category_id 3 is not in"),
    "coco: unknown image": ("coco", coco(keypoints(1, 1, 2, image=5)), "annotation 1: image_id 5 is not in"),
    "coco: an id twice": ("coco", coco(categories=[{"id": 1, "name": "forest"}] * 2), "2 entries share 1 ids"),
    "coco: no images": ("coco", "{}", "images must be a list"),
    "coco: no size": ("coco", coco(images=[{"id": 4, "file_name": "a.png"}]), "image 4: width must be a whole number"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_export_of_points_is_refused(tmp_path: Path, case: str) -> None:
    kind, content, message = BAD[case]
    (tmp_path / "export").write_text(content)
    with pytest.raises(InputError, match=f"export: .*{message}|export: {message}") as caught:
        READERS[kind](tmp_path / "export")
    assert str(caught.value).isprintable()
