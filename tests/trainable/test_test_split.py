"""The test split is opened once, by the end of a run that is told to, and by nothing else."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainable.config import IGNORE_INDEX, InputError, TrainConfig
from trainable.metrics import all_metrics
from trainable.store import Store
from trainable.train import EpochResult, TrainingRun
from trainable.trial import run_trial
from trainable.trial_files import read_result, read_rows

Row = dict[str, float]


@pytest.fixture(scope="module")
def confirming(config: TrainConfig) -> TrainConfig:
    return replace(config, epochs=2, evaluate_test=True)


@pytest.fixture(scope="module")
def confirmed(confirming: TrainConfig, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a finished trial that opened the test split; beside it, the same after its first epoch."""
    folder = tmp_path_factory.mktemp("confirmed") / "trial"
    rows = run_trial(confirming, store, folder)
    next(rows)
    shutil.copytree(folder, folder.with_name("half"))
    list(rows)
    yield folder
    shutil.rmtree(folder.parent)


def train(config: TrainConfig, store: Store) -> list[EpochResult]:
    return list(TrainingRun(config, store).epochs())


def timeless(row: Row) -> Row:
    return {name: value for name, value in row.items() if not name.startswith("time/")}


def of_split(row: Row, split: str) -> Row:
    return {name.removeprefix(f"{split}/"): value for name, value in row.items() if name.startswith(f"{split}/")}


def test_the_last_row_has_every_metric_of_both_splits(confirmed: Path) -> None:
    first, last = read_rows(confirmed)
    assert of_split(first, "test") == {}
    assert of_split(last, "test").keys() == of_split(last, "val").keys() == of_split(first, "val").keys()
    assert last["test/miou"] != last["val/miou"]
    result = read_result(confirmed)
    assert result is not None
    assert result["metrics"] == last


def test_the_counts_of_the_test_images_give_its_metrics_again(confirmed: Path, store: Store) -> None:
    with np.load(confirmed / "counts_test.npz", allow_pickle=False) as archive:
        counts = dict(archive)
    assert counts.pop("names").tolist() == [store.names[index] for index in store.splits["test"]]
    assert all_metrics(counts) == of_split(read_rows(confirmed)[-1], "test")  # to the last bit
    with np.load(confirmed / "counts.npz", allow_pickle=False) as archive:
        assert {name: (array.dtype, array.shape[1:]) for name, array in archive.items() if name != "names"} == {
            name: (array.dtype, array.shape[1:]) for name, array in counts.items()
        }


def test_it_changes_nothing_else(confirming: TrainConfig, confirmed: Path, store: Store) -> None:
    usual = train(replace(confirming, evaluate_test=False), store)
    rows = [{name: value for name, value in row.items() if "test/" not in name} for row in read_rows(confirmed)]
    assert [timeless(row) for row in rows] == [timeless({"epoch": r.epoch, **r.metrics}) for r in usual]
    assert all(result.counts.keys() == {"val"} for result in usual)


def stopped_after_the_checkpoint(folder: Path, confirmed: Path) -> None:
    shutil.copytree(confirmed, folder)
    (folder / "result.json").unlink()


def stopped_after_the_counts(folder: Path, confirmed: Path) -> None:
    shutil.copytree(confirmed.with_name("half"), folder)
    for name in ("metrics.jsonl", "counts.npz", "counts_test.npz"):
        shutil.copy(confirmed / name, folder)


@pytest.mark.parametrize("leave", [stopped_after_the_checkpoint, stopped_after_the_counts])
def test_a_run_stopped_in_its_last_epoch_ends_with_the_same_row(
    confirming: TrainConfig,
    confirmed: Path,
    store: Store,
    folder: Path,
    assert_same_result: Callable[[Path, Path], None],
    leave: Callable[[Path, Path], None],
) -> None:
    leave(folder, confirmed)
    (row,) = run_trial(confirming, store, folder)
    assert timeless(row) == timeless(read_rows(confirmed)[-1])
    assert_same_result(folder, confirmed)
    assert (folder / "counts_test.npz").read_bytes() == (confirmed / "counts_test.npz").read_bytes()


def with_test_images_last(store: Store) -> Store:
    """The same images in another order: places in the store are part of some draws."""
    order = np.concatenate([store.splits[split] for split in ("train", "val", "test")])
    place = np.argsort(order)
    return replace(
        store,
        images=np.array(store.images[order]),
        masks=np.array(store.masks[order]),
        names=tuple(store.names[index] for index in order),
        splits={split: place[members] for split, members in store.splits.items()},
    )


def without_test_images(store: Store) -> Store:
    """The arrays end before the test images: whoever touches one is told."""
    num_others = store.splits["test"].min()
    return replace(store, images=store.images[:num_others], masks=store.masks[:num_others])


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="points"),
        pytest.param({"class_weights": "prior", "augmentation": "full", "entropy_weight": 0.1}, id="all pixels"),
        pytest.param({"points_per_image": "dense"}, id="dense"),
    ],
)
def test_no_other_run_touches_a_test_image(config: TrainConfig, store: Store, settings: dict[str, object]) -> None:
    config = replace(config, epochs=1, **settings)  # type: ignore[arg-type]
    whole = with_test_images_last(store)
    (expected,), (found,) = train(config, whole), train(config, without_test_images(whole))
    assert timeless(found.metrics) == timeless(expected.metrics)
    with pytest.raises(IndexError):  # the negative control
        TrainingRun(replace(config, evaluate_test=True), without_test_images(whole))


def test_a_test_split_of_which_nothing_is_known_is_refused_before_training(config: TrainConfig, store: Store) -> None:
    masks = np.array(store.masks)
    masks[store.splits["test"]] = IGNORE_INDEX
    unknown = replace(store, masks=masks, sparse=True)
    TrainingRun(config, unknown)  # without it, it may be so
    with pytest.raises(InputError, match=r"^data\.split: none of the 4 images of the test split has a labelled pixel"):
        TrainingRun(replace(config, evaluate_test=True), unknown)
    masks[store.splits["test"][-1], 0, 0] = 1
    TrainingRun(replace(config, evaluate_test=True), unknown)  # one is enough


def test_nothing_but_the_numbers_of_the_test_follows_from_it(confirming: TrainConfig, store: Store) -> None:
    confirming = replace(confirming, epochs=1)
    images = np.array(store.images)
    images[store.splits["test"]] ^= 255
    (usual,), (other,) = (train(confirming, each) for each in (store, replace(store, images=images)))
    different = {name for name, value in timeless(usual.metrics).items() if other.metrics[name] != value}
    assert {name for name in different if not name.startswith("test/")} == set()
    assert "test/nll" in different
