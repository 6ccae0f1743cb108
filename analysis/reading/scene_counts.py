"""Counts of pixels by scene, from the files that every trial leaves beside its result; numpy alone.

`scenes.json` of the study says which scene each image was cut from, `trials/<id>/counts.npz` (validation) and
`counts_test.npz` (test) what each image's pixels were called after the last epoch. Both are written by this program,
and read as if they were not: no pickles, no more bytes than they can need, and names that must fit.
"""

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.reading.study_files import read_study_json
from trainable.config import CLASS_NAMES, InputError

FILES = {"val": "counts.npz", "test": "counts_test.npz"}
MOST_BYTES = 256 * 2**20
"""Of an array when it is unpacked: a million images and more."""

REMEDY = "run `canopoint run STUDY` again, which writes it anew"


@dataclass(frozen=True)
class SceneCounts:
    """Pixels by scene, trial, true class and predicted class.

    Attributes:
        scenes: (num_scenes,) sorted.
        confusion: (num_trials, num_scenes, C, C)
    """

    scenes: list[str]
    confusion: NDArray[np.float64]


def read_scene_counts(study_dir: Path, trial_ids: Sequence[str], split: str) -> SceneCounts | None:
    """The counts of some trials on one split.

    Args:
        study_dir: the study's folder.
        trial_ids: at least one.
        split: val or test.

    Returns:
        None where the study does not say which scenes its images are of, or where a trial's counts are not at hand.

    Raises:
        InputError: a file is damaged, or speaks of other images.
    """
    described = read_study_json(study_dir / "scenes.json", REMEDY)
    folders = [study_dir / "trials" / trial_id for trial_id in trial_ids if re.fullmatch("[0-9a-f]{12}", trial_id)]
    paths = [folder / FILES[split] for folder in folders]
    if described is None or len(paths) < len(trial_ids) or not all(path.is_file() for path in paths):
        return None
    scene_of = _scene_of(study_dir / "scenes.json", described, split)
    scenes, places = np.unique(list(scene_of.values()), return_inverse=True)
    confusion = np.zeros((len(paths), len(scenes), len(CLASS_NAMES), len(CLASS_NAMES)))
    for each, path in zip(confusion, paths, strict=True):
        np.add.at(each, places, _read_confusion(path, list(scene_of)))
    return SceneCounts(scenes.tolist(), confusion)


def pooled_metric(confusion: NDArray[np.float64], name: str) -> NDArray[np.float64] | None:
    """A metric of pooled pixels; a class that is neither there nor predicted is left out of means.

    Args:
        confusion: (..., C, C) by true and predicted class.
        name: as W&B has it, without its split.

    Returns:
        (...); None for a metric that these counts do not define.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    ratios = {
        "miou": (hits, true + predicted - hits),
        "dice": (2 * hits, true + predicted),
        "precision": (hits, predicted),
        "recall": (hits, true),
    }
    if name == "accuracy":
        return np.asarray(hits.sum(axis=-1) / confusion.sum(axis=(-2, -1)))
    if name.startswith("iou_") and name.removeprefix("iou_") in CLASS_NAMES:
        part, whole = ratios["miou"]
        return np.asarray((part / np.maximum(whole, 1))[..., CLASS_NAMES.index(name.removeprefix("iou_"))])
    if name not in ratios:
        return None
    part, whole = ratios[name]
    present = true + predicted > 0
    scores = np.where(present, part / np.maximum(whole, 1), 0)
    return np.asarray(scores.sum(axis=-1) / present.sum(axis=-1))


def _scene_of(path: Path, described: Any, split: str) -> dict[str, str]:
    """Image -> scene, in the order of the counts."""
    scene_of = described.get(split) if isinstance(described, dict) else None
    if not isinstance(scene_of, dict) or not scene_of or not all(isinstance(each, str) for each in scene_of.values()):
        raise InputError(f"{path}: must name the scene of every image of {split}; {REMEDY}")
    return scene_of


def _read_confusion(path: Path, images: list[str]) -> NDArray[np.float64]:
    """(num_images, C, C) of exactly these images, in this order."""
    try:
        with zipfile.ZipFile(path) as archive:
            if max(member.file_size for member in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"an array of more than {MOST_BYTES} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            names: list[str] = arrays["names"].tolist()
            confusion = np.asarray(arrays["confusion"], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, MemoryError) as error:
        raise InputError(f"{path}: cannot be read as counts ({error!r:.120}); {REMEDY}") from error
    shape = (len(images), len(CLASS_NAMES), len(CLASS_NAMES))
    if names != images or confusion.shape != shape or not (np.isfinite(confusion) & (confusion >= 0)).all():
        raise InputError(f"{path}: must hold counts of the {len(images)} images in scenes.json; {REMEDY}")
    return confusion
