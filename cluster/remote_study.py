"""A driver at work on a study that lives in an object store: alone, by a lease, and in step with the store.

It works in a local copy. The ledger is pushed within a second or so, all else every ten seconds and at the end. Of a
driver that was killed its last seconds are lost, and found again from the trials, as after the loss of a ledger.
"""

import contextlib
import fcntl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cluster.lease import RENEW_AFTER_S, Lease, LeaseLostError
from cluster.study_copy import StudyCopy
from study.ledger import LEDGER_FILE
from study.spec import StudySpec
from trainable.atomic import check_parent, read_holder
from trainable.config import InputError
from trainable.holder import Holder
from trainable.object_store import PATIENCE_S, ObjectStore, StoreError, as_bad_input
from trainable.storage_url import check_url, is_url, working_copy
from trainable.trial_copy import push_store

PULLING_FILE = ".pulling"
TICK_S = 1.0
MAX_SHARE = 0.1  # of the time that pushing a ledger may take, which grows


class RemoteStudy:
    """A study of an object store.

    Attributes:
        url: of the study.
        folder: its local copy.
        trouble: why this driver must end, once that is known; else empty.
    """

    def __init__(self, url: str) -> None:
        """Asks and writes nothing yet."""
        check_url(url, "storage")
        self.url = url.rstrip("/")
        self._storage, _, name = self.url.rpartition("/")
        if self._storage.endswith(":/"):
            raise InputError(f"{self.url}: names a bucket alone; give a study's URL, as in s3://BUCKET/PREFIX/demo")
        self.folder = working_copy(self._storage) / name
        self.trouble = ""
        self._copy = StudyCopy(self.folder)
        self._first_store = ObjectStore(self.url)
        self._store, self._busy_store = ObjectStore(self.url, PATIENCE_S), ObjectStore(self.url, 0.0)
        self._lease = Lease(self._first_store)
        self._ledger_not_before = 0.0

    def place(self, path: Path) -> str:
        """The URL of what lies at a path of the local copy, or beside it under `.cache`."""
        return f"{self._storage}/{path.relative_to(self.folder.parent).as_posix()}"

    def check(self, say: Callable[[str], None]) -> None:
        """Finds out whether a driver can work here, before anything is done for it.

        Args:
            say: is told where it takes a minute, as after a driver that was killed on another machine.

        Raises:
            InputError: the store cannot be reached, read or written, or another driver is at work.
        """
        with as_bad_input():
            self._lease.check(say)
            self._first_store.clock()

    def find_driver(self) -> tuple[bool, Holder | None]:
        """Whether a driver works on the study, and which, as `read_holder` says it of a folder; by our own clock.

        Raises:
            InputError: the store cannot be reached or read.
        """
        with as_bad_input():
            return self._lease.find_holder()

    def pull(self) -> None:
        """Brings the local copy to where the store stands. A driver's, which is ahead of the store, is left alone.

        Raises:
            InputError: the store cannot be reached or read, or holds a name that leads out of the folder.
        """
        check_parent(self.folder, "CANOPOINT_CACHE")
        with as_bad_input(), self._pulling():
            if not read_holder(self.folder)[0]:
                self._copy.pull(self._busy_store, self._first_store.list())

    def push_analysis(self) -> None:
        """Pushes what an analysis of the local copy has written.

        Raises:
            InputError: the store cannot be reached or written.
        """
        with as_bad_input():
            self._copy.push(self._busy_store, lambda name: name.startswith("analysis/"))

    def push_stores(self, folders: Iterable[Path], say: Callable[[str], None]) -> None:
        """Copies packed stores to where every node finds them."""
        for folder in folders:
            push_store(folder, self.place(folder), say)

    def pull_rows(self, trial_id: str) -> None:
        """Brings the rows of a trial that runs into the local copy."""
        self._copy.pull_rows(trial_id, self._store)

    def pull_trial(self, trial_id: str) -> None:
        """Brings the files of a trial that has ended into the local copy."""
        self._copy.pull_trial(trial_id, self._store)

    @contextlib.contextmanager
    def held(self, say: Callable[[str], None]) -> Iterator[None]:
        """Works on the study. Only for who holds the local folder (`sole_user`).

        Args:
            say: as for `check`.

        Raises:
            InputError: another driver is at work.
            StoreError: the store is lost.
            LeaseLostError: another driver has taken over.
        """
        with as_bad_input():
            self._lease.take(say)
        try:
            with self._meanwhile(self._renew), self._pulling():  # a reader that was first has finished
                self._copy.pull(self._store, self._store.list())
            try:
                with self._meanwhile(self._keep_in_step):
                    yield
            finally:
                _last(self._push_all)
        finally:
            _last(self._lease.release)

    @contextlib.contextmanager
    def _pulling(self) -> Iterator[None]:
        """One process at a time writes what it pulls; the others wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / PULLING_FILE).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _meanwhile(self, work: Callable[[], object]) -> Iterator[None]:
        """Works beside the block, in a thread of its own."""
        stop = threading.Event()
        thread = threading.Thread(target=self._repeat, args=(work, stop), name="remote-study", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _repeat(self, work: Callable[[], object], stop: threading.Event) -> None:
        """A store that is away for a while is asked again; whether the lease is still ours, it says then."""
        try:
            while not stop.wait(TICK_S):
                with contextlib.suppress(StoreError):
                    work()
        except LeaseLostError as error:
            self.trouble = str(error.strerror)
        finally:
            if not stop.is_set() and not self.trouble:
                self.trouble = f"{self.url}: is no longer kept in step, by a defect of ours"

    def _keep_in_step(self) -> None:
        if self._renew():
            self._copy.push(self._busy_store, self._is_ours)
        elif time.monotonic() > self._ledger_not_before:
            started = time.monotonic()
            self._copy.push_file(LEDGER_FILE, self._busy_store)
            self._ledger_not_before = time.monotonic() + (time.monotonic() - started) / MAX_SHARE

    def _renew(self) -> bool:
        """Renews the lease if it is time to, as also after a sleep of this machine; whether it was."""
        is_due = self._lease.age_s >= RENEW_AFTER_S
        if is_due:
            self._lease.renew()
        return is_due

    def _is_ours(self, name: str) -> bool:
        """Renews the lease between two files, as to push them all may take long."""
        try:
            self._renew()
        except StoreError:
            if self._lease.age_s > 2 * RENEW_AFTER_S:  # it may be lost while the next file is pushed
                raise
        return True

    def _push_all(self) -> None:
        self._lease.renew()  # it is still ours, or this driver has no say any more
        self._copy.push(self._store, self._is_ours)
        self._copy.settle(self._store)


def _last(act: Callable[[], None]) -> None:
    """Does one of the last things of a session: not once the lease is lost, and where the store ended it if it can."""
    ended_by = sys.exception()
    if not isinstance(ended_by, LeaseLostError):
        with contextlib.suppress(StoreError) if isinstance(ended_by, StoreError) else contextlib.nullcontext():
            act()


def open_remote(spec: StudySpec) -> RemoteStudy | None:
    """The study in its object store, pulled; None of a study that lives in a folder.

    Raises:
        InputError: the store cannot be reached or read.
    """
    if not spec.url:
        return None
    remote = RemoteStudy(spec.url)
    remote.pull()
    return remote


def find_remote(name: str) -> RemoteStudy | None:
    """The study that a command reads, where it is named by a URL: pulled first. None of a folder.

    Raises:
        InputError: the store cannot be reached or read, or holds no study there.
    """
    if not is_url(name):
        return None
    remote = RemoteStudy(name)
    remote.pull()
    if not (remote.folder / "study.yaml").is_file():
        raise InputError(
            f"{remote.url}: holds no study (no study.yaml); name a study's URL, as in s3://BUCKET/PREFIX/demo"
        )
    return remote
