"""`canopoint sync`: what W&B lacks of a study is named, and then shown to it. Nothing is trained; no data, no Ray.

The trial directories are the truth. A run file that differs from its trial is written again as a whole. W&B's service
takes what is missing at the end of a run; a run that differs otherwise is set aside there, in a group of its own, and
written anew under another id. Whoever was interrupted begins where W&B stands.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from cluster.preparation import Say, Work, find_agenda, read_data_description
from cluster.remote_study import RemoteStudy, find_remote
from cluster.terminal import COMPLETE, INCOMPLETE
from cluster.tracking import Mirror, check_login
from cluster.tracking_address import read_project
from cluster.tracking_record import forget_mirrored
from study.design import Trial
from study.ledger import read_ledger
from study.spec import load_study
from trainable.atomic import sole_user
from trainable.config import InputError
from trainable.scenes import SceneIndex

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
    gaps = _gaps(work, look)
    if not gaps:
        say(f"W&B lacks nothing of the {len(work.agenda.trials)} trials of {work.spec.study}")
        return COMPLETE
    trials = {trial.trial_id: trial for trial in work.agenda.trials}
    for trial_id, gap in gaps.items():
        say(f"gap: {trials[trial_id].name} ({trial_id}): {gap}")
    problems = _show(work, [trials[trial_id] for trial_id in gaps])
    left = _look_again(work, look)
    spoiled = [trials[trial_id] for trial_id in left if trials[trial_id].name not in problems]
    if spoiled and work.spec.tracking.mode == "online":
        say(f"{len(spoiled)} runs cannot be mended: they are set aside, and written anew under another id")
        problems |= _show(work, spoiled, replaces=True)
        left = _look_again(work, look)
    for trial_id in gaps:
        name = trials[trial_id].name
        if trial_id in left:
            say(f"not in W&B: {name} ({trial_id}): {problems.get(name, left[trial_id])}")
        else:
            say(f"closed: {name} ({trial_id})")
    return INCOMPLETE if left else COMPLETE


def _show(work: Work, trials: list[Trial], *, replaces: bool = False) -> dict[str, str]:
    """Writes the runs of these trials; returns what went wrong, by the name of the trial."""
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
    return mirror.problems


def _look_again(work: Work, look: Look) -> Gaps:
    gaps: Gaps = {}
    for patience_s in PATIENCE_S if work.spec.tracking.mode == "online" else PATIENCE_S[:1]:
        time.sleep(patience_s)
        if not (gaps := _gaps(work, look)):
            break
    return gaps


def _gaps(work: Work, look: Look) -> Gaps:
    """The gaps of the study's trials as it stands; directories of other ones, as of an earlier plan, are no matter."""
    known = {trial.trial_id for trial in work.agenda.trials}
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
