"""Pixels against Pillow's and rasterio's own, and against files written byte by byte."""

import io
import struct
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainable import decode, tiff
from trainable.config import InputError
from trainable.decode import read_header, read_image, resize

TREES = Path("../shared/data/urban_trees/images")
Pixels = NDArray[np.uint8]


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def tiff_bytes(pixels: Pixels, extra_samples: int | None) -> bytes:
    """A plain TIFF of one strip, written by hand: what tag 338 says of the fourth band is up to us."""
    height, width, bands = pixels.shape
    tags = {256: width, 257: height, 259: 1, 262: 2, 277: bands, 278: height, 279: pixels.size, 284: 1}
    if extra_samples is not None:
        tags[338] = extra_samples
    end = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags |= {258: end, 273: end + 2 * bands}  # where the bits of each band and the pixels stand
    entries = b"".join(
        struct.pack("<HHLL", tag, 3 if tag == 258 else 4, bands if tag == 258 else 1, value)
        for tag, value in sorted(tags.items())
    )
    head = struct.pack("<2sHLH", b"II", 42, 8, len(tags)) + entries + struct.pack("<L", 0)
    return head + struct.pack(f"<{bands}H", *[8] * bands) + pixels.tobytes()


# What tag 338 says of the fourth band -> what Pillow makes of it: 0 nothing known, 1 colours multiplied by it, 2 alpha.
FOURTH_BAND = {None: "RGBA", 0: "RGB", 1: "RGBA", 2: "RGBA"}


@pytest.mark.parametrize(("extra_samples", "mode"), list(FOURTH_BAND.items()))
def test_a_fourth_band_is_kept_whatever_the_file_calls_it(tmp_path: Path, extra_samples: int | None, mode: str) -> None:
    pixels = noise(5, 7, 4)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_bytes(pixels, extra_samples))
    with Image.open(path) as image:
        assert image.mode == mode
    assert read_header(path).num_bands == 4
    np.testing.assert_array_equal(read_image(path, 4)[0], pixels)


@pytest.mark.skipif(not TREES.is_dir(), reason="../shared/data/urban_trees is absent")
def test_real_aerial_images_keep_their_near_infra_red() -> None:
    rasterio = pytest.importorskip("rasterio", reason="the oracle is in the extra canopoint[geo]")
    for path in sorted(TREES.iterdir())[::10]:
        assert read_header(path).num_bands == 4
        with rasterio.open(path) as raster:
            np.testing.assert_array_equal(read_image(path, 4)[0], np.moveaxis(raster.read(), 0, -1))


LAYOUTS = [
    (bands, interleave, compression, alpha)
    for bands, interleave, compression, alpha in product(
        range(1, 9), ("pixel", "band"), (None, "deflate", "lzw"), ("NO", "YES", "PREMULTIPLIED", "UNSPECIFIED")
    )
    if alpha == "NO" or bands == 4
]


@pytest.mark.parametrize("bands", range(1, 9))
def test_every_layout_of_one_to_eight_bands_is_read_whole(tmp_path: Path, bands: int) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the writer is in the extra canopoint[geo]")
    transform = rasterio.Affine(0.6, 0, 400_000, 0, -0.6, 3_700_000)
    pixels = noise(24, 40, bands)
    for number, (_, interleave, compression, alpha) in enumerate(each for each in LAYOUTS if each[0] == bands):
        how = {"compress": compression} if compression else {}
        how |= {"predictor": 2} if compression and number % 2 else {}
        how |= {"alpha": alpha, "photometric": "RGB"} if bands == 4 else {}
        how |= {"tiled": True, "blockxsize": 16, "blockysize": 16} if number % 3 == 1 else {}
        path = tmp_path / f"{number}.tif"
        size = {"height": 24, "width": 40, "count": bands, "dtype": "uint8", "transform": transform}
        with rasterio.open(path, "w", driver="GTiff", interleave=interleave, **size, **how) as raster:
            raster.write(np.moveaxis(pixels, -1, 0))
        assert read_header(path) == decode.Header((40, 24), bands, "", 1)
        np.testing.assert_array_equal(read_image(path, bands)[0], pixels, err_msg=f"{interleave} {how}")


