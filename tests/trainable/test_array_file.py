from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trainable.array_file import ArrayFile


def test_items_written_by_threads_in_any_order_are_an_array(tmp_path: Path) -> None:
    expected = np.random.default_rng(0).integers(0, 256, (50, 7, 5, 3), dtype=np.uint8)
    with ArrayFile(tmp_path / "a.npy", expected.shape) as file, ThreadPoolExecutor(4) as threads:
        order = np.random.default_rng(1).permutation(len(expected)).tolist()
        list(threads.map(lambda position: file.write(position, [expected[position]]), order))
        file.sync()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), expected)


def test_items_may_come_together(tmp_path: Path) -> None:
    expected = np.arange(12, dtype=np.uint8).reshape(4, 3)
    with ArrayFile(tmp_path / "a.npy", expected.shape) as file:
        file.write(1, list(expected[1:]))
        file.write(0, [expected[0]])
    assert np.load(tmp_path / "a.npy").tolist() == expected.tolist()


def test_an_item_need_not_be_contiguous(tmp_path: Path) -> None:
    item = np.arange(6, dtype=np.uint8).reshape(2, 3).T
    with ArrayFile(tmp_path / "a.npy", (1, 3, 2)) as file:
        file.write(0, [item])
    assert np.load(tmp_path / "a.npy").tolist() == [[[0, 3], [1, 4], [2, 5]]]


@pytest.mark.parametrize("item", [np.zeros((2, 3), dtype=np.uint8), np.zeros((3, 2), dtype=np.float64)])
def test_an_item_of_another_kind_would_spoil_its_neighbours(tmp_path: Path, item: np.ndarray) -> None:
    with ArrayFile(tmp_path / "a.npy", (2, 3, 2)) as file, pytest.raises(AssertionError):
        file.write(0, [item])


def test_what_is_not_written_is_zero(tmp_path: Path) -> None:
    with ArrayFile(tmp_path / "a.npy", (2, 2)) as file:
        file.write(1, [np.array([7, 8], dtype=np.uint8)])
    assert np.load(tmp_path / "a.npy").tolist() == [[0, 0], [7, 8]]
