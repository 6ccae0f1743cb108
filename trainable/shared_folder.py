"""A folder that several processes need: one makes it, the others wait, and a killed maker leaves nothing half."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO


def make_once(path: Path, make: Callable[[Path], None]) -> None:
    """Makes the folder `path`, unless it is there.

    Args:
        path: appears whole, or not at all.
        make: fills the folder that it is given; called in one process at a time, and no more once it succeeded. If it
            raises, nothing is left, nor any parent made for it.
    """
    if path.is_dir():
        return
    with _sole_maker(path.with_name(f"{path.name}.lock")):
        if path.is_dir():  # made while this process waited
            return
        scratch = path.with_name(f".making-{path.name}")
        if scratch.exists():
            shutil.rmtree(scratch)  # of a maker that was killed: a living one would hold the lock
        scratch.mkdir()
        try:
            make(scratch)
            scratch.rename(path)
        except BaseException:
            shutil.rmtree(scratch)
            raise


@contextlib.contextmanager
def _sole_maker(lock: Path) -> Iterator[None]:
    """Waits for the lock; the system frees it, however its holder ends. Leaves neither the file nor empty parents."""
    missing_parents = [parent for parent in lock.parents if not parent.exists()]
    try:
        with _locked(lock):
            try:
                yield
            finally:
                lock.unlink()
    finally:
        with contextlib.suppress(OSError):  # the folder, or what somebody else has put there meanwhile
            for parent in missing_parents:
                parent.rmdir()


def _locked(lock: Path) -> TextIO:
    """The open lock file. Its last holder may have removed the one that we waited for; then we take the new one."""
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            file = lock.open("w")
            fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                    return file
            file.close()
