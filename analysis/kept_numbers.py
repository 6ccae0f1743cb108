"""Numbers that take long to compute, kept in a sealed file until their input changes."""

from collections.abc import Callable
from math import isfinite
from pathlib import Path

from trainable.sealed import take_sealed, write_sealed

Rows = list[list[float]]


def kept_numbers(path: Path | None, key: str, shape: tuple[int, int], compute: Callable[[], Rows]) -> Rows:
    """What `compute` returned when it was called with the same input.

    Args:
        path: the file, replaced when the input changes; None where nothing can be kept.
        key: stands for the input.
        shape: rows and columns of the numbers.
        compute: called where the file does not hold the numbers of that input.
    """
    content = take_sealed(path) if path else None
    if content and content.get("key") == key and _have_shape(content.get("rows"), shape):
        rows: Rows = content["rows"]
        return rows
    rows = compute()
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(path, {"key": key, "rows": rows})
    return rows


def _have_shape(rows: object, shape: tuple[int, int]) -> bool:
    """A study's folder may come from anyone."""
    return isinstance(rows, list) and len(rows) == shape[0] and all(_is_row(row, shape[1]) for row in rows)


def _is_row(row: object, length: int) -> bool:
    return isinstance(row, list) and len(row) == length and all(isinstance(x, float) and isfinite(x) for x in row)
