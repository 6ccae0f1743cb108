"""What a program leaves behind and shows: files and the archives among them, command lines, listening sockets."""

import base64
import gzip
import ipaddress
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from bench.processes import Process

LISTENS = "0A"  # TCP_LISTEN in Linux's tables


def find_secrets(content: bytes, secrets: Mapping[str, str]) -> set[str]:
    """The names of the secrets that a content holds: as they are, in hex or in base64."""
    return {name for name, secret in secrets.items() if any(each in content for each in _spellings(secret))}


def find_in_folder(folder: Path, secrets: Mapping[str, str]) -> list[str]:
    """Each place below a folder that holds a secret, as "path: NAME"; archives are opened, names are looked at."""
    found = []
    for path in sorted(folder.rglob("*")):
        contents = [str(path.relative_to(folder)).encode()]
        if path.is_file() and not path.is_symlink():  # what links point to is seen where it lies
            contents += _contents(path)
        names = set().union(*(find_secrets(content, secrets) for content in contents))
        found += [f"{path}: {name}" for name in sorted(names)]
    return found


def command_line(process: Process) -> list[str]:
    """What the process was started with; nothing where it is gone."""
    try:
        content = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return []
    return content.rstrip(b"\0").decode(errors="replace").split("\0")


def listening(processes: Iterable[Process]) -> dict[str, set[str]]:
    """Address, as in "127.0.0.1", that a process takes connections at -> programs that do, over TCP."""
    found: dict[str, set[str]] = {}
    for process in processes:
        tables = _listening_sockets(process)
        for inode in _sockets(process):
            if inode in tables:
                found.setdefault(tables[inode], set()).add(" ".join(command_line(process))[:80])
    return found


def _spellings(secret: str) -> Iterator[bytes]:
    raw = secret.encode()
    yield raw
    yield raw.hex().encode()
    for shift in range(3):  # base64 reads three bytes at a time, and the secret may begin at any of them
        encoded = base64.b64encode(b"\0" * shift + raw)
        yield encoded[4 if shift else 0 : len(encoded) - 4]


def _contents(path: Path) -> Iterator[bytes]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
        return
    content = path.read_bytes()
    yield gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def _sockets(process: Process) -> Iterator[str]:
    """Inodes of its sockets."""
    try:
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            target = str(entry.readlink())
            if target.startswith("socket:["):
                yield target[8:-1]
    except OSError:  # gone meanwhile
        return


def _listening_sockets(process: Process) -> dict[str, str]:
    """Inode -> address, of all that listens in the process's network."""
    found = {}
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/{process.pid}/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[3] == LISTENS:
                found[fields[9]] = _address(fields[1].partition(":")[0])
    return found


def _address(digits: str) -> str:
    """An address of Linux's tables, which write each four bytes of it backwards."""
    raw = bytes.fromhex(digits)
    turned = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    found = ipaddress.ip_address(turned)
    return str(getattr(found, "ipv4_mapped", None) or found)
