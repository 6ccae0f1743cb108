"""Folders of ours that are made anew: the old one stays until the new one is whole.

Each holds a sealed file, its mark, that names every other file with its checksum and says what they were made from.
A folder without it, or with anything beside those files, is somebody else's and is never removed.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainable.atomic import made_parents, sole_user
from trainable.config import InputError
from trainable.sealed import DamagedError, read_sealed


@dataclass(frozen=True)
class Mark:
    """What a folder of ours says of itself.

    Attributes:
        files: name of every other file -> its SHA-256.
        source: what they were made from: where this is the same, so are they.
    """

    files: dict[str, str]
    source: dict[str, Any]


def read_mark(path: Path) -> Mark | None:
    """The mark of a folder, or None where there is none.

    Raises:
        DamagedError: it is not as it was written, or somebody else wrote it.
    """
    content = read_sealed(path)
    if content is None:
        return None
    files, source = content.get("files"), content.get("source")
    if not isinstance(files, dict) or not isinstance(source, dict) or not all(map(_is_entry, files.items())):
        raise DamagedError(f"{path}: does not say which files it stands for (files, source); remove it and run again")
    return Mark(files, source)


def is_sound(folder: Path, mark: Mark) -> bool:
    """Whether every file of the mark is there and as it was written."""
    return all(
        (folder / name).is_file() and file_checksum(folder / name) == checksum for name, checksum in mark.files.items()
    )


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replaced_folder(path: Path, mark: str) -> Iterator[Path]:
    """A scratch folder that takes the place of `path` when the block ends well; otherwise all stays as it is.

    It lies in `.<name>-making` beside `path`, which one process at a time works in and the next one clears, however
    the last one ended. A process that is killed between the two renames leaves no `path`, and its next run makes it.

    Args:
        path: may be absent.
        mark: name of the sealed file that every folder of this kind holds.

    Raises:
        InputError: something else is there, which is not ours to remove; or another process is making it.
    """
    check_replaceable(path, mark)
    workshop = path.with_name(f".{path.name}-making")
    fresh, old = workshop / "new", workshop / "old"
    with made_parents(path), sole_user(workshop):
        for abandoned in (fresh, old):  # by a killed process
            shutil.rmtree(abandoned, ignore_errors=True)
        try:
            fresh.mkdir(parents=True)
            yield fresh
            if path.exists():
                path.rename(old)
            fresh.rename(path)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)  # NFS keeps the name of an open file, here the lock's


def check_replaceable(path: Path, mark: str) -> None:
    """Refuses a path where `replaced_folder` would, before anything is computed for it.

    Raises:
        InputError: something else than a folder of ours is there, or it holds what is not ours.
    """
    if not path.is_symlink() and not path.exists():
        return
    if stranger := _stranger(path, mark):
        raise InputError(f"{path}: exists, and is not what canopoint made here ({stranger}); move it away")


def _stranger(path: Path, mark: str) -> str:
    """What in it is not ours; empty where all is."""
    if path.is_symlink() or not path.is_dir():
        return "it is a link" if path.is_symlink() else "it is a file"
    try:
        found = read_mark(path / mark)
    except DamagedError as error:
        return str(error).partition("; ")[0]
    if found is None:
        return f"it has no {mark}"
    known = {*found.files, mark}
    strangers = [entry.name for entry in path.iterdir() if entry.name not in known or not entry.is_file()]
    return f"it holds {strangers[0]!r}, too" if strangers else ""


def _is_entry(item: tuple[Any, Any]) -> bool:
    name, checksum = item
    return Path(name).name == name and isinstance(checksum, str)
