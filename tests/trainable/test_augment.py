import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.augment import (
    MAX_BAND_GAIN,
    MAX_BRIGHTNESS,
    MAX_CONTRAST,
    MAX_ZOOM,
    Colour,
    Symmetry,
    Transforms,
    Zoom,
    augment_images,
    augment_labels,
    augment_points,
    draw_transforms,
)
from trainable.config import IGNORE_INDEX, TrainConfig

SIDE = 16
LIGHT, FULL = TrainConfig(augmentation="light"), TrainConfig(augmentation="full")
SAME = Symmetry(*torch.zeros(3, 1, dtype=torch.bool))

both_levels = pytest.mark.parametrize("config", [LIGHT, FULL], ids=["light", "full"])


def random_images(count: int, bands: int = 3, side: int = SIDE) -> Tensor:
    return torch.rand(count, bands, side, side, generator=torch.Generator().manual_seed(0))


def random_points(count: int, per_image: int = 6) -> tuple[Tensor, Tensor]:
    """Different pixels in each image, the last place of each list unused."""
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand(count, SIDE * SIDE, generator=generator).argsort(dim=1)[:, :per_image]
    classes = torch.randint(0, 2, (count, per_image), generator=generator)
    positions[:, -1], classes[:, -1] = 0, IGNORE_INDEX
    return positions, classes


def label_map(positions: Tensor, classes: Tensor) -> Tensor:
    """(B, H, W) uint8: the class at the points, IGNORE_INDEX elsewhere."""
    labels = torch.full((len(positions), SIDE * SIDE), IGNORE_INDEX)
    for image in range(len(positions)):
        labelled = classes[image] != IGNORE_INDEX
        labels[image, positions[image, labelled]] = classes[image, labelled]
    return labels.view(-1, SIDE, SIDE).byte()


def symmetry(*switches: bool) -> Transforms:
    return Transforms(Symmetry(*torch.tensor(switches).view(3, 1)))


def zoom(factor: float, row: float, column: float) -> Transforms:
    return Transforms(SAME, Zoom(*torch.tensor([factor, row, column]).view(3, 1)))


def colour(contrast: float, *gain: float) -> Transforms:
    return Transforms(SAME, colour=Colour(torch.tensor([contrast]), torch.tensor([gain])))


# Symmetries


@pytest.mark.parametrize(
    ("switches", "expected"),
    [  # of the image [[1, 2], [3, 4]]: transposed first, then rows and columns flipped
        ((False, False, False), [[1, 2], [3, 4]]),
        ((False, False, True), [[2, 1], [4, 3]]),
        ((False, True, False), [[3, 4], [1, 2]]),
        ((False, True, True), [[4, 3], [2, 1]]),  # half a turn
        ((True, False, False), [[1, 3], [2, 4]]),
        ((True, False, True), [[3, 1], [4, 2]]),  # a quarter turn to the right
        ((True, True, False), [[2, 4], [1, 3]]),  # a quarter turn to the left
        ((True, True, True), [[4, 2], [3, 1]]),
    ],
)
def test_symmetries_by_hand(switches: tuple[bool, bool, bool], expected: list[list[int]]) -> None:
    transforms = symmetry(*switches)
    image = torch.tensor([[[1, 2], [3, 4]]])
    assert augment_labels(image, transforms)[0].tolist() == expected
    assert (augment_images(image[:, None] / 4, transforms)[0, 0] * 4).tolist() == expected
    for value in (1, 2, 3, 4):  # the point at the pixel of this value goes with it
        positions, _ = augment_points(torch.tensor([[value - 1]]), torch.tensor([[1]]), 2, transforms)
        assert np.ravel(expected)[positions.item()] == value


def test_every_symmetry_comes_equally_often() -> None:
    drawn = draw_transforms(np.arange(800), LIGHT, epoch=1).symmetry
    observed = np.bincount((torch.stack(drawn) * torch.tensor([[4], [2], [1]])).sum(dim=0), minlength=8)
    # 800 images, 8 symmetries: 100 each. Chi-square with 7 degrees of freedom: 24.3 once in a thousand.
    assert ((observed - 100) ** 2 / 100).sum() < 24.3


