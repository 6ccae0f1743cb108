"""Folders that are made anew while the old one stays until then."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainable.config import InputError
from trainable.replaced_folder import replaced_folder
from trainable.sealed import write_sealed

MARK = "mark.json"


def write_mark(folder: Path, content: str, names: tuple[str, ...] = ()) -> None:
    write_sealed(folder / MARK, {"files": dict.fromkeys(names, "f00d"), "source": {"content": content}})


def make(path: Path, content: str) -> None:
    with replaced_folder(path, MARK) as scratch:
        (scratch / "text").write_text(content)
        write_mark(scratch, content, ("text",))
        assert path.exists() == (content != "first")  # the old one stands while the new one is made


def test_the_new_one_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    make(path, "first")
    make(path, "second")
    assert [entry.name for entry in path.parent.iterdir()] == ["folder"]
    assert sorted(entry.name for entry in path.iterdir()) == [MARK, "text"]
    assert (path / "text").read_text() == "second"


def test_after_a_failure_all_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    make(path, "first")
    with pytest.raises(IsADirectoryError), replaced_folder(path, MARK) as scratch:
        scratch.write_text("half of it is there, and then this fails")
    assert (path / "text").read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_failure_leaves_no_folder_on_the_way_either(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), replaced_folder(tmp_path / "deep" / "folder", MARK) as scratch:
        scratch.write_text("fails")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from trainable.replaced_folder import replaced_folder
with replaced_folder(Path(sys.argv[1]), "mark.json") as scratch:
    (scratch / "weights").write_bytes(bytes(1000))
    print("here", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "folder")]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=False)
    assert (done.stdout, done.returncode) == (b"here\n", -signal.SIGKILL)
    assert list(tmp_path.rglob("weights"))
    make(tmp_path / "folder", "first")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_two_do_not_make_it_at_once(tmp_path: Path) -> None:
    with replaced_folder(tmp_path / "folder", MARK) as scratch:
        with pytest.raises(InputError, match=f"pid {os.getpid()}.* is working here"):
            make(tmp_path / "folder", "first")
        write_mark(scratch, "mine")
    assert [entry.name for entry in (tmp_path / "folder").iterdir()] == [MARK]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"name": "a web app", "files": []}, "does not say which files it stands for"),
        ({"files": {"text": "f00d"}}, "does not say which files it stands for"),
        ({"files": {"../text": "f00d"}, "source": {}}, "does not say which files it stands for"),
        ({"files": {}, "source": {}}, "it holds 'notes.txt', too"),
        (None, "damaged"),
    ],
)
def test_a_folder_with_a_file_of_that_name_may_be_a_stranger_s(
    tmp_path: Path, content: dict[str, Any] | None, why: str
) -> None:
    path = tmp_path / "recommended"
    path.mkdir()
    (path / "notes.txt").write_text("precious")
    if content is None:
        (path / MARK).write_text('{"manifest_version": 3}')
    else:
        write_sealed(path / MARK, content)
    with pytest.raises(InputError, match=f"recommended: exists, and is not what canopoint made here .*{why}"):
        make(path, "second")
    assert (path / "notes.txt").read_text() == "precious"


def test_a_folder_in_a_file_s_place_is_not_ours(tmp_path: Path) -> None:
    make(tmp_path / "folder", "first")
    (tmp_path / "folder" / "text").unlink()
    (tmp_path / "folder" / "text").mkdir()
    with pytest.raises(InputError, match="it holds 'text', too"):
        make(tmp_path / "folder", "second")


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
