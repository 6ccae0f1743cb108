"""`canopoint sync`: what W&B lacks of a study is named, and then shown to it. Nothing is trained; no data, no Ray.

The trial directories are the truth, as long as they are whole: of a damaged one W&B may hold the only sound copy, so
that it is named, and left alone until `canopoint run` has mended it. A run file that differs from its trial is written
again as a whole. W&B's service takes what is missing at the end of a run; a run that differs otherwise is set aside
there, in a group of its own, and written anew under another id. Whoever was interrupted begins where W&B stands.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path

from cluster.preparation import Say, Work, find_agenda, read_data_description
from cluster.remote_study import RemoteStudy, find_remote
from cluster.terminal import COMPLETE, INCOMPLETE
from cluster.tracking import Mirror, check_login
from cluster.tracking_address import read_project
from cluster.tracking_record import MIRROR_FILE, forget_mirrored
from study.design import Trial
from study.ledger import read_ledger
from study.spec import load_study
from trainable.atomic import sole_user
from trainable.config import InputError
from trainable.scenes import SceneIndex
from trainable.sealed import DamagedError, read_sealed
from trainable.trial_files import RESULT, ROWS, check_trial, read_result, read_rows

Gaps = Mapping[str, str]
"""Trial id -> what W&B lacks of it."""

Look = Callable[[Work, str | None], Gaps]
"""Compares the trial directories with W&B: its service, where a project is named (empty: it has nothing of the study
yet), else the run files. The analysis has the readers."""

PATIENCE_S = (0.0, 2.0, 8.0)
"""Between looks after writing: W&B's service may show a moment later what it has taken."""

MIRROR_WITHIN_S = 4.0  # after an interrupt; the next sync goes on


def sync_study(study: str, say: Say, look: Look) -> int:
    """Names every gap between a study's trial directories and W&B, and closes it.

    Args:
        study: the study's folder, or its URL in an object store.
        say: takes what is said, line by line.
        look: finds the gaps.

    Returns:
        The exit code: 0 where W&B lacks nothing any more, else 3.

    Raises:
        InputError: there is no such study, a driver works on it, or W&B asks for a key that is not there.
    """
    remote = find_remote(study)
    folder = remote.folder if remote else Path(study)
    check_login(_find_study(folder, remote).spec)
    held = remote.held(say) if remote else nullcontext()
    with sole_user(folder), held:
        return _sync(_find_study(folder, remote), say, look)


def _sync(work: Work, say: Say, look: Look) -> int:
    names = _names(work)
    gaps = _gaps(work, look)
    if not gaps:
        say(_nothing_lacks(work, list(names)))
        return COMPLETE
    for trial_id, gap in gaps.items():
        say(f"gap: {names[trial_id]}: {gap}")
    problems = _hindrances(work, gaps)
    trials = [trial for trial in work.agenda.trials if trial.trial_id in gaps.keys() - problems.keys()]
    problems |= _show(work, trials)
    left = _look_again(work, look)
    spoiled = [trial for trial in trials if trial.trial_id in left.keys() - problems.keys()]
    if spoiled and work.spec.tracking.mode == "online":
        say(f"{len(spoiled)} runs cannot be mended: they are set aside, and written anew under another id")
        problems |= _show(work, spoiled, replaces=True)
        left = _look_again(work, look)
    for trial_id in gaps:
        if trial_id in left:
            say(f"not in W&B: {names[trial_id]}: {problems.get(trial_id, left[trial_id])}")
        else:
            say(f"closed: {names[trial_id]}")
    return INCOMPLETE if left else COMPLETE


def _names(work: Work) -> dict[str, str]:
    """Trial id -> what it is called, of the study as it stands.

    Confirmation hangs on exploration: where an explored trial is damaged or gone, only `trials.json` knows of the rest.
    """
    listed = (read_sealed(work.folder / "trials.json") or {}).get("trials", [])
    known = {trial.trial_id: f"{trial.name} ({trial.trial_id})" for trial in work.agenda.trials}
    return {**known, **{each: f"trial {each}" for each in listed if each not in known}}


