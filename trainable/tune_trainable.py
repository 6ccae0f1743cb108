"""The Ray Tune side of a run; the only module here that knows Ray."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import tune

from trainable.config import TrainConfig, from_mapping
from trainable.trial_files import Row


class Trainable(tune.Trainable):
    """One trial: Tune's step is an epoch.

    The trial's own directory holds its state (`trial.py`), so Tune's checkpoints are not used: a restarted actor opens
    the directory and continues there. `config["trial"]` holds `training` (a TrainConfig mapping), `store` and `folder`
    (paths).
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Prepares the trial; training starts with the first step."""
        # Imported here, in the worker: a driver names this class and never trains, and torch takes seconds.
        from trainable.store import open_store
        from trainable.trial import run_trial

        trial = config["trial"]
        settings = from_mapping(TrainConfig, trial["training"], "training")
        self.rows: Iterator[Row] = run_trial(settings, open_store(Path(trial["store"])), Path(trial["folder"]))
        self.num_epochs = settings.epochs

    def step(self) -> dict[str, Any]:
        """Trains one epoch and returns its row; without one, the trial ended before: it diverged, or was done."""
        row = next(self.rows, None)
        return {**row, "done": row["epoch"] == self.num_epochs} if row else {"done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes over another trial in the same process: everything is built anew, nothing of the last one is kept."""
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to add: the trial's directory is its checkpoint."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing to load: `setup` continues from the trial's directory."""
