"""Augmentation: the same change to an image, its labels and its points.

`light` is one of the eight symmetries of the square: exact permutations of the pixels. `full` adds zoom and colour.
What happens to an image depends on (seed, epoch, image) alone, not on the batch that it comes in. The parameters are
small tensors that travel to the device without a wait, and nothing here reads a value back from it.

The symmetry comes first, then the zoom, then the colour.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trainable.config import IGNORE_INDEX, MAX_BANDS, TrainConfig
from trainable.randomness import derive_seed

# Each factor lies between 1 / MAX and MAX, uniform in its logarithm.
MAX_ZOOM = 4 / 3
MAX_CONTRAST = 1.25
MAX_BRIGHTNESS = 1.25
MAX_BAND_GAIN = 1.05

NUM_CHANCES = 8 + MAX_BANDS
"""Random numbers an image takes in an epoch: 3 for the symmetry, 3 for the zoom, 2 for the colour, 1 for each band."""


class Symmetry(NamedTuple):
    """Transposition first, then the flips; together the flips and quarter turns of a square. Each (B,) bool."""

    transposed: Tensor
    rows_flipped: Tensor
    columns_flipped: Tensor


class Zoom(NamedTuple):
    """Enlargement by a factor about a point that stays where it is, in shares of a side. Each (B,) float32."""

    factor: Tensor
    row: Tensor
    column: Tensor


class Colour(NamedTuple):
    """Contrast about each band's mean (B,), then a gain for each band (B, MAX_BANDS), brightness in it. float32."""

    contrast: Tensor
    gain: Tensor


@dataclass(frozen=True)
class Transforms:
    """What happens to each image of a batch; zoom and colour only where augmentation is `full`."""

    symmetry: Symmetry
    zoom: Zoom | None = None
    colour: Colour | None = None

    def to(self, device: torch.device) -> "Transforms":
        """The same on a device, without waiting for it."""
        return Transforms(
            Symmetry(*(each.to(device, non_blocking=True) for each in self.symmetry)),
            self.zoom and Zoom(*(each.to(device, non_blocking=True) for each in self.zoom)),
            self.colour and Colour(*(each.to(device, non_blocking=True) for each in self.colour)),
        )


def draw_transforms(image_indices: NDArray[np.int64], config: TrainConfig, epoch: int) -> Transforms:
    """Draws what happens to each image in an epoch.

    Args:
        image_indices: (B,) numbers of the images in the store.
        config: seed and augmentation, `light` or `full`; both draw the same symmetries.
        epoch: 1 for the first.

    Returns:
        Transforms on the CPU.
    """
    chances = torch.from_numpy(np.stack([_chances(config.seed, epoch, int(index)) for index in image_indices]))
    symmetry = Symmetry(*(chances[:, :3] < 0.5).unbind(dim=1))
    if config.augmentation == "light":
        return Transforms(symmetry)
    zoom = Zoom(_factor(chances[:, 3], MAX_ZOOM), chances[:, 4].float(), chances[:, 5].float())
    brightness = _factor(chances[:, 6], MAX_BRIGHTNESS)
    gain = brightness[:, None] * _factor(chances[:, 8:], MAX_BAND_GAIN)
    return Transforms(symmetry, zoom, Colour(_factor(chances[:, 7], MAX_CONTRAST), gain))


def augment_images(images: Tensor, transforms: Transforms) -> Tensor:
    """Changes each image as its transform says.

    Where zooming out shows what lies beyond the image, its reflection stands there.

    Args:
        images: (B, bands, H, H) float32 in [0, 1], square, at most MAX_BANDS bands.
        transforms: of these B images, on any device.

    Returns:
        The same shape and type, in [0, 1], channels last in memory.
    """
    transforms = transforms.to(images.device)
    images = _permuted(images, transforms.symmetry)
    if transforms.zoom:
        images = _zoomed(images, transforms.zoom)
    return _recoloured(images, transforms.colour) if transforms.colour else images


def augment_labels(labels: Tensor, transforms: Transforms) -> Tensor:
    """Moves label maps as `augment_images` moves images: a pixel takes the label of the pixel that its centre was in.

    Args:
        labels: (B, H, H) of any integer type.
        transforms: of these B images, on any device.

    Returns:
        The same shape and type; IGNORE_INDEX beyond the image.
    """
    transforms = transforms.to(labels.device)
    side = labels.shape[-1]
    rows, columns = (axis.floor().long() for axis in _sources(side, transforms.zoom, labels.device))
    beyond = _outside(rows, side)[:, :, None] | _outside(columns, side)[:, None, :]
    source = _source_pixels(rows.clamp(0, side - 1), columns.clamp(0, side - 1), side, transforms.symmetry)
    moved = labels.flatten(1).gather(1, source.flatten(1)).view_as(labels)
    return moved.masked_fill(beyond, IGNORE_INDEX)


