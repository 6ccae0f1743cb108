"""A trial in its directory: whoever runs it again continues where it stopped."""

import io
import logging
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
from trainable.sealed import set_aside, take_sealed, unseal, write_sealed
from trainable.store import Store
from trainable.train import DivergenceError, EpochResult, ImageCounts, TrainingRun
from trainable.trial_files import (
    CONFIG,
    COUNTS,
    RESULT,
    ROWS,
    Files,
    Row,
    append_attempt,
    append_row,
    checksums,
    damaged_files,
    parse_rows,
    read_rows,
    restore_files,
    rows_content,
    write_result,
)

logger = logging.getLogger(__name__)


def run_trial(config: TrainConfig, store: Store, folder: Path) -> Iterator[Row]:
    """Trains in `folder`, an epoch at a time, from wherever it stands; yields each epoch's row once it is on disk.

    A trial that is done already yields its last row. One that diverges ends there, and its result says so: the same
    settings would diverge again. What is damaged of it is set aside and built again from its checkpoint; where that
    is damaged too, the trial is trained anew.

    Raises:
        InputError: the folder holds another trial.
    """
    config = _claim(config, store, folder)
    result = take_sealed(folder / RESULT)
    if result and not damaged_files(folder, result):
        yield from read_rows(folder)[-1:]
    else:
        yield from _continue(config, store, folder, result)


def _continue(config: TrainConfig, store: Store, folder: Path, result: dict[str, Any] | None) -> Iterator[Row]:
    """Goes on from the latest whole checkpoint, once the other files are what they were when it was written."""
    num_rows = len(read_rows(folder))
    epoch, arrays = checkpoint.load_latest(folder / "checkpoint") or (0, {})
    files = {ROWS: b"", **checkpoint.unpack_files(arrays), CONFIG: (folder / CONFIG).read_bytes()}
    is_whole = result is not None and result["files"] == checksums(files)
    restore_files(folder, files, final=is_whole or epoch == config.epochs)
    rows = parse_rows(files[ROWS])
    if is_whole:  # it was done, and so it is again
        yield from rows[-1:]
    elif epoch == config.epochs:  # stopped between its last checkpoint and its result
        write_result(folder, rows, environment(config), files=files)
        yield rows[-1]
    else:
        _tell_lost(folder, result, num_rows, epoch)
        append_attempt(folder, num_rows, epoch)
        run = TrainingRun(config, store)
        if epoch:
            run.restore(epoch, arrays)
        del arrays  # as large as the model and its optimizer
        yield from _train(run, folder, rows, files)


def _train(run: TrainingRun, folder: Path, rows: list[Row], files: Files) -> Iterator[Row]:
    """Trains what is missing, after `rows` and with the files that belong to them."""
    try:
        for result in run.epochs():
            elapsed = (rows[-1]["time/total_s"] if rows else 0.0) + result.metrics["time/epoch_s"]
            rows.append({"epoch": result.epoch, **result.metrics, "time/total_s": elapsed})
            append_row(folder, rows[-1])
            files |= {ROWS: rows_content(rows), **_count_files(run, result)}
            _save_epoch(run, folder, files)
            if run.epoch == run.config.epochs:
                write_result(folder, rows, environment(run.config), files=files)
            yield rows[-1]
    except DivergenceError as error:
        where = {"epoch": error.epoch, "step": error.step}
        write_result(folder, rows, environment(run.config), infeasible=str(error), diverged_at=where, files=files)


def _tell_lost(folder: Path, result: dict[str, Any] | None, num_rows: int, epoch: int) -> None:
    """Says so where more than one epoch is trained again: the checkpoint that would spare it is damaged or gone."""
    if result:
        set_aside(folder / RESULT, f"files that it tells of are, and its checkpoint too; trained again after {epoch}")
    elif num_rows > epoch + 1:
        lost = f"trained {num_rows} epochs, but its checkpoints end at {epoch}"
        logger.warning("%s: %s; what is missing is trained again", folder, lost)


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
    images = {"num_bands": store.images.shape[3], "scale": store.scale}  # what others must be like to be predicted
    content = {"training": config.to_mapping(), "images": images, "trainer_version": TRAINER_VERSION}
    known = take_sealed(folder / CONFIG)
    found = _config_in_checkpoint(folder) if known is None else known
    precision = chosen_precision(config) if found is None else found.pop("precision", "")
    if found not in (None, content):
        raise InputError(f"{folder}: holds a trial with other settings (see {CONFIG}); use another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for abandoned in folder.glob(".*-[0-9]*"):  # by a killed writer; a trial has one at a time
        abandoned.unlink()
    if known is None:
        write_sealed(folder / CONFIG, {**content, "precision": precision})
    return replace(config, precision=precision)


def _config_in_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What `config.json` said when the checkpoint was written, which holds a copy of it."""
    found = checkpoint.load_latest(folder / "checkpoint")
    return unseal(checkpoint.unpack_files(found[1])[CONFIG]) if found else None


def _save_epoch(run: TrainingRun, folder: Path, files: Files) -> None:
    """Counts and state after an epoch; the state after the last one is the model alone, a third of the size."""
    for name in COUNTS.values():
        if name in files:
            write_atomically(folder / name, files[name])
    state = run.state(final=run.epoch == run.config.epochs)
    checkpoint.save(folder / "checkpoint", run.epoch, {**state, **checkpoint.pack_files(files)})


def _count_files(run: TrainingRun, result: EpochResult) -> Files:
    return {COUNTS[split]: _archive(run.store, split, counts) for split, counts in result.counts.items()}


def _archive(store: Store, split: str, counts: ImageCounts) -> bytes:
    buffer = io.BytesIO()
    names = np.array([store.names[index] for index in store.splits[split]])
    np.savez_compressed(buffer, allow_pickle=False, names=names, **counts)
    return buffer.getvalue()
