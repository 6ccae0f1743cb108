"""Tiles over images of all sizes: what is blended adds up, and is what the model gives of the whole image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from trainable.config import InputError
from trainable.predict import plan_windows, predict_image, save_prediction

CPU = torch.device("cpu")
SIZES = [(1, 1), (1, 50), (31, 33), (32, 32), (40, 64), (65, 97), (200, 3)]
TILINGS = [(32, 0), (32, 1), (32, 7), (32, 8), (32, 16), (64, 31), (96, 24)]


def scale(pixels: Tensor) -> Tensor:
    """(B, H, W, bands) bytes -> (B, bands, H, W) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def convolution(size: int) -> nn.Module:
    """3 bands to 2 logits; each sees `size` // 2 pixels in all directions."""
    model = nn.Conv2d(3, 2, size, padding=size // 2)
    generator = torch.Generator().manual_seed(size)
    nn.init.normal_(model.weight, generator=generator)
    return model.eval()


def untiled(model: nn.Module, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(scale(torch.from_numpy(image[None]))).softmax(dim=1)[0].numpy()


def predict(model: Callable[[Tensor], Tensor], image: np.ndarray, tile: int, overlap: int) -> np.ndarray:
    return predict_image(model, image, tile=tile, overlap=overlap, normalise=scale, device=CPU)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tiling", TILINGS)
def test_the_weights_of_every_pixel_add_up_to_one(size: tuple[int, int], tiling: tuple[int, int]) -> None:
    total = np.zeros(size)
    for batch in plan_windows(*size, *tiling).batches():
        for rows, columns in batch:
            total[rows.target, columns.target] += np.outer(rows.weights, columns.weights)
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tiling", TILINGS)
def test_a_model_of_single_pixels_gives_the_same_as_untiled(size: tuple[int, int], tiling: tuple[int, int]) -> None:
    image, model = image_of(*size), convolution(1)
    found = predict(model, image, *tiling)
    assert (found.shape, found.dtype) == ((2, *size), np.float32)
    np.testing.assert_allclose(found, untiled(model, image), atol=1e-6)


@pytest.mark.parametrize(("tile", "overlap", "reach"), [(32, 4, 1), (32, 8, 2), (32, 16, 4), (64, 31, 7)])
@pytest.mark.parametrize("size", [(33, 90), (100, 131)])
def test_a_model_that_sees_no_further_than_the_margin_gives_the_same_inside(
    tile: int, overlap: int, reach: int, size: tuple[int, int]
) -> None:
    # Along the frame the two differ: untiled, the convolution sees zeros there, and in tiles the mirrored image.
    image, model = image_of(*size), convolution(2 * reach + 1)
    inside = (slice(None), slice(reach, -reach), slice(reach, -reach))
    found, expected = predict(model, image, tile, overlap)[inside], untiled(model, image)[inside]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_beyond_the_margin_it_need_not() -> None:
    image, model = image_of(100, 131), convolution(9)
    inside = (slice(None), slice(4, -4), slice(4, -4))
    difference = predict(model, image, 32, 12)[inside] - untiled(model, image)[inside]
    assert np.abs(difference).max() > 1e-3


def test_beyond_the_frame_the_image_is_mirrored() -> None:
    # A mean over 3 x 3 pixels, in an image that rises from left to right: left of column 0 stands column 1 again.
    image = np.tile(np.arange(40, dtype=np.uint8)[:, None] * 6, (40, 1, 3))
    model = nn.Conv2d(3, 2, 3, padding=1).eval()
    nn.init.zeros_(model.bias)
    with torch.no_grad():
        model.weight[:] = torch.tensor([0.0, 1 / 27]).view(2, 1, 1, 1)
    found = predict(model, image, 32, 8)
    mirrored = np.pad(scale(torch.from_numpy(image[None]))[0, 0].numpy(), 1, mode="reflect")
    mean = sum(mirrored[row : row + 40, column : column + 40] for row in range(3) for column in range(3)) / 9
    np.testing.assert_allclose(found[1], 1 / (1 + np.exp(-mean)), atol=1e-6)


def test_tiles_fade_into_each_other() -> None:
    # 24 + 16 columns, and the margins of 4 that stick out on either side, are two tiles of 32 that share 16.
    def model(inputs: Tensor) -> Tensor:
        """Every tile gets a number of its own."""
        return torch.tensor([[0.0, 2.0], [0.0, -2.0]]).view(2, 2, 1, 1).expand(len(inputs), 2, 32, 32)

    found = predict(model, image_of(24, 40), 32, 16)[1, 0]
    first, second = 1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(2.0))
    share = np.concatenate([np.ones(16), 1 - np.arange(1, 9) / 9, np.zeros(16)])
    np.testing.assert_allclose(found, share * first + (1 - share) * second, atol=1e-6)


def test_progress_ends_at_the_number_of_tiles() -> None:
    done: list[int] = []
    predict_image(
        convolution(1), image_of(100, 110), tile=32, overlap=8, normalise=scale, device=CPU, progress=done.append
    )
    # A new tile every 24 px, with margins of 2: 100 + 4 = 32 + 3 x 24, and 110 + 4 is less than 32 + 4 x 24.
    assert len(plan_windows(100, 110, 32, 8)) == 4 * 5
    assert done == [8, 16, 20]


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "message"),
    [
        ((50, 50), 100, 0, "predict: tile must be a multiple of 32 pixels (encoder stride), got 100"),
        ((50, 50), 0, 0, "predict: tile must be a multiple of 32 pixels (encoder stride), got 0"),
        ((50, 50), 64, 33, "predict: overlap must be from 0 to half a tile, 32 pixels, got 33"),
        ((50, 50), 64, -1, "predict: overlap must be from 0 to half a tile, 32 pixels, got -1"),
        ((0, 50), 64, 8, "predict: an image must have pixels, but this one is 0 x 50; give another"),
    ],
)
def test_sizes_that_are_not_allowed(size: tuple[int, int], tile: int, overlap: int, message: str) -> None:
    with pytest.raises(InputError) as error:
        predict(convolution(1), image_of(*size), tile, overlap)
    assert str(error.value) == message


def test_a_model_that_gives_no_number_somewhere_is_refused() -> None:
    image = np.full((40, 40, 3), 255, dtype=np.uint8)
    image[30, 20] = 0  # scaled to -1, which has no logarithm
    with pytest.raises(InputError, match="no finite numbers"):
        predict(lambda inputs: inputs[:, :2].log(), image, 32, 8)


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(AssertionError, match="batch statistics"):
        predict(convolution(1).train(), image_of(40, 40), 32, 8)


def test_a_saved_mask_is_black_and_white(tmp_path: Path) -> None:
    classes = np.array([[0, 1, 1], [1, 0, 0]], dtype=np.uint8)
    save_prediction(tmp_path / "mask.png", classes)
    with Image.open(tmp_path / "mask.png") as image:
        assert (image.format, image.mode) == ("PNG", "L")
        assert np.asarray(image).tolist() == [[0, 255, 255], [255, 0, 0]]
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]
