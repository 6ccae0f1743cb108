"""The Ray Tune side of a run; the only module here that knows Ray."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from trainable.config import TrainConfig, from_mapping
from trainable.storage_url import is_url
from trainable.trial_files import Row

if TYPE_CHECKING:
    from trainable.trial_copy import TrialCopy

CUDA_CONTEXT_BYTES = 0.5 * 2**30
"""What CUDA takes of a GPU's memory for every process on it, beside what torch allocates."""


class Trainable(tune.Trainable):
    """One trial: Tune's step is an epoch.

    The trial's own directory holds its state (`trial.py`), so Tune's checkpoints are not used: a restarted actor opens
    the directory and continues there. `config["trial"]` holds `training` (a TrainConfig mapping), `store` and `folder`:
    paths, or URLs of which this node makes copies (`trial_copy.py`). `gpu_share`, where given, is the part of a GPU
    that the trial may fill.
    """

    copy: "TrialCopy | None" = None

    def setup(self, config: dict[str, Any]) -> None:
        """Prepares the trial; training starts with the first step."""
        # Imported here, in the worker: a driver names this class and never trains, and torch takes seconds.
        from trainable.store import open_store
        from trainable.trial import run_trial

        trial = config["trial"]
        limit_gpu_memory(trial.get("gpu_share", 0.0))
        settings = from_mapping(TrainConfig, trial["training"], "training")
        store, folder = self._local_folders(trial["store"], trial["folder"])
        self.rows: Iterator[Row] = run_trial(settings, open_store(store), folder)
        self.num_epochs = settings.epochs

    def step(self) -> dict[str, Any]:
        """Trains one epoch and returns its row; without one, the trial ended before: it diverged, or was done."""
        row = next(self.rows, None)
        if self.copy:  # whoever hears of an epoch finds it in the store
            self.copy.push()
        is_done = row is None or row["epoch"] == self.num_epochs
        if is_done:
            self.cleanup()
        return {**(row or {}), "done": is_done}

    def cleanup(self) -> None:
        """Ends with a trial: nothing of one that lives in an object store stays on this node."""
        if self.copy:
            self.copy.close()
        self.copy = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes over another trial in the same process: everything is built anew, nothing of the last one is kept."""
        self.setup(new_config)
        return True

    def _local_folders(self, store: str, folder: str) -> tuple[Path, Path]:
        """The packed store and the trial's directory on this node."""
        self.cleanup()
        if not is_url(folder):
            return Path(store), Path(folder)
        from trainable.trial_copy import TrialCopy, fetch_store

        self.copy = TrialCopy(folder)
        self.copy.pull()
        return fetch_store(store), self.copy.folder

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to add: the trial's directory is its checkpoint."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing to load: `setup` continues from the trial's directory."""


def limit_gpu_memory(share: float) -> None:
    """Keeps this process within its part of a GPU's memory: Ray counts the parts and enforces none.

    A trial that needs more fails with torch's own error, and its neighbours on that GPU go on.

    Args:
        share: of one GPU, as the study asks for; 0 and whole GPUs are not limited.
    """
    if 0 < share < 1:
        import torch

        torch.cuda.set_per_process_memory_fraction(memory_fraction(share, torch.cuda.mem_get_info()[1]))


def memory_fraction(share: float, total_bytes: int) -> float:
    """The part of a GPU's memory that torch may allocate, so that CUDA's own of each process fits in beside it."""
    return max(share / 2, share - CUDA_CONTEXT_BYTES / total_bytes)
