"""Everything between a study file and its first trial: data, trials, stores, the study's folder. No Ray yet.

All checks come before the first write, so that bad input leaves nothing behind.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.remote_study import RemoteStudy, open_remote
from cluster.resources import num_concurrent
from study.agenda import Agenda, Event
from study.design import Cell, Trial, initial_weights, most_train_images
from study.exploration import TrialOutcome
from study.ledger import read_ledger
from study.plan import NUM_PARAMETERS, Plan, make_plan
from study.spec import StudySpec
from study.yaml_file import to_yaml
from trainable.atomic import check_parent, nearest_existing, write_atomically
from trainable.config import TRAINER_VERSION, InputError, TrainConfig
from trainable.data import describe_data, load_index, load_store
from trainable.scenes import SPLITS, SceneIndex, check_test_split, check_train_images
from trainable.sealed import DamagedError, read_sealed, take_sealed, write_sealed
from trainable.store import open_store
from trainable.trial_files import check_trial, read_result, read_rows

logger = logging.getLogger(__name__)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """A study with its data found and its trials listed.

    Attributes:
        folder: the study's folder, absolute; of a study in an object store, the copy that the driver works in.
        remote: the study in its object store; None where it lives in the folder.
    """

    spec: StudySpec
    folder: Path
    index: SceneIndex
    agenda: Agenda
    remote: RemoteStudy | None = None

    @property
    def missing(self) -> list[Trial]:
        """The known trials still to run."""
        return self.agenda.missing

    def trial_folder(self, trial: Trial) -> Path:
        """The trial's own directory."""
        return self.folder / "trials" / trial.trial_id

    def place(self, path: Path) -> str:
        """Where every node finds what lies at a path of the study or of its stores: that path, or a URL."""
        return self.remote.place(path) if self.remote else str(path)

    @property
    def trouble(self) -> str:
        """Why the driver must leave the study alone, once that is so."""
        return self.remote.trouble if self.remote else ""

    def plan(self, num_at_once: int | None = None) -> Plan:
        """What is there, what is missing, what it will cost."""
        num_images = {split: sum(pair.split == split for pair in self.index.pairs) for split in SPLITS}
        results = {trial.trial_id: read_result(self.trial_folder(trial)) for trial in self.agenda.trials}
        measured_s = {name: result["time_s"] for name, result in results.items() if result and result["time_s"]}
        return make_plan(self.agenda, num_images, measured_s, num_at_once or num_concurrent(self.spec.resources))


def prepare(spec: StudySpec, *, accept_changes: bool = False) -> Work:
    """Reads the data's index and lists the trials; writes nothing but made data, which is no one's input.

    Raises:
        InputError: the data folder or a combination of levels is not as it must be, or the study was made with others.
    """
    remote = open_remote(spec)
    if remote is None:
        check_parent(spec.folder, "storage")
    return find_work(spec, remote, cache_folder(spec), accept_changes=accept_changes)


def find_work(spec: StudySpec, remote: RemoteStudy | None, cache: Path, *, accept_changes: bool = False) -> Work:
    """As `prepare`, of a storage that was looked at, and which may be seen by a cluster alone.

    Args:
        spec: the study.
        remote: it in its object store, pulled.
        cache: folder for made data.
        accept_changes: whether to take up a study that was made with other data or another trainer.
    """
    index = load_index(spec.data, cache)
    check_train_images(index, most_train_images(spec))
    if spec.confirm:
        check_test_split(index)
    folder = spec.folder.resolve()
    events = read_ledger(folder)
    if not accept_changes:
        refuse_changes(folder, index, events)
    return Work(spec, folder, index, find_agenda(spec, folder, index.fingerprint, events), remote)


def find_agenda(spec: StudySpec, folder: Path, fingerprint: str, events: Iterable[Event]) -> Agenda:
    """What is to be done, by the ledger's events and the trial directories."""

    def lookup(trial: Trial, was_stopped: bool) -> TrialOutcome | None:
        return find_outcome(folder / "trials" / trial.trial_id, spec.objective.metric, was_stopped=was_stopped)

    agenda = Agenda(spec, fingerprint, events, lookup)
    if spec.search.method != "grid":
        agenda.adopt(_explored_cells(spec, folder, agenda))
    return agenda


