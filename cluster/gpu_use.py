"""How busy GPUs are: those of this machine, or of every node of the cluster whose Jobs API is at hand.

On this machine `nvidia-smi` is asked. Of a cluster the dashboard says it, at the address of the Jobs API; it asks the
agents of its nodes now and then, so its figures are some seconds old.
"""

import csv
import shutil
import subprocess
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from json import JSONDecodeError, loads
from typing import Any
from urllib.parse import urlsplit

from cluster.head import check_jobs_api, named_address, token_headers
from trainable.config import InputError

ANSWER_S = 3.0
MAX_ANSWER_BYTES = 2**24
COLUMNS = ("index", "name", "utilization.gpu", "memory.used", "memory.total")
COMMAND = ("nvidia-smi", f"--query-gpu={','.join(COLUMNS)}", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    """One GPU as it is used now.

    Attributes:
        place: which one it is, for a person.
        busy: percent of the time, or None where it is not told.
        used_mib: memory in use; `total_mib` what there is; None likewise.
    """

    place: str
    name: str
    busy: float | None
    used_mib: float | None
    total_mib: float | None

    def __str__(self) -> str:
        busy = "use unknown" if self.busy is None else f"{self.busy:.0f} % busy"
        memory = ""
        if self.used_mib is not None and self.total_mib is not None:
            memory = f", {self.used_mib / 1024:.1f} of {self.total_mib / 1024:.1f} GiB"
        return f"{self.place}: {self.name}, {busy}{memory}"


class GpuUse:
    """Asks the cluster where its Jobs API is named in the environment, else this machine."""

    def __init__(self) -> None:
        """Asks nothing yet."""
        given = named_address()
        self._given = given if given.startswith(("http://", "https://")) else ""
        self._checked = ""

    def read(self) -> list[str]:
        """A line for each GPU, or one that says why there is none."""
        try:
            if self._given:
                return _lines(_ask_dashboard(self._cluster()), "none in the cluster")
            return _lines(_ask_driver(), "none here")
        except (OSError, HTTPException, InputError, JSONDecodeError) as error:
            return [f"not known now: {error}"]

    def _cluster(self) -> str:
        """The Jobs API's address, once it is known to be one that lets us in."""
        if not self._checked:
            self._checked = check_jobs_api(self._given).address
        return self._checked


def _lines(found: list[Gpu], none: str) -> list[str]:
    return [str(gpu) for gpu in found] or [none]


def _ask_driver() -> list[Gpu]:
    """The GPUs of this machine."""
    if not shutil.which(COMMAND[0]):
        return []
    try:
        answer = subprocess.run(COMMAND, capture_output=True, text=True, timeout=ANSWER_S)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{COMMAND[0]} did not answer in {ANSWER_S:g} s") from error
    if answer.returncode:
        raise ChildProcessError(f"{COMMAND[0]} ended with {answer.returncode}")
    return parse_gpus(answer.stdout)


def parse_gpus(answer: str) -> list[Gpu]:
    """What `nvidia-smi` answered, a GPU a line; a figure that the GPU does not tell is `[N/A]`."""
    rows = [row for row in csv.reader(answer.splitlines(), skipinitialspace=True) if len(row) == len(COLUMNS)]
    return [Gpu(f"GPU {row[0]}", row[1], *(_number(each) for each in row[2:])) for row in rows]


def _ask_dashboard(address: str) -> list[Gpu]:
    """The GPUs of the cluster's living nodes."""
    url = urlsplit(address)
    connect = HTTPSConnection if url.scheme == "https" else HTTPConnection  # follows no redirection with our token
    with closing(connect(url.netloc, timeout=ANSWER_S)) as connection:
        path = f"{url.path.rstrip('/')}/nodes?view=summary"
        connection.request("GET", path, headers=token_headers("the dashboard"))
        return parse_nodes(loads(connection.getresponse().read(MAX_ANSWER_BYTES).decode(errors="replace")))


def parse_nodes(answer: Any) -> list[Gpu]:
    """What the dashboard answered; of a node that tells nothing, nothing."""
    nodes = _of(_of(answer, "data", {}), "summary", [])
    return [_gpu(node, gpu) for node in nodes for gpu in _of(node, "gpus", [])]


def _gpu(node: Any, gpu: Any) -> Gpu:
    place = f"{_of(node, 'hostname', '?')} GPU {_of(gpu, 'index', 0)}"
    figures = (
        _number(gpu.get(name)) if isinstance(gpu, dict) else None
        for name in ("utilizationGpu", "memoryUsed", "memoryTotal")
    )
    return Gpu(place, _of(gpu, "name", "?"), *figures)


def _of(mapping: Any, name: str, default: Any) -> Any:
    """A field of an answer, which may be anyone's; of another kind than the default, it counts for nothing."""
    found = mapping.get(name) if isinstance(mapping, dict) else None
    return found if isinstance(found, type(default)) else default


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
