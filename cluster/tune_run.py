"""One Tune experiment over given trials, reported to the terminal and the mirror."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from cluster.preparation import Work
from cluster.progress import Progress
from cluster.resources import num_concurrent, trial_request
from study.design import Trial
from trainable.tune_trainable import Trainable

MAX_RETRIES = 3  # a killed worker or a lost node; its trial continues from its directory


class Reporter(tune.Callback):
    """Hands Tune's events to the progress display and to the mirror."""

    def __init__(self, trials: list[Trial], progress: Progress, mirror: Callable[[Trial], None]) -> None:
        self.trials = {trial.trial_id: trial for trial in trials}
        self.progress = progress
        self.mirror = mirror

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """An epoch has ended."""
        ours = self._ours(trial)
        self.mirror(ours)
        if "epoch" not in result:
            self.progress.diverged(ours)
            return
        self.progress.epoch(ours, result)
        if result["done"]:
            self.progress.done(ours, result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial has failed for good."""
        ours = self._ours(trial)
        self.progress.failure(ours, failure_reason(trial.get_error()))
        self.mirror(ours)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks into a cache that is never loaded, and threads cannot be pickled."""
        return {}

    def _ours(self, trial: Any) -> Trial:
        return self.trials[trial.config["trial"]["trial_id"]]


def tune_trials(
    work: Work, trials: list[Trial], stores: dict[int, Path], progress: Progress, mirror: Callable[[Trial], None]
) -> list[str]:
    """Runs the trials and returns the failures, each as trial name and reason.

    `fit` returns normally when trials failed and after an interrupt, so the caller counts the results on disk.
    """
    settings = [_trial_settings(work, trial, stores) for trial in trials]
    with tempfile.TemporaryDirectory(prefix="canopoint-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(Trainable, trial_request(work.spec.resources)),
            param_space={"trial": tune.grid_search(settings)},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=num_concurrent(work.spec.resources),
                trial_name_creator=lambda trial: trial.config["trial"]["trial_id"],
                trial_dirname_creator=lambda trial: trial.config["trial"]["trial_id"],
            ),
            run_config=tune.RunConfig(
                name=work.spec.study,
                storage_path=scratch,
                callbacks=[Reporter(trials, progress, mirror)],
                failure_config=tune.FailureConfig(max_failures=MAX_RETRIES),
                verbose=0,
            ),
        )
        results = tuner.fit()
    return [_failure(results[i], trials) for i in range(len(results)) if results[i].error]


def _failure(result: tune.Result, trials: list[Trial]) -> str:
    assert result.config is not None, "Tune keeps the config of every trial"
    (name,) = (trial.name for trial in trials if trial.trial_id == result.config["trial"]["trial_id"])
    return f"{name}: {failure_reason(result.error)}"


def _trial_settings(work: Work, trial: Trial, stores: dict[int, Path]) -> dict[str, Any]:
    """What the trainable gets: plain values and paths, never arrays."""
    return {
        "trial_id": trial.trial_id,
        "training": trial.config.to_mapping(),
        "store": str(stores[trial.config.image_size]),
        "folder": str(work.trial_folder(trial)),
    }


def failure_reason(error: BaseException | None) -> str:
    """The last line of an error, which names it; the lines before it are Ray's way to it."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else repr(error)
