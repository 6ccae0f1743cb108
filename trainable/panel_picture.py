"""One prediction as a picture: image, labelled points, truth, prediction, errors and a legend, in three rows of two.

Two columns, so that a phone's width, some 340 pixels, shows the legend in letters of twelve pixels. Forest is told from
background by lightness and points by shape, errors are blue and vermilion: nothing hangs on telling red from green.
Colours: Okabe and Ito 2008.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from trainable.config import IGNORE_INDEX
from trainable.points import Points

TILE, GAP, TITLE = 256, 12, 30
"""Side of a tile, space around it, height of its title; pixels."""

COLUMNS = 2
TITLE_SIZE, LEGEND_SIZE = 22, 20

Colour = tuple[int, int, int]
INK, PAPER = (20, 20, 20), (255, 255, 255)
FOREST, BACKGROUND = (0, 92, 70), (240, 228, 200)
UNKNOWN: tuple[Colour, Colour] = ((150, 150, 150), (200, 200, 200))  # hatched
RIGHT_FOREST, RIGHT_BACKGROUND = (190, 190, 190), (238, 238, 238)
FALSE_FOREST, MISSED_FOREST = (213, 94, 0), (0, 114, 178)
FOREST_POINT, BACKGROUND_POINT = (0, 158, 115), (240, 228, 66)


@dataclass(frozen=True)
class Prediction:
    """One image and what is known and said of it.

    Attributes:
        image: (H, W, bands) uint8.
        truth: (H, W) class indices, IGNORE_INDEX where unknown.
        predicted: (H, W) class indices.
        points: that are or would be labelled; None where every pixel is.
        points_title: what they are, in a few words.
        lines: what the legend says of all this.
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    points: Points | None
    points_title: str
    lines: Sequence[str]


def draw_prediction(prediction: Prediction) -> bytes:
    """The picture as a PNG file."""
    base = _tile(shown_bands(prediction.image))
    truth = _tile(_class_colours(prediction.truth))
    tiles = [
        ("image", base),
        (prediction.points_title, truth.copy() if prediction.points is None else _with_points(base, prediction)),
        ("truth", truth),
        ("prediction", _tile(_class_colours(prediction.predicted))),
        ("errors", _tile(_error_colours(prediction.truth, prediction.predicted))),
        ("", _legend(prediction)),
    ]
    rows = -(-len(tiles) // COLUMNS)
    size = (COLUMNS * (TILE + GAP) + GAP, rows * (TILE + TITLE + GAP) + GAP)
    canvas = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(TITLE_SIZE)
    for number, (title, tile) in enumerate(tiles):
        left = GAP + number % COLUMNS * (TILE + GAP)
        top = GAP + number // COLUMNS * (TILE + TITLE + GAP)
        draw.text((left, top), _fitting(title, font), fill=INK, font=font)
        canvas.paste(tile, (left, top + TITLE if title else top))
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def shown_bands(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, bands) -> (H, W, 3): the first three bands as red, green and blue, or else the first one as grey."""
    return image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)


def _class_colours(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    colours = np.where((classes == 1)[..., None], FOREST, BACKGROUND).astype(np.uint8)
    return _hatched(colours, classes == IGNORE_INDEX)


def _error_colours(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.uint8]:
    table = np.array([[RIGHT_BACKGROUND, FALSE_FOREST], [MISSED_FOREST, RIGHT_FOREST]], dtype=np.uint8)
    known = truth != IGNORE_INDEX
    return _hatched(table[np.where(known, truth, 0), predicted], ~known)


def _hatched(colours: NDArray[np.uint8], unknown: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(H, W, 3) with diagonal stripes where nothing is known."""
    rows, columns = np.indices(unknown.shape)
    stripes = np.array(UNKNOWN, dtype=np.uint8)[(rows + columns) // 4 % 2]
    return np.where(unknown[..., None], stripes, colours)


def _tile(pixels: NDArray[np.uint8]) -> Image.Image:
    """A square of `TILE` pixels: enlarged without smoothing, so that a pixel stays one; large ones are averaged."""
    is_small = max(pixels.shape[:2]) <= TILE
    method = Image.Resampling.NEAREST if is_small else Image.Resampling.BOX
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((TILE, TILE), method)


def _with_points(base: Image.Image, prediction: Prediction) -> Image.Image:
    points = prediction.points
    assert points is not None, "a mask has no points to be drawn"
    tile = base.copy()
    draw = ImageDraw.Draw(tile)
    radius = 4 if points.rows.size <= 100 else 3
    height, width = prediction.truth.shape
    for row, column, label in zip(points.rows.tolist(), points.columns.tolist(), points.classes.tolist(), strict=True):
        _mark(draw, (column + 0.5) * TILE / width, (row + 0.5) * TILE / height, radius, is_forest=label == 1)
    return tile


def _mark(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, *, is_forest: bool) -> None:
    """A disc on forest, a square on background, each with a rim that shows on any ground."""
    box = (x - radius, y - radius, x + radius, y + radius)
    if is_forest:
        draw.ellipse(box, fill=FOREST_POINT, outline=PAPER)
    else:
        draw.rectangle(box, fill=BACKGROUND_POINT, outline=INK)


def _legend(prediction: Prediction) -> Image.Image:
    """What the colours and marks mean, and what is said; as high as a tile with its title, for it has none."""
    tile = Image.new("RGB", (TILE, TITLE + TILE), PAPER)
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(LEGEND_SIZE)
    swatches = [("forest", FOREST), ("background", BACKGROUND)]
    swatches += [("called forest, is not", FALSE_FOREST), ("forest, missed", MISSED_FOREST)]
    if (prediction.truth == IGNORE_INDEX).any():
        swatches.append(("truth unknown", UNKNOWN[0]))
    line = LEGEND_SIZE + 6
    for number, (text, colour) in enumerate(swatches):
        draw.rectangle((0, number * line + 4, LEGEND_SIZE, number * line + 4 + LEGEND_SIZE), fill=colour, outline=INK)
        draw.text((LEGEND_SIZE + 8, number * line), text, fill=INK, font=font)
    top = len(swatches) * line
    for is_forest in (True, False) if prediction.points is not None else ():
        _mark(draw, LEGEND_SIZE / 2, top + line / 2 + 1, 6, is_forest=is_forest)
        text = f"point on {'forest' if is_forest else 'background'}"
        draw.text((LEGEND_SIZE + 8, top), text, fill=INK, font=font)
        top += line
    for number, text in enumerate(prediction.lines):
        draw.text((0, top + 4 + number * line), _fitting(text, font), fill=INK, font=font)
    return tile


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a text as a tile is wide; without what is no letter."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)[:200]
    if font.getlength(text) <= TILE:
        return text
    while text and font.getlength(f"{text}...") > TILE:
        text = text[:-1]
    return f"{text}..."
