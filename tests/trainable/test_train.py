import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainable.batches import choose_images
from trainable.config import IGNORE_INDEX, DataConfig, InputError, SyntheticConfig, TrainConfig
from trainable.data import load_index, load_store
from trainable.metrics import floors
from trainable.store import Store, open_store
from trainable.train import IMAGENET_MEAN, IMAGENET_STD, DivergenceError, TrainingRun, band_statistics
from trainable.trial_files import read_rows

History = list[tuple[dict[str, float], float]]


def timeless(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("time/") and name != "epoch"}


@pytest.fixture(scope="module")
def history(config: TrainConfig, store: Store) -> History:
    """Metrics of each epoch, and the learning rate of its last step."""
    torch.manual_seed(1)  # nothing may come from the process's own stream
    run = TrainingRun(config, store)
    return [(result.metrics, run.optimizer.param_groups[0]["lr"]) for result in run.epochs()]


def first_images(store: Store, num_images: int) -> Store:
    """The store with a smaller training split."""
    return replace(store, splits={**store.splits, "train": store.splits["train"][:num_images]})


def test_two_runs_of_one_config_are_equal_to_the_last_bit(history: History, stopped: dict[int, Path]) -> None:
    assert [timeless(metrics) for metrics, _ in history] == [timeless(row) for row in read_rows(stopped[3])]


def test_another_seed_gives_another_result(config: TrainConfig, store: Store, history: History) -> None:
    other = next(TrainingRun(replace(config, seed=1), store).epochs())
    assert other.metrics["train/loss"] != history[0][0]["train/loss"]


def test_all_images_by_number_and_the_own_seed_by_name_change_no_bit(
    config: TrainConfig, store: Store, history: History
) -> None:
    named = replace(config, train_images=len(store.splits["train"]), points_seed=config.seed)
    assert [timeless(each.metrics) for each in TrainingRun(named, store).epochs()] == [
        timeless(metrics) for metrics, _ in history
    ]


def test_fewer_images_are_as_if_the_others_were_not_there(config: TrainConfig, store: Store) -> None:
    few = replace(config, train_images=3, epochs=1)
    (result,) = TrainingRun(few, store).epochs()
    alone = replace(store, splits={**store.splits, "train": choose_images(few, store)})
    (expected,) = TrainingRun(replace(few, train_images=None), alone).epochs()
    assert timeless(result.metrics) == timeless(expected.metrics)
    assert result.metrics["points/per_image"] == 50


def test_the_cosine_falls_step_by_step(config: TrainConfig, history: History) -> None:
    # Six steps, the last of each epoch at 1/6, 3/6 and 5/6 of the way: cosines of 30, 90 and 150 degrees.
    half_root = math.sqrt(3) / 2
    expected = [config.learning_rate * (1 + cosine) / 2 for cosine in (half_root, 0, -half_root)]
    assert [rate for _, rate in history] == pytest.approx(expected, rel=1e-12)


def test_times_are_told(history: History) -> None:
    for metrics, _ in history:
        assert 0 <= metrics["time/data_wait_s"] < metrics["time/epoch_s"]


def test_it_can_learn_its_points_by_heart(config: TrainConfig, store: Store) -> None:
    # Eight images of 50 points. An undecided network pays ln 2 at two classes; here 0.22 was left after eight epochs.
    config = replace(config, points_per_image=50, epochs=8, weight_decay=0.0)
    losses = [result.metrics["train/loss"] for result in TrainingRun(config, store).epochs()]
    assert math.log(2) / 2 < losses[0] < 2 * math.log(2)
    assert losses[-1] < math.log(2) / 2


def test_no_batch_is_a_single_image(config: TrainConfig, store: Store) -> None:
    # Three images in batches of two. At 32 px the encoder ends at 1 x 1, so one image has one value per channel, and
    # batch normalisation refuses to train on it.
    run = TrainingRun(replace(config, batch_size=2), first_images(store, 3))
    assert math.isfinite(next(run.epochs()).metrics["train/loss"])


def test_a_single_image_is_refused(config: TrainConfig, store: Store) -> None:
    with pytest.raises(InputError, match=r"data\.split: one training image of 32 px .* add images"):
        TrainingRun(config, first_images(store, 1))


