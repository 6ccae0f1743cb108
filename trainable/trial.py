"""A trial in its directory: whoever runs it again continues where it stopped."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from trainable import checkpoint
from trainable.atomic import write_atomically
from trainable.config import TRAINER_VERSION, InputError, TrainConfig
from trainable.encoders import describe_weights
from trainable.precision import chosen_precision
from trainable.store import Store
from trainable.train import DivergenceError, EpochResult, TrainingRun
from trainable.trial_files import Row, append_row, read_result, read_rows, rewrite_rows, to_json, write_result


def run_trial(config: TrainConfig, store: Store, folder: Path) -> Iterator[Row]:
    """Trains in `folder`, an epoch at a time, from wherever it stands; yields each epoch's row once it is on disk.

    A trial that is done already yields its last row. One that diverges ends there, and its result says so: the same
    settings would diverge again.

    Raises:
        InputError: the folder holds another trial.
    """
    _claim(config, folder)
    rows = read_rows(folder)
    result = read_result(folder)
    try:
        if result and len(rows) == result["epochs"]:
            yield from rows[-1:]
        else:
            yield from _train(config, store, folder, rows)
    except DivergenceError as error:
        where = {"epoch": error.epoch, "step": error.step}
        write_result(folder, read_rows(folder), environment(config), infeasible=str(error), diverged_at=where)


def _train(config: TrainConfig, store: Store, folder: Path, rows: list[Row]) -> Iterator[Row]:
    run = TrainingRun(config, store)
    found = checkpoint.load_latest(folder / "checkpoint")
    if found and found[0] <= len(rows):  # with rows lost, only training anew gives them back
        run.restore(*found)
    rows = rows[: run.epoch]  # a row beyond the checkpoint belongs to an epoch that is about to be redone
    rewrite_rows(folder, rows)
    if run.epoch == config.epochs:  # stopped between its last checkpoint and its result
        write_result(folder, rows, environment(config))
        yield rows[-1]
    elapsed = rows[-1]["time/total_s"] if rows else 0.0
    for result in run.epochs():
        elapsed += result.metrics["time/epoch_s"]
        row = {"epoch": result.epoch, **result.metrics, "time/total_s": elapsed}
        append_row(folder, row)
        _save_epoch(run, result, folder)
        rows.append(row)
        if run.epoch == config.epochs:
            write_result(folder, rows, environment(config))
        yield row


def environment(config: TrainConfig) -> dict[str, str]:
    """What the bits of a result depend on beside its config: other versions and processors round differently."""
    is_gpu = config.device == "cuda"
    processor = torch.cuda.get_device_name() if is_gpu else torch.backends.cpu.get_cpu_capability()
    return {
        "torch": str(torch.__version__),
        "processor": processor,
        "precision": chosen_precision(config),
        "weights": describe_weights(config),
    }


def _claim(config: TrainConfig, folder: Path) -> None:
    """Writes the trial's config into a new folder, or checks that an old one holds the same."""
    path = folder / "config.json"
    content = to_json({"training": config.to_mapping(), "trainer_version": TRAINER_VERSION})
    if path.is_file() and path.read_text() != content:
        raise InputError(f"{folder}: holds a trial with other settings (see config.json); use another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def _save_epoch(run: TrainingRun, result: EpochResult, folder: Path) -> None:
    """Counts and state after an epoch; the state after the last one is the model alone, a third of the size."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, names=_validation_names(run), **result.counts)
    write_atomically(folder / "counts.npz", buffer.getvalue())
    checkpoint.save(folder / "checkpoint", result.epoch, run.state(final=run.epoch == run.config.epochs))


def _validation_names(run: TrainingRun) -> np.ndarray:
    return np.array([run.store.names[index] for index in run.store.splits["val"]])
