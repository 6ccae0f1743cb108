"""Folders of ours that are made anew: the old one stays until the new one is whole."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from trainable.atomic import new_folder
from trainable.config import InputError


@contextlib.contextmanager
def replaced_folder(path: Path, mark: str) -> Iterator[Path]:
    """A scratch folder that takes the place of `path` when the block ends well; otherwise all stays as it is.

    A process that is killed between the two renames leaves no `path`, and its next run makes it.

    Args:
        path: may be absent.
        mark: a file that every folder of this kind holds.

    Raises:
        InputError: something else than a folder with that file is there; it is not ours to remove.
    """
    check_replaceable(path, mark)
    fresh, old = (path.with_name(f".{path.name}-{state}") for state in ("new", "old"))
    for abandoned in (fresh, old):  # by a killed process
        shutil.rmtree(abandoned, ignore_errors=True)
    with new_folder(fresh) as scratch:
        yield scratch
    if path.exists():
        path.rename(old)
    fresh.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def check_replaceable(path: Path, mark: str) -> None:
    """Refuses a path where `replaced_folder` would, before anything is computed for it.

    Raises:
        InputError: something else than a folder with the file `mark` is there.
    """
    if path.is_symlink() or (path.exists() and not (path / mark).is_file()):
        raise InputError(f"{path}: exists, and is not what canopoint made here (it has no {mark}); move it away")
