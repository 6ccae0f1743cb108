"""The prediction panels of the recommended configuration, as `trainable/panels.py` left them in the study's folder.

The folder may come from anyone: names stay inside it, sizes are bounded, and only what is a PNG file is shown.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.findings import Findings
from trainable.config import InputError
from trainable.sealed import read_sealed

MAX_PANELS = 24
MAX_BYTES = 4 * 2**20
MAX_SIDE = 8192  # pixels
PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


@dataclass(frozen=True)
class Panel:
    """One picture: an image with its points, truth, prediction and errors.

    Attributes:
        title: best or worst, and which scene.
        text: what it shows, in words.
        path: below the folder of the analysis.
        png: the file.
        width: in pixels.
        height: in pixels.
    """

    title: str
    text: str
    path: str
    png: bytes
    width: int
    height: int


def read_panels(folder: Path, findings: Findings) -> list[Panel]:
    """The panels in `folder/panels`; none where they show another trial than one of the recommended configuration.

    Args:
        folder: of the analysis.
        findings: of the study.

    Raises:
        InputError: the list is damaged, or a file is not what it must be.
    """
    path = folder / "panels" / "panels.json"
    content = read_sealed(path)
    if content is None or content.get("trial_id") not in findings.recommended.trial_ids:
        return []
    entries = content.get("panels")
    if not isinstance(entries, list) or len(entries) > MAX_PANELS:
        raise InputError(f"{path}: panels: must be a list of at most {MAX_PANELS}; {_remedy(path.parent)}")
    return [_panel(path, number, entry) for number, entry in enumerate(entries)]


def _panel(path: Path, number: int, entry: Any) -> Panel:
    place = f"{path}: panels[{number}]"
    wanted = ("file", "kind", "split", "scene", "text")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in wanted):
        raise InputError(f"{place}: must name {', '.join(wanted)}; {_remedy(path.parent)}")
    name = entry["file"]
    png = _read_png(path.parent, name, place)
    width, height = struct.unpack(">II", png[16:24])
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise InputError(
            f"{path.parent / name}: {width} x {height} pixels, at most {MAX_SIDE} a side; {_remedy(path.parent)}"
        )
    split = "validation" if entry["split"] == "val" else entry["split"]
    title = f"{entry['kind'].capitalize()} {split} scene: {entry['scene']}"
    return Panel(title, entry["text"], f"panels/{name}", png, width, height)


def _read_png(folder: Path, name: str, place: str) -> bytes:
    """A regular file of that folder itself, no link, not too large, that starts as PNG does."""
    path = folder / name
    if Path(name).name != name or path.is_symlink() or not path.is_file():
        raise InputError(f"{place}: file: {name!r} must be a file beside it; {_remedy(folder)}")
    with path.open("rb") as file:
        png = file.read(MAX_BYTES + 1)
    if len(png) > MAX_BYTES or len(png) < len(PNG_START) + 8 or not png.startswith(PNG_START):
        raise InputError(f"{path}: must be a PNG file of at most {MAX_BYTES >> 20} MiB; {_remedy(folder)}")
    return png


def _remedy(folder: Path) -> str:
    return f"remove {folder} and run `canopoint analyze` again"
