"""A trained model in one safetensors file: its tensors, and in the file's header what it takes to build it again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trainable.atomic import write_atomically
from trainable.config import InputError
from trainable.replaced_folder import file_checksum, read_mark
from trainable.sealed import DamagedError

WEIGHTS = "weights.safetensors"
MANIFEST = "manifest.json"
"""What lies beside it and holds its checksum; weights may travel without it."""

HEADER = ("training", "images")
"""What the header holds at least: the settings of the run, and what images must be like; JSON mappings."""


def write_weights(folder: Path, tensors: Mapping[str, Tensor], header: Mapping[str, object]) -> None:
    """Writes `weights.safetensors`.

    Args:
        folder: that it goes to.
        tensors: the model's state; in the file they lie row by row, whatever the memory format.
        header: JSON values by name, `training` and `images` among them; readable with any safetensors reader.
    """
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomically(folder / WEIGHTS, save(plain, {name: _to_text(value) for name, value in header.items()}))


def read_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of `weights.safetensors`. The format holds no code, so the file may be anyone's.

    Raises:
        InputError: no such file, one that another program wrote, or one that differs from its manifest.
    """
    path = folder / WEIGHTS
    _check_manifest(folder)
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            header = {name: json.loads(texts[name]) for name in HEADER}
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118  it is no mapping
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no weights that canopoint export wrote ({error!r:.200}); export again") from error


def _check_manifest(folder: Path) -> None:
    """A flipped bit in a weight loads silently otherwise."""
    manifest = read_mark(folder / MANIFEST)
    if manifest is None:
        return
    if manifest.files.get(WEIGHTS) != file_checksum(folder / WEIGHTS):
        raise DamagedError(
            f"{folder / WEIGHTS}: damaged (its checksum differs from the one in {MANIFEST}); export again"
        )


def _to_text(value: object) -> str:
    """Words as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
