"""The study that is disturbed: its file, the command that runs it, what is on disk of it, and whether it came out right."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from analysis.wandb_runs import read_runs
from bench.processes import Process, TimeUpError, descendants, kill_trees, process, wait_for
from study.ledger import read_ledger
from study.yaml_file import to_yaml
from trainable.sealed import read_sealed
from trainable.trial_files import read_attempts, read_result, read_rows

NAME = "chaos"
END_S = 1800.0
"""Longest time that a run may take to its end."""
TIDY_S = 5.0
"""Time that a run's helpers get to end after it."""


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
        return {
            "study": NAME,
            "data": {"synthetic": {"num_scenes": 3, "images_per_scene": 4, "image_size": 32}},
            "training": {
                "encoder": "resnet18", "weights": "none", "image_size": 32, "epochs": self.epochs, "batch_size": 4,
            },
            "parameters": {"points_per_image": {"role": "scientific", "values": [2, 20]}},
            "search": {"method": "grid", "seeds": list(range(self.num_seeds))},
            "failures": {"retries": 100},  # the most allowed: here every trial is killed again and again
        }  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """What a trial had on disk at a moment.

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

    def unfinished(self) -> list[Standing]:
        """The trials that have begun and not ended."""
        return [_standing(path) for path in self.trial_folders() if read_attempts(path) and not read_result(path)]

    def live(self, workers: Collection[Process]) -> dict[str, Process]:
        """Trial id -> its process, of the unfinished trials that one of these processes trains."""
        by_pid = {worker.pid: worker for worker in workers}
        return {each.trial_id: by_pid[each.pid] for each in self.unfinished() if each.pid in by_pid}

    def went_on(self, since: float, trial_ids: Collection[str] | None = None) -> bool:
        """Whether an epoch that was started after that moment is on disk, or a result.

        Args:
            since: unix seconds.
            trial_ids: of the trials to look at; all if None.
        """
        folders = [path for path in self.trial_folders() if trial_ids is None or path.name in trial_ids]
        return any(_went_on(path, since) for path in folders)

    def hashes(self) -> dict[str, str]:
        """Trial id -> hash of its result, of the trials that have ended."""
        results = {path.name: read_result(path) for path in self.trial_folders()}
        return {name: result["result_sha256"] for name, result in results.items() if result}

    def trial_ids(self) -> list[str]:
        """The trials of the plan."""
        listed = read_sealed(self.study_folder / "trials.json")
        return list(listed["trials"]) if listed else []


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


@dataclass(frozen=True)
class Verdict:
    """How a disturbed study differs from the undisturbed one; empty where it does not.

    Attributes:
        missing: trials without a directory, a result or a whole W&B run.
        duplicated: trials that are there more than once: in W&B, in the ledger, or as a directory that no plan names.
        mismatches: trials with another result.
    """

    missing: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)


def judge(copy: StudyCopy, undisturbed: Mapping[str, str]) -> Verdict:
    """Compares a finished study with the result hashes of the undisturbed one."""
    hashes = copy.hashes()
    shown = _shown_in_wandb(copy)
    ended = Counter(e["trial_id"] for e in read_ledger(copy.study_folder) if e["event"] == "trial_ended")
    found = {path.name for path in copy.trial_folders()} | set(copy.trial_ids())
    runs = Counter(_trial_of(path.name) for path in copy.study_folder.glob("wandb/offline-run-*"))
    return Verdict(
        missing=[each for each in undisturbed if not (each in hashes and each in shown and each in copy.trial_ids())],
        duplicated=sorted((found - set(undisturbed)) | {each for each in runs | ended if (runs | ended)[each] > 1}),
        mismatches=[each for each in undisturbed if hashes.get(each, undisturbed[each]) != undisturbed[each]],
    )


def _shown_in_wandb(copy: StudyCopy) -> set[str]:
    """Trials whose W&B run is whole and holds their rows."""
    runs = {_trial_of(run.run_id): run for run in read_runs(copy.study_folder / "wandb")}
    return {
        trial_id
        for trial_id, run in runs.items()
        if not run.problems and run.exit_code == 0 and run.history == read_rows(copy.study_folder / "trials" / trial_id)
    }


def _trial_of(run_name: str) -> str:
    """W&B's run ids end with the trial's."""
    return run_name.rpartition("-")[2]


class Driver:
    """`canopoint run` as a process of its own; with the block it ends, and whatever it has started.

    Attributes:
        started: when the command was given, unix seconds.
        seen: processes below it, as far as they were looked at.
    """

    def __init__(self, copy: StudyCopy, environment: Mapping[str, str], *arguments: str) -> None:
        command = [str(Path(sys.executable).parent / "canopoint"), "run", "study.yaml", *arguments]
        self.log = copy.log
        self.started = time.time()
        with copy.log.open("a") as log:
            log.write(f"\n$ canopoint run study.yaml {' '.join(arguments)}\n")
            log.flush()
            self.popen = subprocess.Popen(
                command, cwd=copy.folder, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt of the terminal is ours to deal with
            )  # fmt: skip
        self.process = process(self.popen.pid) or Process(self.popen.pid, 0)
        self.seen: set[Process] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.popen.poll()

    def below(self) -> list[Process]:
        """What it has started, and so on."""
        found = descendants(self.process)
        self.seen.update(found)
        return found

    def kill(self) -> None:
        """Kills it and all below it at one stroke."""
        kill_trees([self.process, *self.seen])
        self.popen.wait()

    def wait_until_ended(self, within_s: float = END_S) -> int:
        """Waits for its end and returns the exit code.

        Raises:
            TimeUpError: it did not end in time.
        """

        def has_ended() -> bool:
            self.below()
            return self.exit_code is not None

        wait_for(has_ended, within_s, f"the end of canopoint run; see {self.log}")
        return self.popen.returncode

    def left_behind(self) -> int:
        """Ends what a driver that ended by itself has left running; returns how many processes those were."""
        try:
            wait_for(lambda: not any(each.lives for each in self.seen), TIDY_S, "its helpers")
        except TimeUpError:
            return len(kill_trees(each for each in self.seen if each.lives))
        return 0


def run_undisturbed(copy: StudyCopy, environment: Mapping[str, str]) -> dict[str, str]:
    """Runs the study to its end and returns its result hashes, by trial id.

    Raises:
        TimeUpError: it did not end in time.
        ValueError: it did not end well.
    """
    with Driver(copy, environment) as driver:
        check_ended_well(driver, driver.wait_until_ended())
    hashes = copy.hashes()
    assert sorted(hashes) == sorted(copy.trial_ids()), "a complete study has all its trials"
    return hashes


def check_ended_well(driver: Driver, exit_code: int) -> None:
    """Raises ValueError, with what the driver said last, unless it ended with 0."""
    if exit_code:
        last = driver.log.read_text().strip().splitlines()[-8:]
        raise ValueError(f"canopoint run ended with {exit_code}; {driver.log} ends with:\n" + "\n".join(last))


def pause(random_numbers: random.Random, longest_s: float) -> float:
    """Waits a random time and returns it."""
    seconds = random_numbers.uniform(0, longest_s)
    time.sleep(seconds)
    return seconds


def to_jsonable(verdict: Verdict) -> dict[str, list[str]]:
    """The verdict as plain values."""
    return json.loads(json.dumps(vars(verdict)))
