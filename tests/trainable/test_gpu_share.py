"""The part of a GPU's memory that a trial may fill."""

import pytest
import torch

from trainable.tune_trainable import limit_gpu_memory, memory_fraction

GIB = 2**30


def test_a_share_leaves_room_for_what_cuda_takes_of_every_process() -> None:
    assert memory_fraction(0.5, 80 * GIB) == 0.5 - 0.5 / 80
    assert 4 * memory_fraction(0.25, 16 * GIB) * 16 + 4 * 0.5 == 16
    assert memory_fraction(0.1, 4 * GIB) == 0.05  # never less than half the share, on however small a GPU


@pytest.mark.parametrize("share", [0.0, 1.0, 2.0])
def test_whole_gpus_and_none_are_not_limited(share: float) -> None:
    limit_gpu_memory(share)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_process_cannot_fill_more_than_its_share() -> None:
    total = torch.cuda.mem_get_info()[1]
    try:
        limit_gpu_memory(0.25)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int(0.3 * total), dtype=torch.uint8, device="cuda")
        torch.empty(int(0.1 * total), dtype=torch.uint8, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