def find_outcome(folder: Path, metric: str, *, was_stopped: bool = False) -> TrialOutcome | None:
    """How a trial ended, by its own directory; None where it must (still) be run.

    Args:
        folder: the trial's directory.
        metric: the objective.
        was_stopped: whether a scheduler stopped it, which the directory does not know.
    """
    for problem in check_trial(folder):
        logger.warning("%s; `canopoint run` repairs the trial", problem)
        return None
    result = read_result(folder)
    if result and result["state"] == "infeasible":
        return TrialOutcome("infeasible")
    if result:
        return TrialOutcome("completed", result["metrics"][metric])
    rows = read_rows(folder) if was_stopped else []
    return TrialOutcome("stopped", None, tuple((int(row["epoch"]), row[metric]) for row in rows)) if rows else None


def _explored_cells(spec: StudySpec, folder: Path, agenda: Agenda) -> Iterator[tuple[str, Cell]]:
    """(trial id, cell) of trials on disk that no event speaks of, the oldest first: of a lost ledger, or a grid."""
    paths = [path for path in folder.glob("trials/*/config.json") if path.parent.name not in agenda.exploration]
    for path in sorted(paths, key=lambda each: (each.stat().st_mtime, each)):
        try:
            training = json.loads(path.read_bytes())["training"]
            yield path.parent.name, {name: training[name] for name in spec.parameters}
        except (ValueError, KeyError, TypeError):
            continue  # a damaged file proposes nothing; its trial is repaired when its turn comes


def pack_stores(work: Work, say: Say) -> dict[int, Path]:
    """Image size -> packed store, for every size that the trials need. Says once what is to be known of the images."""
    sizes = sorted(_image_sizes(work.spec))
    cache = cache_folder(work.spec)
    stores = {size: load_store(work.index, size, cache, _packing_progress(work, size, say)) for size in sizes}
    warnings = [warning for path in stores.values() for warning in open_store(path).warnings]
    for warning in dict.fromkeys(warnings):
        say(f"warning: {warning}")
    return stores


def _image_sizes(spec: StudySpec) -> set[int]:
    """Every image size that a trial of the study may have."""
    parameter = spec.parameters.get("image_size")
    if parameter is None:
        return {int(spec.training.get("image_size", TrainConfig().image_size))}
    if parameter.values is None:
        raise InputError("parameters.image_size: a range would pack a store for each of its sizes; give values")
    return {int(value) for value in parameter.values}