@pytest.mark.parametrize(("mode", "bands"), [("L", 1), ("RGB", 3)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_lossless_files_keep_their_values(tmp_path: Path, mode: str, bands: int, suffix: str) -> None:
    pixels = noise(6, 9, bands)
    Image.fromarray(pixels.squeeze()).save(tmp_path / f"a.{suffix}")
    decoded, is_lossy = read_image(tmp_path / f"a.{suffix}", bands)
    np.testing.assert_array_equal(decoded, pixels)
    assert not is_lossy


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (17, 23), (64, 64)])
def test_a_jpeg_is_decoded_to_the_bits_that_pillow_finds(
    tmp_path: Path, progressive: bool, subsampling: int, size: tuple[int, int]
) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(noise(*size, 3)).save(path, quality=90, progressive=progressive, subsampling=subsampling)
    decoded, is_lossy = read_image(path, 3)
    with Image.open(path) as image:
        np.testing.assert_array_equal(decoded, np.asarray(image))
    with Image.open(path) as image:
        image.draft("L", image.size)  # its brightness alone
        np.testing.assert_array_equal(read_image(path, 1)[0][..., 0], np.asarray(image))
    assert is_lossy


def test_a_grey_mask_in_a_coloured_jpeg_is_its_brightness(tmp_path: Path) -> None:
    # What Pillow's own conversion of the decoded colours gives: grey has no colours to lose.
    grey = np.repeat(noise(32, 32, 1), 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "a.jpg", quality=90)
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(read_image(tmp_path / "a.jpg", 1)[0][..., 0], np.asarray(image.convert("L")))


def test_without_torchvisions_decoder_pillow_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(32, 40, 3)).save(tmp_path / "a.jpg")
    expected = [read_image(tmp_path / "a.jpg", bands)[0] for bands in (1, 3)]
    monkeypatch.setattr(decode, "_jpeg_operator", lambda: None)  # a release of torchvision that has dropped it
    for bands, pixels in zip((1, 3), expected, strict=True):
        np.testing.assert_array_equal(read_image(tmp_path / "a.jpg", bands)[0], pixels)


@pytest.mark.parametrize("bands", [1, 3, 4, 6])
def test_resizing_treats_bands_alike(bands: int) -> None:
    pixels = noise(16, 12, bands)
    resized = resize(pixels, (8, 8))
    assert resized.shape == (8, 8, bands)
    for band in range(bands):  # nothing of one band enters another
        alone = Image.fromarray(pixels[..., band]).resize((8, 8), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(resized[..., band], np.asarray(alone))
    assert resize(resized, (8, 8)) is resized


def test_colours_of_three_bands_are_resized_as_pillow_resizes_them() -> None:
    pixels = noise(16, 12, 3)
    expected = Image.fromarray(pixels).resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize(pixels, (8, 8)), np.asarray(expected))


def damaged_files() -> list[bytes]:
    """Sound files of every format with up to five bytes of the header changed, some of them cut off."""
    rng = np.random.default_rng(0)
    sound = [tiff_bytes(noise(8, 8, 4), 0)]
    for image_format in ("JPEG", "PNG", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(noise(8, 8, 3)).save(buffer, image_format)
        sound.append(buffer.getvalue())
    damaged = []
    for _ in range(400):
        content = bytearray(sound[rng.integers(len(sound))])
        for place in rng.integers(0, min(len(content), 600), rng.integers(1, 6)):
            content[place] = rng.choice([0, 255, rng.integers(256)])
        damaged.append(bytes(content[: rng.integers(1, len(content))] if rng.random() < 0.2 else content))
    return damaged


def outcome(path: Path) -> str:
    """Why the file is refused, or nothing."""
    try:
        header = read_header(path)
        if not header.kind and header.num_bands in (1, 3, 4):
            pixels, _ = read_image(path, header.num_bands)
            assert pixels.shape == (*header.size[::-1], header.num_bands)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.filterwarnings("ignore")  # Pillow's, of tags that make no sense
def test_damage_never_ends_in_a_traceback(tmp_path: Path) -> None:
    path, refused = tmp_path / "a", []
    for content in damaged_files():
        path.write_bytes(content)
        if reason := outcome(path):
            assert str(path) in reason
            refused.append(reason)
    assert 100 < len(refused) < 350  # of 400: the damage was neither all harmless nor all fatal


def test_the_tags_decide_what_pillow_may_read() -> None:
    rgb = {262: 2, 277: 4, 284: 1}
    assert tiff.pillow_keeps_all(rgb)
    assert not tiff.pillow_keeps_all(rgb | {284: 2})  # four bands one after the other: Pillow loses the last
    assert not tiff.pillow_keeps_all(rgb | {277: 5})
    assert not tiff.pillow_keeps_all({262: 1, 277: 3})  # grey, says the file, and Pillow reads the first of three
    assert tiff.pillow_keeps_all({262: 1})
