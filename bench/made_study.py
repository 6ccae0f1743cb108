"""A finished study whose trials nobody trained: the files that a driver and its trials leave, made up."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from cluster.preparation import Work, find_agenda, find_outcome, write_trial_list
from cluster.session import ended_event
from cluster.tracking import Mirror
from study.agenda import Event
from study.design import Trial
from study.ledger import open_ledger
from study.spec import parse_study
from study.yaml_file import to_yaml
from trainable.config import DENSE, TRAINER_VERSION
from trainable.scenes import SceneIndex
from trainable.sealed import write_sealed
from trainable.trial_files import CONFIG, Row, append_row, write_result

FINGERPRINT = "0" * 64
STUDY: dict[str, Any] = {
    "study": "made",
    "data": {"synthetic": {}},
    "training": {"encoder": "resnet18", "weights": "none", "image_size": 32, "epochs": 4},
    "parameters": {
        "points_per_image": {"role": "scientific", "values": [10, 50]},
        "learning_rate": {"role": "nuisance", "values": [1e-3, 1e-2]},
        "focal_gamma": {"role": "nuisance", "values": [0, 2]},
    },
    "search": {"method": "grid", "seeds": [0, 1]},
    "confirm": {"seeds": [100, 101, 102]},
    "tracking": {"project": "made"},
}
"""Two point counts, two rates, two gammas, two seeds; each winner on three fresh ones: 22 trials of 4 epochs."""

_IMAGES = {split: {"num_images": 4, "scenes": [f"scene-{split}"]} for split in ("train", "val", "test")}
DATA: dict[str, Any] = {
    "fingerprint": FINGERPRINT,
    "source": "synthetic",
    "annotations": "masks",
    "num_images": 12,
    "num_images_available": 12,
    "num_scenes": 3,
    "num_bands": 3,
    "image_size": 32,
    "class_names": ["background", "forest"],
    "splits": _IMAGES,
    "forest_share": {"train": 0.5, "val": 0.5, "test": 0.5},
    "floors": {"all_forest": {"val/miou": 0.25, "test/miou": 0.25}},
    "warnings": [],
    "trainer_version": TRAINER_VERSION,
}


def make_study(storage: Path, **changes: Any) -> Work:
    """A study of which every trial has ended and nothing is in W&B; as `run` leaves it where W&B was away.

    Args:
        storage: folder that is to hold it.
        changes: sections in the place of those of STUDY.
    """
    spec = parse_study({**STUDY, "storage": str(storage), **changes}, "made")
    folder = spec.folder.resolve()
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(to_yaml(spec.to_mapping()))
    write_sealed(folder / "data.json", DATA)
    agenda = find_agenda(spec, folder, FINGERPRINT, [])
    work = Work(spec, folder, SceneIndex(folder, (), 3, 32.0, 0, FINGERPRINT), agenda)
    events: list[Event] = []
    while trial := agenda.next_trial():
        rows = write_trial(work, trial)
        outcome = find_outcome(work.trial_folder(trial), spec.objective.metric)
        assert outcome
        events.append(ended_event(trial, outcome, rows))
        agenda.ended(trial, outcome)
    with open_ledger(folder) as ledger:
        ledger.append(*events)
    write_trial_list(work)
    return work


def show_study(work: Work) -> Work:
    """The same study, with all of it in W&B."""
    mirror = Mirror(work)
    for trial in work.agenda.trials:
        mirror.update(trial)
    mirror.close()
    assert mirror.problems == {}
    return work


def write_trial(work: Work, trial: Trial, num_epochs: int | None = None) -> list[Row]:
    """Writes what a trial leaves after so many epochs; the result, too, where those are all. Returns its rows."""
    folder = work.trial_folder(trial)
    folder.mkdir(parents=True)
    write_sealed(folder / CONFIG, {"training": trial.config.to_mapping(), "trainer_version": TRAINER_VERSION})
    rows = [_row(trial, epoch) for epoch in range(1, (num_epochs or trial.config.epochs) + 1)]
    for row in rows:
        append_row(folder, row)
    if len(rows) == trial.config.epochs:
        write_result(folder, rows, {"torch": "none", "processor": "none", "precision": "none", "weights": "none"})
    return rows


def _row(trial: Trial, epoch: int) -> Row:
    """Better with more points, at the lower rate and with each epoch; a little different from seed to seed."""
    config = trial.config
    points = config.image_size**2 if config.points_per_image == DENSE else int(config.points_per_image)
    draw = np.random.default_rng([config.seed, epoch, int(config.focal_gamma), points])
    score = 0.5 + 0.03 * math.log(points) + 0.02 * epoch - 5 * config.learning_rate
    score = float(score + draw.normal(0, 0.01))
    last = {"test/miou": score - 0.01} if trial.phase == "confirm" and epoch == config.epochs else {}
    never = {"val/boundary_f1": math.nan}  # as where no image has a border
    return {"epoch": epoch, "train/loss": 1 - score, "val/miou": score, **never, **last, "time/total_s": 2.0 * epoch}