def _packing_progress(work: Work, size: int, say: Say) -> Callable[[int], None]:
    """Says each quarter of the images packed."""
    total = len(work.index.pairs)
    quarters = {max(1, total * part // 4) for part in (1, 2, 3, 4)}

    def progress(done: int) -> None:
        if done in quarters:
            say(f"packing images at {size} px: {done}/{total}")

    return progress


def write_study(work: Work, stores: dict[int, Path]) -> None:
    """Writes the study as run and its data's description into the study's folder."""
    work.folder.mkdir(parents=True, exist_ok=True)
    image_size = min(stores)
    known = take_sealed(work.folder / "data.json")
    wanted = {
        "image_size": image_size,
        "fingerprint": work.index.fingerprint,
        "trainer_version": TRAINER_VERSION,
    }
    if not known or any(known.get(name) != value for name, value in wanted.items()):
        description = describe_data(work.spec.data, work.index, stores[image_size])
        write_sealed(work.folder / "data.json", {**description, "trainer_version": TRAINER_VERSION})
    scenes = _scenes(work.index)
    if take_sealed(work.folder / "scenes.json") != scenes:
        write_sealed(work.folder / "scenes.json", scenes)
    write_atomically(work.folder / "study.yaml", to_yaml(work.spec.to_mapping()))


def _scenes(index: SceneIndex) -> dict[str, Any]:
    """The scene of every image that is evaluated; beside `data.json`, which goes into every W&B run."""
    members = {split: [pair for pair in index.pairs if pair.split == split] for split in ("val", "test")}
    return {split: {pair.image.name: pair.scene for pair in pairs} for split, pairs in members.items()}


def write_trial_list(work: Work) -> None:
    """Writes the ids of the study's trials, for whoever reads the study without its ledger."""
    take_sealed(work.folder / "trials.json")  # so that a damaged one is named
    write_sealed(work.folder / "trials.json", {"trials": [trial.trial_id for trial in work.agenda.trials]})


def trained_s(folder: Path) -> float:
    """Seconds that all trials of a study's folder trained, by the epochs on disk."""
    rows = (read_rows(path) for path in folder.glob("trials/*"))
    return sum(each[-1]["time/total_s"] for each in rows if each)


def study_sha256(folder: Path) -> str:
    """Of the `study.yaml` in a study's folder; empty where there is none."""
    path = folder / "study.yaml"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def name_changed_study(folder: Path, events: Iterable[Event]) -> None:
    """Says where `study.yaml` is not as the last session wrote it: it is about to be written anew."""
    written = [event.get("study_sha256") for event in events if event["event"] == "session_started"]
    found = study_sha256(folder)
    if written and written[-1] and found not in ("", written[-1]):
        logger.warning("%s was damaged, or changed by hand; it is written anew", folder / "study.yaml")


def read_data_description(folder: Path) -> dict[str, Any] | None:
    """The study's `data.json`; None where the study is new, or the file was damaged and is set aside."""
    return take_sealed(folder / "data.json")


def cache_folder(spec: StudySpec) -> Path:
    """Made data and packed stores; shared by all studies of a storage, and safe to delete."""
    return spec.folder.parent.resolve() / ".cache"


def check_free_disk(work: Work) -> None:
    """Refuses to start where the disk cannot hold the checkpoints: a full disk loses rows silently.

    Raises:
        InputError: says what is needed and what is there.
    """
    plan = work.plan()
    largest = 4 * max(NUM_PARAMETERS[config.encoder] for config in initial_weights(work.spec))
    # The weights of every trial stay. A running one holds two checkpoints for a moment, each with Adam's two moments.
    staying = 0 if work.remote else plan.num_missing * largest
    needed = staying + 6 * largest * plan.num_concurrent + 100e6
    existing = nearest_existing(work.folder)
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"storage: {existing} has {free / 1e9:.1f} GB free, the study needs about {needed / 1e9:.1f} GB;"
            f" free some or set another {'CANOPOINT_CACHE' if work.remote else 'storage'}"
        )


def refuse_changes(folder: Path, index: SceneIndex, events: list[Event]) -> None:
    """Refuses to mix results: other images, splits or another trainer give other numbers for the same settings.

    Raises:
        InputError: names every difference.
    """
    known = _known_origin(folder, events)
    if not known:
        return
    now = {
        "fingerprint": index.fingerprint,
        "trainer_version": TRAINER_VERSION,
        "num_images": len(index.pairs),
        "num_scenes": len({pair.scene for pair in index.pairs}),
    }
    names = {"fingerprint": "data fingerprint", "trainer_version": "trainer version", "num_images": "images",
             "num_scenes": "scenes"}  # fmt: skip
    different = [
        f"{names[name]} {str(known[name])[:12]} -> {str(value)[:12]}"
        for name, value in now.items()
        if name in known and known[name] != value
    ]
    if different:
        raise InputError(
            f"{folder}: this study was made with others: {', '.join(different)}; give the new one another name"
            f" (--set study=NAME), restore what was, or train every trial anew in this one with --accept-changes"
        )


def _known_origin(folder: Path, events: list[Event]) -> dict[str, Any] | None:
    """What the study was made with: by its description, or where that is damaged or gone, by its last session."""
    try:
        described = read_sealed(folder / "data.json")
    except DamagedError as error:
        logger.warning("%s", error)
        described = None
    sessions = [event for event in events if event["event"] == "session_started"]
    return described or (sessions[-1] if sessions else None)


def trial_record(work: Work, trial: Trial) -> dict[str, Any]:
    """What W&B and a reader need to know of a trial: settings, roles, data, objective and what labelling costs."""
    return {
        "study": work.spec.study,
        "trial_id": trial.trial_id,
        "phase": trial.phase,
        "seed": trial.config.seed,
        "parameters": trial.parameters,
        "roles": {name: parameter.role for name, parameter in work.spec.parameters.items()},
        "training": trial.config.to_mapping(),
        "data_config": _data_config(work.spec),
        "data": read_data_description(work.folder),
        "objective": work.spec.objective.model_dump(),
        "effort": work.spec.effort.model_dump(),
        "search_method": work.spec.search.method,
        "plan": _search_plan(work),
        "trainer_version": TRAINER_VERSION,
    }


def _search_plan(work: Work) -> dict[str, Any]:
    """What a reader without the study's folder cannot see in the runs: what was declared, and what was added later."""
    return {
        "parameters": {name: each.model_dump(exclude_unset=True) for name, each in work.spec.parameters.items()},
        "confirm_seeds": list(work.spec.confirm.seeds) if work.spec.confirm else [],
        "extensions": work.agenda.extensions,
    }


def _data_config(spec: StudySpec) -> dict[str, Any]:
    """The data settings with an absolute root, so that they hold from any working directory."""
    root = spec.data.root
    return {**asdict(spec.data), "root": str(Path(root).resolve()) if root else None}
