"""Files and folders that appear whole or not at all, and folders that one process at a time works in."""

import contextlib
import errno
import fcntl
import io
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from trainable.config import InputError
from trainable.holder import Holder

MAX_NAME_BYTES = 255
"""Longest name that file systems allow."""

LOCK_FILE = ".lock"
MAX_RECORD_BYTES = 4096
DYING_S = 5.0  # the system frees a killed process's lock once it has taken its memory back
PROBE_S = 0.3  # `read_holder` holds the lock for an instant


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

    The lock is `flock` on `.lock`; what that file says is for the one who is refused. A holder that has just been
    killed is waited for.

    Raises:
        InputError: another process holds it, or its storage knows no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    with open_regular(path, os.O_RDWR | os.O_CREAT) as file:
        # A copy in a forked child would hold the lock beyond our end. Programs that are started get none (O_CLOEXEC).
        os.register_at_fork(after_in_child=file.close)
        _take(file, folder)
        _write_record(file, path)
        yield


def read_holder(folder: Path) -> tuple[bool, Holder | None]:
    """Whether a process works in the folder, and which, as far as that is known; disturbs nobody.

    Raises:
        InputError: the lock file is none.
    """
    path = folder / LOCK_FILE
    if not path.is_symlink() and not path.exists():
        return False, None
    with open_regular(path, os.O_RDONLY) as file:
        if _try_lock(file, folder, fcntl.LOCK_SH):  # let go at once; whoever wants the folder meanwhile tries again
            return False, None
        return True, _read_record(file)


def open_regular(path: Path, flags: int) -> io.FileIO:
    """Opens a file of ours, unbuffered, for this process alone. A folder may be anyone's: links are not followed.

    Raises:
        InputError: something else than a file is there, or it may not be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        reason = "is a link" if error.errno == errno.ELOOP else str(error.strerror)
        raise InputError(f"{path}: cannot be opened: {reason}; name another storage or mend it") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: must be a file; remove it")
    return os.fdopen(descriptor, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "rb+", buffering=0)


def _take(file: io.FileIO, folder: Path) -> None:
    started = time.monotonic()
    while not _try_lock(file, folder, fcntl.LOCK_EX):
        holder = _read_record(file)
        patience = DYING_S if holder and holder.seems_dead else PROBE_S
        if time.monotonic() - started > patience:
            raise InputError(f"{folder}: {_refusal(holder, folder / LOCK_FILE)}")
        time.sleep(0.05)


def _try_lock(file: io.FileIO, folder: Path, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        raise InputError(
            f"{folder}: this file system has no locks ({error.strerror}), and two drivers would spoil a study;"
            f" use another storage (--set storage=FOLDER)"
        ) from error
    return True


def _refusal(holder: Holder | None, path: Path) -> str:
    if holder is None:
        return f"another canopoint is working here ({path} does not say which); wait for it or end it"
    if holder.seems_dead:
        return f"{holder} has ended, but a process that it left holds the lock; end that one (fuser {path} names it)"
    stop = f"kill -INT {holder.pid}"
    if holder.is_suspended:
        return f"{holder} is suspended here; continue it (kill -CONT {holder.pid}) or end it ({stop}, then kill -CONT)"
    where = "" if holder.is_here else " on that host"
    return f"{holder} is working here; wait for it or end it{where} ({stop})"


def _read_record(file: io.FileIO) -> Holder | None:
    return Holder.parse(os.pread(file.fileno(), MAX_RECORD_BYTES, 0))


def _write_record(file: io.FileIO, path: Path) -> None:
    try:
        file.truncate(0)
        file.write(Holder.of_this_process().to_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); free some disk space") from error


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
    with made_parents(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=path.parent))
        try:
            yield scratch
            scratch.chmod(path.parent.stat().st_mode & 0o777)  # mkdtemp makes it for its owner alone
            _rename_folder(scratch, path)
        except BaseException:
            shutil.rmtree(scratch)
            raise


@contextlib.contextmanager
def made_parents(path: Path) -> Iterator[None]:
    """Where the block fails, the folders above `path` that were not there before it go again."""
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # somebody else has put something there meanwhile
            for parent in missing:
                parent.rmdir()
        raise


def _rename_folder(scratch: Path, path: Path) -> None:
    try:
        scratch.rename(path)
    except OSError:
        if not path.is_dir():
            raise
        shutil.rmtree(scratch)
