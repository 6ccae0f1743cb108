"""The files of prediction panels, for whoever asks whether they are there without drawing: no torch here."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainable.config import InputError
from trainable.replaced_folder import is_sound, read_mark
from trainable.sealed import DamagedError
from trainable.trial_files import COUNTS, read_result

PANELS_FILE = "panels.json"
NUM_SCENES = 2
"""How many of the best and how many of the worst scenes are shown."""

VERSION = 2
"""Of the pictures. Raise it with every change to them: panels of another version are drawn anew."""


@dataclass(frozen=True)
class Evaluated:
    """A finished trial and what it was judged by last.

    Attributes:
        trial: its folder.
        split: test where it opened that, else val.
        counts: `names` and `confusion` of the images of that split.
        source: what its panels are made from: where this is the same, so are they.
    """

    trial: Path
    split: str
    counts: Mapping[str, NDArray[Any]]
    source: Mapping[str, Any]


def panels_folder(out: Path) -> Path:
    """Where the panels lie in the folder of an analysis' results."""
    return out / "analysis" / "panels"


def lacks_panels(study_dir: Path, trial_id: str, out: Path) -> bool:
    """Whether a finished trial is at hand whose panels are not drawn into `out`, or no longer sound.

    So it is where its counts are damaged: `panels.draw_panels` says so then.
    """
    trial = study_dir / "trials" / trial_id
    if read_result(trial) is None:
        return False
    try:
        return not drawn_panels(out, read_evaluated(trial))
    except InputError:
        return True


def read_evaluated(trial: Path, num_scenes: int = NUM_SCENES) -> Evaluated:
    """A trial with the counts of the split that it was judged on last.

    Raises:
        InputError: the trial is not finished, or its counts are not as they were written.
    """
    result = read_result(trial)
    if result is None or result["state"] != "completed":
        raise InputError(f"{trial}: holds no finished run; run the study again, then analyze")
    split = "test" if COUNTS["test"] in result["files"] else "val"
    path, checksum = trial / COUNTS[split], result["files"].get(COUNTS[split])
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != checksum:
        raise InputError(f"{path}: absent or damaged; run the study again, which repairs it")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        counts = {name: archive[name] for name in ("names", "confusion")}
    source = {"version": VERSION, "trial_id": trial.name, "counts": checksum, "num_scenes": num_scenes}
    return Evaluated(trial, split, counts, {**source, "result": result["result_sha256"]})


def drawn_panels(out: Path, evaluated: Evaluated) -> list[str]:
    """The names of a trial's pictures, if they are there and sound; else none."""
    folder = panels_folder(out)
    if not folder.is_dir():
        return []
    try:
        mark = read_mark(folder / PANELS_FILE)
    except DamagedError:
        return []
    if mark is None or mark.source != evaluated.source or not is_sound(folder, mark):
        return []
    return list(mark.files)
