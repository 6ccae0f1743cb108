"""A figure as SVG and PNG: no remote parts, no date, no styles of its own; the same bytes for the same study.

Each figure is 12 cm wide, so that its 9-point text stays legible when a phone shows it at half that width or a journal
prints it in one column. Colours: Okabe and Ito 2008, told apart by colour-blind readers; the maps use cividis.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import log10
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.reading.study_terms import is_number
from analysis.wording import printable

WIDTH = 4.8  # inches
PNG_DPI = 200
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY, GRID, RUST = "#5a5a5a", "#e3e3e3", "#9c4400"
LETTER, GAP = 0.085, 0.12
"""Inches that a letter of a label takes, and between two labels."""
WORD_STEP = 0.25
"""From the largest number to a word beside it, as a share of what numbers span."""
ON_MAP = ("#010101", "#fefefe")
"""Letters on a coloured map: not quite the black and white of the page, which change where the page is dark."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",  # letters as shapes: no font is looked up, the figure looks the same everywhere
    "svg.hashsalt": "canopoint",  # else ids, and with them the file, change at every call
    "text.parse_math": False,  # a level or metric with a dollar sign is no formula
    "font.family": "DejaVu Sans",  # the font that matplotlib brings along
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        name: its file name without suffix.
        title: what it is.
        text: what it shows, in words, for those who cannot see it.
        svg: a whole SVG file, with title and text in it.
        png: the same as PNG.
    """

    name: str
    title: str
    text: str
    svg: str
    png: bytes


def make_plot(name: str, title: str, text: str, height: float, draw_on: Callable[[Figure], None]) -> Plot:
    """Draws on a fresh figure, `height` inches high.

    Args:
        name: of the file; what is no letter, digit or underscore becomes one.
        title: a heading.
        text: the text alternative.
        height: in inches.
        draw_on: draws.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands there; `text` has the name
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw_on(figure)
        svg, png = io.StringIO(), io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # the metadata would name remote addresses
        figure.savefig(svg, format="svg", metadata=nothing)
        figure.set_layout_engine("none")  # laid out already
        described = {"Title": printable(title), "Description": printable(text), "Software": None}
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata=described)
    return Plot(file_name(name), title, text, _described(svg.getvalue(), title, text), png.getvalue())


def file_name(name: str) -> str:
    """Letters, digits and underscores alone: names of factors come out of run files, which may be anyone's."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def is_log(levels: Sequence[Any]) -> bool:
    """A log axis where the numbers are positive and span a decade; words stand beside them."""
    numbers = [level for level in levels if is_number(level)]
    return bool(numbers) and min(numbers) > 0 and max(numbers) >= 10 * min(numbers)


def positions(levels: Sequence[Any]) -> NDArray[np.float64]:
    """Where levels lie on an axis: log10 or the number itself; words a step apart, to the right of all numbers."""
    scale = log10 if is_log(levels) else float
    numbers = [scale(level) for level in levels if is_number(level)]
    span = max(numbers) - min(numbers) if numbers else 0.0
    step = span * WORD_STEP or 1.0
    ranks = iter(range(len(levels)))
    first = max(numbers) + step if numbers else 0.0
    return np.array([scale(level) if is_number(level) else first + step * next(ranks) for level in levels])


def roomy(places: NDArray[np.float64], texts: Sequence[str], width: float) -> list[int]:
    """Which of the labels fit beside each other: from the left, each that leaves the one before it alone.

    Args:
        places: (num_texts,) ascending, in the units of the axis.
        texts: the labels.
        width: of the axis, in inches, which shows all places.
    """
    inches = (places - places.min()) / (float(np.ptp(places)) or 1.0) * width
    shown: list[int] = []
    for i, text in enumerate(texts):
        apart = (len(text) + len(texts[shown[-1]])) / 2 * LETTER + GAP if shown else 0.0
        if not shown or inches[i] - inches[shown[-1]] >= apart:
            shown.append(i)
    return shown


def spread_over(number: int, most: int) -> list[int]:
    """Which of so many to draw: all, or as many as there is room for, the first, the last and others between."""
    return sorted({round(place) for place in np.linspace(0, number - 1, min(number, most)).tolist()})


def _described(svg: str, title: str, text: str) -> str:
    """The file with its text alternative, and with attributes in place of styles, which a strict page forbids."""
    body = re.sub(r"<!--.*?-->\n?|<defs>\s*<style.*?</style>\s*</defs>\n?", "", svg, flags=re.DOTALL)
    body = re.sub(r' style="([^"]*)"', lambda style: _attributes(style[1]), body[body.index("<svg") :])
    start = body.index(">")
    words = f"<title>{_xml(title)}</title>\n<desc>{_xml(text)}</desc>"
    joins = ' role="img" stroke-linejoin="round" stroke-linecap="butt">'
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body[:start]}{joins}\n{words}{body[start + 1 :]}'


def _attributes(style: str) -> str:
    pairs = (declaration.split(":", 1) for declaration in style.split(";") if declaration.strip())
    return "".join(f' {name.strip()}="{value.strip()}"' for name, value in pairs)


def _xml(text: str) -> str:
    return escape(printable(text))
