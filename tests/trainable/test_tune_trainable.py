import gc
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainable import checkpoint
from trainable.config import TrainConfig
from trainable.store import Store
from trainable.train import TrainingRun
from trainable.trial_files import read_result, read_rows, result_hash
from trainable.tune_trainable import Trainable


@pytest.fixture(autouse=True)
def _logs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray makes a log folder for each Trainable, in the home directory unless told otherwise."""
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))


def as_trial(config: TrainConfig, store_folder: Path, folder: Path) -> dict[str, Any]:
    return {"trial": {"training": config.to_mapping(), "store": str(store_folder), "folder": str(folder)}}


@pytest.mark.slow
def test_an_actor_takes_over_another_trial_and_nothing_leaks(
    config: TrainConfig, store_folder: Path, store: Store, stopped: dict[int, Path], folder: Path
) -> None:
    mine = as_trial(config, store_folder, folder / "mine")
    other_config = replace(config, seed=1, epochs=1, focal_gamma=2.0)
    other = as_trial(other_config, store_folder, folder / "other")
    actor: Any = Trainable(config=mine)
    assert actor.train()["done"] is False  # one of three epochs
    assert actor.reset(other)
    assert actor.train()["done"] is True
    assert actor.reset(mine)  # back to the first, which goes on from its directory
    assert [(row["epoch"], row["done"]) for row in (actor.train(), actor.train())] == [(2, False), (3, True)]
    actor.stop()
    assert result_hash(read_rows(folder / "mine")) == result_hash(read_rows(stopped[3]))
    alone = next(TrainingRun(other_config, store).epochs()).metrics
    assert read_rows(folder / "other")[0].items() >= {k: v for k, v in alone.items() if "time/" not in k}.items()


def test_the_model_of_a_trial_is_gone_when_the_next_begins(
    config: TrainConfig, store_folder: Path, folder: Path
) -> None:
    # An actor trains hundreds of trials. What the collector has to find stays for several of them: 75 MB each.
    actor: Any = Trainable(config=as_trial(config, store_folder, folder / "mine"))
    actor.train()
    run = weakref.ref(actor.rows.gi_yieldfrom.gi_frame.f_locals["run"])
    model, optimizer = weakref.ref(run().model), weakref.ref(run().optimizer)
    gc.disable()
    try:
        assert actor.reset(as_trial(replace(config, seed=1), store_folder, folder / "other"))
        assert (run(), model(), optimizer()) == (None, None, None)
    finally:
        gc.enable()
    actor.stop()


def test_a_finished_trial_is_done_at_its_first_step(
    config: TrainConfig, store_folder: Path, stopped: dict[int, Path]
) -> None:
    actor: Any = Trainable(config=as_trial(config, store_folder, stopped[3]))
    row = actor.train()
    actor.stop()
    assert (row["done"], row["epoch"]) == (True, 3)
    assert row["val/miou"] == read_rows(stopped[3])[-1]["val/miou"]


def test_a_trial_that_diverges_is_done_without_a_row(
    config: TrainConfig, store_folder: Path, stopped: dict[int, Path], folder: Path
) -> None:
    shutil.copytree(stopped[1], folder)
    found = checkpoint.load_latest(folder / "checkpoint")
    assert found is not None
    found[1]["model/head.bias"][:] = np.inf
    checkpoint.save(folder / "checkpoint", *found)
    actor: Any = Trainable(config=as_trial(config, store_folder, folder))
    row = actor.train()
    actor.stop()
    assert row["done"] is True
    assert "epoch" not in row
    result = read_result(folder)
    assert result is not None
    assert (result["state"], result["diverged_at"]) == ("infeasible", {"epoch": 2, "step": 1})
