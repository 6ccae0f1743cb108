"""The folders that a study reads and writes, where containers must be given them."""

import re
from pathlib import PurePosixPath

from study.design import initial_weights
from study.spec import StudySpec
from trainable.config import InputError
from trainable.storage_url import is_url

_PATH = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._+@=-]+)+")
_OF_THE_IMAGE = {
    "bin", "boot", "dev", "etc", "lib", "lib64", "opt", "proc", "root", "run", "sbin", "study", "sys", "tmp",
    "usr", "var",
}  # fmt: skip
MAX_CHARACTERS = 1024

Place = tuple[str, PurePosixPath]
"""The field that names a folder or a file, and its path."""


def written(spec: StudySpec) -> list[Place]:
    """The storage, unless it is an object store.

    Raises:
        InputError: as `_checked` does.
    """
    return [] if is_url(spec.storage) else [_checked("storage", spec.storage)]


def read(spec: StudySpec) -> list[Place]:
    """The images, and files of weights.

    Raises:
        InputError: as `_checked` does.
    """
    weights = sorted({config.weights for config in initial_weights(spec)} - {"imagenet", "none"})
    given = [("data.root", spec.data.root), *(("training.weights", path) for path in weights)]
    return [_checked(field, path) for field, path in given if path]


def _checked(field: str, given: str) -> Place:
    """A path that a container can be given: Ray and Docker put its name into commands as it is.

    Raises:
        InputError: the name holds other characters, or belongs to the system.
    """
    path = given.rstrip("/")
    example = f"as in --set {field}=/shared/{field.rpartition('.')[2]}"
    if not _PATH.fullmatch(path) or len(path) > MAX_CHARACTERS:
        raise InputError(
            f"{field}: {given[:80]}: for a container a path has letters, digits and . _ - + @ = alone, and no .. in it;"
            f" give another, {example}"
        )
    if path.split("/")[1] in _OF_THE_IMAGE:
        raise InputError(
            f"{field}: {given[:80]}: /{path.split('/')[1]} is the container's own; give a path elsewhere, {example}"
        )
    return field, PurePosixPath(path)