@pytest.mark.parametrize("points", [2, 50, "dense"])
def test_whatever_is_labelled_every_known_pixel_validates(config: TrainConfig, store: Store, points: int | str) -> None:
    run = TrainingRun(replace(config, points_per_image=points), store)
    confusion = run.evaluate("val")["confusion"]  # (4, 2, 2) by true and predicted class
    forest = store.masks[store.splits["val"]].sum(axis=(1, 2))
    assert confusion[:, 1].sum(axis=1).tolist() == forest.tolist()
    assert confusion.sum(axis=(1, 2)).tolist() == [32 * 32] * 4


def test_the_dense_arm_is_labelled_everywhere(config: TrainConfig, store: Store) -> None:
    dense = TrainingRun(replace(config, points_per_image="dense"), store)
    assert dense.annotation["points/per_image"] == 32 * 32
    assert dense.annotation["points/forest_share"] == store.masks[store.splits["train"]].mean()
    # Before the first step it is the same model, and is judged alike.
    few = TrainingRun(replace(config, points_per_image=2), store)
    expected, found = few.evaluate("val"), dense.evaluate("val")
    assert {name: each.tobytes() for name, each in found.items()} == {n: each.tobytes() for n, each in expected.items()}
    assert math.isfinite(next(dense.epochs()).metrics["train/loss"])


def test_unknown_pixels_of_the_dense_arm_are_not_labels(config: TrainConfig, store: Store) -> None:
    masks = np.array(store.masks)
    masks[:, :, 16:] = IGNORE_INDEX
    run = TrainingRun(replace(config, points_per_image="dense"), replace(store, masks=masks))
    result = next(run.epochs())
    assert result.metrics["points/per_image"] == 32 * 16
    assert result.counts["val"]["confusion"].sum(axis=(1, 2)).tolist() == [32 * 16] * 4


def test_points_of_people_train_and_held_out_ones_validate(config: TrainConfig, store: Store) -> None:
    chosen = np.random.default_rng(0).random(store.masks.shape) < 0.02
    sparse = replace(store, masks=np.where(chosen, store.masks, IGNORE_INDEX).astype(np.uint8), sparse=True)
    result = next(TrainingRun(replace(config, points_per_image=10), sparse).epochs())
    assert 0 < result.metrics["points/fewest"] <= result.metrics["points/per_image"] <= 10
    assert result.counts["val"]["confusion"].sum() == chosen[store.splits["val"]].sum()
    assert math.isfinite(result.metrics["val/miou"])
    assert not [name for name in result.metrics if "boundary" in name]  # scattered points have none


def test_a_fourth_band_is_trained_on(config: TrainConfig, store: Store) -> None:
    infrared = 255 - np.asarray(store.images)[..., :1]
    bands = np.concatenate([store.images, infrared], axis=3)
    training = bands[store.splits["train"]] / 255
    statistics = {"band_mean": tuple(training.mean(axis=(0, 1, 2))), "band_std": tuple(training.std(axis=(0, 1, 2)))}
    config = replace(config, augmentation="full")
    run = TrainingRun(config, replace(store, images=bands, **statistics))
    before = run.state(final=True)["model/encoder.stages.0.0.0.weight"].copy()
    assert before.shape[1] == 4
    result = next(run.epochs())
    assert math.isfinite(result.metrics["train/loss"])
    moved = run.state(final=True)["model/encoder.stages.0.0.0.weight"] != before
    assert moved.any(axis=(0, 2, 3)).all()  # of every band


@pytest.mark.parametrize(("noise", "moved"), [({"label_flip_rate": 0.3}, False), ({"position_jitter_px": 2.0}, True)])
def test_annotators_errors_are_in_the_labels_alone(
    config: TrainConfig, store: Store, noise: dict[str, float], moved: bool
) -> None:
    clean, noisy = (TrainingRun(replace(config, **each), store) for each in ({}, noise))
    for expected, found in zip(clean.batches.epoch(1, clean.device), noisy.batches.epoch(1, noisy.device), strict=True):
        assert torch.equal(expected.pixels, found.pixels)
        assert torch.equal(expected.positions, found.positions) is not moved
        assert torch.equal(expected.labels, found.labels) is moved  # a click that misses keeps the class it meant
    assert {name: each.tobytes() for name, each in clean.evaluate("val").items()} == {
        name: each.tobytes() for name, each in noisy.evaluate("val").items()
    }
    losses = [next(run.epochs()).metrics["train/loss"] for run in (clean, noisy)]
    assert losses[0] != losses[1]


