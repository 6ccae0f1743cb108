import numpy as np
import pytest
import torch

from bench.images import noise_batch, noise_store
from bench.scale import Scale
from bench.steps import bench_steps, train_pass
from trainable.config import TrainConfig
from trainable.train import TrainingRun


@pytest.mark.slow
def test_a_pass_takes_the_steps_of_the_runs_own_epoch() -> None:
    config = TrainConfig(encoder="resnet18", weights="none", image_size=32, batch_size=2, points_per_image=5)
    store = noise_store(4, 2, 32)
    passed, run = (TrainingRun(config, store) for _ in range(2))
    train_pass(passed)
    next(run.epochs())
    for ours, theirs in zip(passed.model.state_dict().values(), run.model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_noise_is_the_same_every_time_and_labelled_at_points() -> None:
    store, again = noise_store(3, 2, 32), noise_store(3, 2, 32)
    np.testing.assert_array_equal(store.images, again.images)
    assert {split: members.tolist() for split, members in store.splits.items()} == {
        "train": [0, 1, 2], "val": [3, 4], "test": [5],
    }  # fmt: skip
    images, labels = noise_batch(2, 8, num_points=6)
    assert images.shape == (2, 3, 8, 8)
    assert (labels != 255).sum(dim=(1, 2)).tolist() == [6, 6]


@pytest.mark.slow  # builds the notebook's 61 M parameters and three models of ours
def test_every_step_line_compares_with_the_one_baseline(tiny: Scale) -> None:
    lines = bench_steps(tiny)
    assert [line.floor for line in lines] == [3.3, 4.7, 8.5]
    assert len({line.baseline for line in lines}) == 1
    assert all(line.ratio == pytest.approx(line.baseline / line.ours) for line in lines)
