"""One file of the cache of runs: Parquet, written once and never changed, checked whenever it is read.

`runs-<number>-<hash>.parquet` bears the hash of its own footer, and each of its pages has a checksum: a damaged file is
noticed and set aside. It is data alone, of the types of `run_table.py`, and of bounded size: no pickled objects.
"""

import hashlib
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.reading.run_table import HEAD, METRIC, RunTable
from trainable.atomic import publish, scratch_file
from trainable.config import InputError
from trainable.sealed import set_aside

NAME = re.compile(r"runs-(\d{1,9})-([0-9a-f]{16})\.parquet")

MAX_RUNS = 2**20
MAX_VALUES = 2**28
"""In one file, 2 GiB: a small hostile file could otherwise ask for all of the memory."""

MAX_FOOTER_BYTES = 2**26


class DamagedCacheError(InputError):
    """A file of the cache is not as it was written; it has been set aside."""


def number_of(path: Path) -> int:
    """In a file's name; 0 where it is none of ours."""
    match = NAME.fullmatch(path.name)
    return int(match[1]) if match else 0


def find_files(folder: Path) -> list[Path]:
    """The files of a cache, by number; links are not followed."""
    paths = [path for path in folder.glob("runs-*.parquet") if number_of(path) and not path.is_symlink()]
    return sorted((path for path in paths if path.is_file()), key=number_of)


def write_file(folder: Path, number: int, table: pa.Table) -> Path:
    """A new file, which appears whole or not at all."""
    scratch = folder / f".runs-{number}-{id(table)}"
    with scratch_file(scratch) as file:
        pq.write_table(
            table, file, compression="lz4", use_dictionary=False, write_page_checksum=True, store_schema=False
        )
    path = folder / f"runs-{number:04d}-{_footer_hash(scratch)}.parquet"
    publish(scratch, path)
    return path


def open_file(path: Path) -> RunTable:
    """The runs of a file. It stays open, so that another process may tidy up meanwhile.

    Raises:
        DamagedCacheError: at once, or when one of its columns is read.
    """

    def damage(what: str) -> DamagedCacheError:
        aside = set_aside(path, what) if path.exists() else path
        return DamagedCacheError(f"{path}: damaged ({what}); set aside as {aside.name}: run the same command again")

    def read(names: list[str] | None) -> pa.Table:
        try:
            return file.read(columns=names)
        except (OSError, pa.ArrowException) as error:
            raise damage(str(error)) from error

    if not path.name.endswith(f"-{_footer_hash(path)}.parquet"):
        raise damage("its footer is not the one that was written")
    try:
        file = pq.ParquetFile(pa.OSFile(str(path)), page_checksum_verification=True)
        problem = _problem(file)
    except (OSError, pa.ArrowException) as error:
        problem = str(error)
    if problem:
        raise damage(problem)
    return RunTable(read, damage)


def _footer_hash(path: Path) -> str:
    """Of the last bytes of a Parquet file: the footer, its length in 4 bytes, and a mark of 4 bytes."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        length = 8 + int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - min(length, MAX_FOOTER_BYTES)))
        return hashlib.sha256(file.read()).hexdigest()[:16]


def _problem(file: pq.ParquetFile) -> str:
    """What keeps a file from being read, by its footer alone."""
    fields, meta = list(file.schema_arrow), file.metadata
    if not pa.schema(fields[: len(HEAD)]).equals(HEAD) or any(each.type != METRIC for each in fields[len(HEAD) :]):
        return "it has other columns"
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    values = sum(group.column(i).num_values for group in groups for i in range(group.num_columns))
    return "it is too large" if meta.num_rows > MAX_RUNS or values > MAX_VALUES else ""