def test_light_images_are_flips_and_quarter_turns_of_themselves() -> None:
    images = random_images(40)
    for image, augmented in zip(images, augment_images(images, draw_transforms(np.arange(40), LIGHT, 1)), strict=True):
        turned = [each.rot90(turns, (1, 2)) for each in (image, image.flip(2)) for turns in range(4)]
        assert sum(torch.equal(augmented, candidate) for candidate in turned) == 1


def test_flips_and_turns_commute_with_points() -> None:
    positions, classes = random_points(40)
    transforms = draw_transforms(np.arange(40), LIGHT, epoch=1)
    moved = augment_points(positions, classes, SIDE, transforms)
    assert torch.equal(label_map(*moved), augment_labels(label_map(positions, classes), transforms))
    assert torch.equal(moved[1], classes)  # no point leaves the image


def test_images_labels_and_points_move_together() -> None:
    images = random_images(40, bands=1)
    labels = (images[:, 0] * 250).byte()
    positions, classes = random_points(40)
    transforms = draw_transforms(np.arange(40), LIGHT, epoch=1)
    augmented = augment_images(images, transforms)
    assert torch.equal((augmented[:, 0] * 250).byte(), augment_labels(labels, transforms))
    moved, _ = augment_points(positions, classes, SIDE, transforms)
    values = augmented.flatten(1).gather(1, moved)[:, :-1]  # the last is padding
    assert torch.equal(values, images.flatten(1).gather(1, positions)[:, :-1])


# Streams


@both_levels
def test_an_image_is_changed_alike_in_any_batch(config: TrainConfig) -> None:
    images, positions, classes = random_images(6), *random_points(6)

    def augment(chosen: list[int]) -> tuple[Tensor, ...]:
        transforms = draw_transforms(np.array(chosen) + 100, config, epoch=3)
        points = augment_points(positions[chosen], classes[chosen], SIDE, transforms)
        return augment_images(images[chosen], transforms), *points

    together, apart = augment([0, 1, 2, 3, 4, 5]), augment([4, 1])
    for whole, part in zip(together, apart, strict=True):
        assert torch.equal(whole[[4, 1]], part)


@both_levels
def test_epochs_seeds_and_images_are_changed_each_in_its_own_way(config: TrainConfig) -> None:
    images = random_images(1).expand(64, -1, -1, -1)
    settings = [
        (config, 1, 0),
        (config, 2, 0),
        (TrainConfig(augmentation=config.augmentation, seed=1), 1, 0),
        (config, 1, 64),
    ]
    results = [augment_images(images, draw_transforms(np.arange(64) + first, c, epoch)) for c, epoch, first in settings]
    for one in range(4):
        for other in range(one):
            same = (results[one] == results[other]).all(dim=(1, 2, 3))
            assert same.sum() <= 20  # one in eight is the same symmetry, by chance: 8 of 64


def test_full_has_the_symmetries_of_light() -> None:
    light, full = (draw_transforms(np.arange(20), config, epoch=1) for config in (LIGHT, FULL))
    assert torch.equal(torch.stack(light.symmetry), torch.stack(full.symmetry))
    assert light.zoom is None
    assert light.colour is None


def test_factors_keep_their_ranges_and_are_centred_on_1() -> None:
    drawn = draw_transforms(np.arange(2000), FULL, epoch=1)
    assert drawn.zoom is not None
    assert drawn.colour is not None
    # The largest gain is brightness and the band's own together.
    for factors, largest in (
        (drawn.zoom.factor, MAX_ZOOM),
        (drawn.colour.contrast, MAX_CONTRAST),
        (drawn.colour.gain, MAX_BRIGHTNESS * MAX_BAND_GAIN),
    ):
        logarithms = factors.log() / math.log(largest)
        assert logarithms.abs().max() <= 1 + 1e-5
        assert logarithms.max() > 0.85
        assert logarithms.min() < -0.85
        assert abs(logarithms.mean()) < 0.06  # uniform on [-1, 1]: standard error 0.013
    assert abs(drawn.zoom.row.mean() - 0.5) < 0.03  # the fixed point: anywhere
    assert abs(drawn.zoom.column.mean() - 0.5) < 0.03


