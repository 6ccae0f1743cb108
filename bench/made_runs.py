"""Thousands of W&B run files from a real one: its records with other ids, settings and scores, in frames of our own.

The frames are checked by writing the real file again: nothing changed, it must come out the same byte for byte.
"""

import json
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from analysis.reading.run_files import BLOCK_SIZE, CHUNK_HEADER, FIRST, FULL, HEADER, LAST, MIDDLE, iter_frames
from analysis.reading.run_records import read_run
from study.lean_wandb import LEAN
from trainable.config import TrainConfig

STUDY = "many"
POINTS = (10, 50, 100, 200)
RATES = tuple(round(10 ** -(2 + n / 3), 6) for n in range(10))
GAMMAS = tuple(n / 2 for n in range(10))
NUM_OTHERS = 20  # metrics beside the objective: 25 in all

Setting = tuple[int, float, float, int]
"""Seed, gamma, learning rate, points."""


def make_runs(folder: Path, num_runs: int, num_epochs: int) -> None:
    """Writes `folder/wandb` with complete runs of one study: a grid of points, rates and gammas, seed after seed."""
    pattern = write_real_run(folder.with_name("pattern"), num_epochs)
    payloads = list(iter_frames(pattern, []))
    if framed(payloads) != pattern.read_bytes():
        raise AssertionError(f"{pattern}: written again, it is another file")
    settings = list(islice(product(range(num_runs), GAMMAS, RATES, POINTS), num_runs))
    chunks = [(folder, pattern, start, settings[start : start + 100]) for start in range(0, num_runs, 100)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        list(pool.map(_write_chunk, *zip(*chunks, strict=True)))


def write_real_run(folder: Path, num_epochs: int) -> Path:
    """One offline run, by W&B itself, with 25 metrics as ours have them."""
    folder.mkdir(parents=True)
    settings = wandb.Settings(**LEAN, x_transaction_log_flush_interval=1.0)
    run = wandb.init(
        project="canopoint",
        mode="offline",
        dir=folder,
        id=run_id(0),
        group=STUDY,
        config=config_of(0, (0, 0.0, RATES[0], POINTS[0])),
        settings=settings,
    )
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    rng = np.random.default_rng(0)
    for epoch in range(1, num_epochs + 1):
        others = {f"val/metric_{n}": score for n, score in enumerate(rng.random(NUM_OTHERS).tolist())}
        times = {"time/total_s": 2.5 * epoch, "time/epoch_s": 2.5, "train/loss": 1 / epoch}
        run.log({"epoch": epoch, "val/miou": rng.random(), **others, **times}, step=epoch)
    run.summary.update({"state": "completed"})
    path = Path(run.settings.sync_file)
    run.finish()
    _wait_for(path)
    return path


def _wait_for(path: Path) -> None:
    """Until W&B's service has written the end of a finished run."""
    deadline = time.monotonic() + 30
    while read_run(path).exit_code is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path}: W&B does not write its end")
        time.sleep(0.05)


def run_id(number: int) -> str:
    """Of the run with this number."""
    return f"{STUDY}-{number:012x}"


def config_of(number: int, setting: Setting) -> dict[str, Any]:
    """What the mirror would tell W&B of it."""
    seed, gamma, rate, points = setting
    levels = {"points_per_image": points, "learning_rate": rate, "focal_gamma": gamma}
    scenes = {part: [f"scene-{part}-{n}" for n in range(40)] for part in ("train", "val", "test")}
    return {
        "study": STUDY,
        "trial_id": f"{number:012x}",
        "phase": "explore",
        "seed": seed,
        "parameters": levels,
        "roles": dict(zip(levels, ("scientific", "nuisance", "nuisance"), strict=True)),
        "training": TrainConfig(seed=seed, epochs=100, **levels).to_mapping(),
        "data_config": {"root": "/data"},
        "data": {"fingerprint": "f" * 64, "scenes": scenes, "floors": {"coin_flip": {"val/miou": 0.331}}},
        "objective": {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
        "search_method": "grid",
        "trainer_version": "1",
    }


def _write_chunk(folder: Path, pattern: Path, start: int, settings: Sequence[Setting]) -> None:
    records = [Record.FromString(payload) for payload in iter_frames(pattern, [])]
    for number, setting in enumerate(settings, start):
        path = folder / "wandb" / f"offline-run-20260101_000000-{run_id(number)}" / f"run-{run_id(number)}.wandb"
        path.parent.mkdir(parents=True)
        path.write_bytes(framed(_changed(records, number, setting)))


def _changed(records: Sequence[Any], number: int, setting: Setting) -> list[bytes]:
    """The records of another run: its names, its config, its metrics at every epoch."""
    config, rng = config_of(number, setting), np.random.default_rng(number)
    config["training"]["epochs"] = sum(record.WhichOneof("record_type") == "history" for record in records)
    for record in records:
        if record.HasField("run"):
            record.run.run_id = run_id(number)
            for item in record.run.config.update:
                if (key := item.key or item.nested_key[0]) in config:
                    item.value_json = json.dumps(config[key])
            continue
        for item in (*record.history.item, *record.summary.update):
            name = item.nested_key[0] if item.nested_key else item.key
            if name.startswith("val/"):
                item.value_json = repr(_score(setting, rng) if name == "val/miou" else rng.random())
    return [record.SerializeToString() for record in records]


def _score(setting: Setting, rng: np.random.Generator) -> float:
    """Best at the fourth rate; fifty points are nearly enough."""
    _, gamma, rate, points = setting
    return float(0.75 - 2 / points - 0.02 * abs(RATES.index(rate) - 3) - 0.005 * gamma + rng.normal(0, 0.01))


def framed(payloads: Sequence[bytes]) -> bytes:
    """A run file of these records (`run_files.py` has the format)."""
    parts, position = [HEADER], len(HEADER)
    for payload in payloads:
        for chunk in _chunks(payload, position):
            parts.append(chunk)
            position += len(chunk)
    return b"".join(parts)


def _chunks(payload: bytes, position: int) -> Iterator[bytes]:
    """The chunks of one record that begins at this byte of the file, with the padding before them."""
    begun = False
    while True:
        room = BLOCK_SIZE - position % BLOCK_SIZE
        if room < CHUNK_HEADER.size:
            yield bytes(room)
            position += room
            continue
        piece, payload = payload[: room - CHUNK_HEADER.size], payload[room - CHUNK_HEADER.size :]
        kind = (MIDDLE if payload else LAST) if begun else (FIRST if payload else FULL)
        checked = bytes([kind]) + piece
        yield CHUNK_HEADER.pack(zlib.crc32(checked), len(piece), kind) + piece
        position += CHUNK_HEADER.size + len(piece)
        if not payload:
            return
        begun = True
