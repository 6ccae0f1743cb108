"""How a study stands, by its own files: without its lock, a cluster or torch, while a driver works or years later."""

import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.history import History, read_history
from cluster.progress import duration
from cluster.tally import PhaseTally, Score, Tally
from cluster.terminal import inert
from cluster.trial_states import TrialState, find_trials, read_trial_state
from study.design import level_name
from study.spec import StudySpec, load_study
from trainable.atomic import read_holder
from trainable.config import InputError
from trainable.holder import Holder

MAX_SHOWN = 8  # trials, or reasons, of one kind


@dataclass(frozen=True)
class Status:
    """How a study stands.

    Attributes:
        driver: who is at work, as far as the lock file says; None also where nobody is.
        session: how the latest session goes or went, in words.
        best: the best setting so far of each scientific level, on the validation split.
        confirmed: the confirmed cells, on the test split.
        used: `trials`, `hours` and `gpu_hours` of all sessions -> (used, limit or None).
        failures: reason -> ids of the trials that failed for it; `diverged` likewise.
        notes: what else is to be known.
        expected_s: seconds until all is done, or would be; None where nothing is left, or nothing was measured yet.
        next_command: what to type.
    """

    study: str
    folder: Path
    method: str
    is_at_work: bool
    driver: Holder | None
    session: str
    phases: dict[str, PhaseTally]
    best: list[Score]
    confirmed: list[Score]
    used: dict[str, tuple[float, float | None]]
    failures: dict[str, list[str]]
    diverged: dict[str, list[str]]
    notes: list[str]
    expected_s: float | None
    next_command: str


def read_status(
    folder: Path,
    see: Callable[[TrialState], object] = lambda trial: None,
    driver: tuple[bool, Holder | None] | None = None,
) -> Status:
    """Reads how a study stands; changes nothing.

    Args:
        folder: the study's.
        see: is shown every trial of the study as it stands.
        driver: whether one is at work, and which; by the folder's lock file unless given.

    Raises:
        InputError: the folder holds no study, or one of its files is none that canopoint wrote.
    """
    if not (folder / "study.yaml").is_file():
        raise InputError(f"{folder}: holds no study (no study.yaml); name a study's folder, as in studies/demo")
    spec = load_study(str(folder / "study.yaml"), [])
    is_at_work, holder = driver or read_holder(folder)
    history = read_history(folder, spec)
    found = find_trials(folder, history)
    tally, trained_s = Tally(spec), 0.0
    for trial_id in found.wanted:
        trial = read_trial_state(folder, trial_id, spec, history, is_at_work=is_at_work)
        tally.add(trial)
        trained_s += trial.time_s
        see(trial)
    if is_at_work or not history.is_complete:
        tally.expect(found.num_settings)
    return Status(
        study=spec.study,
        folder=folder,
        method=spec.search.method,
        is_at_work=is_at_work,
        driver=holder,
        session=_session(history, holder, is_at_work=is_at_work),
        phases=tally.phases,
        best=tally.best,
        confirmed=tally.confirmed,
        used=_used(spec, history, trained_s, is_at_work=is_at_work),
        failures=tally.failures,
        diverged=tally.diverged,
        notes=_notes(folder, history, [*found.damaged, *tally.damaged], found.num_other),
        expected_s=_expected_s(tally, history, is_at_work=is_at_work),
        next_command=_next_command(spec, folder, tally, history, is_at_work=is_at_work),
    )


def describe_status(status: Status) -> dict[str, Any]:
    """The status as plain values, for `--format json`."""
    missing = {name: phase.num_missing for name, phase in status.phases.items()}
    return {**asdict(status), "folder": str(status.folder), "num_missing": missing}


def status_text(status: Status) -> str:
    """The status for a person; text from files is shown without control characters."""
    lines = [f"study        {status.study}: {status.method} ({status.folder})", f"session      {status.session}"]
    for name, phase in status.phases.items():
        lines += _phase_lines(name, phase)
    lines += [score_line("best so far", score) for score in status.best]
    lines += [score_line("confirmed", score) for score in status.confirmed]
    lines.append(f"used         {', '.join(_use(name, *use) for name, use in status.used.items())}")
    for name, reasons in (("failed", status.failures), ("diverged", status.diverged)):
        shown = list(reasons.items())[:MAX_SHOWN]
        lines += [f"{name:<12} {_count(len(ids), 'trial')}: {reason} ({_some(ids)})" for reason, ids in shown]
    lines += [f"note         {note}" for note in status.notes]
    if status.expected_s is not None:
        lines.append(f"left         about {duration(status.expected_s)} of work")
    lines.append(f"next         {status.next_command}")
    return "\n".join(inert(line) for line in lines)


