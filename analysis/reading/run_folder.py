"""W&B's folder of a study -> its runs: what was read before from the cache, the rest from the run files."""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa

from analysis.reading.history import MAX_CELLS, MAX_METRICS
from analysis.reading.run_cache import RunCache
from analysis.reading.run_table import READER, to_table
from analysis.reading.wandb_runs import WandbRun, merged
from trainable.config import InputError

CHUNK = 50
"""Run files that a process reads at a time."""

WORTH_PROCESSES = 200
"""With more run files than this to be read, it is worth a second to start one process for each core."""


def read_runs(folder: Path, cache: RunCache | None = None) -> list[WandbRun]:
    """Every run in W&B's `folder`, written offline or online, sorted by run id; none where there is no such folder.

    A run id met in several folders is one run (`merged`): W&B puts the time, then a counter, in a folder's name. A file
    is read again where its size or a time of change is another than when it was read before; the system's own time of
    change too, which no program sets back.

    Raises:
        InputError: a file that is no run file, cannot be read, or lies outside the folder behind a symlink.
    """
    cache = cache or RunCache(None)
    states = _find_files(folder)
    found = cache.load(states, folder)
    if new := [key for key in states if key not in found]:
        for table in _gathered(_read(folder, [(key, states[key]) for key in new])):
            cache.add_table(table)
        found |= cache.load({key: states[key] for key in new}, folder)
        cache.tidy(states)
    files: dict[str, list[WandbRun]] = {}
    for key in states:  # in the order of time
        files.setdefault(found[key].run_id, []).append(found[key])
    return [merged(each) for _, each in sorted(files.items())]


def _find_files(folder: Path) -> dict[str, str]:
    """Every run file below `folder`, in the order of time, and what tells its states apart: size, times of change."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        links = {entry.name: entry.is_symlink() for entry in entries if "run-" in entry.name}
    links.pop("latest-run", None)  # W&B's own link to one of the others
    states = {}
    for name in sorted(links, key=_time_order):
        inner = f"{folder}/{name}"  # text: ten thousand paths of pathlib cost a fifth of a second
        for file in _run_files(inner, name):
            status = os.lstat(f"{inner}/{file}")
            if links[name] or not stat.S_ISREG(status.st_mode):
                _check_inside(folder / name / file, folder)
                status = os.stat(f"{inner}/{file}")
            states[_key(name, file)] = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {READER}"
    return states


def _key(folder: str, file: str) -> str:
    key = f"{folder}/{file}"
    if not key.isascii() and any("\ud800" <= letter <= "\udfff" for letter in key):
        raise InputError(f"{key!a}: a name must be UTF-8; rename it")
    return key


def _run_files(folder: str, name: str) -> list[str]:
    """The run files of one run's folder. W&B's has one, whose name is known; to list 10,000 folders takes a second."""
    usual = f"run-{name.removeprefix('offline-').removeprefix('run-').partition('-')[2]}.wandb"
    if os.path.lexists(f"{folder}/{usual}"):
        return [usual]
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if name.startswith("run-") and name.endswith(".wandb"))


def _read(folder: Path, files: Sequence[tuple[str, str]]) -> Iterator[pa.Table]:
    """The runs of these files, as (key, fingerprint), in tables of a few; many are read in several processes.

    A process starts anew, as a copy of this one would hold its threads' locks.
    """
    chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
    if len(files) <= WORTH_PROCESSES:
        yield from (read_files(folder, chunk) for chunk in chunks)
        return
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(read_files, [folder] * len(chunks), chunks)


def read_files(folder: Path, files: Sequence[tuple[str, str]]) -> pa.Table:
    """What one process reads at a time."""
    from analysis.reading.run_records import read_run  # W&B takes a third of a second, which the cache spares

    return to_table((key, fingerprint, read_run(folder / key)) for key, fingerprint in files)


def _gathered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same, put together to few large ones."""
    parts: list[pa.Table] = []
    for part in tables:
        names = {name for each in [*parts, part] for name in each.column_names}
        height = sum(int(each["num_rows"].to_numpy().sum()) for each in [*parts, part])
        if parts and (len(names) > MAX_METRICS or height * len(names) > MAX_CELLS):
            yield pa.concat_tables(parts, promote_options="default")
            parts = []
        parts.append(part)
    if parts:
        yield pa.concat_tables(parts, promote_options="default")


def _time_order(name: str) -> list[str | int]:
    """Sorts by the numbers in a folder's name, `[offline-]run-<time>-<id>[-<counter>]`; 10 comes after 2."""
    parts = re.split(r"(\d+)", name.removeprefix("offline-"))
    return [int(part) if part.isdecimal() else part for part in parts]


def _check_inside(path: Path, folder: Path) -> None:
    """Refuses what a hostile folder could point at: files elsewhere, and pipes or devices, which block a reader."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise InputError(f"{path}: is a symlink out of {folder}; copy the run into the folder instead")
    if not real.is_file():
        raise InputError(f"{path}: must be a regular file; remove it from the folder")
