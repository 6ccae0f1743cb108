"""Whether a disturbed study came out as the undisturbed one, and how much was trained twice."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from analysis.reading.gaps import differing_epochs
from analysis.reading.history import History
from analysis.reading.run_folder import read_runs
from analysis.reading.wandb_runs import WandbRun
from bench.chaos_study import Standing, StudyCopy
from study.ledger import read_ledger
from trainable.trial_files import read_attempts, read_rows


@dataclass(frozen=True)
class Kill:
    """One disturbance.

    Attributes:
        moment: before the first signal was sent, unix seconds.
        hit: the trials that were training in what was killed, as they stood when it was gone.
        recovery_s: seconds until an epoch begun afterwards was on disk; None where that was not waited for.
        exit_code: of a driver that was asked to end.
        took_s: how long it took to.
        left_behind: processes that it left running.
    """

    moment: float
    hit: tuple[Standing, ...]
    recovery_s: float | None = None
    exit_code: int | None = None
    took_s: float | None = None
    left_behind: int = 0


@dataclass(frozen=True)
class Verdict:
    """How a finished study differs from the undisturbed one; nothing where it does not.

    Attributes:
        missing: trials without a directory, a result, a place in the plan or a whole W&B run.
        duplicated: trials that are there more than once, in W&B or in the ledger, and directories of no known trial.
        mismatches: trials with another result.
    """

    missing: list[str]
    duplicated: list[str]
    mismatches: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether every trial is there once and came out the same."""
        return not (self.missing or self.duplicated or self.mismatches)


@dataclass(frozen=True)
class Reruns:
    """What was trained twice.

    Attributes:
        whole: epochs whose row was on disk and that were trained again.
        worst: most of them by one kill in one trial.
        partial: epochs that were cut off before their row was on disk.
    """

    whole: int
    worst: int
    partial: int


def judge(copy: StudyCopy, undisturbed: Mapping[str, str]) -> Verdict:
    """Compares a finished study with the result hashes of the undisturbed one."""
    hashes, planned, shown = copy.hashes(), copy.trial_ids(), _whole_wandb_runs(copy)
    events = read_ledger(copy.study_folder)
    ended = [e["trial_id"] for e in events if e["event"] == "trial_ended" and e["state"] == "completed"]
    runs = [_trial_of(path.name) for path in copy.study_folder.glob("wandb/offline-run-*")]
    unknown = ({path.name for path in copy.trial_folders()} | {*planned, *runs}) - set(undisturbed)
    return Verdict(
        missing=sorted(set(undisturbed) - (hashes.keys() & set(planned) & shown & set(ended))),
        duplicated=sorted(unknown.union(*map(_repeated, (planned, ended, runs)))),
        mismatches=sorted(each for each in hashes.keys() & undisturbed.keys() if hashes[each] != undisturbed[each]),
    )


def count_reruns(copy: StudyCopy, kills: Iterable[Kill]) -> Reruns:
    """What the attempts of the trials went on from, against what was on disk at each kill and what they found."""
    lost = [_lost(copy, standing, kill.moment) for kill in kills for standing in kill.hit]
    attempts = [attempt for folder in copy.trial_folders() for attempt in read_attempts(folder)]
    found = [attempt["rows"] - attempt["from_epoch"] for attempt in attempts]
    epochs = [each for each in lost if each is not None]
    return Reruns(whole=sum(epochs), worst=max([0, *epochs, *found]), partial=epochs.count(0))


def _lost(copy: StudyCopy, standing: Standing, moment: float) -> int | None:
    """Finished epochs that the next attempt trained again; None where none followed, as nothing was left to train."""
    attempts = read_attempts(copy.study_folder / "trials" / standing.trial_id)
    from_epochs = [attempt["from_epoch"] for attempt in attempts if attempt["time"] > moment]
    return max(standing.rows, standing.checkpoint) - from_epochs[0] if from_epochs else None


def _whole_wandb_runs(copy: StudyCopy) -> set[str]:
    """Trials whose W&B run has ended well and holds the rows on disk."""
    runs = {_trial_of(run.run_id): run for run in read_runs(copy.study_folder / "wandb")}
    return {trial_id for trial_id, run in runs.items() if _is_whole(run, copy.study_folder / "trials" / trial_id)}


def _is_whole(run: WandbRun, folder: Path) -> bool:
    own = History.from_rows(read_rows(folder))
    return run.exit_code == 0 and not run.problems and not differing_epochs(own, run.history)


def _trial_of(run_name: str) -> str:
    """W&B's ids and folders of a run end with the trial's id."""
    return run_name.rpartition("-")[2]


def _repeated(names: Iterable[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count > 1}
