"""Where preflight's tokens lie: a folder in the study's, or below its URL, that the driver makes and removes."""

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster import node_checks
from cluster.preflight_rules import DRIVER

TOKENS = ".preflight-"
OLD_S = 24 * 3600.0
"""Longer than any preflight, and more than the clock of a file server is off."""


@contextmanager
def folder_of_tokens(study: Path | str) -> Iterator[tuple[str, str]]:
    """A new folder in the study's with the driver's token; gone at the end with what had to be made for it.

    Args:
        study: a folder, or a URL, below which nothing needs to be made.

    Yields:
        The folder, and why the driver cannot write its token; empty where it can.
    """
    name = f"{TOKENS}{secrets.token_hex(8)}"
    if isinstance(study, str):
        try:
            yield f"{study}/{name}", node_checks.write_token(f"{study}/{name}", DRIVER)
        finally:
            _remove_tokens(study, name)
        return
    _remove_old_tokens(study)
    folder = study / name
    made = [each for each in folder.parents if not each.exists()]
    try:
        yield str(folder), _make(folder) or node_checks.write_token(str(folder), DRIVER)
    finally:
        # A late node may write into it now, a network file system keep files that were open, and another preflight use
        # the study's folder: then something stays, and does no harm.
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            for each in made:
                each.rmdir()


def _make(folder: Path) -> str:
    """Makes a folder; returns why it cannot."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        return f"cannot make {folder} ({error.strerror})"
    return ""


def _remove_old_tokens(study: Path) -> None:
    """What earlier preflights have left, as those do that were killed."""
    for folder in study.glob(f"{TOKENS}*"):
        with suppress(OSError):  # another one removes it, too
            if time.time() - folder.stat().st_mtime > OLD_S:
                shutil.rmtree(folder)


def _remove_tokens(url: str, folder: str) -> None:
    from trainable.object_store import ObjectStore

    store = ObjectStore(url)
    with suppress(OSError):  # who may not write may not delete, and is told of that first
        for token in store.list(folder):
            store.delete(token)
