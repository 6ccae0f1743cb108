"""Annotation files of all formats: the same points in each of them, and what is refused in any of them.

The images are a.png and b.png, 8 pixels wide and 6 high. Every export says the same in its own way: on a.png one forest
point at row 2.25, column 5.75 and one background point at row 0, column 0.125, measured from the outer corner.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainable.config import AnnotationConfig, InputError
from trainable.point_files import PointAnnotation, read_annotations
from trainable.point_marks import MAX_FILE_BYTES

URBAN_TREES = Path(__file__).parents[2] / "../shared/data/urban_trees"
BACKGROUND, FOREST = 0, 1
POINTS = [PointAnnotation(2.25, 5.75, FOREST), PointAnnotation(0.0, 0.125, BACKGROUND)]

EXPORTS = {
    "csv": "image,x,y,class\na.png,5.75,2.25,forest\na.png,0.125,0.0,background\n",
    "geojson": """{"type": "FeatureCollection", "crs": null, "features": [
        {"type": "Feature", "properties": {"image": "a.png", "class": "forest"},
         "geometry": {"type": "Point", "coordinates": [5.75, 2.25]}},
        {"type": "Feature", "properties": {"image": "a.png", "class": "background"},
         "geometry": {"type": "Point", "coordinates": [0.125, 0.0]}}]}""",
    "label_studio": """[{"id": 7, "data": {"image": "/data/upload/3/0a1b2c3d-a.png"}, "annotations": [{"result": [
        {"type": "keypointlabels", "original_width": 8, "original_height": 6, "image_rotation": 0,
         "value": {"x": 71.875, "y": 37.5, "width": 0.5, "keypointlabels": ["forest"]}},
        {"type": "keypointlabels", "original_width": 8, "original_height": 6, "image_rotation": 0,
         "value": {"x": 1.5625, "y": 0, "width": 0.5, "keypointlabels": ["background"]}}]}]}]""",
    "cvat": """<?xml version="1.0" encoding="utf-8"?>
        <annotations><version>1.1</version><meta><task><size>1</size></task></meta>
        <image id="0" name="images/a.png" width="8" height="6">
          <points label="forest" source="manual" occluded="0" points="5.75,2.25" z_order="0"></points>
          <points label="background" source="manual" occluded="0" points="0.125,0.00" z_order="0"></points>
        </image></annotations>""",
    "labelme": """{"version": "5.4.1", "imagePath": "..\\\\images\\\\a.png", "imageData": null,
        "imageWidth": 8, "imageHeight": 6, "shapes": [
        {"label": "forest", "points": [[5.75, 2.25]], "shape_type": "point", "group_id": null},
        {"label": "background", "points": [[0.125, 0.0]], "shape_type": "point", "group_id": null}]}""",
    "napari": "index,axis-0,axis-1,label,image\n0,1.75,5.25,forest,a.png\n1,-0.5,-0.375,background,a.png\n",
    "coco": """{"images": [{"id": 4, "file_name": "a.png", "width": 8, "height": 6}],
        "categories": [{"id": 1, "name": "forest", "keypoints": ["crown"]}, {"id": 2, "name": "background"}],
        "annotations": [{"id": 1, "image_id": 4, "category_id": 1, "keypoints": [5.75, 2.25, 2], "num_keypoints": 1},
                        {"id": 2, "image_id": 4, "category_id": 2, "keypoints": [0.125, 0.0, 1, 0, 0, 0]}]}""",
}
ANY_FORMAT = pytest.mark.parametrize("kind", EXPORTS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "points").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 6)).save(root / "images" / name)
    return root


def read(root: Path, kind: str, content: str | bytes, **settings: Any) -> dict[str, list[PointAnnotation]]:
    """The annotations of the file points/a.txt with this content."""
    (root / "points/a.txt").write_bytes(content.encode() if isinstance(content, str) else content)
    images = {path.name: path for path in (root / "images").iterdir()}
    return read_annotations(AnnotationConfig(format=kind, path="points/a.txt", **settings), root, images)


@ANY_FORMAT
def test_every_format_places_the_same_points(root: Path, kind: str) -> None:
    assert read(root, kind, EXPORTS[kind]) == {"a.png": POINTS}


@ANY_FORMAT
def test_a_byte_order_mark_is_accepted(root: Path, kind: str) -> None:
    assert read(root, kind, b"\xef\xbb\xbf" + EXPORTS[kind].encode()) == {"a.png": POINTS}


@ANY_FORMAT
def test_a_windows_file_is_accepted(root: Path, kind: str) -> None:
    assert read(root, kind, EXPORTS[kind].replace("\n", "\r\n")) == {"a.png": POINTS}


def test_a_folder_holds_a_file_per_image(root: Path) -> None:
    (root / "points" / "b.csv").write_text("x,y,class\n1,1,background\n")
    (root / "points" / "._a.csv").write_bytes(b"\0 the desktop's, not ours")
    (root / "points" / "README.txt").write_text("nor this")
    (root / "points" / "a.csv").write_text("x,y,class\n5,2,forest\n")
    found = read_annotations(AnnotationConfig(), root, {name: root / "images" / name for name in ("a.png", "b.png")})
    assert found == {"a.png": [PointAnnotation(2.5, 5.5, FOREST)], "b.png": [PointAnnotation(1.5, 1.5, BACKGROUND)]}


@pytest.mark.parametrize("name", ["a.png", "a", "images/a.png", "C:\\data\\a.png"])
def test_an_image_is_known_by_the_end_of_its_path(root: Path, name: str) -> None:
    assert [*read(root, "csv", f"image,x,y,class\n{name},5,2,forest\n")] == ["a.png"]


def test_looked_at_without_points_differs_from_not_looked_at(root: Path) -> None:
    assert read(root, "csv", "x,y\n") == {"a.png": []}
    assert read(root, "geojson", '{"features": []}') == {"a.png": []}
    assert [*read(root, "csv", "image,x,y,class\nb.png,1,1,forest\n")] == ["b.png"]


def test_classes_have_meanings_and_a_default(root: Path) -> None:
    table = "x,y,class\n1,1,Oak\n2,1,1\n3,1,background\n4,1,\n"
    found = read(root, "csv", table, classes={"Oak": "forest", 1: "background"}, default_class="forest")
    assert [point.class_index for point in found["a.png"]] == [FOREST, BACKGROUND, BACKGROUND, FOREST]


@pytest.mark.skipif(not URBAN_TREES.is_dir(), reason="../shared/data/urban_trees is absent")
def test_csv_and_geojson_of_real_trees_agree_on_every_pixel() -> None:
    pytest.importorskip("rasterio", reason="needs the extra `geo`")
    images = {path.name: path for path in (URBAN_TREES / "images").iterdir()}
    pixels, places = (
        read_annotations(AnnotationConfig(format=kind, path=kind, default_class="forest"), URBAN_TREES, images)
        for kind in ("csv", "geojson")
    )
    assert len(pixels) == 60
    assert sum(map(len, pixels.values())) == 3597
    assert [*places] == [*pixels]
    for name in images:
        in_pixels, on_the_map = ([(int(p.row), int(p.column)) for p in found[name]] for found in (pixels, places))
        assert on_the_map == in_pixels


# By format: where a message must say that the first point is.
FIRST_POINT = {
    "csv": "row 2",
    "geojson": "feature 1",
    "label_studio": "task 1: region 1",
    "cvat": "image 1: shape 1",
    "labelme": "shape 1",
    "napari": "row 2",
    "coco": "annotation 1",
}
FAR_EDGE = {"label_studio": ("71.875", "100.0"), "napari": ("5.25", "7.5")}


def refusal(root: Path, kind: str, content: str | bytes, **settings: Any) -> str:
    """The message; always one printable line, and no longer than one reads, that names the file."""
    with pytest.raises(InputError) as caught:
        read(root, kind, content, **settings)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300 + 2 * len(str(root))
    assert "a.txt" in message
    return message


@ANY_FORMAT
def test_a_point_on_the_far_edge_lies_outside(root: Path, kind: str) -> None:
    inside, outside = FAR_EDGE.get(kind, ("5.75", "8.0"))
    message = refusal(root, kind, EXPORTS[kind].replace(inside, outside))
    assert f"a.txt: {FIRST_POINT[kind]}: the point " in message
    assert "lies outside a.png (8x6 pixels)" in message


@ANY_FORMAT
def test_an_unknown_class_is_refused_with_the_nearest(root: Path, kind: str) -> None:
    message = refusal(root, kind, EXPORTS[kind].replace("forest", "forst"))
    assert f"a.txt: {FIRST_POINT[kind]}: unknown class 'forst'; did you mean forest?" in message
    assert "data.annotations.classes" in message


@pytest.mark.parametrize("kind", ["csv", "geojson", "label_studio", "cvat", "labelme", "napari", "coco"])
def test_a_point_without_class_is_refused_with_the_remedy(root: Path, kind: str) -> None:
    message = refusal(root, kind, EXPORTS[kind].replace("forest", ""))
    assert f"{FIRST_POINT[kind]}: the point has no class" in message
    assert "data.annotations.default_class" in message


@ANY_FORMAT
def test_an_image_of_another_set_is_refused_with_the_nearest(root: Path, kind: str) -> None:
    assert "no image is called 'c.png'; did you mean" in refusal(root, kind, EXPORTS[kind].replace("a.png", "c.png"))
    assert "'q.jp2'; they are called like a.png" in refusal(root, kind, EXPORTS[kind].replace("a.png", "q.jp2"))


@pytest.mark.parametrize("kind", ["label_studio", "cvat", "labelme", "coco"])
def test_points_of_another_size_of_the_image_are_refused(root: Path, kind: str) -> None:
    content = EXPORTS[kind]
    for sign in (": ", '="'):
        content = content.replace(f"idth{sign}8", f"idth{sign}16").replace(f'idth"{sign}8', f'idth"{sign}16')
    assert "a.png was labelled at 16x6 pixels, but has 8x6" in refusal(root, kind, content)


@ANY_FORMAT
@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "1_0", '"5,75"', "", "9" * 5000])
def test_coordinates_are_finite_numbers(root: Path, kind: str, value: str) -> None:
    inside = {"label_studio": "71.875", "napari": "5.25"}.get(kind, "5.75")
    refusal(root, kind, EXPORTS[kind].replace(inside, value), default_class="forest")


@ANY_FORMAT
@pytest.mark.parametrize(
    "content",
    [b"", b"\x89PNG\r\n\x1a\n\0\0", "x,y\n".encode("utf-16"), b"[" * 100_000, b"<a>" * 100_000, b'"', b"null", b"[3]"],
    ids=["empty", "binary", "UTF-16", "deep JSON", "deep XML", "a quote", "null", "a number"],
)
def test_content_that_is_no_export_is_refused(root: Path, kind: str, content: bytes) -> None:
    refusal(root, kind, content, default_class="forest")


@ANY_FORMAT
def test_a_torn_export_is_refused(root: Path, kind: str) -> None:
    content = EXPORTS[kind]
    refusal(root, kind, content[: content.index("background") - 8])


def test_control_characters_do_not_reach_the_terminal(root: Path) -> None:
    assert r"unknown class '\x1b[2J'" in refusal(root, "csv", "x,y,class\n5,2,\x1b[2J\n")


def _link_outside(root: Path) -> None:
    (root.parent / "secret.csv").write_text("x,y\n")
    (root / "points" / "a.csv").symlink_to(root.parent / "secret.csv")


def _too_large(root: Path) -> None:
    with (root / "points" / "a.csv").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)


def _two_files(root: Path) -> None:
    for name in ("one.csv", "two.csv"):
        (root / "points" / name).write_text("image,x,y,class\na.png,1,1,forest\n")


def _ambiguous_name(root: Path) -> None:
    Image.new("RGB", (8, 6)).save(root / "images" / "a.jpg")
    (root / "points" / "a.csv").write_text("x,y\n")


def _broken_image(root: Path) -> None:
    (root / "images" / "a.png").write_bytes(b"GIF89a")
    (root / "points" / "a.csv").write_text("x,y\n")


BAD_PLACES = {
    "absent": ("nowhere", lambda root: None, "no such file or folder"),
    "empty folder": ("points", lambda root: None, r"no file in it ends in \.csv"),
    "above the root": ("../", lambda root: None, "inside"),
    "another place": ("/etc/passwd", lambda root: None, "inside"),
    "a NUL": ("points\0", lambda root: None, "no such file or folder"),
    "a long name": ("p" * 5000, lambda root: None, "no such file or folder"),
    "a link outside": ("points", _link_outside, "inside"),
    "a link outside, named": ("points/a.csv", _link_outside, "inside"),
    "a pipe": ("points", lambda root: os.mkfifo(root / "points" / "a.csv"), "must be a file or folder inside"),
    "a folder of that name": ("points", lambda root: (root / "points" / "a.csv").mkdir(), "cannot be read"),
    "too large": ("points", _too_large, "larger than 64 MiB; split it"),
    "an image in two files": ("points", _two_files, r"two\.csv: row 2: a\.png stands elsewhere too"),
    "a stem of two images": ("points", _ambiguous_name, r"a\.csv: a could be a\.jpg or a\.png"),
    "a broken image": ("points", _broken_image, r"a\.png: not a whole JPEG, PNG, TIFF image"),
}


@pytest.mark.parametrize("case", BAD_PLACES)
def test_bad_places_end_in_one_line(root: Path, case: str) -> None:
    path, prepare, message = BAD_PLACES[case]
    prepare(root)
    images = {each.name: each for each in (root / "images").iterdir()}
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(AnnotationConfig(path=path), root, images)
    assert str(caught.value).isprintable()
