"""Image files -> pixels. What is not plain 8-bit bands is refused, never converted behind the user's back.

Pillow decodes, with two exceptions: JPEG goes through torchvision, which has the same codec and makes fewer copies, and
a TIFF of which Pillow would lose a band through `geo.read_bands`.
"""

import functools
import re
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from trainable import tiff
from trainable.config import InputError
from trainable.geo import read_bands

FORMATS = ("JPEG", "PNG", "TIFF")
# What Pillow raises for files that are not what they claim to be.
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error)
# Pillow's mode -> bands, and what the values are where they are not plain intensities.
MODES = {
    "1": (1, "1-bit"),
    "L": (1, ""),
    "LA": (2, "transparent"),
    "RGB": (3, ""),
    "RGBA": (4, "transparent"),
    "P": (1, "palette"),
    "CMYK": (4, "CMYK"),
}
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Header:
    """What a file says of its pixels before it is decoded.

    Attributes:
        size: (width, height).
        num_bands: of a TIFF all that it holds, the fourth being near infra-red and not transparency.
        kind: what the values are where they are not plain 8-bit intensities, such as `16-bit`; else empty.
        orientation: of EXIF; 1 is upright.
    """

    size: tuple[int, int]
    num_bands: int
    kind: str
    orientation: int


def read_header(path: Path) -> Header:
    """Reads the header of an image file.

    Raises:
        InputError: not an image of an allowed format, rotated by a tag, or too large to be decoded safely.
    """
    too_large = InputError(f"{path}: more than {Image.MAX_IMAGE_PIXELS} pixels; cut it into smaller images")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            header = _tiff_header(path) if tiff.is_tiff(path) else _other_header(path)
    except Image.DecompressionBombError as error:
        raise too_large from error
    except DAMAGE as error:
        raise InputError(f"{path}: not a whole {', '.join(FORMATS)} image; replace or remove it") from error
    if Image.MAX_IMAGE_PIXELS and header.size[0] * header.size[1] > Image.MAX_IMAGE_PIXELS:
        raise too_large
    _refuse_rotated(path, header.orientation)
    return header


def read_image(path: Path, num_bands: int) -> tuple[Pixels, bool]:
    """Decodes an image whose header was found sound.

    Returns:
        (H, W, num_bands) uint8, one band of colours being their brightness; and whether the format is lossy.

    Raises:
        InputError: the file is damaged.
    """
    content = path.read_bytes()
    is_jpeg = content[:2] == b"\xff\xd8"
    pixels = _decode_jpeg(content, num_bands) if is_jpeg else None
    return _decode_other(path, num_bands) if pixels is None else pixels, is_jpeg


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """(H, W, bands) -> (*size, bands), bilinear and, where it shrinks, averaging."""
    if pixels.shape[:2] == size:
        return pixels
    # Band by band: Pillow would weight the colours of four bands by the last, which it takes for transparency.
    bands = [Image.fromarray(pixels[..., band]) for band in range(pixels.shape[2])]
    return np.stack([np.asarray(band.resize(size[::-1], Image.Resampling.BILINEAR)) for band in bands], axis=-1)


def _tiff_header(path: Path) -> Header:
    tags = tiff.read_tags(path)
    return Header(tiff.size(tags), tiff.num_bands(tags), tiff.value_kind(tags), tiff.orientation(tags))


def _other_header(path: Path) -> Header:
    with Image.open(path, formats=FORMATS) as image:
        bands, kind = MODES.get(image.mode, (1, f"mode {image.mode}"))
        # A PNG of 16 bits opens as RGB, and one of 2 or 4 bits as grey; how it is packed gives it away.
        bits = re.search(r";(\d+)", str(image.tile[0].args))
        return Header(image.size, bands, f"{bits[1]}-bit" if bits and image.mode != "P" else kind, _orientation(image))


def _orientation(image: Image.Image) -> int:
    """As EXIF or XMP gives it. A PNG may say so behind its pixels; Pillow would decode them, so we look again then."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _refuse_rotated(path: Path, orientation: int) -> None:
    if orientation != 1:
        raise InputError(
            f"{path}: EXIF orientation {orientation} asks for it to be turned, and not every program does, so that"
            f" image and mask may not agree; turn its pixels and remove the tag (mogrify -auto-orient)"
        )


def _decode_jpeg(content: bytes, num_bands: int) -> Pixels | None:
    """(H, W, bands) uint8, or None where torchvision fails: Pillow has the last word, and says why."""
    import torch

    decode = _jpeg_operator()
    try:
        # A copy, because torch wants memory that may be written to. 1 band is grey and 3 are RGB.
        decoded = decode(torch.frombuffer(bytearray(content), dtype=torch.uint8), num_bands, False) if decode else None
    except RuntimeError:
        return None
    return None if decoded is None else decoded.permute(1, 2, 0).numpy()


@functools.cache
def _jpeg_operator() -> Any:
    """The operator below torchvision's decoder, or None: it says at every call that a release will come without."""
    import torch
    import torchvision.io  # noqa: F401 registers it

    return getattr(torch.ops.image, "decode_jpeg", None)


def _decode_other(path: Path, num_bands: int) -> Pixels:
    try:
        keeps_all = not tiff.is_tiff(path) or tiff.pillow_keeps_all(tiff.read_tags(path))
        pixels, orientation = _decode_by_pillow(path, num_bands) if keeps_all else (None, 1)
    except DAMAGE as error:
        raise InputError(f"{path}: cannot be decoded ({error}); replace or remove it") from error
    _refuse_rotated(path, orientation)
    return read_bands(path) if pixels is None else pixels


def _decode_by_pillow(path: Path, num_bands: int) -> tuple[Pixels, int]:
    """Pixels and EXIF orientation."""
    with Image.open(path, formats=FORMATS) as image:
        if num_bands == 4:
            return tiff.four_bands(image), 1
        mode = "L" if num_bands == 1 else "RGB"
        image.draft(mode, image.size)  # a JPEG then decodes its brightness alone, as torchvision does
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        return pixels.reshape(image.height, image.width, num_bands), _orientation(image)
