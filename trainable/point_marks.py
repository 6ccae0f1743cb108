"""What the readers of annotation files share: marks as they stand in a file, pixel conventions, and careful reading.

A reader turns a file into `MarkedImage`s. Each carries its convention: the function from the file's coordinates to
ours, continuous pixels whose origin is the outer corner of the first pixel, so that pixel (r, c) covers
[r, r + 1) x [c, c + 1).
"""

import json
import re
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from trainable.config import InputError

MAX_FILE_BYTES = 64 * 2**20
"""A million points in CSV take a third of it; parsed JSON takes some ten times its size in memory."""

LARGEST = 1e15
"""Beyond every coordinate; further on, floating point leaves out whole numbers."""

WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")
# Python's float() would also take 1_000, infinity and the digits of every script.
DECIMAL = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")

Coordinates = npt.NDArray[np.float64]
"""(n, 2): x and y, or column and row."""


@dataclass(frozen=True)
class ImageFile:
    """An image that points lie on; size is (width, height) in pixels."""

    path: Path
    size: tuple[int, int]


Convention = Callable[[Coordinates, ImageFile], Coordinates]
"""From the coordinates of a file, x before y, to columns and rows measured from the outer corner."""


@dataclass(frozen=True)
class Mark:
    """A point as it stands in a file.

    Attributes:
        where: file and row, feature or shape, for messages.
        x: in the units of the file, as is `y`.
        name: class name as written; empty where there is none.
        whole: both coordinates are written as whole numbers.
    """

    where: str
    x: float
    y: float
    name: str
    whole: bool


@dataclass(frozen=True)
class MarkedImage:
    """What a file says about one image.

    Attributes:
        where: file and row or entry, for messages.
        names: what the image may be called, the likeliest first.
        size: (width, height) that the file claims for the image, to be checked.
    """

    where: str
    names: tuple[str, ...]
    convention: Convention
    marks: list[Mark] = field(default_factory=list)
    size: tuple[int, int] | None = None


def from_corner(coordinates: Coordinates, image: ImageFile) -> Coordinates:
    """The file measures from the outer corner, as we do."""
    return coordinates


def from_centre(coordinates: Coordinates, image: ImageFile) -> Coordinates:
    """The file measures from the centre of the first pixel: whole numbers are centres."""
    return coordinates + 0.5


def from_percent(coordinates: Coordinates, image: ImageFile) -> Coordinates:
    """The file measures from the outer corner, in hundredths of the image's width and height."""
    return np.multiply(coordinates, image.size) / 100


def indices_or_positions(marks: Iterable[Mark]) -> Convention:
    """Whole numbers alone name pixels, so a point lies at the pixel's centre; one decimal makes them all positions."""
    return from_centre if all(mark.whole for mark in marks) else from_corner


def make_mark(where: str, x: object, y: object, name: object) -> Mark:
    """A mark from the values of a file, text or JSON.

    Raises:
        InputError: a coordinate is no finite number, or the class is no text.
    """
    if type(name) not in (str, int, type(None)):
        raise InputError(f"{where}: the class must be a name, got {brief(name)}")
    places = number(x, where, "x"), number(y, where, "y")
    whole = bool(WHOLE.fullmatch(str(x)) and WHOLE.fullmatch(str(y)))
    return Mark(where, *places, "" if name is None else str(name).strip(), whole)


def number(value: object, where: str, what: str) -> float:
    """A finite number, from JSON or from text as CSV and XML hold it.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, str) and DECIMAL.fullmatch(value):
        value = float(value)
    # A bool is no number here, and NaN is not below anything.
    if type(value) in (int, float) and abs(value) < LARGEST:  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    raise InputError(f"{where}: {what} must be a finite number, with a point for decimals, got {brief(value)}")


def brief(value: object) -> str:
    """A value from a file in few characters, however large or deep it is."""
    short = reprlib.Repr()
    short.maxlevel = 1
    return short.repr(value)


def read_text(file: Path) -> str:
    """The text of a file: UTF-8, with or without a byte-order mark.

    Raises:
        InputError: too large, not readable, or in another encoding.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{file}: larger than {MAX_FILE_BYTES // 2**20} MiB; split it into one file per image")
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); correct its permissions") from error


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: it is not JSON, or nested so deeply that it is no annotation.
    """
    try:
        return json.loads(read_text(file), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InputError(f"{file}: nested too deeply for a file of points; export it again") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: line {error.lineno}: not JSON ({error.msg}); export it again") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not JSON ({error}); export it again") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


T = TypeVar("T", str, int, list[Any], dict[str, Any])
KINDS = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


def member(mapping: object, key: str, kind: type[T], where: str) -> T:
    """`mapping[key]` of a JSON document.

    Raises:
        InputError: there is none, or it is of another kind.
    """
    value = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where}: {key} must be {KINDS[kind]}, got {brief(value)}; export the file again")
    return value
