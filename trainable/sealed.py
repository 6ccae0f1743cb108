"""JSON objects that carry their own checksum, so that a damaged file is noticed and never taken for a sound one.

A sealed file is readable JSON, written whole or not at all, whose field `sha256` stands for all the others. Standard
library only, as `study` reads such files too.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainable.atomic import write_atomically
from trainable.config import InputError

logger = logging.getLogger(__name__)

SEAL = "sha256"


class DamagedError(InputError):
    """A file is not as it was written: cut short, changed, or never sealed."""


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object with its checksum, atomically.

    Args:
        path: the file; replaced if it is there.
        content: plain values by name; none is called `sha256`.
    """
    write_atomically(path, _sealed_text(content))


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What `write_sealed` wrote, or None where there is no file.

    Raises:
        DamagedError: the file differs from what was written, if only by a byte.
    """
    try:
        return unseal(path.read_bytes())
    except FileNotFoundError:
        return None
    except DamagedError as error:
        raise DamagedError(f"{path}: damaged ({error}); remove it and run again") from error


def unseal(file: bytes) -> dict[str, Any]:
    """The object that a sealed file holds.

    Raises:
        DamagedError: says why not.
    """
    try:
        text = file.decode()
        content: dict[str, Any] = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError(str(error)) from error
    if content.pop(SEAL, None) is None:
        raise DamagedError("it has no checksum")
    # Text against text: a changed digit that no float can hold would pass for the same content.
    if text != _sealed_text(content):
        raise DamagedError("its checksum does not match")
    return content


def take_sealed(path: Path) -> dict[str, Any] | None:
    """Like `read_sealed`, but a damaged file is set aside with a warning and counts as absent."""
    try:
        return read_sealed(path)
    except DamagedError as error:
        set_aside(path, str(error.__cause__))
        return None


def sealed_line(content: Mapping[str, Any]) -> str:
    """One line of JSON with the first 16 digits of its checksum, for files that grow by a line at a time."""
    assert SEAL not in content, "the checksum is added here"
    return json.dumps({**content, SEAL: _checksum(content)[:16]}) + "\n"


def unseal_line(line: bytes) -> dict[str, Any] | None:
    """What `sealed_line` wrote, with or without its line end; None where that is damaged."""
    try:
        text = line.decode()
        content: dict[str, Any] = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None
    content.pop(SEAL, None)
    return content if text.removesuffix("\n") + "\n" == sealed_line(content) else None


def set_aside(path: Path, reason: str) -> Path:
    """Renames a damaged file or folder to `<name>.damaged`, `<name>.damaged-2` and so on, and says so.

    Returns:
        Where it lies now: nothing is lost that somebody may want to look at.
    """
    target, number = path.with_name(f"{path.name}.damaged"), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{number}")
    path.rename(target)
    logger.warning("%s is damaged (%s); set aside as %s", path, reason, target.name)
    return target


def _sealed_text(content: Mapping[str, Any]) -> str:
    assert SEAL not in content, "the checksum is added here"
    return json.dumps({**content, SEAL: _checksum(content)}, indent=2) + "\n"


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
