"""Where a study is stored: a folder, or a URL such as s3://bucket/prefix, for which a local folder stands.

Standard library only: study files are read without asking any store.
"""

import hashlib
import os
import re
from pathlib import Path

from trainable.config import InputError

EXTRAS = {"s3": "canopoint[s3]", "gs": "gcsfs", "az": "adlfs"}
"""What to install for each protocol."""

MAX_NAME_BYTES = 255
_PART = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._=+-]+")


def is_url(storage: str | Path) -> bool:
    """Whether this names a place in an object store rather than a folder."""
    return "://" in str(storage)


def check_storage(storage: str, where: str) -> None:
    """Refuses a URL that is none, or that holds more than a place. A folder may have any name.

    Raises:
        InputError: says the rule.
    """
    if is_url(storage):
        check_url(storage, where)
    elif storage.partition(":/")[0] in EXTRAS:  # else it would become a folder called `s3:`
        raise InputError(f"{where}: {storage[:80]}: a URL has two slashes, as in s3://BUCKET/PREFIX")


def check_url(url: str, where: str) -> None:
    """Refuses what is not plainly PROTOCOL://BUCKET/PREFIX. The message never repeats what may be a password.

    Raises:
        InputError: says the rule.
    """
    protocol, _, path = url.partition("://")
    bucket, *parts = path.rstrip("/").split("/")
    if "@" in path or "?" in path or "#" in path:
        raise InputError(
            f"{where}: a URL holds no credentials and no options, as it is written into files and logs; set them in the"
            f" environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and give {protocol[:8]}://BUCKET/PREFIX"
        )
    if protocol not in EXTRAS:
        raise InputError(
            f"{where}: {url[:80]}: no such kind of storage; give a folder, or a URL such as s3://BUCKET/PREFIX"
            f" ({', '.join(EXTRAS)})"
        )
    if not all(_PART.fullmatch(part) for part in [bucket, *parts]):
        raise InputError(
            f"{where}: {url[:80]}: between its slashes a URL has letters, digits and . _ - = + alone, as in"
            f" {protocol}://bucket/studies"
        )


def cache_folder() -> Path:
    """Where copies of what lies in object stores are kept: CANOPOINT_CACHE, or ~/.cache/canopoint.

    Raises:
        InputError: it is no absolute path.
    """
    folder = Path(os.environ.get("CANOPOINT_CACHE") or os.path.expanduser("~/.cache/canopoint"))
    if not folder.is_absolute():
        raise InputError(
            f"CANOPOINT_CACHE: must be an absolute path, got {str(folder)!r}; set it to a folder with room"
        )
    return folder


def working_copy(url: str) -> Path:
    """The local folder that stands for a URL on this machine; readable, and different for different URLs."""
    url = url.rstrip("/")
    name = re.sub(r"[^A-Za-z0-9]+", "-", url.partition("://")[2])[:60].strip("-")
    return cache_folder() / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def is_safe_name(name: str) -> bool:
    """Whether an object of that name, below a URL, becomes a file below a folder and nowhere else."""
    parts = name.split("/")
    is_plain = name.isprintable() and "\\" not in name and not {"", ".", ".."} & {*parts}
    return is_plain and all(len(os.fsencode(part)) <= MAX_NAME_BYTES for part in parts)
