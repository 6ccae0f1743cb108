"""What a node finds out about itself: plain functions of plain values, which `preflight` runs on every node.

They travel to the node as they are here, so that one with another version of ours, or with none, answers all the same.
Hence nothing but the standard library is imported up here, and nothing of ours where it can be helped. A function that
looks for trouble returns it in words, and nothing where all is well.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import mmap
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("analysis", "cluster", "study", "trainable")
LIBRARIES = ("ray", "torch", "torchvision", "numpy")
ABSENT = "absent"
CHECKSUMS = "checksums.json"
PROBE_SIDE = 256


def versions() -> dict[str, str]:
    """What a result depends on: Python's minor version, those of the libraries, and our own sources.

    Only `absent` is said of what is not installed. Nothing heavy is imported.
    """
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ABSENT
    return {**found, "canopoint": _trainer_version(), "canopoint's sources": source_hash()}


def source_hash() -> str:
    """The first 12 digits of a hash over our packages' source files as this process would import them."""
    found = hashlib.sha256()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            return ABSENT
        root = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(root.rglob("*.py")):
            found.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:12]


def _trainer_version() -> str:
    try:
        from trainable.config import TRAINER_VERSION
    except ImportError:
        return ABSENT
    return f"trainer {TRAINER_VERSION}"


def look(folder: str, name: str) -> dict[str, Any]:
    """The first round: what does not depend on other nodes, and this node's token for them to read.

    Args:
        folder: of the tokens, in the study's folder or, of a study in an object store, below its URL.
        name: of this node's token.
    """
    return {
        "versions": versions(),
        "storage": write_token(folder, name),
        "free_disk": free_disk(folder),
        "free_memory": free_memory(),
    }


def look_again(folder: str, names: list[str]) -> dict[str, Any]:
    """The second round: which tokens of the others cannot be read here, and the time by this node's clock."""
    return {"unread": unread_tokens(folder, names), "time_s": time.time()}


def write_token(folder: str, name: str) -> str:
    """Writes a token, a file or object of that name and content.

    The folder is never made here, where it might not be the driver's.
    """
    try:
        if _is_url(folder):
            store, last = _object_store(folder)
            store.write(f"{last}/{name}", name.encode())
        else:
            with Path(folder, name).open("x") as file:
                file.write(name)
                file.flush()
                os.fsync(file.fileno())
    except FileNotFoundError:
        return f"the driver's {folder} is not there"
    except ImportError as error:
        return f"cannot speak to an object store ({error})"
    except OSError as error:
        return f"cannot write into {folder} ({error.strerror})"
    return ""


def unread_tokens(folder: str, names: list[str]) -> list[str]:
    """Those of the names whose token is not there, or holds something else.

    Each is opened by its name: a network file system may show an old listing for a minute, and never an old file.
    """

    def is_read(name: str) -> bool:
        try:
            if _is_url(folder):
                store, last = _object_store(folder)
                return bool(store.read(f"{last}/{name}") == name.encode())
            return Path(folder, name).read_text() == name
        except OSError:
            return False

    return [name for name in names if not is_read(name)]


def _is_url(folder: str) -> bool:
    return "://" in folder


def _object_store(folder: str) -> tuple[Any, str]:
    """The object store around a folder of tokens, and that folder's name."""
    from trainable.object_store import ObjectStore

    url, _, last = folder.rpartition("/")
    return ObjectStore(url), last


def describe_stores(places: list[str]) -> dict[str, Any]:
    """Place -> what `describe_store` says of the packed store there; one in an object store is copied to this node."""
    return {place: describe_store(place if not _is_url(place) else _fetched(place)) for place in places}


def _fetched(url: str) -> str:
    from trainable.trial_copy import fetch_store

    return str(fetch_store(url))


def describe_store(path: str) -> dict[str, Any]:
    """Checksums and sizes of a packed store's files; the last page of each is read through a memory map, as trials do.

    The folder's name holds the data's fingerprint and the list of checksums stands for every byte, which the driver has
    read. `problem` says what is wrong, as that the folder is not there.
    """
    try:
        listed = Path(path, CHECKSUMS).read_bytes()
        names = sorted(json.loads(listed)["files"])
        return {
            "checksums": hashlib.sha256(listed).hexdigest(),
            "sizes": {name: _mapped_size(Path(path, name)) for name in names},
            "problem": "",
        }
    except FileNotFoundError as error:
        return {"problem": f"{error.filename} is not there"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"problem": f"{path} cannot be read ({error})"}


def _mapped_size(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert len(mapped[-1:]) == 1, "an empty file cannot be mapped"
        return len(mapped)


def free_disk(folder: str) -> int:
    """Bytes free where trials write: where a folder is, or would be made; with a URL, where this node keeps copies."""
    if _is_url(folder):
        from trainable.storage_url import cache_folder

        folder = str(cache_folder())
    path = Path(folder).absolute()
    return shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists())).free


def free_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that processes can still take: of the machine, or of the container that this is, whichever has less.

    Args:
        proc: where the kernel tells of the machine.
        cgroup: where it tells of the container: version 2, or version 1 below `memory/`.
    """
    lines = (line.split() for line in (proc / "meminfo").read_text().splitlines())
    machine = next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")
    first = cgroup / "memory"
    containers = [
        _left(cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat", "inactive_file"),
        _left(
            first / "memory.limit_in_bytes", first / "memory.usage_in_bytes", first / "memory.stat",
            "total_inactive_file",
        ),
    ]  # fmt: skip
    return max(0, min([machine, *(left for left in containers if left is not None)]))


def _left(limit: Path, used: Path, statistics: Path, reclaimable: str) -> int | None:
    """The limit less what is used for good; None where there is no limit. Cached files count as used until needed."""
    try:
        text, taken = limit.read_text().strip(), int(used.read_text())
        cached = [int(line.split()[1]) for line in statistics.read_text().splitlines() if line.startswith(reclaimable)]
    except FileNotFoundError:
        return None
    return None if text == "max" else int(text) - taken + sum(cached)


def fetch_weights(trainings: list[Mapping[str, Any]]) -> str:
    """Gets the initial weights of these runs to hand on this node, as the driver did on its own."""
    from trainable.config import InputError, TrainConfig, from_mapping
    from trainable.encoders import fetch_weights as fetch

    try:
        for training in trainings:
            fetch(from_mapping(TrainConfig, training, "training"))
    except InputError as error:
        return str(error)
    return ""


def use_gpu() -> str:
    """Multiplies matrices of ones on the GPU that this task was given, and looks at the result."""
    import torch

    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return f"it claims a GPU, and torch {torch.__version__} ({built}) sees none"
    try:
        ones = torch.ones(PROBE_SIDE, PROBE_SIDE, device="cuda")
        total = float((ones @ ones).sum())
    except RuntimeError as error:
        return f"its GPU does not compute ({str(error).splitlines()[0]})"
    return "" if total == PROBE_SIDE**3 else f"its GPU makes {total:g} of {PROBE_SIDE**3:g}"
