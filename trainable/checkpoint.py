"""Checkpoints: atomic, hashed, no pickle.

A checkpoint is one NumPy archive named `state-<epoch>-<sha256>.npz`. It is written aside, synced and renamed into
place; the hash in its name proves its content, because a flipped bit loads silently otherwise.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trainable.atomic import publish, scratch_file
from trainable.sealed import set_aside

Arrays = dict[str, np.ndarray]
_NAME = re.compile(r"state-(\d{6})-([0-9a-f]{64})\.npz")


def save(folder: Path, epoch: int, arrays: Arrays) -> Path:
    """Publishes the state after `epoch` and removes the older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for abandoned in folder.glob(".writing-*"):  # by a killed writer; a trial has one at a time
        abandoned.unlink()
    scratch = folder / f".writing-{os.getpid()}"
    with scratch_file(scratch) as file:
        np.savez(file, allow_pickle=False, **arrays)
    path = folder / f"state-{epoch:06d}-{_sha256(scratch)}.npz"
    publish(scratch, path)
    for older in folder.glob("state-*.npz"):
        if older != path:
            older.unlink()
    return path


def load_latest(folder: Path) -> tuple[int, Arrays] | None:
    """The newest whole checkpoint as (epoch, arrays), or None where there is none.

    One whose content does not match its name is set aside as `*.damaged`, with a warning; the next older one serves.
    """
    for path in sorted(folder.glob("state-*.npz"), reverse=True):
        match = _NAME.fullmatch(path.name)
        if match and _sha256(path) == match.group(2):
            with np.load(path, allow_pickle=False) as archive:
                return int(match.group(1)), dict(archive)
        set_aside(path, "its SHA-256 differs from its name")
    return None


def pack_files(files: Mapping[str, bytes]) -> Arrays:
    """Small files as named arrays, so that a checkpoint can give them back as they were."""
    return {f"file/{name}": np.frombuffer(content, dtype=np.uint8) for name, content in files.items()}


def unpack_files(arrays: Arrays) -> dict[str, bytes]:
    """The inverse of `pack_files`."""
    prefix = "file/"
    return {name[len(prefix) :]: array.tobytes() for name, array in arrays.items() if name.startswith(prefix)}


def pack_state(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Arrays:
    """Model and, where training goes on, optimizer as flat named arrays."""
    arrays = {f"model/{name}": tensor.cpu().numpy() for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items() if optimizer else ():
        arrays.update({f"optimizer/{index}/{name}": tensor.cpu().numpy() for name, tensor in state.items()})
    return arrays


def unpack_model(arrays: Arrays, model: nn.Module) -> None:
    """Puts the model's part of `pack_state`'s arrays back."""
    prefix = "model/"
    weights = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})


def unpack_state(arrays: Arrays, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts `pack_state`'s arrays back; the inverse of it, bit by bit."""
    unpack_model(arrays, model)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            index, _, key = rest.partition("/")
            states.setdefault(int(index), {})[key] = _laid_out_like(parameters[int(index)], torch.from_numpy(array))
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def _laid_out_like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The same values in the parameter's memory format: fused Adam walks both by address and never looks at strides."""
    if tensor.shape != parameter.shape:  # the step counter
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device, requires_grad=False).copy_(tensor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
