import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trainable.config import IGNORE_INDEX, DataConfig, InputError, SyntheticConfig, TrainConfig
from trainable.data import load_index, load_store
from trainable.metrics import floors
from trainable.points import ranked_points
from trainable.store import Store, open_store
from trainable.train import IMAGENET_MEAN, IMAGENET_STD, TrainingRun, band_statistics
from trainable.trial_files import read_rows

History = list[tuple[dict[str, float], float]]


def timeless(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("time/") and name != "epoch"}


@pytest.fixture(scope="module")
def history(config: TrainConfig, store: Store) -> History:
    """Metrics of each epoch, and the learning rate of its last step."""
    run = TrainingRun(config, store)
    return [(timeless(result.metrics), run.optimizer.param_groups[0]["lr"]) for result in run.epochs()]


@pytest.fixture(scope="module")
def untrained(config: TrainConfig, store: Store) -> TrainingRun:
    """For what needs no training; copied where it is altered."""
    return TrainingRun(config, store)


def test_two_runs_of_one_config_are_equal_to_the_last_bit(history: History, stopped: dict[int, Path]) -> None:
    assert [metrics for metrics, _ in history] == [timeless(row) for row in read_rows(stopped[3])]


def test_another_seed_gives_another_result(config: TrainConfig, store: Store, history: History) -> None:
    other = next(TrainingRun(replace(config, seed=1), store).epochs())
    assert other.metrics["train/loss"] != history[0][0]["train/loss"]


def test_the_cosine_falls_step_by_step(config: TrainConfig, history: History) -> None:
    # Six steps, the last of each epoch at 1/6, 3/6 and 5/6 of the way: cosines of 30, 90 and 150 degrees.
    half_root = math.sqrt(3) / 2
    expected = [config.learning_rate * (1 + cosine) / 2 for cosine in (half_root, 0, -half_root)]
    assert [rate for _, rate in history] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("schedule", "progress", "factor"),
    [
        ("cosine", 0.0, 1.0),
        ("cosine", 0.25, 0.8535533905932737),  # (1 + cos 45 degrees) / 2
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
        ("constant", 0.0, 1.0),
        ("constant", 0.99, 1.0),
    ],
)
def test_schedules(untrained: TrainingRun, schedule: str, progress: float, factor: float) -> None:
    run = copy.copy(untrained)
    run.config = replace(run.config, schedule=schedule)
    run._set_learning_rate(progress)
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(run.config.learning_rate * factor, abs=1e-18)


def test_the_loss_falls(history: History) -> None:
    losses = [metrics["train/loss"] for metrics, _ in history]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < 2 * math.log(2)  # about ln 2, what an undecided network pays at two classes
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("num_images", "batch_size", "sizes"),
    [
        (8, 4, [4, 4]),
        (8, 3, [3, 3, 2]),
        (8, 5, [4, 4]),  # not 5 and 3
        (8, 16, [8]),
        (8, 7, [4, 4]),  # not 7 and 1
    ],
)
def test_batches_cover_every_image_once(
    untrained: TrainingRun, num_images: int, batch_size: int, sizes: list[int]
) -> None:
    run = copy.copy(untrained)
    run.config, run.store = replace(run.config, batch_size=batch_size), first_images(run.store, num_images)
    orders = []
    for run.epoch in (1, 2):
        batches = run._batches()
        assert [batch.size for batch in batches] == sizes
        orders.append(np.concatenate(batches).tolist())
        assert sorted(orders[-1]) == list(range(num_images))
    assert orders[0] != orders[1]


def first_images(store: Store, num_images: int) -> Store:
    """The store with a smaller training split."""
    return replace(store, splits={**store.splits, "train": store.splits["train"][:num_images]})


def test_no_batch_is_a_single_image(config: TrainConfig, store: Store) -> None:
    # Three images in batches of two. At 32 px the encoder ends at 1 x 1, so one image has one value per channel, and
    # batch normalisation refuses to train on it.
    run = TrainingRun(replace(config, batch_size=2), first_images(store, 3))
    assert math.isfinite(next(run.epochs()).metrics["train/loss"])


def test_labels_are_each_images_own_points(config: TrainConfig, store: Store, untrained: TrainingRun) -> None:
    labels = untrained.labels
    assert labels.shape == (8, 32, 32)
    for position, index in enumerate(store.splits["train"]):
        points = ranked_points(store.masks[index], config.points_per_image, store.names[index], config.seed)
        assert sorted(np.flatnonzero(labels[position] != IGNORE_INDEX)) == sorted(points)
        np.testing.assert_array_equal(labels[position].flat[points], store.masks[index].flat[points])


def test_validation_is_dense(config: TrainConfig, store: Store) -> None:
    counts = next(TrainingRun(config, store).epochs()).counts
    assert counts.sum(axis=(1, 2)).tolist() == [32 * 32] * 4  # every pixel of the four validation images
    forest = store.masks[store.splits["val"]].sum(axis=(1, 2))
    assert counts[:, 1].sum(axis=1).tolist() == forest.tolist()


def damage(run: TrainingRun, name: str, value: float) -> None:
    """Continues a run from weights that have overflowed."""
    arrays = {key: array.copy() for key, array in run.state(final=False).items()}
    arrays[f"model/{name}"].flat[0] = value
    run.restore(0, arrays)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("head.bias", math.inf),
        # Training uses the batch's own statistics, so its loss is finite: only the validation shows this one.
        ("decoder.0.mix.1.running_var", math.nan),
    ],
)
def test_divergence_stops_the_run(config: TrainConfig, store: Store, name: str, value: float) -> None:
    run = TrainingRun(config, store)
    damage(run, name, value)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        next(run.epochs())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(config: TrainConfig, store: Store) -> None:
    with pytest.raises(InputError, match=r"training\.device: cuda"):
        TrainingRun(replace(config, device="cuda"), store)


def test_colour_is_normalised_as_for_imagenet(store: Store) -> None:
    mean, deviation = band_statistics(store)
    torch.testing.assert_close((mean, deviation), (torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)))


def test_other_bands_by_their_own_statistics(store: Store) -> None:
    # One band; training images all black and all white: mean and standard deviation 1/2. Validation does not count.
    images = np.zeros((3, 4, 4, 1), dtype=np.uint8)
    images[1], images[2] = 255, 77
    grey = replace(store, images=images, splits={"train": np.array([0, 1]), "val": np.array([2])})
    mean, deviation = band_statistics(grey)
    assert mean.tolist() == [0.5]
    assert deviation.tolist() == [0.5]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_what_no_single_class_can_reach(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    # Ten epochs at 64 px reached mIoU 0.73 and 0.72; the oracle that knows each image's majority class has 0.55.
    cache = tmp_path_factory.mktemp("cache")
    made = DataConfig(synthetic=SyntheticConfig(num_scenes=8, images_per_scene=8, image_size=64))
    store = open_store(load_store(load_index(made, cache), 64, cache, lambda done: None))
    config = TrainConfig(
        encoder="resnet18", weights="none", image_size=64, points_per_image=200, batch_size=8, epochs=10,
        learning_rate=1e-3, schedule="cosine", seed=seed,
    )  # fmt: skip
    *_, last = TrainingRun(config, store).epochs()
    floor = floors(store.masks[store.splits["val"]])["image_majority"]["miou"]
    assert last.metrics["val/miou"] > floor + 0.1
