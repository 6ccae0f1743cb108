"""One training run on this machine, without Ray: what `canopoint train` does."""

from dataclasses import dataclass
from pathlib import Path

from cluster.preparation import Say
from cluster.resources import num_gpus
from study.design import trial_id
from study.training_file import TrainingFile
from trainable.atomic import check_parent, sole_user
from trainable.config import InputError, check_compatible
from trainable.data import load_index, load_store
from trainable.scenes import check_test_split, check_train_images
from trainable.trial_files import Row, check_trial, read_result


@dataclass(frozen=True)
class Trained:
    """A finished single run and how it compares with the trial that its file was exported from.

    Attributes:
        trained_before: whether it was finished already, so that nothing was trained.
        diverged: why the run could not be finished, or nothing.
        same_trial: whether settings, data and trainer are those of that trial; None where the file names none.
        same_bits: whether every metric of every epoch is equal too; None where the file does not say.
    """

    folder: Path
    trained_before: bool
    diverged: str
    same_trial: bool | None
    same_bits: bool | None


def train_file(file: TrainingFile, out: Path, say: Say) -> Trained:
    """Trains one configuration in `out/<trial id>`, from wherever it stands.

    Raises:
        InputError: the data are not as they must be.
    """
    check_parent(out, "--out")
    if file.training.device == "cuda" and not num_gpus():
        raise InputError("training.device: cuda is asked for, but torch sees no GPU here; use cpu")
    check_compatible(file.training, file.data)
    index = load_index(file.data, out / ".cache")
    check_train_images(index, file.training.train_images)
    if file.training.evaluate_test:
        check_test_split(index)
    identity = trial_id(file.training, index.fingerprint)
    from trainable.encoders import fetch_weights  # these import torch, which takes seconds
    from trainable.store import open_store
    from trainable.trial import run_trial

    fetch_weights(file.training)
    store = open_store(load_store(index, file.training.image_size, out / ".cache", lambda done: None))
    folder = out / identity
    with sole_user(folder):
        trained_before = read_result(folder) is not None and not check_trial(folder)
        for warning in store.warnings:
            say(f"warning: {warning}")
        for row in run_trial(file.training, store, folder) if not trained_before else ():
            say(_epoch_line(row, file.training.epochs))
    result = read_result(folder)
    assert result is not None, "a trial that ended has a result"
    wanted = file.reproduces
    same_trial = wanted["trial_id"] == identity if "trial_id" in wanted else None
    same_bits = wanted["result_sha256"] == result["result_sha256"] if "result_sha256" in wanted else None
    return Trained(folder, trained_before, result["reason"], same_trial, same_bits)


def _epoch_line(row: Row, num_epochs: int) -> str:
    return (
        f"epoch {row['epoch']}/{num_epochs}: train/loss {row['train/loss']:.4f},"
        f" val/miou {row['val/miou']:.4f}, val/accuracy {row['val/accuracy']:.4f} ({row['time/epoch_s']:.1f} s)"
    )
