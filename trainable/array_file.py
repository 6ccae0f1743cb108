"""An array of bytes on disk, written item by item from several threads."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trainable.config import InputError


class ArrayFile:
    """An `.npy` file of uint8 whose items come in any order.

    Written, not mapped: a map takes twice the time, and would kill the process on a disk that fills up meanwhile.

    Args:
        path: of the new file.
        shape: of the array; an item is what stands at one position of its first axis.

    Raises:
        InputError: the disk has no room for all of it.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._item_shape = shape[1:]
        self._file = path.open("xb")
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()
        self._start = self._file.tell()
        try:
            os.posix_fallocate(self._file.fileno(), 0, self._start + math.prod(shape))
        except OSError as error:
            self._file.close()
            raise InputError(
                f"storage: {path.parent.parent} has no room for {math.prod(shape) / 1e9:.1f} GB of pixels"
                f" ({error.strerror}); free some or set another storage"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, position: int, items: Sequence[NDArray[np.uint8]]) -> None:
        """Puts items into their places, which begin at `position`; together, since threads wait for each other here."""
        assert all(item.shape == self._item_shape and item.dtype == np.uint8 for item in items)
        start = self._start + position * math.prod(self._item_shape)
        written = os.pwritev(self._file.fileno(), [np.ascontiguousarray(item).data for item in items], start)
        assert written == len(items) * math.prod(self._item_shape), "there is room for it"

    def sync(self) -> None:
        """Waits until all that was written is on the disk. Other threads go on meanwhile."""
        os.fsync(self._file.fileno())
