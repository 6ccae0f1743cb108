"""A trial in its directory: whoever runs it again continues where it stopped."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    config = _claim(config, store, folder)
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


def _claim(config: TrainConfig, store: Store, folder: Path) -> TrainConfig:
    """Writes the trial's config into a new folder, or checks that an old one holds the same.

    Returns:
        The settings to train with: what `precision: auto` chose at the first start holds wherever the trial goes on.
    """
    path = folder / "config.json"
    images = {"num_bands": store.images.shape[3], "scale": store.scale}  # what others must be like to be predicted
    content = {"training": config.to_mapping(), "images": images, "trainer_version": TRAINER_VERSION}
    precision = chosen_precision(config)
    if path.is_file():
        found = _read_claim(path)
        precision = found.pop("precision", precision)
        if found != content:
            raise InputError(f"{folder}: holds a trial with other settings (see config.json); use another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for abandoned in folder.glob(".*-[0-9]*"):  # by a killed writer; a trial has one at a time
        abandoned.unlink()
    write_atomically(path, to_json({**content, "precision": precision}))
    return replace(config, precision=precision)


def _read_claim(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); remove the trial's folder to train it anew") from error
    return found


def _save_epoch(run: TrainingRun, result: EpochResult, folder: Path) -> None:
    """Counts and state after an epoch; the state after the last one is the model alone, a third of the size."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, names=_validation_names(run), **result.counts)
    write_atomically(folder / "counts.npz", buffer.getvalue())
    checkpoint.save(folder / "checkpoint", result.epoch, run.state(final=run.epoch == run.config.epochs))


def _validation_names(run: TrainingRun) -> np.ndarray:
    return np.array([run.store.names[index] for index in run.store.splits["val"]])
