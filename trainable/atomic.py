"""Files and folders that appear whole or not at all, and folders that one process at a time works in."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from trainable.config import InputError

MAX_NAME_BYTES = 255
"""Longest name that file systems allow."""


def check_parent(path: Path, where: str) -> None:
    """Refuses a path that cannot become a folder, before anything is computed for it.

    Raises:
        InputError: something on the way to it is a file or cannot be written to, or a name in it is not allowed.
    """
    if "\0" in str(path) or any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in path.parts):
        raise InputError(f"{where}: {str(path)[:80]}: not a name that a folder can have")
    existing = nearest_existing(path)
    if not existing.is_dir():
        raise InputError(f"{where}: {existing} is a file; name another folder")
    if not os.access(existing, os.W_OK):
        raise InputError(f"{where}: {existing} cannot be written to; name another folder")


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


@contextlib.contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Holds a folder against other processes; the system frees it, however this process ends.

    Raises:
        InputError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: another canopoint is working here; wait for it or end it") from error
        yield


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes aside, syncs and renames, so that a reader sees the old file or the new one, also after a power cut."""
    scratch = path.with_name(f".{path.name}-{os.getpid()}")
    with scratch_file(scratch) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    publish(scratch, path)


@contextlib.contextmanager
def scratch_file(scratch: Path) -> Iterator[BinaryIO]:
    """A file that is on disk when the block ends well, and gone when it does not, as on a full disk."""
    try:
        with scratch.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def publish(scratch: Path, path: Path) -> None:
    """Renames a synced file into place, replacing what is there; where that fails, nothing of it is left."""
    try:
        os.replace(scratch, path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A scratch folder that becomes `path` when the block ends well; otherwise nothing of it, nor its parents, is left.

    Where another process publishes the same folder first, its copy stays and ours goes.
    """
    missing_parents = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=path.parent))
    try:
        yield scratch
        scratch.chmod(path.parent.stat().st_mode & 0o777)  # mkdtemp makes it for its owner alone
        _rename_folder(scratch, path)
    except BaseException:
        shutil.rmtree(scratch)
        with contextlib.suppress(OSError):  # somebody else has put something there meanwhile
            for parent in missing_parents:
                parent.rmdir()
        raise


def _rename_folder(scratch: Path, path: Path) -> None:
    try:
        scratch.rename(path)
    except OSError:
        if not path.is_dir():
            raise
        shutil.rmtree(scratch)