def _session(history: History, driver: Holder | None, *, is_at_work: bool) -> str:
    if is_at_work:
        return f"{driver or 'a driver, its lock file does not say which,'} is at work"
    if history.session is None:
        return "none yet"
    if history.end is None:
        return f"cut off after {_clock(history.last)}: the driver was killed, or its machine"
    detail = history.end["detail"]
    return f"ended {_clock(history.last)}: {history.end['reason']}{f' ({detail})' if detail else ''}"


def _used(
    spec: StudySpec, history: History, trained_s: float, *, is_at_work: bool
) -> dict[str, tuple[float, float | None]]:
    """As the next session will count it (`limits.limits_so_far`), one that still goes on included.

    Trained seconds are those of the epochs so far: a trial that waits for a node uses none.
    """
    session_s = time.time() - history.last if is_at_work and history.session and not history.end else 0.0
    limits, budget = history.limits, spec.budget
    gpu_hours = max(limits.trial_s, trained_s) * spec.resources.gpus_per_trial / 3600
    return {
        "trials": (len(limits.trained | history.live) if is_at_work else len(limits.trained), budget.trials),
        "hours": ((limits.wall_s + session_s) / 3600, budget.hours),
        "gpu_hours": (gpu_hours, budget.gpu_hours),
    }


def _notes(folder: Path, history: History, damaged: list[str], num_other: int) -> list[str]:
    notes = []
    if history.num_repairs:
        lost = f"{_count(history.num_lost, 'event')} lost"
        notes.append(f"the ledger was mended {_count(history.num_repairs, 'time')}, {lost}")
    if damaged:
        notes.append(
            f"damaged, to be mended by the next run: {_some([path.removeprefix(f'{folder}/') for path in damaged])}"
        )
    if num_other:
        notes.append(f"{_count(num_other, 'trial')} on disk of settings that are no longer part of the study")
    return notes


def _expected_s(tally: Tally, history: History, *, is_at_work: bool) -> float | None:
    """The work left, over the trials that run at the same time now, or ran on average in the latest session."""
    work_s = tally.work_left_s()
    if work_s is None or history.session is None:
        return work_s
    wall_s = history.last - history.session["time"]
    at_once = len(history.live) if is_at_work else round(history.trial_s / wall_s) if wall_s > 0 else 1
    return work_s / max(1, at_once)


def _next_command(spec: StudySpec, folder: Path, tally: Tally, history: History, *, is_at_work: bool) -> str:
    is_at_home = spec.folder.resolve() == folder.resolve()  # else it was moved, or is looked at from elsewhere
    place = shlex.quote(spec.url if spec.url and is_at_home else str(folder))
    if is_at_work:
        return f"canopoint status {place}   (the driver is at work; interrupting it is safe)"
    if not tally.num_missing:
        return f"canopoint analyze {place}"
    run = f"canopoint run {shlex.quote(str(folder / 'study.yaml'))}"
    if not is_at_home:
        run += f" --set storage={shlex.quote(str(folder.absolute().parent))}"
    reason, detail = (history.end["reason"], history.end["detail"]) if history.end else ("", "")
    if reason == "budget":
        name = detail.partition(":")[0] if detail.startswith("budget.") else "budget.trials"
        return f"{run} --set {name}=MORE   (the budget is used up)"
    if reason == "failures":
        return f"{run}   (once the cause of the failures is mended)"
    return run


def _phase_lines(name: str, phase: PhaseTally) -> list[str]:
    if not phase.num_trials and not phase.to_come:
        return []
    counts = [f"{count} {state.replace('_', ' ')}" for state, count in sorted(phase.counts.items())]
    counts += [f"{phase.to_come} yet to be chosen"] if phase.to_come else []
    shown = list(phase.under_way.items())[:MAX_SHOWN]
    more = [f"{'':<12} ... and {len(phase.under_way) - MAX_SHOWN} more"] if len(phase.under_way) > MAX_SHOWN else []
    epochs = [f"{'':<12} {each}: epoch {epoch}/{of or '?'}" for each, (epoch, of) in shown]
    return [f"{name:<12} {_count(phase.num_trials, 'trial')}: {', '.join(counts)}", *epochs, *more]


def score_line(label: str, score: Score) -> str:
    """What a cell reached, for a person."""
    level = f"{level_name(score.level)}: " if score.level else ""
    at = f" at {level_name(score.setting)}" if score.setting else ""
    return f"{label:<12} {level}{score.metric} {score.mean:.3f}{at} ({_count(score.num_seeds, 'seed')})"


def _use(name: str, used: float, limit: float | None) -> str:
    amount = f"{used:g}" if name == "trials" else f"{used:.2f}"
    return f"{amount}{f' of {limit:g}' if limit is not None else ''} {name.replace('gpu_', 'GPU-')}"


def _clock(seconds: float) -> str:
    return time.strftime("%F %T", time.localtime(seconds))


def _some(names: list[str]) -> str:
    return ", ".join(names[:MAX_SHOWN]) + (f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
