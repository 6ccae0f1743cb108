"""One Tune experiment over the trials that a session hands out one by one.

Tune runs the trials and lets a scheduler stop them. What comes next, what is tried again and what is remembered is not
its affair: its own state is a cache in a temporary folder. To Tune, a trial that is tried again is another one.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from cluster.preemption import MovableTrainable, NodeWatch
from cluster.resources import trial_request
from cluster.retries import Retries, failure_reason
from cluster.session import Session
from study.design import Trial


class Suggestions(Searcher):
    """Hands the session's trials to Tune, each when there is room and no sooner: proposals learn from results."""

    def __init__(self, session: Session, retries: Retries, stores: dict[int, Path]) -> None:
        super().__init__()
        self.session, self.retries, self.stores = session, retries, stores

    def suggest(self, trial_id: str) -> Any:
        """The next trial's settings, None while there is no room, or that there are no more."""
        trial = self.retries.next_trial() or self.session.next_trial()
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
    """Hands Tune's events to the session, and failed trials to those that are tried again.

    Attributes:
        trouble: with the study's disk or store: what ends the run with this step.
    """

    def __init__(self, session: Session, retries: Retries, nodes: NodeWatch) -> None:
        self.session, self.retries, self.nodes = session, retries, nodes
        self.trouble: OSError | None = None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial has got a node, again where it was moved or tried again."""
        self.session.started(self._ours(trial))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """An epoch has ended; a trial that diverged, or was done, reports none."""
        if "epoch" in result:
            with self._kept():
                self.session.epoch(self._ours(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial has ended by itself, or by the scheduler before its last epoch."""
        ours = self._ours(trial)
        epoch = trial.last_result.get("epoch", ours.config.epochs)
        with self._kept():
            self.session.ended(ours, stopped_at=epoch if epoch < ours.config.epochs else None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial has failed, or left its node; if it is tried again, the session hears nothing of it."""
        # Tune's own reader looks into its storage, where the file comes only with the state that is never written here.
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        ours = self._ours(trial)
        with self._kept():
            if self.retries.take(ours, text):
                self.session.paused(ours)
            else:
                self.session.failed(ours, failure_reason(text))

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """Ten times a second or more: the place to end the run, as nothing is half done here."""
        if self.trouble:
            raise self.trouble
        self.session.check()
        self.nodes.look(trials)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as above."""
        return {}

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Keeps the trouble of an event for the end of the step: Tune makes another error of what is raised here."""
        try:
            yield
        except OSError as error:
            self.trouble = self.trouble or error

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
        OSError: the study's disk is full or gone, or its object store (StoreError).
    """
    spec = session.work.spec
    nodes = NodeWatch(spec.resources, session.progress.note)
    retries = Retries(spec.failures.retries, nodes, session.progress.note)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # at its end it names trials that were tried again
    # Else Tune puts the driver's AWS keys into a runtime_env, which Ray logs and shows; nodes have keys of their own.
    class_cache.ENV_VARS_TO_PROPAGATE = {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")
    }
    # Else Tune asks for one trial at a time, and the workers start one after another.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(session.num_at_once)
    with tempfile.TemporaryDirectory(prefix="canopoint-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable or MovableTrainable, trial_request(spec.resources)),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=Suggestions(session, retries, stores),
                scheduler=scheduler,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["trial"]["trial_id"],
                trial_dirname_creator=lambda trial: trial.config["trial"]["trial_id"],
            ),
            run_config=tune.RunConfig(
                name=spec.study,
                storage_path=scratch,
                callbacks=[Reporter(session, retries, nodes)],
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        ).fit()


def trial_settings(session: Session, trial: Trial, stores: dict[int, Path]) -> dict[str, Any]:
    """What the trainable gets: plain values and paths, never arrays."""
    return {
        "trial_id": trial.trial_id,
        "group": trial.group,
        "training": trial.config.to_mapping(),
        "store": session.work.place(stores[trial.config.image_size]),
        "folder": session.work.place(session.work.trial_folder(trial)),
        "gpu_share": session.work.spec.resources.gpus_per_trial,
    }
