"""One Tune experiment over the trials that a session hands out one by one.

Tune runs the trials, retries them and lets a scheduler stop them. What comes next, and what is remembered, is the
session's affair: Tune's own state is a cache in a temporary folder.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from cluster.resources import trial_request
from cluster.session import Session
from study.design import Trial
from trainable.tune_trainable import Trainable


class Suggestions(Searcher):
    """Hands the session's trials to Tune, each when there is room and no sooner: proposals learn from results."""

    def __init__(self, session: Session, stores: dict[int, Path]) -> None:
        super().__init__()
        self.session, self.stores = session, stores

    def suggest(self, trial_id: str) -> Any:
        """The next trial's settings, None while there is no room, or that there are no more."""
        trial = self.session.next_trial()
        if trial:
            return {"trial": trial_settings(self.session, trial, self.stores)}
        return Searcher.FINISHED if self.session.is_over else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the reporter tells the session, for every kind of end."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger holds what a later session needs."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is ever restored from Tune's state."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given into a cache that is never loaded."""
        return {}


class Reporter(tune.Callback):
    """Hands Tune's events to the session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """An epoch has ended; a trial that diverged, or was done, reports none."""
        if "epoch" in result:
            self.session.epoch(self._ours(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial has ended by itself, or by the scheduler before its last epoch."""
        ours = self._ours(trial)
        epoch = trial.last_result.get("epoch", ours.config.epochs)
        self.session.ended(ours, stopped_at=epoch if epoch < ours.config.epochs else None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial has failed for good."""
        # Tune's own reader looks into its storage, where the file comes only with the state that is never written here.
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        self.session.failed(self._ours(trial), failure_reason(text))

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """Ten times a second or more: the place to end the run, as nothing is half done here."""
        self.session.check()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as above."""
        return {}

    def _ours(self, trial: Any) -> Trial:
        return self.session.live[trial.config["trial"]["trial_id"]]


def tune_trials(
    session: Session,
    stores: dict[int, Path],
    scheduler: TrialScheduler | None,
    trainable: type | None = None,
) -> None:
    """Runs what the session hands out until nothing is left.

    Args:
        session: gives the trials and takes their events.
        stores: image size -> packed store.
        scheduler: stops trials early, or None.
        trainable: the class that runs a trial; ours unless given.

    Raises:
        StopRunError: a signal or a limit ended the run.
    """
    spec = session.work.spec
    # Else Tune asks for one trial at a time, and the workers start one after another.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(session.num_at_once)
    with tempfile.TemporaryDirectory(prefix="canopoint-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable or Trainable, trial_request(spec.resources)),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=Suggestions(session, stores),
                scheduler=scheduler,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["trial"]["trial_id"],
                trial_dirname_creator=lambda trial: trial.config["trial"]["trial_id"],
            ),
            run_config=tune.RunConfig(
                name=spec.study,
                storage_path=scratch,
                callbacks=[Reporter(session)],
                failure_config=tune.FailureConfig(max_failures=spec.failures.retries),
                verbose=0,
            ),
        ).fit()


def trial_settings(session: Session, trial: Trial, stores: dict[int, Path]) -> dict[str, Any]:
    """What the trainable gets: plain values and paths, never arrays."""
    return {
        "trial_id": trial.trial_id,
        "group": trial.group,
        "training": trial.config.to_mapping(),
        "store": str(stores[trial.config.image_size]),
        "folder": str(session.work.trial_folder(trial)),
    }


def failure_reason(text: str) -> str:
    """The last line of an error, which names it; the lines before it are Ray's way to it."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason is known"
