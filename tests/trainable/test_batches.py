"""An epoch's batches: which images, in which order, with which labels."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from trainable.batches import Batch, Batches, choose_images, class_counts
from trainable.config import DENSE, IGNORE_INDEX, InputError, TrainConfig
from trainable.points import draw_points
from trainable.store import Store

CPU = torch.device("cpu")
CONFIG = TrainConfig(encoder="resnet18", weights="none", image_size=32, batch_size=4, points_per_image=10)


def made_store(num_training: int, side: int = 32) -> Store:
    """Images between others of the validation split, each of one grey value, its place; masks of both classes."""
    count = 2 * num_training
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, side, side, 3)).copy()
    masks = np.random.default_rng(0).integers(0, 2, (count, side, side), dtype=np.uint8)
    masks[:, :, 0] = IGNORE_INDEX
    places = np.arange(count)
    splits = {"train": places[1::2], "val": places[::2], "test": places[:0]}
    names = tuple(f"{place}.png" for place in places)
    return Store(images, masks, names, splits, band_mean=(0.5,) * 3, band_std=(0.1,) * 3)


def batches(num_training: int = 8, **settings: Any) -> Batches:
    return Batches(replace(CONFIG, **settings), made_store(num_training))


def order(epoch: Iterator[Batch]) -> list[int]:
    return np.concatenate([batch.indices for batch in epoch]).tolist()


# Which images


@pytest.mark.parametrize(
    ("num_images", "batch_size", "sizes"),
    [
        (8, 4, [4, 4]),
        (8, 3, [3, 3, 2]),
        (8, 5, [4, 4]),  # not 5 and 3
        (8, 16, [8]),
        (8, 7, [4, 4]),  # not 7 and 1
        (9, 2, [3, 2, 2, 2]),  # no batch of one image
        (3, 2, [3]),
        (2, 2, [2]),
        (1, 2, [1]),
        (10, 4, [4, 3, 3]),
    ],
)
@pytest.mark.parametrize("points_per_image", [10, DENSE])
def test_every_image_once_in_batches_of_nearly_one_size(
    num_images: int, batch_size: int, sizes: list[int], points_per_image: int | str
) -> None:
    made = batches(num_images, batch_size=batch_size, points_per_image=points_per_image)
    loaded = list(made.epoch(1, CPU))
    assert [len(batch.indices) for batch in loaded] == sizes
    assert [len(batch.pixels) for batch in loaded] == sizes
    assert [len(batch.labels) for batch in loaded] == sizes
    assert made.per_epoch == len(sizes)
    assert sorted(order(iter(loaded))) == made.members.tolist()


@pytest.mark.parametrize("num_images", range(1, 40))
def test_sizes_differ_by_one_at_most(num_images: int) -> None:
    made = Batches(replace(CONFIG, points_per_image=DENSE), made_store(num_images, side=2))
    for batch_size in (2, 3, 4, 7, 16):
        made.config = replace(CONFIG, batch_size=batch_size)
        sizes = [len(batch.indices) for batch in made.epoch(1, CPU)]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= max(batch_size, 3)  # three images in batches of two: one batch, not two
        assert min(sizes) >= min(2, num_images)


def test_the_order_is_of_seed_and_epoch_alone() -> None:
    made = batches(16)
    first, second, again = (order(made.epoch(epoch, CPU)) for epoch in (1, 2, 1))
    assert first == again  # whatever was loaded in between: so a resumed run goes on as it would have
    assert order(batches(16, learning_rate=0.1, points_per_image=DENSE).epoch(2, CPU)) == second
    others = [first, second, order(batches(16, seed=1).epoch(1, CPU)), order(batches(16, seed=1).epoch(2, CPU))]
    assert len({tuple(each) for each in others}) == 4


def test_the_epochs_of_seeds_side_by_side_are_not_the_same() -> None:
    # Seeds that merely add up would give seed 1 in epoch 2 the order of seed 2 in epoch 1.
    seen = [tuple(order(batches(16, seed=seed).epoch(3 - seed, CPU))) for seed in (0, 1, 2)]
    assert len(set(seen)) == 3


# What they hold


@pytest.mark.parametrize("points_per_image", [10, DENSE])
def test_pixels_are_those_of_the_images(points_per_image: int | str) -> None:
    for batch in batches(points_per_image=points_per_image).epoch(1, CPU):
        assert (batch.pixels.shape, batch.pixels.dtype) == ((4, 32, 32, 3), torch.uint8)
        assert batch.pixels.flatten(1).unique(dim=1).flatten().tolist() == batch.indices.tolist()


def test_pixels_come_from_the_memory_mapped_store(store: Store) -> None:
    made = Batches(CONFIG, store)
    assert isinstance(store.images, np.memmap)
    assert np.shares_memory(made.images, store.images)  # mapped, not read
    for batch in made.epoch(1, CPU):
        np.testing.assert_array_equal(batch.pixels, store.images[batch.indices])
        batch.pixels.zero_()  # a copy: the store cannot be written to
    assert store.images[store.splits["train"]].any()


def test_the_dense_arm_gets_the_masks() -> None:
    made, store = batches(points_per_image=DENSE), made_store(8)
    assert made.points is None
    for batch in made.epoch(1, CPU):
        assert batch.positions is None
        assert batch.labels.dtype == torch.uint8
        np.testing.assert_array_equal(batch.labels, store.masks[batch.indices])


def test_labels_are_each_images_own_points() -> None:
    store = made_store(8)
    for batch in batches().epoch(1, CPU):
        assert batch.positions is not None
        assert (batch.positions.dtype, batch.labels.dtype) == (torch.int64, torch.int64)
        for index, positions, classes in zip(batch.indices, batch.positions, batch.labels, strict=True):
            points = draw_points(store.masks[index], 10, store.names[index], CONFIG)
            assert positions.tolist() == (points.rows * 32 + points.columns).tolist()
            assert classes.tolist() == points.classes.tolist() == store.masks[index].flat[positions].tolist()


def test_the_points_are_the_same_in_every_epoch() -> None:
    made = batches()
    epochs = []
    for epoch in (1, 2):
        loaded = made.epoch(epoch, CPU)
        epochs.append({i: p.tolist() for batch in loaded for i, p in zip(batch.indices, batch.positions, strict=True)})
    assert epochs[0] == epochs[1]


SMALL_MASKS = np.array(  # two training images of six pixels
    [[[1, 1, IGNORE_INDEX], [IGNORE_INDEX, 0, 1]], [[0, IGNORE_INDEX, IGNORE_INDEX], [IGNORE_INDEX] * 3]],
    dtype=np.uint8,
)


def small(points_per_image: int | str) -> Batches:
    store = replace(made_store(2), masks=SMALL_MASKS, names=("a", "b"), splits={"train": np.array([0, 1])})
    return Batches(replace(CONFIG, points_per_image=points_per_image), store)


def test_images_with_fewer_points_are_padded() -> None:
    (batch,) = small(3).epoch(1, CPU)
    assert batch.positions is not None
    places = batch.indices.tolist()
    assert batch.positions.shape == batch.labels.shape == (2, 3)
    assert batch.positions[places.index(1)].tolist() == [0, 0, 0]
    assert batch.labels[places.index(1)].tolist() == [0, IGNORE_INDEX, IGNORE_INDEX]
    assert IGNORE_INDEX not in batch.labels[places.index(0)]


def test_counts_worked_by_hand() -> None:
    known = [[1, 3], [1, 0]]  # background and forest pixels of the two masks
    assert small(DENSE).pixel_counts().tolist() == known
    assert small(DENSE).label_counts().tolist() == known
    assert small(6).pixel_counts().tolist() == known
    assert small(6).label_counts().tolist() == known  # every known pixel is a point
    one_each = small(1)
    assert one_each.pixel_counts().tolist() == known
    assert one_each.label_counts().sum(axis=1).tolist() == [1, 1]
    assert one_each.label_counts()[1].tolist() == [1, 0]


def test_counts_are_of_the_training_images_alone() -> None:
    store = made_store(8)
    members = store.splits["train"]
    expected = np.stack([(store.masks[members] == index).sum(axis=(1, 2)) for index in (0, 1)], axis=1)
    np.testing.assert_array_equal(batches().pixel_counts(), expected)
    assert batches().label_counts().sum(axis=1).tolist() == [10] * 8


def test_flipped_labels_count_as_what_they_say() -> None:
    # Every click of another class than the pixel's: the labels and the pixels under them disagree throughout.
    right, wrong = batches().label_counts(), batches(label_flip_rate=1.0).label_counts()
    np.testing.assert_array_equal(right, wrong[:, ::-1])
    assert (right != wrong).any()


def test_class_counts_worked_by_hand() -> None:
    labels = np.array([[0, 1, 1, 255], [255, 255, 255, 255], [0, 0, 0, 0]])
    assert class_counts(labels).tolist() == [[1, 2], [0, 0], [4, 0]]


def test_on_the_cpu_nothing_is_copied() -> None:
    batch = next(batches().epoch(1, CPU))
    assert batch.to(CPU) is batch


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("points_per_image", [10, DENSE])
def test_on_a_gpu_the_same_arrives(points_per_image: int | str) -> None:
    made, device = batches(points_per_image=points_per_image), torch.device("cuda")
    for there, here in zip(made.epoch(1, device), made.epoch(1, CPU), strict=True):
        assert there.pixels.device.type == "cuda"
        assert torch.equal(there.pixels.cpu(), here.pixels)
        assert torch.equal(there.labels.cpu(), here.labels)
        if here.positions is not None:
            assert there.positions is not None
            assert torch.equal(there.positions.cpu(), here.positions)


# How many images


def chosen(store: Store | None = None, **settings: Any) -> list[int]:
    return choose_images(replace(CONFIG, **settings), store or made_store(20)).tolist()


@pytest.mark.parametrize("points_per_image", [10, DENSE])
def test_images_nest(points_per_image: int | str) -> None:
    lists = [chosen(train_images=count, points_per_image=points_per_image) for count in (1, 5, 10, 19, 20)]
    assert [len(each) for each in lists] == [1, 5, 10, 19, 20]
    for few, many in itertools.pairwise(lists):
        assert set(few) < set(many)
        assert few == sorted(few)
    assert lists[-1] == chosen() == made_store(20).splits["train"].tolist()


def test_images_are_drawn_like_the_points() -> None:
    by_seed = [chosen(train_images=5, seed=seed) for seed in range(6)]
    assert len({tuple(each) for each in by_seed}) > 3
    assert chosen(train_images=5, seed=9, points_seed=4) == by_seed[4]
    # Neither the strategy nor the number of points has a say: points x images is a grid of nested labels.
    assert chosen(train_images=5, seed=4, point_strategy="grid", points_per_image=3) == by_seed[4]


def test_an_image_keeps_its_rank_whatever_else_is_there() -> None:
    store = made_store(20)
    half = replace(store, splits={**store.splits, "train": store.splits["train"][:10]})
    assert set(chosen(train_images=5)) & set(half.splits["train"].tolist()) <= set(chosen(half, train_images=5))


def test_every_image_is_picked_alike_often() -> None:
    # 400 draws of 5 out of 20: each image 100 times, standard deviation sqrt(400 x 1/4 x 3/4) = 8.7.
    counts = np.bincount([place for seed in range(400) for place in chosen(train_images=5, seed=seed)], minlength=40)
    assert abs(counts[1::2] - 100).max() < 40


def test_an_epoch_shows_the_chosen_images_alone() -> None:
    made = batches(8, train_images=3)
    assert sorted(order(made.epoch(1, CPU))) == chosen(made_store(8), train_images=3)
    assert made.label_counts().sum(axis=1).tolist() == [10] * 3
    assert made.per_epoch == 1
    whole = batches(8)
    place = made.members[0]
    where = [each.members.tolist().index(place) for each in (made, whole)]
    some, every = (each.load(np.array([at])) for each, at in zip((made, whole), where, strict=True))
    assert torch.equal(some.labels, every.labels)  # the same points, as rows of the same image
    assert some.positions is not None
    assert every.positions is not None
    assert torch.equal(some.positions, every.positions)


def test_where_people_labelled_only_their_images_are_counted() -> None:
    store = replace(made_store(8), sparse=True)
    store.masks[store.splits["train"][::2]] = IGNORE_INDEX
    labelled = store.splits["train"][1::2].tolist()
    assert chosen(store, train_images=4) == labelled
    with pytest.raises(InputError, match=r"train_images: must be at most the 4 labelled training images, got 5"):
        chosen(store, train_images=5)


def test_a_seed_of_points_alone_moves_points_alone() -> None:
    plain, same, other = batches(), batches(points_seed=0), batches(points_seed=1)
    assert plain.points is not None
    assert same.points is not None
    assert other.points is not None
    np.testing.assert_array_equal(plain.points[0], same.points[0])
    assert (plain.points[0] != other.points[0]).any()
    assert order(plain.epoch(1, CPU)) == order(other.epoch(1, CPU))
    moved = batches(seed=5, points_seed=1)
    assert moved.points is not None
    np.testing.assert_array_equal(moved.points[0], other.points[0])
    assert order(moved.epoch(1, CPU)) != order(other.epoch(1, CPU))
