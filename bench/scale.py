"""How large the benchmarks are; tests run them small."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes of all benchmarks.

    Attributes:
        image_size: pixels per side.
        num_points: labelled pixels per image.
        part_batch: images per batch where a part is measured alone; the notebook's.
        step_batch: images per training step and in whole epochs. The notebook's 16 would take the baseline 10 s a step.
        memory_batch: images per training step where peak memory is measured; the notebook's.
        num_train, num_val: images of an epoch. Two to one, as in a split 0.6 / 0.2 / 0.2 nearly.
        num_pairs: images to pack, or None for all there are.
        num_trials: trials that do nothing, where the driver itself is measured.
        part_rounds, packing_rounds, step_rounds, epoch_rounds, precision_rounds, driver_rounds: timed rounds; their
            median counts.
        num_threads: of torch, on both sides, in steps and epochs.
        part_threads: the same where a part is measured alone: one, as a loader's worker has, and as a trial of ours has
            that shares two cores with another. It is also what noise from other processes disturbs least.
    """

    image_size: int = 256
    num_points: int = 50
    part_batch: int = 16
    step_batch: int = 8
    memory_batch: int = 16
    num_train: int = 32
    num_val: int = 16
    num_pairs: int | None = None
    num_trials: int = 1000
    part_rounds: int = 15
    packing_rounds: int = 3
    step_rounds: int = 5
    epoch_rounds: int = 3
    precision_rounds: int = 3
    driver_rounds: int = 2
    part_threads: int = 1
    num_threads: int = min(2, os.cpu_count() or 1)
