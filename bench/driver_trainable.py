"""Trials that do next to nothing, so that what is left of a thousand of them is the driver's own time. No torch."""

from pathlib import Path
from typing import Any

from ray import tune

from trainable.sealed import write_sealed
from trainable.trial_files import CONFIG, Row, append_row, read_result, read_rows, write_result


class BareTrainable(tune.Trainable):
    """One epoch of no training, which reports a row; for Ray Tune alone, where nothing is written."""

    def setup(self, config: dict[str, Any]) -> None:
        """Keeps the trial's settings."""
        self.trial = config["trial"]

    def step(self) -> dict[str, Any]:
        """The only epoch."""
        return {**trivial_row(self.trial["training"]), "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes over another trial in the same process."""
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing to load."""


class TrivialTrainable(BareTrainable):
    """The same in the place of `trainable.tune_trainable.Trainable`: its trials leave the files that real ones do."""

    def step(self) -> dict[str, Any]:
        """The only epoch."""
        return {**run_trivial_trial(self.trial["training"], Path(self.trial["folder"])), "done": True}


def run_trivial_trial(training: dict[str, Any], folder: Path) -> Row:
    """Writes what a trial of one epoch leaves, synced, in a millisecond; config first and result last, as ever."""
    if read_result(folder):
        return read_rows(folder)[-1]
    folder.mkdir(parents=True, exist_ok=True)
    write_sealed(folder / CONFIG, {"training": training})
    row = trivial_row(training)
    append_row(folder, row)
    write_result(folder, [row], {"torch": "none", "processor": "none", "precision": "none", "weights": "none"})
    return row


def trivial_row(training: dict[str, Any]) -> Row:
    """An epoch's row, different from seed to seed."""
    score = (int(training["seed"]) * 7919 % 10_000) / 10_000
    return {
        "epoch": 1,
        "train/loss": 1.0 - score,
        "val/miou": score,
        "val/accuracy": score,
        "val/nll": 1.0 - score,
        "points/per_image": 1.0,
        "time/epoch_s": 0.0,
        "time/data_wait_s": 0.0,
        "time/total_s": 0.0,
    }
