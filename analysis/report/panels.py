"""The prediction panels of the recommended configuration, as `trainable/panels.py` left them beside the report.

They are an extra: where they are damaged or show what a trial no longer gives, a warning says so and the report goes
without. The folder may come from anyone: names stay inside it, sizes are bounded, and only what is a PNG file is shown.
"""

import hashlib
import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.findings import Findings
from analysis.reading.study_files import read_study_json
from trainable.config import InputError
from trainable.sealed import read_sealed

logger = logging.getLogger(__name__)

MAX_PANELS = 24
MAX_BYTES = 4 * 2**20
MAX_SIDE = 8192  # pixels
PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


@dataclass(frozen=True)
class Panel:
    """One picture: an image with its points, truth, prediction and errors.

    Attributes:
        title: which scene, and which of all by its mIoU.
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


def read_panels(folder: Path, findings: Findings, study_dir: Path | None = None) -> list[Panel]:
    """The panels in `folder/panels`; none where they show another trial than one of the recommended configuration.

    Args:
        folder: of the analysis.
        findings: of the study.
        study_dir: the study's folder, where it is at hand: its trial may have been trained anew since.
    """
    path = folder / "panels" / "panels.json"
    try:
        content = read_sealed(path) if path.parent.is_dir() else None
        if content is None or content.get("trial_id") not in findings.recommended.trial_ids:
            return []
        _check_result(path, content, study_dir)
        return _checked_panels(path, content)
    except InputError as error:
        logger.warning("%s; the report shows no prediction panels", error)
        return []


def _check_result(path: Path, content: dict[str, Any], study_dir: Path | None) -> None:
    """Refuses pictures of a model that was trained anew and gave another result."""
    if study_dir is None:
        return
    trial = study_dir / "trials" / content["trial_id"]
    result = read_study_json(trial / "result.json", "run the study again to repair the trial")
    source = content.get("source")
    shown = source.get("result") if isinstance(source, dict) else None
    if isinstance(result, dict) and result.get("result_sha256") != shown:
        raise InputError(f"{path}: show another result than {trial} has; `canopoint report` draws them anew")


def _checked_panels(path: Path, content: dict[str, Any]) -> list[Panel]:
    entries, files = content.get("panels"), content.get("files")
    if not isinstance(entries, list) or len(entries) > MAX_PANELS:
        raise InputError(f"{path}: panels: must be a list of at most {MAX_PANELS}; {_remedy(path.parent)}")
    if not isinstance(files, dict):
        raise InputError(f"{path}: files: must give every picture's checksum; {_remedy(path.parent)}")
    panels = [_panel(path, number, entry) for number, entry in enumerate(entries)]
    for panel in panels:
        name = Path(panel.path).name
        if files.get(name) != hashlib.sha256(panel.png).hexdigest():
            raise InputError(f"{path.parent / name}: is not as it was drawn; {_remedy(path.parent)}")
    return panels


def _panel(path: Path, number: int, entry: Any) -> Panel:
    place = f"{path}: panels[{number}]"
    wanted = ("file", "title", "text")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in wanted):
        raise InputError(f"{place}: must name {', '.join(wanted)}; {_remedy(path.parent)}")
    name = entry["file"]
    png = _read_png(path.parent, name, place)
    width, height = struct.unpack(">II", png[16:24])
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise InputError(
            f"{path.parent / name}: {width} x {height} pixels, at most {MAX_SIDE} a side; {_remedy(path.parent)}"
        )
    return Panel(entry["title"], entry["text"], f"panels/{name}", png, width, height)


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
    return f"remove {folder} and run `canopoint report` again"
