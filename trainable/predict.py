"""Prediction for images of any size: overlapping tiles of the size the network was trained on, blended into one map.

Neighbouring tiles share some pixels. The outer quarter of what they share, where a tile sees the least of its
surroundings, is thrown away on either side; over the rest, one tile fades out as the other fades in. Beyond its frame
the image is mirrored, so that the frame is no tile's edge.
"""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainable.atomic import write_atomically
from trainable.config import CLASS_NAMES, InputError

TILE_UNIT = 32
"""The encoders' coarsest stride: a tile is a multiple of it, pixels."""

BATCH_SIZE = 8
"""Tiles that go through the model together."""


@dataclass(frozen=True)
class Window:
    """One side of a tile, along the rows of an image or along its columns.

    Attributes:
        positions: (tile,) rows of the image that it shows, mirrored ones among them.
        counted: the part of the tile that enters the blend.
        target: the rows of the image that this part is.
        weights: of each of them in the blend.
    """

    positions: NDArray[np.int64]
    counted: slice
    target: slice
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Windows:
    """Where the tiles of an image lie, and what each of their pixels counts; the weights of a pixel add up to 1."""

    rows: list[Window]
    columns: list[Window]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def batches(self) -> Iterator[list[tuple[Window, Window]]]:
        """The tiles, as pairs of their two sides, row by row."""
        tiles = list(product(self.rows, self.columns))
        yield from (tiles[start : start + BATCH_SIZE] for start in range(0, len(tiles), BATCH_SIZE))


def plan_windows(height: int, width: int, tile: int, overlap: int) -> Windows:
    """Lays tiles over an image of any size.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        tile: side of a tile, pixels; a multiple of 32.
        overlap: pixels that neighbouring tiles share at least; up to half a tile. A quarter of it (rounded down) is
            the margin: a network that looks no further gives what it would give of the whole image.

    Raises:
        InputError: a size that is not allowed.
    """
    if tile < TILE_UNIT or tile % TILE_UNIT:
        raise InputError(f"predict: tile must be a multiple of {TILE_UNIT} pixels (encoder stride), got {tile}")
    if not 0 <= overlap <= tile // 2:
        raise InputError(f"predict: overlap must be from 0 to half a tile, {tile // 2} pixels, got {overlap}")
    if height < 1 or width < 1:
        raise InputError(f"predict: an image must have pixels, but this one is {height} x {width}; give another")
    return Windows(_side_windows(height, tile, overlap), _side_windows(width, tile, overlap))


def predict_image(
    model: Callable[[Tensor], Tensor],
    image: NDArray[np.uint8],
    *,
    tile: int,
    overlap: int,
    normalise: Callable[[Tensor], Tensor],
    device: torch.device,
    progress: Callable[[int], None] = lambda num_tiles: None,
) -> NDArray[np.float32]:
    """Predicts every pixel of an image, a few tiles at a time.

    Args:
        model: (B, bands, tile, tile) float32 -> (B, C, tile, tile) logits; a module in evaluation mode.
        image: (H, W, bands); H and W of any size, at the ground resolution that the model was trained at.
        tile: side of a tile, pixels; a multiple of 32.
        overlap: pixels that neighbouring tiles share, up to half a tile.
        normalise: (B, tile, tile, bands) uint8 on the device -> what the model takes.
        device: where the model is.
        progress: called with the number of tiles done, of `len(plan_windows(...))`.

    Returns:
        (C, H, W) probabilities.

    Raises:
        InputError: a size that is not allowed, or a model whose weights give no numbers.
    """
    assert not getattr(model, "training", False), "batch statistics of tiles would replace those of training"
    height, width = image.shape[:2]
    windows = plan_windows(height, width, tile, overlap)
    blended = np.zeros((len(CLASS_NAMES), height, width), dtype=np.float32)
    num_done = 0
    for batch in windows.batches():
        pixels = np.stack([image[np.ix_(rows.positions, columns.positions)] for rows, columns in batch])
        for (rows, columns), probabilities in zip(batch, _probabilities(model, normalise, pixels, device), strict=True):
            weights = np.outer(rows.weights, columns.weights)
            blended[:, rows.target, columns.target] += probabilities[:, rows.counted, columns.counted] * weights
        num_done += len(batch)
        progress(num_done)
    if not np.isfinite(blended).all():
        raise InputError("predict: the model gives values that are no finite numbers; use the weights of another run")
    return blended


def save_prediction(path: Path, prediction: NDArray[Any]) -> None:
    """Writes a mask as an 8-bit grey PNG, 255 where forest is predicted and 0 elsewhere; whole or not at all.

    Args:
        path: the file; replaced if it is there.
        prediction: (H, W) class indices.
    """
    grey = np.where(prediction == CLASS_NAMES.index("forest"), 255, 0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())


@torch.inference_mode()
def _probabilities(
    model: Callable[[Tensor], Tensor],
    normalise: Callable[[Tensor], Tensor],
    pixels: NDArray[np.uint8],
    device: torch.device,
) -> NDArray[np.float32]:
    logits = model(normalise(torch.from_numpy(pixels).to(device)))
    probabilities: NDArray[np.float32] = logits.float().softmax(dim=1).cpu().numpy()
    return probabilities


def _side_windows(length: int, tile: int, overlap: int) -> list[Window]:
    """Evenly spread windows over `length` rows or columns, the outermost a margin beyond the frame."""
    if length <= tile:  # what fits into one tile is predicted as in the validation of a run
        return [_window(0, np.where(np.arange(tile) < length, 1.0, 0.0), np.ones(length))]
    margin = overlap // 4
    first, last = -margin, max(length + margin - tile, -margin)
    num_windows = 1 + math.ceil((last - first) / (tile - overlap))
    starts = np.linspace(first, last, num_windows).round().astype(np.int64)
    positions = starts[:, None] + np.arange(tile)  # (num_windows, tile), of which some are outside the image
    inside = (positions >= 0) & (positions < length)
    weights = np.where(inside, _ramp(tile, overlap - 2 * margin, margin), 0.0)
    total = np.zeros(length)
    np.add.at(total, positions[inside], weights[inside])
    return [_window(start, each, total) for start, each in zip(starts.tolist(), weights, strict=True)]


def _window(start: int, weights: NDArray[np.float64], total: NDArray[np.float64]) -> Window:
    """The window whose first row is `start`, with its share of the total weight of every row of the image."""
    counted = np.flatnonzero(weights)  # without gaps
    first, end = int(counted[0]), int(counted[-1]) + 1
    target = slice(start + first, start + end)
    shares = (weights[first:end] / total[target]).astype(np.float32)
    return Window(_mirrored(start + np.arange(len(weights)), len(total)), slice(first, end), target, shares)


def _ramp(tile: int, width: int, margin: int) -> NDArray[np.float64]:
    """(tile,): 0 over the margin, then rising in even steps over `width` pixels to 1; the same towards the end."""
    from_edge = np.minimum(np.arange(tile), np.arange(tile)[::-1]) - margin + 1
    ramp: NDArray[np.float64] = np.clip(from_edge / (width + 1), 0.0, 1.0)
    return ramp


def _mirrored(positions: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Positions beyond a frame, folded back at its outermost pixels as often as it takes."""
    period = max(2 * (length - 1), 1)
    folded = np.abs(positions) % period
    mirrored: NDArray[np.int64] = np.minimum(folded, period - folded)
    return mirrored
