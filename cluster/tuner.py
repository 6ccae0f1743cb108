"""The local driver: one Tune experiment over the trials still missing.

Ray's own state is a cache in a temporary folder. The trial directories are the truth, so a study is continued by
running it again.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.preparation import Say, Work, check_free_disk, pack_stores, prepare, write_study
from cluster.progress import Progress, duration
from cluster.resources import check_fits, num_cpus
from study.design import Trial
from study.spec import StudySpec
from trainable.atomic import sole_user
from trainable.trial_files import read_result

MAX_TEMP_CHARACTERS = 20


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: the study's folder.
        num_trained: trials that reached their end in this run.
        failures: trial name and reason, for those that failed for good.
        diverged: trial name and reason, for those that ended as infeasible in this run.
        num_missing: trials of the study that are still not done.
        mirror_problems: what W&B does not show yet.
    """

    folder: Path
    num_trials: int
    num_trained: int
    failures: list[str]
    diverged: list[str]
    num_missing: int
    mirror_problems: list[str]

    @property
    def complete(self) -> bool:
        """Whether every trial reached its end and W&B shows it."""
        return not (self.num_missing or self.mirror_problems)


def run_study(spec: StudySpec, say: Say) -> Outcome:
    """Runs what is missing of a study, and nothing else.

    Raises:
        InputError: bad input; nothing was written.
    """
    check_fits(spec.resources)
    _check_login(spec)
    say(f"study {spec.study}: reading and checking the images")
    work = prepare(spec)
    missing = work.missing
    if missing:
        _fetch_weights(missing)
        check_free_disk(work)
    stores = pack_stores(work, say)
    with sole_user(work.folder):
        write_study(work, stores)
        failures, problems = _run_trials(work, missing, stores, say)
    results = {trial.name: read_result(work.trial_folder(trial)) for trial in missing}
    return Outcome(
        folder=work.folder,
        num_trials=len(work.trials),
        num_trained=sum(result is not None for result in results.values()),
        failures=failures,
        diverged=[f"{name}: {each['reason']}" for name, each in results.items() if each and each["reason"]],
        num_missing=sum(result is None for result in results.values()),
        mirror_problems=[f"{name}: {problem}" for name, problem in problems.items()],
    )


def _check_login(spec: StudySpec) -> None:
    if spec.tracking.mode == "online":
        from cluster.tracking import check_login  # imports wandb, which takes a second

        check_login(spec)


def _fetch_weights(missing: list[Trial]) -> None:
    from trainable.encoders import fetch_weights  # imports torch, which takes seconds

    for config in {(t.config.encoder, t.config.weights): t.config for t in missing}.values():
        fetch_weights(config)


def _run_trials(
    work: Work, missing: list[Trial], stores: dict[int, Path], say: Say
) -> tuple[list[str], dict[str, str]]:
    """Trains the missing trials and mirrors all; returns (failures, mirror problems by trial)."""
    from cluster.tracking import Mirror, is_mirrored

    unmirrored = [t for t in work.trials if t.trial_id in work.measured_s and not is_mirrored(work, t)]
    if not missing:
        say(f"all {len(work.trials)} trials are done: nothing to train")
    if not missing and not unmirrored:
        return [], {}
    if unmirrored:
        say(f"catching up W&B on {len(unmirrored)} finished trials")
    with closing(Mirror(work)) as mirror:
        for trial in unmirrored:
            mirror.update(trial)
        failures = _train(work, missing, stores, mirror.update, say) if missing else []
    return failures, mirror.problems


def _train(
    work: Work, missing: list[Trial], stores: dict[int, Path], mirror: Callable[[Trial], None], say: Say
) -> list[str]:
    from cluster.tune_run import tune_trials

    plan = work.plan()
    say(
        f"{plan.num_missing} of {plan.num_trials} trials to train ({plan.num_cells} cells x {len(plan.seeds)} seeds),"
        f" {plan.num_concurrent} at a time; about {duration(plan.expected_s)} by {plan.basis}"
    )
    if any(trial.config.weights == "none" for trial in missing):
        say("training starts from random initial weights (training.weights: none)")
    progress = Progress(len(missing), sum(t.config.epochs for t in missing), work.spec.objective, say)
    say("starting Ray (10 to 20 s)")
    try:
        with local_ray():
            return tune_trials(work, missing, stores, progress, mirror)
    finally:
        progress.close()


@contextmanager
def local_ray() -> Iterator[None]:
    """A Ray of our own on this machine, gone at the end: never one that somebody else left running."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # rows are in metrics.jsonl and W&B
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # a relative path in a study, as of weights, holds for its trials too
    import ray

    # Ray's socket paths may have 107 characters, some 60 of which are its own.
    is_long = len(tempfile.gettempdir()) > MAX_TEMP_CHARACTERS and Path("/tmp").is_dir()
    scratch = tempfile.mkdtemp(prefix="canopoint-ray-", dir="/tmp" if is_long else None)
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=128 * 2**20,
            _temp_dir=scratch,
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)
