"""A worker's copy of a trial that lives in an object store, and a node's copy of the packed images.

The trial is pulled when it starts or goes on, trained in a scratch folder of its node, and pushed after every epoch.
Objects appear whole, one after the other, in the order in which a trial writes its files: wherever a push is cut short,
what lies in the store is a trial that was killed at that point, which `run_trial` repairs.
"""

import contextlib
import functools
import hashlib
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from trainable.atomic import read_holder, sole_user
from trainable.object_store import PATIENCE_S, ObjectStore, StoreError
from trainable.sealed import DamagedError, unseal
from trainable.shared_folder import CHECKSUMS, make_once
from trainable.storage_url import cache_folder, working_copy
from trainable.trial_files import ATTEMPTS, CONFIG, COUNTS, RESULT, ROWS

FIRST = (CONFIG, ROWS, *COUNTS.values())
"""Files that are pushed before the checkpoint that holds copies of them; all others come after it."""

YOUNG_S = 60.0  # a scratch folder that is not held may be one that is just being made
MAX_PULLS = 5

_TRIAL_FILE = re.compile(r"(checkpoint/)?[A-Za-z0-9][A-Za-z0-9._-]*")
_NOT_OURS = ("mirror.json",)  # the driver's

Signature = tuple[int, int]
"""Size and time of change of a file: whether it must be pushed."""


class TrialCopy:
    """A trial of an object store, in a scratch folder that is gone when the copy is closed.

    Attributes:
        folder: where `run_trial` works.
    """

    def __init__(self, url: str) -> None:
        """Takes a scratch folder; those that killed workers left on this node are removed.

        Args:
            url: of the trial's directory.

        Raises:
            InputError: another process of this node trains the trial.
        """
        self._store = ObjectStore(url, PATIENCE_S)
        self._known: dict[str, Signature] = {}
        scratch = cache_folder() / "running"
        self.folder = scratch / working_copy(url).name
        _remove_abandoned(scratch, self.folder)
        self._held = contextlib.ExitStack()
        self._held.enter_context(sole_user(self.folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def pull(self) -> None:
        """Replaces whatever lies in the scratch folder by what the store has of the trial.

        Raises:
            StoreError: no answer, or the trial changes all the time.
        """
        for path in [*self.folder.glob("[!.]*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for _ in range(MAX_PULLS):
            names = [name for name in self._store.list() if _TRIAL_FILE.fullmatch(name) and name not in _NOT_OURS]
            if all([self._store.download(name, self.folder / name) for name in names if ".damaged" not in name]):
                self._known = self._files()
                return
        raise StoreError(f"{self._store.url}: changes all the time; another worker, given up for lost, is at work too")

    def push(self) -> None:
        """Brings the store to where the folder stands.

        Removes only what this copy has pulled or pushed, so that it never takes away a newer checkpoint of a worker
        that was started in its place.
        """
        found = self._files()
        gone = self._known.keys() - found.keys()
        changed = sorted((name for name in found if found[name] != self._known.get(name)), key=_rank)
        if RESULT in gone:  # first of all: it vouches for the others
            self._delete(RESULT)
        self._upload([name for name in changed if _rank(name) <= _CHECKPOINT], found)
        for name in sorted(gone - {RESULT}):
            self._delete(name)
        self._upload([name for name in changed if _rank(name) > _CHECKPOINT], found)

    def close(self) -> None:
        """Removes the scratch folder; what was not pushed is lost. A second time does nothing."""
        with self._held.pop_all():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> dict[str, Signature]:
        paths = [*self.folder.glob("[!.]*"), *self.folder.glob("checkpoint/[!.]*")]
        stats = {path.relative_to(self.folder).as_posix(): path.stat() for path in paths if path.is_file()}
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items() if name not in _NOT_OURS}

    def _upload(self, names: list[str], signatures: dict[str, Signature]) -> None:
        for name in names:
            self._store.upload(self.folder / name, name)
            self._known[name] = signatures[name]

    def _delete(self, name: str) -> None:
        self._store.delete(name)
        self._known.pop(name)


_CHECKPOINT = len(FIRST)


def _rank(name: str) -> int:
    """Where a file comes in a push: what a checkpoint holds copies of, checkpoints, attempts, the rest, the result."""
    if name in FIRST:
        return FIRST.index(name)
    if name.startswith("checkpoint/"):
        return _CHECKPOINT
    return _CHECKPOINT + {ATTEMPTS: 1, RESULT: 3}.get(name, 2)


def push_store(folder: Path, url: str, say: Callable[[str], None]) -> None:
    """Copies a packed store into the object store, unless it is there; the list of its checksums goes last."""
    store = ObjectStore(url, PATIENCE_S)
    checksums = (folder / CHECKSUMS).read_bytes()
    if store.read(CHECKSUMS) == checksums:
        return
    say(f"putting the packed images into {url}")
    for name in sorted(unseal(checksums)["files"]):
        store.upload(folder / name, name)
    store.write(CHECKSUMS, checksums)


@functools.cache  # a worker trains many trials on one store, and to check it reads all of it
def fetch_store(url: str) -> Path:
    """The packed store of a URL as a folder of this node, copied by the process that needs it first.

    Args:
        url: STORAGE/.cache/NAME.

    Raises:
        DamagedError: what lies in the object store is not what was put there.
    """
    storage, _, name = url.rpartition("/.cache/")
    folder = working_copy(storage) / ".cache" / name
    make_once(folder, lambda scratch: _pull_store(ObjectStore(url, PATIENCE_S), scratch))
    return folder


def _pull_store(store: ObjectStore, scratch: Path) -> None:
    listed = store.read(CHECKSUMS)
    if listed is None:
        raise DamagedError(f"{store.url}: holds no whole store; run the study again, which puts it there")
    for name, checksum in unseal(listed)["files"].items():
        store.download(name, scratch / name)
        with (scratch / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != checksum:
            raise DamagedError(f"{store.url}/{name}: another checksum than when it was put there; remove {store.url}")


def _remove_abandoned(scratch: Path, own: Path) -> None:
    """Removes scratch folders that nobody holds."""
    for folder in {*scratch.glob("*")} - {own}:
        with contextlib.suppress(FileNotFoundError):  # another worker is faster
            is_young = time.time() - folder.stat().st_mtime < YOUNG_S
            if not is_young and not read_holder(folder)[0]:
                shutil.rmtree(folder)