# Zoom


@pytest.mark.parametrize(
    ("factor", "fixed", "sources"),
    [
        (2.0, 0.0, [0, 0, 1, 1]),  # centres .5 1.5 2.5 3.5 were at .25 .75 1.25 1.75
        (2.0, 1.0, [2, 2, 3, 3]),
        (0.5, 0.0, [1, 3, 255, 255]),  # at 1, 3, 5 and 7
        (0.5, 0.5, [255, 1, 3, 255]),  # at -1, 1, 3 and 5: about the middle, 2
        (0.8, 0.5, [0, 1, 2, 3]),  # at .125, 1.375, 2.625 and 3.875
    ],
)
def test_labels_zoom_by_hand(factor: float, fixed: float, sources: list[int]) -> None:
    rows = torch.arange(4, dtype=torch.uint8).view(1, 4, 1).expand(1, 4, 4)
    assert augment_labels(rows, zoom(factor, fixed, 0.5))[0].amin(dim=1).tolist() == sources
    assert augment_labels(rows.mT, zoom(factor, 0.5, fixed))[0].amin(dim=0).tolist() == sources


@pytest.mark.parametrize(
    ("factor", "fixed", "goals"),
    [
        (2.0, 0.0, [1, 3, None, None]),  # centres .5 1.5 2.5 3.5 go to 1, 3, 5 and 7
        (2.0, 0.5, [None, 1, 3, None]),  # to -1, 1, 3 and 5
        (0.5, 0.0, [0, 0, 1, 1]),  # to .25, .75, 1.25 and 1.75: two share a pixel
    ],
)
def test_points_zoom_by_hand(factor: float, fixed: float, goals: list[int | None]) -> None:
    classes = torch.tensor([[1, 0, 1, 0]])
    transforms = zoom(factor, fixed, 0.0)
    positions, moved = augment_points(torch.arange(4)[None] * 4, classes, 4, transforms)  # the first column, downwards
    expected = [0 if goal is None else goal * 4 + int(factor == 2) for goal in goals]
    assert positions[0].tolist() == expected
    assert moved[0].tolist() == [
        IGNORE_INDEX if goal is None else kind for goal, kind in zip(goals, [1, 0, 1, 0], strict=True)
    ]


def test_padding_stays_padding() -> None:
    positions, classes = random_points(20)
    for config in (LIGHT, FULL):
        moved, kept = augment_points(positions, classes, SIDE, draw_transforms(np.arange(20), config, epoch=1))
        assert (kept[:, -1] == IGNORE_INDEX).all()
        assert (moved[kept == IGNORE_INDEX] == 0).all()


def test_enlarging_is_bilinear_interpolation() -> None:
    images = random_images(1)
    expected = F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)[:, :, :SIDE, SIDE:]
    torch.testing.assert_close(augment_images(images, zoom(2.0, 0.0, 1.0)), expected, atol=1e-5, rtol=0)


def test_beyond_the_image_stands_its_reflection() -> None:
    ramp = (torch.arange(SIDE) / SIDE).expand(1, 1, SIDE, SIDE)
    small = augment_images(ramp, zoom(0.5, 0.0, 0.0))[0, 0, 0] * SIDE
    # Column c was at 2 c + 1, between the pixels 2 c and 2 c + 1; from 16 on it comes back.
    expected = [0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5, 14.5, 14.5, 12.5, 10.5, 8.5, 6.5, 4.5, 2.5, 0.5]
    torch.testing.assert_close(small, torch.tensor(expected), atol=1e-4, rtol=0)


