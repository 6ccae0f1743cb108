"""Tiles of a panel, looked at pixel by pixel."""

import io

import numpy as np
import pytest
from PIL import Image

from trainable.config import IGNORE_INDEX
from trainable.panel_picture import (
    BACKGROUND,
    BACKGROUND_POINT,
    FALSE_FOREST,
    FOREST,
    FOREST_POINT,
    GAP,
    LEGEND_SIZE,
    MISSED_FOREST,
    PAPER,
    RIGHT_BACKGROUND,
    RIGHT_FOREST,
    TILE,
    TITLE,
    TITLE_SIZE,
    UNKNOWN,
    Prediction,
    draw_prediction,
    shown_bands,
)
from trainable.points import Points

# Quarters of a 4 x 4 image: right background, false forest / missed forest, right forest.
TRUTH = np.kron([[0, 0], [1, 1]], np.ones((2, 2))).astype(np.uint8)
PREDICTED = np.kron([[0, 1], [0, 1]], np.ones((2, 2))).astype(np.uint8)
IMAGE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
POINTS = Points(np.array([0, 3]), np.array([0, 3]), np.array([0, 1], dtype=np.uint8))


def picture(**changes):
    settings = {
        "image": IMAGE, "truth": TRUTH, "predicted": PREDICTED, "points": POINTS, "points_title": "2 points",
        "lines": ["best test scene: a"],
    }  # fmt: skip
    png = draw_prediction(Prediction(**{**settings, **changes}))
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def tile(pixels, number):
    left, top = GAP + number % 2 * (TILE + GAP), GAP + TITLE + number // 2 * (TILE + TITLE + GAP)
    return pixels[top : top + TILE, left : left + TILE]


def quarters(pixels):
    """The colours at the middle of the four quarters."""
    return [tuple(pixels[row, column].tolist()) for row in (TILE // 4, 3 * TILE // 4) for column in (64, 192)]


def test_tiles_show_what_their_titles_say():
    pixels = picture()
    assert pixels.shape == (3 * (TILE + TITLE + GAP) + GAP, 2 * (TILE + GAP) + GAP, 3)
    assert tile(pixels, 0)[0, 0].tolist() == [0, 1, 2]  # a pixel of the image is a block of the tile
    assert tile(pixels, 0)[-1, -1].tolist() == [45, 46, 47]
    assert quarters(tile(pixels, 2)) == [BACKGROUND, BACKGROUND, FOREST, FOREST]
    assert quarters(tile(pixels, 3)) == [BACKGROUND, FOREST, BACKGROUND, FOREST]
    assert quarters(tile(pixels, 4)) == [RIGHT_BACKGROUND, FALSE_FOREST, MISSED_FOREST, RIGHT_FOREST]


def test_points_stand_on_the_middle_of_their_pixels():
    pixels = tile(picture(), 1)
    step = TILE // 4
    assert tuple(pixels[step // 2, step // 2].tolist()) == BACKGROUND_POINT
    assert tuple(pixels[TILE - step // 2, TILE - step // 2].tolist()) == FOREST_POINT
    changed = (pixels != tile(picture(points=None, points_title="x", truth=TRUTH), 0)).any(axis=2)
    assert 100 < changed.sum() < 200  # a disc and a square of 9 pixels


def test_what_is_unknown_is_hatched_and_no_error():
    truth = TRUTH.copy()
    truth[:2] = IGNORE_INDEX
    pixels = picture(truth=truth)
    for number in (2, 4):
        upper = {tuple(colour) for colour in tile(pixels, number)[: TILE // 2].reshape(-1, 3).tolist()}
        assert upper <= set(UNKNOWN)


def test_errors_are_told_apart_by_lightness_too():
    """Without colour, as a printer or an eye may be: forest and background, and right and wrong, differ in grey."""

    def grey(colour):
        return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]

    assert abs(grey(FOREST) - grey(BACKGROUND)) > 100
    for wrong in (FALSE_FOREST, MISSED_FOREST):
        assert all(abs(grey(wrong) - grey(right)) > 50 for right in (RIGHT_FOREST, RIGHT_BACKGROUND))


@pytest.mark.parametrize(("num_bands", "shown"), [(1, [7, 7, 7]), (2, [7, 7, 7]), (3, [7, 8, 9]), (8, [7, 8, 9])])
def test_any_number_of_bands_is_shown(num_bands, shown):
    image = np.broadcast_to(np.arange(7, 7 + num_bands, dtype=np.uint8), (4, 4, num_bands))
    assert shown_bands(image)[0, 0].tolist() == shown
    assert tile(picture(image=image), 0)[0, 0].tolist() == shown


def test_dense_labels_are_shown_as_the_mask():
    pixels = picture(points=None, points_title="every pixel labelled")
    assert np.array_equal(tile(pixels, 1), tile(pixels, 2))


@pytest.mark.parametrize("side", [4, 96, 512, 1000])
def test_images_of_any_size_fill_their_tile(side):
    image = np.full((side, side, 3), 99, dtype=np.uint8)
    classes = np.zeros((side, side), dtype=np.uint8)
    pixels = picture(image=image, truth=classes, predicted=classes)
    assert (tile(pixels, 0) == 99).all()
    assert (tile(pixels, 4) == RIGHT_BACKGROUND).all()


def test_no_text_leaves_its_tile():
    pixels = picture(points_title="W" * 500, lines=["W" * 500, "a\nb\x1b[2J"])
    assert (pixels[:, -GAP:] == PAPER).all()
    assert (tile(pixels, 2) == tile(picture(), 2)).all()


def test_letters_can_be_read_on_a_phone():
    width = picture().shape[1]
    assert min(LEGEND_SIZE, TITLE_SIZE) * 340 / width > 12  # pixels of the page, where the picture fills a phone


def test_all_that_the_legend_says_has_room():
    truth = TRUTH.copy()
    truth[0] = IGNORE_INDEX
    full, shorter = (picture(truth=truth, lines=["a", "b", text]) for text in ("this image: 0.598", ""))
    rows = np.flatnonzero((full != shorter).any(axis=(1, 2)))
    assert rows.size > 10
    assert rows[-1] < full.shape[0] - GAP  # the last line is there, and within the frame
