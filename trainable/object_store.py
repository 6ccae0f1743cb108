"""A folder of an object store such as S3: the only place that knows fsspec.

An object appears whole or not at all, which is what files of a study need. fsspec and the package of a store are extras
(`pip install 'canopoint[s3]'`) and imported when first needed. Credentials and the endpoint come from the environment
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL), or from wherever else the store's package finds them, and
never from a study.
"""

import contextlib
import errno
import functools
import importlib
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from trainable.config import InputError
from trainable.storage_url import EXTRAS, check_url, is_safe_name

Result = TypeVar("Result")

ANSWER_S = 10.0  # for the first question; whoever has named a wrong place is told within 15 s
WORK_S = 40.0  # at work; less than a lease lives
PATIENCE_S = 30.0  # where a store may be away for a moment
PAUSE_S = 1.0
BATCH = 256  # small objects that are in memory at once

_FOREIGN = ("aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "adlfs", "azure")
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError")
_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


class StoreError(OSError):
    """The store does not answer, or refuses; says which and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EIO, InputError(message).args[0])

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """A worker's travels to the driver; as it is, OSError would be made again of its own two arguments."""
        return type(self), (self.strerror or "",)


class Entry(NamedTuple):
    """An object: its size in bytes, and a tag that changes with its content."""

    size: int
    tag: str


class ObjectStore:
    """The objects below a URL, by names relative to it, as in `trials/ID/result.json`. Nothing else is ever touched.

    Every method raises StoreError where the store does not answer or refuses.
    """

    def __init__(self, url: str, patience_s: float | None = None) -> None:
        """Asks nothing yet.

        Args:
            url: PROTOCOL://BUCKET/PREFIX.
            patience_s: how long to go on where there is no answer. None: every question is answered or given up within
                `ANSWER_S`, as for a place that a user has just named.
        """
        check_url(url, "storage")
        self.url = url.rstrip("/")
        self._protocol, _, self._root = self.url.partition("://")
        self._patience_s = patience_s

    def list(self, under: str = "") -> dict[str, Entry]:
        """Name -> entry of all objects, or of those below a name.

        Raises:
            InputError: a name would lead out of a folder (`..`, `//`, a line break): nobody of us made it.
        """
        top = self._path(under) if under else self._root
        found = self._ask(f"list {under}", lambda fs: fs.find(top, detail=True, **self._limit))
        return {
            self._own_name(path): Entry(info["size"], _tag(info))
            for path, info in found.items()
            if info["type"] == "file" and not path.endswith("/")  # such as a console leaves where it makes a "folder"
        }

    def read(self, name: str) -> bytes | None:
        """The content of an object; None where there is none."""
        return self.read_many([name]).get(name)

    def read_many(self, names: Collection[str]) -> dict[str, bytes]:
        """Name -> content of small objects, fetched side by side; those that are gone are absent."""
        paths = {self._path(name): name for name in names}
        options = {"max_concurrency": 1} if self._protocol == "s3" else {}  # else it asks for the size first

        def fetch(fs: Any) -> dict[str, bytes | Exception]:
            found: dict[str, bytes | Exception] = fs.cat([*paths], on_error="return", **options, **self._limit)
            for content in found.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
            return found

        contents = self._ask(f"read {next(iter(names), '')}", fetch) if paths else {}
        return {paths[path]: content for path, content in contents.items() if isinstance(content, bytes)}

    def download(self, name: str, path: Path) -> bool:
        """Copies an object into a file, which appears whole; False where there is no such object."""
        scratch = path.with_name(f".{path.name}-{os.getpid()}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._ask(f"read {name}", lambda fs: fs.get_file(self._path(name), str(scratch)), absent=True)
            os.replace(scratch, path)
        except FileNotFoundError:
            return False
        finally:
            scratch.unlink(missing_ok=True)
        return True

    def write(self, name: str, content: bytes) -> None:
        """Makes an object, or puts another in its place."""
        self._ask(f"write {name}", lambda fs: fs.pipe_file(self._path(name), content, **self._limit))

    def upload(self, path: Path, name: str) -> None:
        """Makes an object of a file of any size."""
        self._ask(f"write {name}", lambda fs: fs.put_file(str(path), self._path(name)))

    def create(self, name: str, content: bytes) -> bool:
        """Makes an object unless there is one; of several that try, one succeeds. Returns whether it was this one."""
        return self._unless_conflict(name, content, {"mode": "create"})

    def swap(self, name: str, content: bytes, tag: str) -> bool:
        """Puts an object in the place of the one with that tag; False where it has another by now.

        Elsewhere than on S3 somebody else may slip in between the question and the change.
        """
        if self._protocol == "s3":
            return self._unless_conflict(name, content, {"IfMatch": tag})
        if self.tag(name) != tag:
            return False
        self.write(name, content)
        return True

    def delete(self, name: str) -> None:
        """Removes an object; one that is gone already is no matter."""
        with contextlib.suppress(FileNotFoundError):
            self._ask(f"delete {name}", lambda fs: fs.rm_file(self._path(name)), absent=True)

    def tag(self, name: str) -> str:
        """The object's tag; empty where there is none."""
        try:
            return _tag(self._ask(f"read {name}", lambda fs: fs.info(self._path(name), **self._limit), absent=True))
        except FileNotFoundError:
            return ""

    def modified(self, name: str) -> float:
        """When the object was written, unix seconds by the store's clock; 0 where there is none."""
        try:
            return float(self._ask(f"read {name}", lambda fs: fs.modified(self._path(name)), absent=True).timestamp())
        except FileNotFoundError:
            return 0.0

    def clock(self) -> float:
        """The time by the store's clock, unix seconds: that of an object which is written for it, and removed."""
        name = f".clock-{uuid.uuid4().hex}"
        self.write(name, b"")
        try:
            return self.modified(name)
        finally:
            self.delete(name)

    def _unless_conflict(self, name: str, content: bytes, condition: dict[str, str]) -> bool:
        def write(fs: Any) -> bool:
            try:
                fs.pipe_file(self._path(name), content, **condition, **self._limit)
            except FileExistsError:
                return False
            except OSError as error:
                is_gone = "IfMatch" in condition and isinstance(error, FileNotFoundError)
                if not is_gone and _code(error) not in _CONFLICTS:
                    raise
                return False
            return True

        return self._ask(f"write {name}", write)

    @property
    def _limit(self) -> dict[str, float]:
        """Of fsspec's own, over all that it does for one question; large objects have none."""
        return {"timeout": ANSWER_S if self._patience_s is None else WORK_S}

    def _ask(self, what: str, operation: Callable[[Any], Result], *, absent: bool = False) -> Result:
        """The answer of the store, tried again while patience lasts.

        Args:
            what: verb and name, for the error.
            operation: gets the file system.
            absent: whether FileNotFoundError is an answer; else it means that the bucket is missing.
        """
        give_up = time.monotonic() + (self._patience_s or 0.0)
        while True:
            try:
                return operation(_file_system(self._protocol, self._patience_s is not None))
            except Exception as error:
                if absent and isinstance(error, FileNotFoundError):
                    raise
                if not _is_of_store(error):
                    raise
                if _is_final(error) or time.monotonic() > give_up:
                    raise StoreError(f"{self.url}: {_reason(error, what.strip())}") from error
            time.sleep(PAUSE_S)

    def _path(self, name: str) -> str:
        if not is_safe_name(name):
            raise InputError(f"{self.url}: {name!r:.80} is no name that an object of ours can have")
        return f"{self._root}/{name}"

    def _own_name(self, path: str) -> str:
        name = path.removeprefix(f"{self._root}/")
        if name == path or not is_safe_name(name):
            raise InputError(
                f"{self.url}: holds an object {path!r:.120}, a name that could lead out of a folder and that canopoint"
                f" never gives; remove it"
            )
        return name


@contextlib.contextmanager
def as_bad_input() -> Iterator[None]:
    """Makes the refusal of a store that a user has just named an InputError, as of any other wrong place."""
    try:
        yield
    except StoreError as error:
        raise InputError(f"storage: {error.strerror}") from error


def _tag(info: dict[str, Any]) -> str:
    return str(info.get("ETag") or info.get("etag") or info.get("md5Hash") or "")


@functools.cache
def _file_system(protocol: str, is_patient: bool) -> Any:
    try:
        fsspec = importlib.import_module("fsspec")
        options = {"skip_instance_cache": True, "use_listings_cache": False}
        if protocol != "s3":
            return fsspec.filesystem(protocol, **options)
        timeouts = (5, 30, {"mode": "standard", "max_attempts": 3}) if is_patient else (3, 5, {"max_attempts": 0})
        names = ("connect_timeout", "read_timeout", "retries")
        found = fsspec.filesystem("s3", config_kwargs=dict(zip(names, timeouts, strict=True)), **options)
        found.retries = 3 if is_patient else 1  # its own, around those of botocore
        return found
    except ImportError as error:
        needed = EXTRAS[protocol]
        raise InputError(f"storage: {protocol}:// needs another package; pip install '{needed}'") from error


def _is_of_store(error: Exception) -> bool:
    """Whether this is trouble with the store, and none of this program."""
    is_foreign = type(error).__module__.partition(".")[0] in _FOREIGN
    return is_foreign or (isinstance(error, OSError) and not _is_local(error))


def _is_local(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or error.filename is not None


def _is_final(error: Exception) -> bool:
    """Whether it will be no different in a moment."""
    return isinstance(error, PermissionError | FileNotFoundError) or type(error).__name__ in _NO_CREDENTIALS


def _reason(error: Exception, what: str) -> str:
    text = " ".join(str(error).split())[:160]
    if type(error).__name__ in _NO_CREDENTIALS:
        return "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws configure"
    if isinstance(error, PermissionError):
        return f"these credentials may not {what} ({text}); check them (AWS_ACCESS_KEY_ID), or the bucket's policy"
    if isinstance(error, FileNotFoundError):
        return f"no such bucket ({text}); create it, or name another"
    where = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "the store"
    return (
        f"no good answer from {where.rpartition('@')[2]} ({type(error).__name__}); check the network and"
        f" AWS_ENDPOINT_URL"
    )


def _code(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
