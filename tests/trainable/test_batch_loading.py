"""The thread that loads an epoch's batches: one ahead, its failures seen, its end certain, waiting for it measured."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainable.batches import Batch, Batches
from trainable.config import TrainConfig
from trainable.store import Store

CPU = torch.device("cpu")
CONFIG = TrainConfig(encoder="resnet18", weights="none", image_size=32, batch_size=4, points_per_image=10)


def grey_store(num_training: int) -> Store:
    """Grey images of nothing but background, all of them for training."""
    images = np.full((num_training, 32, 32, 3), 128, dtype=np.uint8)
    splits = {"train": np.arange(num_training), "val": np.arange(0), "test": np.arange(0)}
    names = tuple(f"{place}.png" for place in range(num_training))
    return Store(images, np.zeros_like(images[..., 0]), names, splits, band_mean=(0.5,) * 3, band_std=(0.1,) * 3)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def loaders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


class Watched(Batches):
    """Tells what is loaded, and can take its time over it or fail."""

    def __init__(self, config: TrainConfig, store: Store) -> None:
        super().__init__(config, store)
        self.loads = 0
        self.loaded = threading.Semaphore(0)
        self.takes_s = 0.0
        self.fails_at = -1

    def load(self, chosen: NDArray[np.int64]) -> Batch:
        time.sleep(self.takes_s)
        self.loads += 1
        if self.loads == self.fails_at:
            raise OSError("the disk is gone")
        self.loaded.release()
        return super().load(chosen)


@pytest.fixture
def watched() -> Watched:
    """Four batches."""
    return Watched(CONFIG, grey_store(16))


def test_the_thread_ends_with_the_epoch(watched: Watched) -> None:
    epoch = watched.epoch(1, CPU)
    assert loaders() == []  # nothing starts before it is asked for
    next(epoch)
    assert len(loaders()) == 1
    assert len(list(epoch)) == 3
    assert loaders() == []


def test_the_thread_ends_with_an_epoch_that_is_closed(watched: Watched) -> None:
    epoch: Any = watched.epoch(1, CPU)
    next(epoch)
    epoch.close()
    assert loaders() == []
    assert watched.loads <= 2


def test_the_thread_ends_with_an_epoch_that_is_left_halfway(watched: Watched) -> None:
    for _ in watched.epoch(1, CPU):
        break
    assert loaders() == []


def test_the_thread_ends_with_a_step_that_fails(watched: Watched) -> None:
    def train() -> None:
        for _ in watched.epoch(1, CPU):
            raise FloatingPointError("diverged")

    with pytest.raises(FloatingPointError, match="diverged"):
        train()
    assert loaders() == []


@pytest.mark.parametrize("fails_at", [1, 2, 4])
def test_a_failure_to_load_reaches_the_caller(watched: Watched, fails_at: int) -> None:
    watched.fails_at = fails_at
    epoch = watched.epoch(1, CPU)
    for _ in range(fails_at - 1):
        next(epoch)
    with pytest.raises(OSError, match="the disk is gone"):
        next(epoch)
    assert loaders() == []
    watched.fails_at = -1
    assert len(list(watched.epoch(1, CPU))) == 4  # and the next attempt is not harmed by it


def test_a_store_cut_short_is_no_silent_end() -> None:
    store = grey_store(8)
    made = Batches(CONFIG, replace(store, images=store.images[:4]))
    with pytest.raises(IndexError):
        list(made.epoch(1, CPU))


def test_one_batch_is_loaded_ahead_and_no_more(watched: Watched) -> None:
    epoch = watched.epoch(1, CPU)
    for step in (1, 2, 3):
        next(epoch)
        for _ in range(2 if step == 1 else 1):  # the next one comes without being asked for
            assert watched.loaded.acquire(timeout=10)
        time.sleep(0.01)
        assert watched.loads == step + 1
    next(epoch)
    assert watched.loads == 4
    assert next(epoch, None) is None


def test_waiting_is_measured(watched: Watched) -> None:
    watched.takes_s = 0.02
    assert watched.waited_s == 0
    list(watched.epoch(1, CPU))  # steps that take no time wait for every batch
    assert watched.waited_s >= 4 * 0.02 - 0.02
    before, watched.takes_s = watched.waited_s, 0.0
    list(watched.epoch(2, CPU))
    assert 0 < watched.waited_s < before  # of the last epoch, not of all


def test_a_slow_step_waits_for_the_first_batch_alone(watched: Watched) -> None:
    watched.takes_s = 0.1
    for step, _ in enumerate(watched.epoch(1, CPU)):
        for _ in range((2, 1, 1, 0)[step]):  # until the batch after this one is there, too
            assert watched.loaded.acquire(timeout=10)
        time.sleep(0.01)
    assert 0.09 <= watched.waited_s < 0.3  # of the 0.4 that loading took
