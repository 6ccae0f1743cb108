"""The study that is disturbed: its file, and what is on disk of it at a moment."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.processes import Process
from study.yaml_file import to_yaml
from trainable.sealed import read_sealed
from trainable.trial_files import read_attempts, read_result, read_rows

NAME = "chaos"


@dataclass(frozen=True)
class Scale:
    """How much there is to train: 2 x `num_seeds` trials.

    Attributes:
        epochs: of each trial; one takes about a second, half of it to write 170 MB of checkpoint.
    """

    num_seeds: int = 3
    epochs: int = 15

    def study(self) -> dict[str, Any]:
        """A grid on made images: the least that trains, writes checkpoints and can be compared bit by bit."""
        training = {"encoder": "resnet18", "weights": "none", "image_size": 32, "epochs": self.epochs, "batch_size": 4}
        return {
            "study": NAME,
            "data": {"synthetic": {"num_scenes": 3, "images_per_scene": 4, "image_size": 32}},
            "training": training,
            "parameters": {"points_per_image": {"role": "scientific", "values": [2, 20]}},
            "search": {"method": "grid", "seeds": list(range(self.num_seeds))},
            "failures": {"retries": 100},  # the most that is allowed: a trial may be killed again and again
        }


@dataclass(frozen=True)
class Standing:
    """What an unfinished trial had on disk at a moment.

    Attributes:
        rows: its epochs.
        checkpoint: the epoch of its newest checkpoint.
        pid: of the process that trained it last.
    """

    trial_id: str
    rows: int
    checkpoint: int
    pid: int


@dataclass(frozen=True)
class StudyCopy:
    """A copy of the study in a folder of its own."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, study: Mapping[str, Any]) -> Self:
        """Writes the study file into a new folder."""
        folder.mkdir(parents=True)
        (folder / "study.yaml").write_text(to_yaml({**study, "storage": "studies"}))
        return cls(folder)

    @property
    def study_folder(self) -> Path:
        """Where the study lives."""
        return self.folder / "studies" / NAME

    @property
    def log(self) -> Path:
        """What the commands said, one after the other."""
        return self.folder / "log.txt"

    def trial_folders(self) -> list[Path]:
        """The directories of its trials."""
        return sorted(self.study_folder.glob("trials/*"))

    def trial_ids(self) -> list[str]:
        """The trials of the plan."""
        listed = read_sealed(self.study_folder / "trials.json")
        return list(listed["trials"]) if listed else []

    def hashes(self) -> dict[str, str]:
        """Trial id -> hash of its result, of the trials that have ended."""
        results = {path.name: read_result(path) for path in self.trial_folders()}
        return {name: result["result_sha256"] for name, result in results.items() if result}

    def unfinished(self) -> list[Standing]:
        """The trials that have begun and not ended."""
        return [_standing(path) for path in self.trial_folders() if read_attempts(path) and not read_result(path)]

    def live(self, workers: Collection[Process]) -> dict[str, Process]:
        """Trial id -> its process, of the unfinished trials that one of these processes trains."""
        by_pid = {worker.pid: worker for worker in workers}
        return {each.trial_id: by_pid[each.pid] for each in self.unfinished() if each.pid in by_pid}

    def went_on(self, since: float, trial_ids: Collection[str] | None = None) -> bool:
        """Whether an epoch of an attempt begun after that moment is on disk, or a result written after it.

        Args:
            since: unix seconds.
            trial_ids: of the trials to look at; all if None.
        """
        folders = [path for path in self.trial_folders() if trial_ids is None or path.name in trial_ids]
        return any(_went_on(path, since) for path in folders)


def _standing(folder: Path) -> Standing:
    checkpoints = [int(path.name.split("-")[1]) for path in folder.glob("checkpoint/state-*.npz")]
    pid = read_attempts(folder)[-1]["pid"]
    return Standing(folder.name, len(read_rows(folder)), max(checkpoints, default=0), pid)


def _went_on(folder: Path, since: float) -> bool:
    result = read_result(folder)
    if result and result["finished_at"] > since:
        return True
    later = [attempt for attempt in read_attempts(folder) if attempt["time"] > since]
    return bool(later) and len(read_rows(folder)) > later[-1]["from_epoch"]
