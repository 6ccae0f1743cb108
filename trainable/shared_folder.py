"""A folder that several processes need: one makes it, the others wait, and a killed maker leaves nothing half.

A list of its files with their checksums goes with it, so that one that was damaged since is made anew.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

from trainable.sealed import DamagedError, read_sealed, set_aside, write_sealed

CHECKSUMS = "checksums.json"


def make_once(path: Path, make: Callable[[Path], None]) -> None:
    """Makes the folder `path`, unless it is there as it was made. Every file is read to find that out.

    Args:
        path: appears whole, or not at all. A damaged one is set aside as `*.damaged` first, with a warning.
        make: fills the folder that it is given; called in one process at a time, and no more once it succeeded. If it
            raises, nothing is left, nor any parent made for it.
    """
    if path.is_dir() and not find_damage(path):
        return
    with _sole_maker(path.with_name(f"{path.name}.lock")):
        if path.is_dir():
            damage = find_damage(path)
            if not damage:  # made while this process waited
                return
            set_aside(path, damage)
        scratch = path.with_name(f".making-{path.name}")
        if scratch.exists():
            shutil.rmtree(scratch)  # of a maker that was killed: a living one would hold the lock
        scratch.mkdir()
        try:
            make(scratch)
            names = sorted(each.relative_to(scratch).as_posix() for each in scratch.rglob("*") if each.is_file())
            write_sealed(scratch / CHECKSUMS, {"files": _checksums(scratch, names)})
            scratch.rename(path)
        except BaseException:
            shutil.rmtree(scratch)
            raise


def find_damage(path: Path) -> str:
    """What is not as `make_once` left it; nothing where all is. Files that came later do not matter."""
    try:
        known = read_sealed(path / CHECKSUMS)
        if known is None:
            return f"{CHECKSUMS} is absent"
        found = _checksums(path, list(known["files"]))
    except (DamagedError, OSError) as error:
        return str(error)
    return ", ".join(f"{name} has another checksum" for name in found if found[name] != known["files"][name])


def _checksums(folder: Path, names: list[str]) -> dict[str, str]:
    """File name -> SHA-256 of its content. Reading and hashing free the interpreter lock."""

    def checksum(name: str) -> str:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return dict(zip(names, threads.map(checksum, names), strict=True))


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