def augment_points(
    positions: Tensor, classes: Tensor, image_size: int, transforms: Transforms
) -> tuple[Tensor, Tensor]:
    """Moves points as `augment_images` moves images: each to the pixel that its own pixel's centre comes to lie in.

    Args:
        positions: (B, P) int64 row * image_size + column.
        classes: (B, P) int64, IGNORE_INDEX where there is no point.
        image_size: side of the images, pixels.
        transforms: of these B images, on any device.

    Returns:
        Positions and classes of the same shape; 0 and IGNORE_INDEX where there is no point or it left the image.
    """
    transforms = transforms.to(positions.device)
    transposed, rows_flipped, columns_flipped = (each[:, None] for each in transforms.symmetry)
    rows, columns = positions // image_size, positions % image_size
    rows, columns = torch.where(transposed, columns, rows), torch.where(transposed, rows, columns)
    rows = torch.where(rows_flipped, image_size - 1 - rows, rows)
    columns = torch.where(columns_flipped, image_size - 1 - columns, columns)
    if transforms.zoom:
        factor, fixed_row, fixed_column = (each[:, None] for each in transforms.zoom)
        rows = _enlarged(rows, factor, fixed_row * image_size)
        columns = _enlarged(columns, factor, fixed_column * image_size)
    gone = _outside(rows, image_size) | _outside(columns, image_size) | (classes == IGNORE_INDEX)
    return (rows * image_size + columns).masked_fill(gone, 0), classes.masked_fill(gone, IGNORE_INDEX)


def _chances(seed: int, epoch: int, image_index: int) -> NDArray[np.float64]:
    stream = np.random.Generator(np.random.PCG64(derive_seed(seed, "augmentation", epoch, image_index)))
    return stream.random(NUM_CHANCES)


def _factor(chances: Tensor, largest: float) -> Tensor:
    """Uniform chances in [0, 1) -> factors in [1 / largest, largest), as often above 1 as below."""
    return torch.exp(math.log(largest) * (2 * chances - 1)).float()


def _permuted(images: Tensor, symmetry: Symmetry) -> Tensor:
    """Every pixel, with all of its bands, taken from where the symmetry has it from."""
    batch, bands, side, _ = images.shape
    pixels = torch.arange(side, device=images.device).expand(batch, side)
    source = _source_pixels(pixels, pixels, side, symmetry).view(batch, side * side, 1).expand(-1, -1, bands)
    # Bands last: they lie side by side in memory, and the model wants them so.
    moved = images.permute(0, 2, 3, 1).reshape(batch, side * side, bands).gather(1, source)
    return moved.view(batch, side, side, bands).permute(0, 3, 1, 2)


def _source_pixels(rows: Tensor, columns: Tensor, side: int, symmetry: Symmetry) -> Tensor:
    """(B, H) rows and columns after the symmetry -> (B, H, H) flattened positions before it."""
    transposed, rows_flipped, columns_flipped = (each[:, None] for each in symmetry)
    rows = torch.where(rows_flipped, side - 1 - rows, rows)
    columns = torch.where(columns_flipped, side - 1 - columns, columns)
    from_rows = torch.where(transposed, rows, rows * side)
    from_columns = torch.where(transposed, columns * side, columns)
    return from_rows[:, :, None] + from_columns[:, None, :]


def _zoomed(images: Tensor, zoom: Zoom) -> Tensor:
    """Bilinear, from the four nearest pixels."""
    side = images.shape[-1]
    rows, columns = (axis / side * 2 - 1 for axis in _sources(side, zoom, images.device))  # -1 and 1: the outer edges
    grid = torch.stack((columns[:, None, :].expand(-1, side, -1), rows[:, :, None].expand(-1, -1, side)), dim=-1)
    zoomed = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return zoomed.contiguous(memory_format=torch.channels_last)


def _sources(side: int, zoom: Zoom | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the pixel centres of the rows (B, H) and columns (B, H) were before the zoom; pixel i covers [i, i + 1)."""
    centres = torch.arange(side, device=device)[None, :] + 0.5
    if zoom is None:
        return centres, centres
    factor, fixed_row, fixed_column = (each[:, None] for each in zoom)
    fixed_row, fixed_column = fixed_row * side, fixed_column * side
    return fixed_row + (centres - fixed_row) / factor, fixed_column + (centres - fixed_column) / factor


def _enlarged(pixels: Tensor, factor: Tensor, fixed: Tensor) -> Tensor:
    """The pixels (B, P) that the centres of these come to lie in."""
    return (fixed + (pixels + 0.5 - fixed) * factor).floor().long()


def _outside(pixels: Tensor, side: int) -> Tensor:
    return (pixels < 0) | (pixels >= side)


def _recoloured(images: Tensor, colour: Colour) -> Tensor:
    """`((image - mean) * contrast + mean) * gain`, each band about its own mean, held in [0, 1]."""
    gain = colour.gain[:, : images.shape[1], None, None].to(images.dtype)
    contrast = colour.contrast[:, None, None, None].to(images.dtype)
    mean = images.mean(dim=(2, 3), keepdim=True)
    return torch.addcmul(mean * (1 - contrast) * gain, images, contrast * gain).clamp_(0, 1)
