"""Points in tables: CSV as people and programs write it, and napari's points layers.

The pixel convention of each is stated in `point_files.py`.
"""

import csv
import io
from pathlib import Path

from trainable.config import InputError
from trainable.point_marks import (
    Mark,
    MarkedImage,
    from_centre,
    indices_or_positions,
    make_mark,
    number,
    read_text,
)

COORDINATE_COLUMNS = (("x", "y"), ("column", "row"), ("col", "row"))
NAPARI_COLUMNS = (("axis-1", "axis-0"), ("axis-2", "axis-1"))
CLASS_COLUMNS = ("class", "label", "name")

Row = dict[str, str]


def read_csv(file: Path) -> list[MarkedImage]:
    """Columns x, y or column, row (also col); optional image and class (also label or name); others are not read.

    Without an `image` column the file speaks of the image that it is named after.
    """
    columns, rows = _table(file)
    x, y = _coordinate_columns(columns, COORDINATE_COLUMNS, file)
    return _by_image(file, columns, [(row, _mark(row, where, x, y)) for where, row in rows], napari=False)


def read_napari(file: Path) -> list[MarkedImage]:
    """Columns axis-0 (row) and axis-1 (column); the layer's properties may add image and class, label or name.

    With a third axis the first one counts the slices of a stack. The file does not say which images these are, so
    that only slice 0 of a file named after its image is clear.
    """
    columns, rows = _table(file)
    x, y = NAPARI_COLUMNS["axis-2" in columns]
    _coordinate_columns(columns, ((x, y),), file)
    for where, row in rows if "axis-2" in columns else ():
        if number(row["axis-0"], where, "axis-0") != 0:
            raise InputError(
                f"{where}: axis-0 is {row['axis-0']}, a slice of a stack, and no image is named; save the points of"
                f" each image in a file of its own"
            )
    return _by_image(file, columns, [(row, _mark(row, where, x, y)) for where, row in rows], napari=True)


def _table(file: Path) -> tuple[list[str], list[tuple[str, Row]]]:
    """Column names in lower case, and the rows with where they stand."""
    lines = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    try:
        columns = [column.strip().lower() for column in next(lines, [])]
        rows = [(f"{file}: row {lines.line_num}", cells) for cells in lines if cells]
    except csv.Error as error:
        raise InputError(f"{file}: row {lines.line_num}: not CSV ({error}); save it again as CSV") from error
    for column in columns:
        if columns.count(column) > 1:
            raise InputError(f"{file}: row 1: {columns.count(column)} columns are called {column!r}; keep one")
    return columns, [(where, _cells(columns, cells, where)) for where, cells in rows]


def _cells(columns: list[str], cells: list[str], where: str) -> Row:
    if len(cells) != len(columns):
        raise InputError(f"{where}: {len(cells)} cells under {len(columns)} columns; give one cell per column")
    return dict(zip(columns, cells, strict=True))


def _coordinate_columns(columns: list[str], allowed: tuple[tuple[str, str], ...], file: Path) -> tuple[str, str]:
    present = [pair for pair in allowed if set(pair) <= set(columns)]
    if len(present) != 1:
        wanted = " or ".join(",".join(pair) for pair in allowed)
        found = ",".join(columns)[:80] or "nothing"
        raise InputError(
            f"{file}: row 1: must name the columns {wanted}, one of these, separated by commas; got {found}"
        )
    return present[0]


def _mark(row: Row, where: str, x: str, y: str) -> Mark:
    names = [column for column in CLASS_COLUMNS if column in row]
    if len(names) > 1:
        raise InputError(f"{where}: the class could be in {' or '.join(names)}; keep one of these columns")
    return make_mark(where, row[x], row[y], row[names[0]] if names else None)


def _by_image(file: Path, columns: list[str], marks: list[tuple[Row, Mark]], *, napari: bool) -> list[MarkedImage]:
    convention = from_centre if napari else indices_or_positions(mark for _, mark in marks)
    marked = {} if "image" in columns else {file.stem: MarkedImage(str(file), (file.stem,), convention)}
    for row, mark in marks:
        name = row["image"].strip() if "image" in columns else file.stem
        if not name:
            raise InputError(f"{mark.where}: image is empty; name the image that the point lies on")
        marked.setdefault(name, MarkedImage(mark.where, (name,), convention)).marks.append(mark)
    return list(marked.values())
