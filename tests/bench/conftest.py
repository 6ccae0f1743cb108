"""Benchmarks set torch up for the whole process, as they measure in one; the tests around them must not notice."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.scale import Scale


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def tiny() -> Scale:
    return Scale(
        image_size=32, num_points=5, part_batch=2, step_batch=2, memory_batch=2, num_train=4, num_val=2, num_pairs=200,
        part_rounds=1, packing_rounds=1, step_rounds=1, epoch_rounds=1, precision_rounds=1, num_threads=1,
    )  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[Path, Path]]:
    """Two images of 8 x 8 px and their masks of grey values; the second mask is 0 throughout."""
    generator = np.random.default_rng(0)
    pairs = []
    for number, mask in enumerate([np.arange(64) * 4, np.zeros(64)]):
        pair = tmp_path / f"image_{number}.png", tmp_path / f"mask_{number}.png"
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(pair[0])
        Image.fromarray(mask.astype(np.uint8).reshape(8, 8)).save(pair[1])
        pairs.append(pair)
    return pairs
