"""What a TIFF holds, by its tags. Pillow shows some of four to six bands as RGB, and cannot open others at all."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL import TiffImagePlugin as Tag

STARTS = (b"II\x2a\x00", b"MM\x00\x2a", b"II\x2b\x00")
ORIENTATION = 274
# Values of the tag PhotometricInterpretation.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR = 0, 1, 2, 6
NO_INTENSITIES = {3: "palette", 5: "CMYK", 8: "CIELAB"}


def is_tiff(path: Path) -> bool:
    """Whether the file begins as a TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in STARTS


def read_tags(path: Path) -> dict[int, Any]:
    """The tags of the file's first image."""
    with path.open("rb") as file:
        start = file.read(8)
        start += file.read(8) if start[2] == 43 else b""  # BigTIFF
        tags = Tag.ImageFileDirectory_v2(start)
        file.seek(tags.next)
        tags.load(file)
    return dict(tags)


def size(tags: dict[int, Any]) -> tuple[int, int]:
    """(width, height)."""
    return int(tags[Tag.IMAGEWIDTH]), int(tags[Tag.IMAGELENGTH])


def orientation(tags: dict[int, Any]) -> int:
    """As EXIF numbers it; 1 is upright."""
    return int(tags.get(ORIENTATION, 1))


def value_kind(tags: dict[int, Any]) -> str:
    """What the values are where they are not plain 8-bit intensities, such as `16-bit`; else empty."""
    if set(tags.get(Tag.SAMPLEFORMAT, (1,))) != {1}:
        return "signed or floating-point"
    bits = max(tags.get(Tag.BITSPERSAMPLE, (1,)))
    return NO_INTENSITIES.get(_colours(tags), "" if bits == 8 else f"{bits}-bit")


def num_bands(tags: dict[int, Any]) -> int:
    """All bands of the file."""
    return int(tags.get(Tag.SAMPLESPERPIXEL, 1))


def pillow_keeps_all(tags: dict[int, Any]) -> bool:
    """Whether every band reaches Pillow's memory; compared with rasterio over layouts and compressions (tests)."""
    if num_bands(tags) == 4:  # not where each band lies for itself
        return _colours(tags) == RGB and tags.get(Tag.PLANAR_CONFIGURATION, 1) == 1
    return _colours(tags) in {1: (WHITE_IS_ZERO, BLACK_IS_ZERO), 3: (RGB, YCBCR)}.get(num_bands(tags), ())


def four_bands(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 4) uint8, as in the file, of an opened image whose bands Pillow keeps.

    Pillow shows them as RGB with padding, as RGBA, or as RGBA that it divides by the fourth band. The padding holds
    that band, and without the small "a" nothing is divided.
    """
    assert isinstance(image, ImageFile.ImageFile)
    image.tile = [tile._replace(args=_undivided(tile.args)) for tile in image.tile]
    content = image.tobytes("raw", "RGBX" if image.mode == "RGB" else "RGBA")
    return np.frombuffer(content, np.uint8).reshape(image.height, image.width, 4)


def _undivided(decoder_args: Any) -> tuple[Any, ...]:
    """What Pillow tells a decoder begins with the meaning of the bands."""
    return ("RGBA" if decoder_args[0] == "RGBa" else decoder_args[0], *decoder_args[1:])


def _colours(tags: dict[int, Any]) -> int:
    return int(tags.get(Tag.PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO))
