"""Folders that are made anew while the old one stays until then."""

from pathlib import Path

import pytest

from trainable.config import InputError
from trainable.replaced_folder import replaced_folder

MARK = "mark.json"


def make(path: Path, content: str) -> None:
    with replaced_folder(path, MARK) as scratch:
        (scratch / MARK).write_text(content)
        assert path.exists() == (content != "first")  # the old one stands while the new one is made


def test_the_new_one_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    make(path, "first")
    (path / "of_old").write_text("")
    make(path, "second")
    assert [entry.name for entry in path.parent.iterdir()] == ["folder"]
    assert [entry.name for entry in path.iterdir()] == [MARK]
    assert (path / MARK).read_text() == "second"


def test_after_a_failure_all_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    make(path, "first")
    with pytest.raises(IsADirectoryError), replaced_folder(path, MARK) as scratch:
        scratch.write_text("half of it is there, and then this fails")
    assert (path / MARK).read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    for state in ("new", "old"):
        (tmp_path / f".folder-{state}").mkdir()
    make(tmp_path / "folder", "first")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_not_ours_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photos"
    if kind == "folder":
        path.mkdir()
        (path / "holiday.jpg").write_text("precious")
    elif kind == "file":
        path.write_text("precious")
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / MARK).write_text("ours, elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(InputError, match=r"photos: exists, and is not what canopoint made"),
        replaced_folder(path, MARK),
    ):
        pytest.fail("the block must not run")
    assert path.exists()
    assert not list(tmp_path.glob(".*"))