def test_points_and_labels_lie_where_the_image_shows_them() -> None:
    # Each pixel shows its own place, so that a point can be asked where it came from.
    places = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")) / SIDE
    count = 200
    positions, classes = random_points(count)
    drawn = draw_transforms(np.arange(count), FULL, epoch=1)
    transforms = Transforms(drawn.symmetry, drawn.zoom)  # colours would hide the places
    shown = augment_images(places.expand(count, -1, -1, -1), transforms) * SIDE
    moved, kept = augment_points(positions, classes, SIDE, transforms)
    labels = augment_labels(torch.arange(SIDE * SIDE).view(1, SIDE, SIDE).expand(count, -1, -1), transforms)
    there = kept != IGNORE_INDEX
    assert 0.5 < there.sum() / (classes != IGNORE_INDEX).sum() < 1  # some have left the image
    origin = shown.flatten(2).gather(2, moved[:, None].expand(-1, 2, -1))
    for axis, expected in enumerate((positions // SIDE, positions % SIDE)):
        # A pixel's centre is at most half a pixel from the point, and half / zoom before it.
        assert (origin[:, axis] - expected)[there].abs().max() <= 0.5 * MAX_ZOOM + 1e-4
    known = labels != IGNORE_INDEX
    for axis, expected in enumerate((labels // SIDE, labels % SIDE)):
        assert (shown[:, axis] - expected)[known].abs().max() <= 0.5 + 1e-4


# Colour


def test_colours_by_hand() -> None:
    image = torch.tensor([0.2, 0.4, 0.6, 0.4]).view(1, 1, 2, 2)  # mean 0.4
    for transforms, expected in (
        (colour(1.0, 1.0), [0.2, 0.4, 0.6, 0.4]),
        (colour(2.0, 1.0), [0.0, 0.4, 0.8, 0.4]),
        (colour(0.5, 1.0), [0.3, 0.4, 0.5, 0.4]),
        (colour(1.0, 1.5), [0.3, 0.6, 0.9, 0.6]),
        (colour(2.0, 1.5), [0.0, 0.6, 1.0, 0.6]),  # 1.2 is held at 1
    ):
        torch.testing.assert_close(augment_images(image, transforms).flatten(), torch.tensor(expected))


@pytest.mark.parametrize("bands", [1, 3, 4, 8])
def test_bands_have_gains_of_their_own_and_values_stay_in_range(bands: int) -> None:
    images = random_images(8, bands) * 0.999 + 0.001
    drawn = draw_transforms(np.arange(8), FULL, epoch=1)
    augmented = augment_images(images, drawn)
    assert augmented.shape == images.shape
    assert augmented.dtype == images.dtype
    assert 0 <= augmented.min() < augmented.max() <= 1
    assert drawn.colour is not None
    of_one_colour = augment_images(torch.full_like(images, 0.5), drawn)[:, :, 0, 0]
    torch.testing.assert_close(of_one_colour, 0.5 * drawn.colour.gain[:, :bands])


# The device


@both_levels
def test_nothing_is_read_back_from_the_device(config: TrainConfig) -> None:
    # A tensor on the meta device has no values: whoever asks for one fails.
    meta = torch.device("meta")
    transforms = draw_transforms(np.arange(4), config, epoch=1)
    assert augment_images(random_images(4).to(meta), transforms).shape == (4, 3, SIDE, SIDE)
    assert augment_labels(torch.zeros(4, SIDE, SIDE, dtype=torch.uint8, device=meta), transforms).device == meta
    positions, classes = (each.to(meta) for each in random_points(4))
    assert augment_points(positions, classes, SIDE, transforms)[0].device == meta


@pytest.mark.usefixtures("deterministic")
@both_levels
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_images_come_out_the_same_and_channels_last(config: TrainConfig, memory_format: torch.memory_format) -> None:
    images = random_images(4, side=32)
    transforms = draw_transforms(np.arange(4), config, epoch=1)
    first, second = (augment_images(images.contiguous(memory_format=memory_format), transforms) for _ in range(2))
    assert torch.equal(first, second)
    assert first.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(first, augment_images(images, transforms), atol=1e-6, rtol=0)