def damaged(config: TrainConfig, store: Store, name: str, value: float) -> TrainingRun:
    """A run with one weight far from where it should be."""
    run = TrainingRun(config, store)
    arrays = {key: array.copy() for key, array in run.state(final=False).items()}
    arrays[f"model/{name}"].flat[0] = value
    run.restore(0, arrays)
    return run


NOT_FINITE = "weights, batch statistics or moments are not finite"

# AdamW at rate 10 and decay 1 multiplies the bias by -9 at each step: 8e36 in favour of background, then 7.2e37 in
# favour of forest. The loss sums over 40 points; float32 ends at 3.4e38.
OVERFLOWING: dict[str, Any] = {"optimizer": "adamw", "learning_rate": 10.0, "weight_decay": 1.0, "points_per_image": 10}


@pytest.mark.parametrize(
    ("settings", "name", "value", "place", "reason"),
    [
        ({}, "head.bias", math.inf, (1, 1), "the training loss is nan"),
        ({}, "head.bias", math.nan, (1, 1), "the training loss is nan"),
        (OVERFLOWING, "head.bias", 8e36, (1, 2), "the training loss is inf"),
        # Training uses the batch's own statistics, so its loss is finite: only the validation shows this one,
        ({}, "decoder.0.mix.1.running_var", math.nan, (1, None), "the val loss is nan"),
        # and neither shows this one: its channel has infinite variance, and divided by that is 0.
        ({}, "decoder.0.mix.0.weight", 1e30, (1, None), NOT_FINITE),
    ],
)
def test_divergence_stops_the_run(
    config: TrainConfig,
    store: Store,
    settings: dict[str, Any],
    name: str,
    value: float,
    place: tuple[int, int | None],
    reason: str,
) -> None:
    run = damaged(replace(config, schedule="constant", **settings), store, name, value)
    with pytest.raises(DivergenceError) as caught:
        next(run.epochs())
    assert (caught.value.epoch, caught.value.step) == place
    assert caught.value.reason == reason
    told = f"step {place[1]}" if place[1] else "after its steps"
    assert str(caught.value) == f"diverged in epoch 1, {told}: {reason}"


@pytest.fixture
def _settings_of_the_process() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]
    torch.set_num_threads(before[2])


@pytest.mark.usefixtures("_settings_of_the_process")
def test_what_one_run_asks_of_the_process_the_next_does_not_inherit(config: TrainConfig, store: Store) -> None:
    for deterministic, num_threads in ((True, 1), (False, 2), (True, 1), (False, 1)):
        TrainingRun(replace(config, deterministic=deterministic, num_threads=num_threads), store)
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert torch.backends.cudnn.benchmark is not deterministic
        assert torch.get_num_threads() == num_threads


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(config: TrainConfig, store: Store) -> None:
    with pytest.raises(InputError, match=r"training\.device: cuda"):
        TrainingRun(replace(config, device="cuda"), store)


def test_colour_is_normalised_as_for_imagenet(store: Store) -> None:
    mean, deviation = band_statistics(store)
    torch.testing.assert_close((mean, deviation), (torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)))


def test_other_bands_by_their_own_statistics(store: Store) -> None:
    grey = replace(store, images=store.images[..., :1], band_mean=(0.25,), band_std=(0.5,))
    mean, deviation = band_statistics(grey)
    assert (mean.tolist(), deviation.tolist()) == ([0.25], [0.5])


def test_a_band_that_is_the_same_everywhere_is_not_blown_up(store: Store) -> None:
    _, deviation = band_statistics(replace(store, images=store.images[..., :1], band_mean=(0.25,), band_std=(0.0,)))
    assert deviation.tolist() == pytest.approx([1e-3])


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
