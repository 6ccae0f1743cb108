"""The local copy of a study that lives in an object store: pulled, and pushed where it has changed.

The store is the truth. Trials are pushed by the workers that train them (`trial_copy.py`) and only pulled here; all
else is the driver's. Checkpoints stay where they are, and what an analysis keeps for the next one here.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cluster.lease import LEASE_FILE
from trainable.object_store import BATCH, Entry, ObjectStore
from trainable.trial_files import ROWS

INDEX_FILE = ".pulled.json"
GROWING = (".jsonl", ".journal")  # a line at a time, and the last one may be half written

_DRIVERS = re.compile(
    r"[A-Za-z0-9][\w.-]*|wandb/[\w.-]*run-[\w.-]+/run-[\w.-]+\.wandb|trials/[\w-]+/mirror\.json|analysis/[^.].*",
    re.ASCII,
)
_TRIALS = re.compile(r"trials/[\w-]+/[A-Za-z0-9][\w.-]*", re.ASCII)

Stat = tuple[int, int]
"""Size and time of change (ns) of a local file."""


class StudyCopy:
    """The copy; one thread may push while another pulls trials."""

    def __init__(self, folder: Path) -> None:
        """Asks and writes nothing yet.

        Args:
            folder: the study's, local.
        """
        self._folder = folder
        self._seen: dict[str, tuple[str, *Stat]] = {}  # name -> tag in the store, and the local file that was equal

    def pull(self, store: ObjectStore, listed: dict[str, Entry]) -> None:
        """Brings the copy to where the store stands; what is gone there goes here too.

        Args:
            store: the study's.
            listed: all that it holds.
        """
        entries = {name: entry for name, entry in listed.items() if _is_drivers(name) or _is_trials(name)}
        self._seen = self._read_index()
        self._bring({name: entry for name, entry in entries.items() if self._differs(name, entry)}, store)
        self._remove(name for name in self._files() if name not in entries)
        self._seen = {name: seen for name, seen in self._seen.items() if name in entries}
        self._write_index()

    def pull_rows(self, trial_id: str, store: ObjectStore) -> None:
        """Brings the rows of a trial that runs."""
        name = f"trials/{trial_id}/{ROWS}"
        if content := store.read(name):
            self._put(name, content)

    def pull_trial(self, trial_id: str, store: ObjectStore) -> None:
        """Brings the files of a trial that has ended."""
        under = f"trials/{trial_id}"
        entries = {name: entry for name, entry in store.list(under).items() if _is_trials(name)}
        self._bring(entries, store)
        here = (path.relative_to(self._folder).as_posix() for path in (self._folder / under).glob("[!.]*"))
        self._remove(name for name in here if _is_trials(name) and name not in entries)

    def push(self, store: ObjectStore, wanted: Callable[[str], bool] = bool) -> None:
        """Brings the store to where the driver's files stand.

        Args:
            store: the study's.
            wanted: for which names; all unless given. Asked right before a file is pushed.
        """
        here = {name for name in self._files() if _is_drivers(name)}
        for name in sorted(here):
            if wanted(name):
                self.push_file(name, store)
        for name in [name for name in [*self._seen] if _is_drivers(name) and name not in here and wanted(name)]:
            store.delete(name)
            self._seen.pop(name)

    def push_file(self, name: str, store: ObjectStore) -> None:
        """Brings one of the driver's files to the store, if it is there and has changed."""
        with contextlib.suppress(FileNotFoundError):
            stat = self._stat(name)
            if self._seen.get(name, ("",))[1:] != stat:
                store.write(name, self._content(name))
                self._seen[name] = ("", *stat)

    def settle(self, store: ObjectStore) -> None:
        """Notes what was pushed as known, which spares the next command to pull it."""
        entries = store.list()
        self._seen = {
            name: (entries[name].tag, size, changed)
            for name, (_, size, changed) in self._seen.items()
            if name in entries
        }
        self._write_index()

    def _bring(self, entries: dict[str, Entry], store: ObjectStore) -> None:
        names = sorted(entries)
        for start in range(0, len(names), BATCH):
            for name, content in store.read_many(names[start : start + BATCH]).items():
                self._put(name, content)
                self._seen[name] = (entries[name].tag, *self._stat(name))

    def _put(self, name: str, content: bytes) -> None:
        """Whole or not at all, but not synced to disk: the copy can be made again."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}-{os.getpid()}")
        scratch.write_bytes(content)
        os.replace(scratch, path)

    def _remove(self, names: Iterable[str]) -> None:
        for name in [*names]:
            (self._folder / name).unlink()
            self._seen.pop(name, None)

    def _differs(self, name: str, entry: Entry) -> bool:
        if not (self._folder / name).is_file():
            return True
        return not entry.tag or self._seen.get(name) != (entry.tag, *self._stat(name))

    def _stat(self, name: str) -> Stat:
        stat = (self._folder / name).stat()
        return stat.st_size, stat.st_mtime_ns

    def _content(self, name: str) -> bytes:
        content = (self._folder / name).read_bytes()
        return content[: content.rfind(b"\n") + 1] if name.endswith(GROWING) else content

    def _files(self) -> Iterator[str]:
        """Names of the local files that belong to the study; links are none of them."""
        for top, folders, files in os.walk(self._folder):
            folders[:] = [each for each in folders if each[0] != "." and each != "checkpoint"]
            for file in files:
                path = Path(top) / file
                name = path.relative_to(self._folder).as_posix()
                if (_is_drivers(name) or _is_trials(name)) and not path.is_symlink():
                    yield name

    def _read_index(self) -> dict[str, tuple[str, *Stat]]:
        try:
            known = json.loads((self._folder / INDEX_FILE).read_bytes())
            return {str(name): (str(tag), int(size), int(changed)) for name, (tag, size, changed) in known.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # all is pulled again

    def _write_index(self) -> None:
        self._put(INDEX_FILE, json.dumps(self._seen).encode())


def _is_drivers(name: str) -> bool:
    return name != LEASE_FILE and _DRIVERS.fullmatch(name) is not None


def _is_trials(name: str) -> bool:
    return _TRIALS.fullmatch(name) is not None and not _is_drivers(name)
