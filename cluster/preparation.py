"""Everything between a study file and its first trial: data, trials, stores, the study's folder. No Ray yet.

All checks come before the first write, so that bad input leaves nothing behind.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.resources import num_concurrent
from study.design import NUM_PARAMETERS, Plan, Trial, list_trials, make_plan
from study.spec import StudySpec
from study.yaml_file import to_yaml
from trainable.atomic import check_parent, nearest_existing, write_atomically
from trainable.config import TRAINER_VERSION, InputError
from trainable.data import describe_data, load_index, load_store
from trainable.scenes import SPLITS, SceneIndex
from trainable.store import open_store
from trainable.trial_files import read_result, to_json

Say = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """A study with its data found and its trials listed.

    Attributes:
        folder: the study's folder, absolute.
        measured_s: trial id -> seconds, for the trials that are done.
    """

    spec: StudySpec
    folder: Path
    index: SceneIndex
    trials: list[Trial]
    measured_s: dict[str, float]

    @property
    def missing(self) -> list[Trial]:
        """The trials still to run."""
        return [trial for trial in self.trials if trial.trial_id not in self.measured_s]

    def trial_folder(self, trial: Trial) -> Path:
        """The trial's own directory."""
        return self.folder / "trials" / trial.trial_id

    def plan(self) -> Plan:
        """What is there, what is missing, what it will cost."""
        num_images = {split: sum(pair.split == split for pair in self.index.pairs) for split in SPLITS}
        return make_plan(self.spec, self.trials, num_images, self.measured_s, num_concurrent(self.spec.resources))


def prepare(spec: StudySpec) -> Work:
    """Reads the data's index and lists the trials; writes nothing but made data, which is no one's input.

    Raises:
        InputError: the data folder or a combination of levels is not as it must be, or the study was made with others.
    """
    check_parent(spec.folder, "storage")
    index = load_index(spec.data, cache_folder(spec))
    folder = spec.folder.resolve()
    _refuse_other_data(folder, index)
    trials = list_trials(spec, index.fingerprint)
    results = {trial.trial_id: read_result(folder / "trials" / trial.trial_id) for trial in trials}
    return Work(spec, folder, index, trials, {name: result["time_s"] for name, result in results.items() if result})


def pack_stores(work: Work, say: Say) -> dict[int, Path]:
    """Image size -> packed store, for every size that the trials need. Says once what is to be known of the images."""
    sizes = sorted({trial.config.image_size for trial in work.trials})
    cache = cache_folder(work.spec)
    stores = {size: load_store(work.index, size, cache, _packing_progress(work, size, say)) for size in sizes}
    warnings = [warning for path in stores.values() for warning in open_store(path).warnings]
    for warning in dict.fromkeys(warnings):
        say(f"warning: {warning}")
    return stores


def _packing_progress(work: Work, size: int, say: Say) -> Callable[[int], None]:
    """Says each quarter of the images packed."""
    total = len(work.index.pairs)
    quarters = {max(1, total * part // 4) for part in (1, 2, 3, 4)}

    def progress(done: int) -> None:
        if done in quarters:
            say(f"packing images at {size} px: {done}/{total}")

    return progress


def write_study(work: Work, stores: dict[int, Path]) -> None:
    """Writes the study as run, its data's description and the ids of its trials into the study's folder."""
    work.folder.mkdir(parents=True, exist_ok=True)
    image_size = work.trials[0].config.image_size
    known = read_data_description(work.folder)
    if not known or known["image_size"] != image_size:
        description = describe_data(work.spec.data, work.index, stores[image_size])
        write_atomically(work.folder / "data.json", to_json(description))
    write_atomically(work.folder / "study.yaml", to_yaml(work.spec.to_mapping()))
    write_atomically(work.folder / "trials.json", to_json([trial.trial_id for trial in work.trials]))


def read_data_description(folder: Path) -> dict[str, Any] | None:
    """The study's `data.json`, or None where the study is new."""
    path = folder / "data.json"
    if not path.is_file():
        return None
    try:
        description: dict[str, Any] = json.loads(path.read_text())
        kinds = {"fingerprint": str, "num_images": int, "image_size": int}
        wrong = [name for name, kind in kinds.items() if not isinstance(description.get(name), kind)]
        if wrong:
            raise ValueError(f"no {' and no '.join(wrong)}")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error}); remove it and run again, it is written anew") from error
    return description


def cache_folder(spec: StudySpec) -> Path:
    """Made data and packed stores; shared by all studies of a storage folder, and safe to delete."""
    return Path(spec.storage).resolve() / ".cache"


def check_free_disk(work: Work) -> None:
    """Refuses to start where the disk cannot hold the checkpoints: a full disk loses rows silently.

    Raises:
        InputError: says what is needed and what is there.
    """
    # The weights of every trial stay. A running one holds two checkpoints for a moment, each with Adam's two moments.
    weights = [4 * NUM_PARAMETERS[trial.config.encoder] for trial in work.missing]
    needed = sum(weights) + 6 * max(weights) * num_concurrent(work.spec.resources) + 100e6
    existing = nearest_existing(work.folder)
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"storage: {existing} has {free / 1e9:.1f} GB free, the study needs about {needed / 1e9:.1f} GB;"
            f" free some or set another storage"
        )


def _refuse_other_data(folder: Path, index: SceneIndex) -> None:
    description = read_data_description(folder)
    if description and description["fingerprint"] != index.fingerprint:
        raise InputError(
            f"{folder}: this study was made with other data ({description['num_images']} images,"
            f" fingerprint {description['fingerprint'][:12]}) than now ({len(index.pairs)} images,"
            f" {index.fingerprint[:12]}); give the new one another name (--set study=NAME) or restore the data"
        )


def trial_record(work: Work, trial: Trial) -> dict[str, Any]:
    """What W&B and a reader need to know of a trial: settings, roles, data and objective."""
    return {
        "study": work.spec.study,
        "trial_id": trial.trial_id,
        "seed": trial.config.seed,
        "parameters": trial.parameters,
        "roles": {name: parameter.role for name, parameter in work.spec.parameters.items()},
        "training": trial.config.to_mapping(),
        "data_config": _data_config(work.spec),
        "data": read_data_description(work.folder),
        "objective": work.spec.objective.model_dump(),
        "trainer_version": TRAINER_VERSION,
    }


def _data_config(spec: StudySpec) -> dict[str, Any]:
    """The data settings with an absolute root, so that they hold from any working directory."""
    root = spec.data.root
    return {**asdict(spec.data), "root": str(Path(root).resolve()) if root else None}
