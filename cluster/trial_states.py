"""How each trial of a study stands, by its directory and the ledger. Changes nothing; a folder may be anyone's."""

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cluster.history import LARGEST, TRIAL_ID, History
from study.design import Cell
from study.spec import StudySpec
from trainable.atomic import open_regular
from trainable.sealed import DamagedError, unseal
from trainable.trial_files import CONFIG, RESULT, ROWS

State = Literal["completed", "stopped", "infeasible", "failed", "running", "unfinished", "not_started"]
MAX_FILE_BYTES = 2**22


@dataclass(frozen=True)
class TrialState:
    """One trial.

    Attributes:
        epoch: epochs trained; `epochs` of a whole run, or None where its directory does not say.
        cell: the level of each factor, and the seed; None where its directory does not say.
        metrics: the last row of a completed trial.
        time_s: seconds trained; 0 where its directory does not say.
        reason: why it failed, or diverged.
        damaged: its files that are not as they were written.
    """

    trial_id: str
    phase: str
    state: State
    epoch: int = 0
    epochs: int | None = None
    cell: Cell | None = None
    seed: int | None = None
    metrics: dict[str, Any] | None = None
    time_s: float = 0.0
    reason: str = ""
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundTrials:
    """Which trials belong to a study as it stands.

    Attributes:
        wanted: their ids; a trial is spared, and missing here, where a scheduler stopped its setting at another seed.
        num_settings: settings that were proposed; a grid proposes none.
        num_other: trials on disk that belong to the study no more, as after its file was edited.
        damaged: the list of trials, where it is damaged: then all that there ever were belong to it.
    """

    wanted: list[str]
    num_settings: int
    num_other: int
    damaged: list[str]


def find_trials(folder: Path, history: History) -> FoundTrials:
    """Lists a study's trials by `trials.json` and what the latest session added."""
    listed, damaged = _read(folder / "trials.json")
    on_disk = _list_folders(folder / "trials")
    known = [*history.phases, *on_disk] if listed is None else _mapping(listed).get("trials")
    known = (
        [each for each in known if isinstance(each, str) and TRIAL_ID.fullmatch(each)]
        if isinstance(known, list)
        else []
    )
    ids = dict.fromkeys([*known, *sorted(history.listed)])
    spared = _spared(history, on_disk)
    settings = [setting for setting in history.settings if not ids.keys().isdisjoint(setting)]
    wanted = [each for each in ids if each not in spared]
    return FoundTrials(wanted, len(settings), len(set(on_disk) - ids.keys()), damaged)


def _spared(history: History, on_disk: Collection[str]) -> set[str]:
    stopped = {trial_id for trial_id, (state, _) in history.ends.items() if state == "stopped"}
    siblings = {each for setting in history.settings if not stopped.isdisjoint(setting) for each in setting}
    return siblings - set(on_disk) - history.live


def read_trial_state(folder: Path, trial_id: str, spec: StudySpec, history: History, *, is_at_work: bool) -> TrialState:
    """How one trial stands.

    Args:
        folder: the study's.
        trial_id: the trial.
        spec: names the factors, and whether a scheduler may have stopped a trial.
        history: what the ledger says.
        is_at_work: whether a driver is.
    """
    path = folder / "trials" / trial_id
    config, bad_config = _read(path / CONFIG)
    result, bad_result = _read(path / RESULT)
    training = _mapping(_mapping(config).get("training"))
    state, reason = _state(trial_id, result, spec, history, is_at_work=is_at_work)
    epoch, time_s = _trained(path, result)
    if state == "unfinished" and not (epoch or training or trial_id in history.phases):
        state = "not_started"
    return TrialState(
        trial_id=trial_id,
        phase=history.phases.get(trial_id, "confirm" if training.get("evaluate_test") is True else "explore"),
        state=state,
        epoch=epoch,
        epochs=int(_number(training.get("epochs"))) or None,
        cell=_cell(training, spec),
        seed=training["seed"] if isinstance(training.get("seed"), int) else None,
        metrics=_mapping(_mapping(result).get("metrics")) if state == "completed" else None,
        time_s=time_s,
        reason=reason,
        damaged=(*bad_config, *bad_result),
    )


def _state(
    trial_id: str, result: dict[str, Any] | None, spec: StudySpec, history: History, *, is_at_work: bool
) -> tuple[State, str]:
    """(state, reason): the trial's own result, or else the ledger. Without a scheduler no trial stays stopped."""
    if result and result.get("state") in ("completed", "infeasible"):
        is_completed = result["state"] == "completed"
        return ("completed", "") if is_completed else ("infeasible", str(result.get("reason", "")))
    if trial_id in history.live:
        return ("running" if is_at_work else "unfinished"), ""
    ended, reason = history.ends.get(trial_id, ("", ""))
    if ended == "stopped" and spec.search.scheduler != "none":
        return "stopped", ""
    return ("failed", reason) if ended == "failed" else ("unfinished", "")


def _cell(training: dict[str, Any], spec: StudySpec) -> Cell | None:
    cell = {name: training.get(name) for name in spec.parameters}
    levels: Cell = {name: value for name, value in cell.items() if isinstance(value, str | int | float)}
    return levels if levels.keys() == cell.keys() else None


def _list_folders(path: Path) -> list[str]:
    names = sorted(os.listdir(path)) if path.is_dir() else []
    return [name for name in names if TRIAL_ID.fullmatch(name)]


def _read(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """(content of a sealed file, damaged files): no content where it is absent or damaged."""
    if not os.path.lexists(path):
        return None, []
    try:
        return unseal(_content(path)), []
    except DamagedError:
        return None, [str(path)]


def _trained(path: Path, result: dict[str, Any] | None) -> tuple[int, float]:
    """(epochs, seconds) that a trial was trained, by its result or its rows so far."""
    if result:
        return int(_number(result.get("epochs"))), _number(result.get("time_s"))
    lines = _content(path / ROWS).split(b"\n")[:-1] if os.path.lexists(path / ROWS) else []
    try:
        last = json.loads(lines[-1]) if lines else {}
    except (ValueError, RecursionError):
        last = {}
    return len(lines), _number(_mapping(last).get("time/total_s"))


def _content(path: Path) -> bytes:
    """What a file holds; nothing of one that is absurdly large."""
    with open_regular(path, os.O_RDONLY) as file:
        return file.readall() if os.fstat(file.fileno()).st_size <= MAX_FILE_BYTES else b""


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    """A number of a sane size, or 0."""
    return value if isinstance(value, int | float) and abs(value) <= LARGEST else 0