def _nothing_lacks(work: Work, trial_ids: list[str]) -> str:
    folders = [work.folder / "trials" / trial_id for trial_id in trial_ids]
    begun = sum(any((folder / name).is_file() for name in (ROWS, RESULT)) for folder in folders)
    if begun == len(folders):
        return f"W&B lacks nothing of the {begun} trials of {work.spec.study}"
    rest = "the others have nothing to show yet; `canopoint run` trains them"
    return f"W&B lacks nothing of {begun} of the {len(folders)} trials of {work.spec.study}; {rest}"


def _hindrances(work: Work, trial_ids: Iterable[str]) -> dict[str, str]:
    """Why some of these trials are not to be shown, by their ids."""
    trials = {trial.trial_id: trial for trial in work.agenda.trials}
    found = {}
    for trial_id in trial_ids:
        flaw = _flaw(work, trials[trial_id]) if trial_id in trials else "an explored trial is damaged or gone"
        if flaw:
            found[trial_id] = f"left as it is until `canopoint run` has mended the study ({flaw})"
    return found


def _flaw(work: Work, trial: Trial) -> str:
    """In what a trial's directory is not as it was written; empty where in nothing."""
    folder = work.trial_folder(trial)
    if problems := check_trial(folder):
        return problems[0]
    path, rows = folder / ROWS, read_rows(folder)
    num_lines = path.read_bytes().count(b"\n") if path.is_file() else 0
    if [row.get("epoch") for row in rows] != [*range(1, num_lines + 1)]:
        return f"{path}: damaged"
    return "" if read_result(folder) else _lost_result(folder)


def _lost_result(folder: Path) -> str:
    """Of a trial without a result: whether W&B was shown one."""
    try:
        shown = read_sealed(folder / MIRROR_FILE)
    except DamagedError as error:
        return str(error)
    return f"{folder / RESULT}: absent" if shown and shown["state"] != "stopped" else ""


def _show(work: Work, trials: list[Trial], *, replaces: bool = False) -> dict[str, str]:
    """Writes the runs of these trials; returns what went wrong, by the id of the trial."""
    forget_mirrored(work, trials)
    mirror = Mirror(work, replaces)
    for trial in trials:
        outcome = work.agenda.outcomes.get(trial.trial_id)
        mirror.update(trial, was_stopped=bool(outcome and outcome.state == "stopped"))
    try:
        mirror.close()
    except KeyboardInterrupt:
        mirror.close(MIRROR_WITHIN_S)
        raise
    return {trial.trial_id: mirror.problems[trial.name] for trial in trials if trial.name in mirror.problems}


def _look_again(work: Work, look: Look) -> Gaps:
    gaps: Gaps = {}
    for patience_s in PATIENCE_S if work.spec.tracking.mode == "online" else PATIENCE_S[:1]:
        time.sleep(patience_s)
        if not (gaps := _gaps(work, look)):
            break
    return gaps


def _gaps(work: Work, look: Look) -> Gaps:
    """The gaps of the study's trials as it stands; directories of other ones, as of an earlier plan, are no matter."""
    known = _names(work)
    project = read_project(work.folder) if work.spec.tracking.mode == "online" else None
    return {trial_id: gap for trial_id, gap in look(work, project).items() if trial_id in known}


def _find_study(folder: Path, remote: RemoteStudy | None) -> Work:
    """A study that was run, without its images."""
    if not (folder / "study.yaml").is_file():
        raise InputError(f"{folder}: holds no study (no study.yaml); name a study's folder, as in studies/demo")
    folder = folder.resolve()
    spec = load_study(str(folder / "study.yaml"), [])
    described = read_data_description(folder)
    if not described:
        raise InputError(f"{folder}: holds no data.json, or a damaged one; canopoint run writes it anew")
    index = SceneIndex(folder, (), 0, 0.0, 0, described["fingerprint"])
    return Work(spec, folder, index, find_agenda(spec, folder, index.fingerprint, read_ledger(folder)), remote)
