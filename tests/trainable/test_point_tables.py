"""Tables of points: which columns, which pixel convention, and rows that are none."""

from pathlib import Path

import numpy as np
import pytest

from trainable.config import InputError
from trainable.point_marks import ImageFile
from trainable.point_tables import read_csv, read_napari

# Content, and column and row of its first point, measured from the outer corner.
CSV = {
    "indices": ("x,y\n5,2\n0,0\n", (5.5, 2.5)),
    "positions": ("x,y\n5.75,2.25\n0.125,0\n", (5.75, 2.25)),
    "one decimal makes all of them positions": ("x,y\n5,2\n1,1.0\n", (5.0, 2.0)),
    "an exponent is no index": ("x,y\n5e0,2\n", (5.0, 2.0)),
    "row and column": ("row,column\n2,5\n", (5.5, 2.5)),
    "row and col, upper case, spaces": (" Row , COL \n 2 , 5 \n", (5.5, 2.5)),
    "columns that mean nothing here": ("image,rank,x,y,confidence\na.png,1,5,2,0.9\n", (5.5, 2.5)),
    "blank lines": ("x,y\n\n5,2\n\n", (5.5, 2.5)),
}
NAPARI = {
    "centres": ("index,axis-0,axis-1\n0,2,5\n", (5.5, 2.5)),
    "between centres": ("index,axis-0,axis-1\n0.0,1.75,5.25\n", (5.75, 2.25)),
    "first slice of a stack": ("index,axis-0,axis-1,axis-2\n0,0,2,5\n", (5.5, 2.5)),
}
READERS = {"csv": read_csv, "napari": read_napari}


@pytest.mark.parametrize(("kind", "case"), [("csv", case) for case in CSV] + [("napari", case) for case in NAPARI])
def test_where_a_point_lies(tmp_path: Path, kind: str, case: str) -> None:
    content, place = {"csv": CSV, "napari": NAPARI}[kind][case]
    (tmp_path / "a.csv").write_text(content)
    (marked,) = READERS[kind](tmp_path / "a.csv")
    coordinates = np.array([(mark.x, mark.y) for mark in marked.marks])
    found = marked.convention(coordinates, ImageFile(tmp_path / "a.png", (8, 6)))
    assert tuple(found[0]) == place


def test_points_of_several_images_stay_in_order(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,x,y,label\nb.png,1,1,oak\na.png,2,2,\nb.png,3,3,elm\n")
    marked = read_csv(tmp_path / "t.csv")
    assert [(each.names, [(mark.x, mark.name) for mark in each.marks]) for each in marked] == [
        (("b.png",), [(1, "oak"), (3, "elm")]),
        (("a.png",), [(2, "")]),
    ]


BAD_CSV = {
    "not a number": ("x,y\n5,two\n", "row 2: y must be a finite number.*'two'"),
    "empty coordinate": ("x,y\n5,2\n,2\n", "row 3: x must be a finite number.*''"),
    "another script": ("x,y\n٥,2\n", "row 2: x must be a finite number"),
    "short row": ("x,y,class\n5,2\n", "row 2: 2 cells under 3 columns"),
    "long row": ("x,y,class\n5,2,forest,pine\n", "row 2: 4 cells under 3 columns"),
    "decimal commas": ("x,y\n5,5,2,5\n", "row 2: 4 cells under 2 columns"),
    "no coordinates": ("lon,lat\n5,2\n", "row 1: must name the columns x,y or .*got lon,lat"),
    "no header": ("5,2\n", "row 1: must name the columns x,y or .*got 5,2"),
    "semicolons": ("x;y\n5;2\n", "row 1: .*separated by commas"),
    "two pairs": ("x,y,row,column\n5,2,2,5\n", "row 1: .*one of these"),
    "two classes": ("x,y,label,name\n5,2,forest,a\n", "row 2: the class could be in label or name"),
    "a column twice": ("x,X,y\n5,5,2\n", "row 1: 2 columns are called 'x'"),
    "no image": ("image,x,y\n,5,2\n", "row 2: image is empty"),
    "open quote": ('x,y,class\n5,2,"forest\n', "row 2: not CSV"),
    "huge cell": ("x,y,class\n5,2," + "f" * 200_000, "row 2: not CSV"),
}
BAD_NAPARI = {
    "a shapes layer": ("index,shape-type,vertex-index\n0,path,1\n", "row 1: must name the columns axis-1,axis-0"),
    "one axis": ("index,axis-0\n0,2\n", "row 1: must name the columns axis-1,axis-0"),
    "a slice": ("index,axis-0,axis-1,axis-2\n0,0,2,5\n1,3,2,5\n", "row 3: axis-0 is 3, a slice"),
}


@pytest.mark.parametrize(
    ("kind", "case"), [("csv", case) for case in BAD_CSV] + [("napari", case) for case in BAD_NAPARI]
)
def test_what_is_no_table_of_points_is_refused(tmp_path: Path, kind: str, case: str) -> None:
    content, message = {"csv": BAD_CSV, "napari": BAD_NAPARI}[kind][case]
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=rf"a\.csv: {message}"):
        READERS[kind](tmp_path / "a.csv")
