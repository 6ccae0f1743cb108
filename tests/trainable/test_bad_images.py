"""Every kind of bad image, mask or point: refused with file, reason and remedy, or accepted and told of. A table."""

import io
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainable.config import AnnotationConfig, DataConfig, InputError, TrainConfig
from trainable.data import load_index, load_store
from trainable.points import draw_points
from trainable.store import Store, open_store

SIZE = 32
SCENES = {"a_0": "a", "a_1": "a", "b_0": "b", "b_1": "b", "c_0": "c", "c_1": "c"}
POINTS = AnnotationConfig(path="points.csv")
Spoil = Callable[[Path], object]


class Row(NamedTuple):
    """What is done to a sound folder, and the parts of what is then said."""

    spoil: Spoil
    parts: tuple[str, ...]
    annotations: AnnotationConfig | None = None


def pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def half(low: int = 0, high: int = 255) -> Image.Image:
    """A mask: its left half is background."""
    mask = np.full((SIZE, SIZE), low, dtype=np.uint8)
    mask[:, SIZE // 2 :] = high
    return Image.fromarray(mask)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three scenes of two images, each half forest, with two points each."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for stem in SCENES:
        Image.fromarray(pixels(SIZE, SIZE, 3)).save(root / "images" / f"{stem}.png")
        half().save(root / "masks" / f"{stem}.png")
    (root / "meta_data.csv").write_text("image,mask\n" + "".join(f"{stem}.png,{stem}.png\n" for stem in SCENES))
    points = "".join(f"{stem}.png,3,2,background\n{stem}.png,12,2,forest\n" for stem in SCENES)
    (root / "points.csv").write_text("image,x,y,class\n" + points)
    return root


def pack(root: Path, annotations: AnnotationConfig | None = None) -> Store:
    cache = root.parent / "cache"
    index = load_index(DataConfig(root=str(root), annotations=annotations), cache)
    return open_store(load_store(index, SIZE, cache, lambda done: None))


def content(image: Image.Image, image_format: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **how)
    return buffer.getvalue()


def put(folder: str, name: str, data: bytes) -> Spoil:
    """Puts a file in the place of `a_0.png`, under its own name."""

    def spoil(root: Path) -> None:
        (root / folder / "a_0.png").unlink()
        (root / folder / name).write_bytes(data)
        table = root / "meta_data.csv"
        old, new = ("a_0.png,", f"{name},") if folder == "images" else (",a_0.png", f",{name}")
        table.write_text(table.read_text().replace(old, new))

    return spoil


def put_image(name: str, image: Image.Image, image_format: str, **how: Any) -> Spoil:
    return put("images", name, content(image, image_format, **how))


def put_mask(name: str, image: Image.Image, image_format: str = "PNG", **how: Any) -> Spoil:
    return put("masks", name, content(image, image_format, **how))


def all_masks(image: Image.Image) -> Spoil:
    return lambda root: [image.save(path) for path in (root / "masks").iterdir()]


def cut(folder: str, image_format: str, kept: float) -> Spoil:
    """A file that ends too early, but beyond its header: noise is nearly all pixels."""
    image = Image.fromarray(pixels(SIZE, SIZE, 3) if folder == "images" else pixels(SIZE, SIZE))
    data = content(image, image_format)
    return put(folder, f"a_0.{image_format.lower()}", data[: int(len(data) * kept)])


def png(width: int, height: int, depth: int, colours: int, rows: bytes) -> bytes:
    """A PNG by hand, of kinds that Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def late_exif() -> bytes:
    """A PNG whose orientation stands behind its pixels, where its header does not show it."""
    whole = content(Image.fromarray(pixels(SIZE, SIZE, 3)), "PNG", exif=turned(6))
    start = whole.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(whole[start : start + 4], "big")
    return whole[:start] + whole[end:-12] + whole[start:end] + whole[-12:]  # IEND is the last 12 bytes


def add_points(*lines: str) -> Spoil:
    def spoil(root: Path) -> None:
        with (root / "points.csv").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    return spoil


def keep_points(*stems: str) -> Spoil:
    """Drops the points of all other images."""

    def spoil(root: Path) -> None:
        first, *lines = (root / "points.csv").read_text().splitlines()
        kept = [line for line in lines if line.startswith(stems)]
        (root / "points.csv").write_text("\n".join([first, *kept]) + "\n")

    return spoil


def forest_alone(root: Path) -> None:
    lines = (root / "points.csv").read_text().splitlines()
    (root / "points.csv").write_text("\n".join(line for line in lines if "background" not in line) + "\n")


RGB = Image.fromarray(pixels(SIZE, SIZE, 3))
SIXTEEN_BITS = png(SIZE, SIZE, 16, 2, (b"\0" + bytes(6 * SIZE)) * SIZE)  # opens as RGB, of which Pillow keeps 8 bits
FOUR_BITS = png(SIZE, SIZE, 4, 0, (b"\0" + b"\1" * (SIZE // 2)) * SIZE)  # Pillow makes 17 of 1
BOMB = png(30_000, 30_000, 8, 2, b"")

REFUSED: dict[str, Row] = {
    **{
        f"truncated {each} in {folder}, {kept:.0%} kept": Row(
            cut(folder, each, kept), (f"{folder}/a_0.{each.lower()}", "cannot be decoded", "replace or remove it")
        )
        for each in ("JPEG", "PNG", "TIFF")
        for folder in ("images", "masks")
        for kept in (0.6, 0.97)
        if each != "TIFF" or kept == 0.6  # Pillow's TIFF ends with its tags
    },
    "zero bytes": Row(
        put("images", "a_0.jpg", b""), ("images/a_0.jpg", "not a whole JPEG, PNG, TIFF image", "replace")
    ),
    "zero bytes of mask": Row(put("masks", "a_0.jpg", b""), ("masks/a_0.jpg", "not a whole JPEG", "replace")),
    "GIF by another name": Row(put_image("a_0.jpg", RGB, "GIF"), ("images/a_0.jpg", "not a whole JPEG", "replace")),
    "text": Row(put("images", "a_0.jpg", b"<html>404</html>"), ("images/a_0.jpg", "not a whole JPEG", "replace")),
    "16 bits of grey": Row(
        put_image("a_0.png", Image.new("I;16", (SIZE, SIZE)), "PNG"), ("images/a_0.png", "16-bit", "save it as 8-bit")
    ),
    "16 bits of colour": Row(put("images", "a_0.png", SIXTEEN_BITS), ("images/a_0.png", "16-bit", "save it as 8-bit")),
    "16 bits in a TIFF": Row(
        put_image("a_0.tif", Image.new("I;16", (SIZE, SIZE)), "TIFF"), ("images/a_0.tif", "16-bit", "save it as 8-bit")
    ),
    "floating point": Row(
        put_image("a_0.tif", Image.new("F", (SIZE, SIZE)), "TIFF"), ("images/a_0.tif", "floating-point", "8-bit")
    ),
    "CMYK": Row(put_image("a_0.jpg", RGB.convert("CMYK"), "JPEG"), ("images/a_0.jpg", "CMYK", "save it as 8-bit")),
    "CMYK in a TIFF": Row(put_image("a_0.tif", RGB.convert("CMYK"), "TIFF"), ("images/a_0.tif", "CMYK", "8-bit")),
    "transparency": Row(put_image("a_0.png", RGB.convert("RGBA"), "PNG"), ("images/a_0.png", "transparent", "RGB")),
    "grey with transparency": Row(put_image("a_0.png", RGB.convert("LA"), "PNG"), ("images/a_0.png", "transparent")),
    "palette": Row(put_image("a_0.png", RGB.convert("P"), "PNG"), ("images/a_0.png", "palette", "save it as 8-bit")),
    "palette in a TIFF": Row(put_image("a_0.tif", RGB.convert("P"), "TIFF"), ("images/a_0.tif", "palette", "8-bit")),
    **{
        f"turned by EXIF in a {each}": Row(
            put_image(f"a_0.{each.lower()}", RGB, each, exif=turned(6)),
            (f"images/a_0.{each.lower()}", "EXIF orientation 6", "turn its pixels and remove the tag"),
        )
        for each in ("JPEG", "PNG", "TIFF")
    },
    "turned behind its pixels": Row(put("images", "a_0.png", late_exif()), ("images/a_0.png", "EXIF orientation 6")),
    "mask turned by EXIF": Row(
        put_mask("a_0.jpg", half(), "JPEG", exif=turned(3)), ("masks/a_0.jpg", "EXIF orientation 3", "remove the tag")
    ),
    "decompression bomb": Row(put("images", "a_0.png", BOMB), ("images/a_0.png", "89478485 pixels", "cut it")),
    "decompression bomb of a mask": Row(put("masks", "a_0.png", BOMB), ("masks/a_0.png", "89478485 pixels", "cut it")),
    "one image in grey": Row(
        put_image("a_9.png", RGB.convert("L"), "PNG"), ("data/images", "1 (a_9.png), 3 (a_1.png)", "one number")
    ),
    "mask of another size": Row(
        put_mask("a_0.png", half().resize((SIZE, 8))), ("masks/a_0.png", "32x8", "a_0.png 32x32", "must be equal")
    ),
    "mask of 4 bits": Row(put("masks", "a_0.png", FOUR_BITS), ("masks/a_0.png", "4-bit", "8-bit grey")),
    "mask with a palette": Row(put_mask("a_0.png", half().convert("P")), ("masks/a_0.png", "palette", "8-bit grey")),
    "no forest in any mask": Row(all_masks(half(0, 0)), ("data/masks", "no pixel of any mask reaches 128", "255")),
    "one mask of zeros and ones": Row(
        put_mask("a_0.png", half(0, 1)), ("masks/a_0.png", "0 and 1 alone", "a_1.png", "0 background, 255 forest")
    ),
    "point right of its image": Row(
        add_points("a_0.png,32,2,forest"), ("points.csv", "outside a_0.png (32x32 pixels)", "correct or remove"), POINTS
    ),
    "point above its image": Row(add_points("a_0.png,2,-1,forest"), ("points.csv", "outside a_0.png"), POINTS),
    "point of an unknown class": Row(
        add_points("a_0.png,2,2,froest"), ("points.csv", "'froest'", "did you mean forest?"), POINTS
    ),
    "point of an unknown image": Row(add_points("z_0.png,2,2,forest"), ("points.csv", "z_0.png"), POINTS),
    "no background": Row(forest_alone, ("no point is background", "negatives: sampled"), POINTS),
    "a split without points": Row(
        keep_points("a_"), ("data.annotations", "do not have", "label some in", "data.split"), POINTS
    ),
}


@pytest.mark.parametrize(("spoil", "parts", "annotations"), list(REFUSED.values()), ids=REFUSED)
def test_refused(root: Path, spoil: Spoil, parts: tuple[str, ...], annotations: AnnotationConfig | None) -> None:
    spoil(root)
    if annotations:
        shutil.rmtree(root / "masks")
    before = sorted(root.parent.rglob("*"))
    with pytest.raises(InputError) as caught:
        pack(root, annotations)
    assert [part for part in parts if part not in str(caught.value)] == []
    assert "\n" not in str(caught.value)
    assert sorted(root.parent.rglob("*")) == before


ACCEPTED: dict[str, Row] = {
    "masks of zeros and ones": Row(
        all_masks(half(0, 1)), ("6 of 6 masks hold 0 and 1 alone", "class indices", "a_0.png")
    ),
    "a mask that is half grey": Row(
        put_mask("a_0.png", half(100, 255)), ("1 of 6 masks", "more than 1%", "50.0% in that of a_0.png", "128")
    ),
    "a JPEG mask of bad quality": Row(
        put_mask("a_0.jpg", half().rotate(30), "JPEG", quality=5), ("1 of 6 masks", "more than 1%", "a_0.png")
    ),
    "images without points": Row(
        keep_points("a_0", "b_0", "c_0"), ("3 of 6 images have no point", "for example a_1.png"), POINTS
    ),
    "two classes in one pixel": Row(
        add_points("a_0.png,3,2,forest", "a_0.png,3,2,background"), ("1 points share a pixel", "a_0.png"), POINTS
    ),
    "sampled background": Row(
        forest_alone,
        ("6 points of background were sampled", "unlabelled tree"),
        AnnotationConfig(path="points.csv", negatives="sampled", negative_distance_px=2.0),
    ),
}


def test_masks_beside_points_are_not_used_and_that_is_told(root: Path) -> None:
    (warning,) = pack(root, POINTS).warnings
    assert warning.startswith(f"{root / 'masks'} is not used")


def test_training_needs_points_of_both_classes(root: Path) -> None:
    index = load_index(DataConfig(root=str(root), annotations=POINTS), root.parent)
    (scene,) = index.scenes("val")[:1]
    lines = (root / "points.csv").read_text().splitlines()
    kept = [line for line in lines if "background" not in line or line.startswith(f"{scene}_")]
    (root / "points.csv").write_text("\n".join(kept) + "\n")
    with pytest.raises(InputError, match="the images of the train split do not have points of both classes"):
        load_index(DataConfig(root=str(root), annotations=POINTS), root.parent)


def test_images_of_several_sizes_are_told(root: Path) -> None:
    put_image("a_0.png", RGB.resize((64, 48)), "PNG")(root)
    put_mask("a_0.png", half().resize((64, 48), Image.Resampling.NEAREST))(root)
    (warning,) = pack(root).warnings
    for part in ("stretched to squares", "2 sizes or shapes", "32x32 (5 images)", "64x48 (1 images)"):
        assert part in warning


@pytest.mark.parametrize(("spoil", "parts", "annotations"), list(ACCEPTED.values()), ids=ACCEPTED)
def test_accepted_and_told(root: Path, spoil: Spoil, parts: tuple[str, ...], annotations: AnnotationConfig) -> None:
    if annotations:
        shutil.rmtree(root / "masks")
    assert pack(root, annotations).warnings == ()
    spoil(root)
    (warning,) = pack(root, annotations).warnings
    assert [part for part in parts if part not in warning] == []
    assert "\n" not in warning


SOUND: dict[str, Row] = {
    "masks of 0 and 255": Row(lambda root: None, ()),
    "masks of one bit": Row(all_masks(half().convert("1")), ()),
    "masks of grey in three bands": Row(all_masks(half().convert("RGB")), ()),
    "a JPEG mask": Row(put_mask("a_0.jpg", half(), "JPEG"), ()),
    "a mask without forest": Row(put_mask("a_0.png", half(0, 0)), ()),
    "a tag that turns nothing": Row(put_image("a_0.jpg", RGB, "JPEG", exif=turned(1)), ()),
}


@pytest.mark.parametrize("spoil", [row.spoil for row in SOUND.values()], ids=SOUND)
def test_sound(root: Path, spoil: Spoil) -> None:
    expected = pack(root)
    spoil(root)
    store = pack(root)
    assert store.warnings == ()
    np.testing.assert_array_equal(store.masks[1:], expected.masks[1:])


def test_a_bad_jpeg_mask_is_still_split_at_128(root: Path) -> None:
    # Left half 0 to 30, right half 225 to 255: noise as it may be, the sides are clear.
    noise = pixels(SIZE, SIZE) // 9
    noise[:, SIZE // 2 :] += 226
    put_mask("a_0.jpg", Image.fromarray(noise), "JPEG", quality=60)(root)
    store = pack(root)
    np.testing.assert_array_equal(store.masks[0], store.masks[1])
    assert "1 of 6 masks have more than 1% of their pixels between black and white" in store.warnings[0]


def test_more_points_than_pixels_are_refused() -> None:
    with pytest.raises(InputError, match=r"points_per_image: 1025 is more than the 1024 pixels.*fewer points"):
        TrainConfig(image_size=32, points_per_image=1025)


def test_more_points_than_people_labelled_gives_what_there_is(root: Path) -> None:
    mask = pack(root, POINTS).masks[0]
    points = draw_points(mask, 50, "a_0.png", TrainConfig(image_size=32, points_per_image=50))
    assert sorted(zip(points.rows, points.columns, points.classes, strict=True)) == [(2, 3, 0), (2, 12, 1)]
