from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score
from torch import Tensor

from trainable.config import CLASS_NAMES, InputError
from trainable.metrics import (
    Counts,
    boundary_metrics,
    calibration_error,
    dataset_metrics,
    floors,
    image_metrics,
)
from trainable.pixel_counts import confusion_counts

ORACLES: dict[str, Callable[..., float]] = {
    "miou": jaccard_score,
    "dice": f1_score,
    "precision": precision_score,
    "recall": recall_score,
}
RATIOS = (*ORACLES, "accuracy")


def count(predicted: Tensor, truth: Tensor) -> Counts:
    counts: Counts = confusion_counts(predicted, truth).numpy()
    return counts


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(params=range(3))
def maps(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """Predictions and truth, (6, 8, 8): mixed images, and of one class in truth, in prediction and in both."""
    rng = np.random.default_rng(request.param)
    truth = rng.integers(0, 2, (6, 8, 8))
    predicted = np.where(rng.random((6, 8, 8)) < 0.8, truth, 1 - truth)
    truth[0], predicted[1] = 1, 0
    truth[2] = predicted[2] = 1
    return torch.from_numpy(predicted), torch.from_numpy(truth)


def oracle(name: str, predicted: Tensor, truth: Tensor) -> float:
    """Sklearn's macro mean over the classes that occur in truth or prediction."""
    flat = truth.ravel().numpy(), predicted.ravel().numpy()
    if name == "accuracy":
        return float(accuracy_score(*flat))
    return float(ORACLES[name](*flat, labels=np.unique(flat), average="macro", zero_division=0))


@pytest.mark.parametrize("name", RATIOS)
def test_pooled_pixels_against_sklearn(maps: tuple[Tensor, Tensor], name: str) -> None:
    assert dataset_metrics(count(*maps))[name] == pytest.approx(oracle(name, *maps), abs=1e-12)


@pytest.mark.parametrize("name", RATIOS)
def test_means_over_images_against_sklearn(maps: tuple[Tensor, Tensor], name: str) -> None:
    each = [oracle(name, predicted, truth) for predicted, truth in zip(*maps, strict=True)]
    assert image_metrics(count(*maps))[f"image_{name}"] == pytest.approx(np.mean(each), abs=1e-12)


@pytest.mark.parametrize(("index", "name"), list(enumerate(CLASS_NAMES)))
def test_iou_of_a_class_against_sklearn(maps: tuple[Tensor, Tensor], index: int, name: str) -> None:
    predicted, truth = (each.ravel().numpy() for each in maps)
    expected = jaccard_score(truth, predicted, pos_label=index)
    assert dataset_metrics(count(*maps))[f"iou_{name}"] == pytest.approx(expected, abs=1e-12)


def test_worked_by_hand() -> None:
    # Pooled: background 2 right, 1 missed, 3 too many; forest 2 right, 3 missed, 1 too many.
    metrics = dataset_metrics(np.array([[[2, 1], [0, 1]], [[0, 0], [3, 1]]]))
    assert metrics == pytest.approx(
        {
            "miou": 2 / 6,  # 2 / (2 + 1 + 3) for both
            "dice": 4 / 8,
            "precision": (2 / 5 + 2 / 3) / 2,
            "recall": (2 / 3 + 2 / 5) / 2,
            "accuracy": 4 / 8,
            "iou_background": 2 / 6,
            "iou_forest": 2 / 6,
        }
    )


@pytest.mark.parametrize(
    ("counts", "miou", "recall"),
    [
        # All forest, all found: nothing is said of background. The seed counted it as 0 and scored this image 0.5.
        ([[0, 0], [0, 4]], 1.0, 1.0),
        # Background only in the prediction: its IoU is 0 of 1, and so is its recall; forest 3 of 4.
        ([[0, 0], [1, 3]], 0.375, 0.375),
        # Forest never predicted: IoU and recall 0; background 3 of 4, all found.
        ([[3, 0], [1, 0]], 0.375, 0.5),
        # All wrong.
        ([[0, 2], [2, 0]], 0.0, 0.0),
    ],
)
def test_absent_classes(counts: list[list[int]], miou: float, recall: float) -> None:
    image = image_metrics(np.array([counts]))
    pooled = dataset_metrics(np.array([counts]))
    assert (image["image_miou"], image["image_recall"]) == (miou, recall)
    assert (pooled["miou"], pooled["recall"]) == (miou, recall)


def test_a_class_that_never_occurs_has_no_iou() -> None:
    assert "iou_background" not in dataset_metrics(np.array([[[0, 0], [0, 4]]]))


def test_absent_classes_are_counted() -> None:
    # Both classes; forest alone; background in the prediction alone; nothing known.
    counts = np.array([[[1, 1], [1, 1]], [[0, 0], [0, 4]], [[0, 0], [1, 3]], [[0, 0], [0, 0]]])
    assert image_metrics(counts)["image_absent_classes"] == 3


def test_an_image_of_which_nothing_is_known_says_nothing() -> None:
    known = np.array([[[3, 1], [2, 4]], [[1, 0], [0, 1]]])
    blank = np.zeros((1, 2, 2), dtype=np.int64)
    expected = {**dataset_metrics(known), **image_metrics(known), "image_absent_classes": 2.0}
    both = np.concatenate([known, blank])
    assert {**dataset_metrics(both), **image_metrics(both)} == expected


@pytest.mark.parametrize("metrics", [dataset_metrics, image_metrics])
def test_images_of_which_nothing_is_known_are_refused(metrics: Callable[[Counts], object]) -> None:
    with pytest.raises(InputError, match=r"^metrics: images .* must have labelled pixels, but none of these 3 has any"):
        metrics(np.zeros((3, 2, 2), dtype=np.int64))


def test_pooling_weighs_pixels_and_the_image_mean_weighs_images() -> None:
    # 90 pixels all right beside 10 all wrong: accuracy 0.9 of the pixels, 0.5 of the images.
    counts = np.array([[[90, 0], [0, 0]], [[0, 0], [10, 0]]])
    assert dataset_metrics(counts)["accuracy"] == 0.9
    assert image_metrics(counts)["image_accuracy"] == 0.5


@pytest.mark.parametrize(
    ("images", "pooled", "mean", "num_absent"),
    [
        # All matched.
        ([[7, 7, 9, 9, 64]], 1.0, 1.0, 0),
        # Precision 1/2, recall 1/4.
        ([[5, 10, 2, 8, 64]], 1 / 3, 1 / 3, 0),
        # A border that nothing matches; in the prediction alone; in truth alone.
        ([[0, 6, 0, 6, 64]], 0.0, 0.0, 0),
        ([[0, 6, 0, 0, 64]], 0.0, 0.0, 0),
        ([[0, 0, 0, 6, 64]], 0.0, 0.0, 0),
        # No border, and none found: right, but no reason to raise the mean of other images.
        ([[0, 0, 0, 0, 64]], 1.0, 1.0, 1),
        # Pooled: precision 12/16, recall 9/12. Images: 1/3, 16/17 (precision 1, recall 8/9), and one
        # without a border.
        ([[2, 6, 1, 3, 64], [10, 10, 8, 9, 64], [0, 0, 0, 0, 64]], 3 / 4, (1 / 3 + 16 / 17) / 2, 1),
    ],
)
def test_boundary_f1(images: list[list[int]], pooled: float, mean: float, num_absent: int) -> None:
    assert boundary_metrics(np.array(images)) == pytest.approx(
        {"boundary_f1": pooled, "image_boundary_f1": mean, "image_absent_borders": num_absent}, abs=1e-12
    )


def test_boundary_f1_is_not_defined_where_no_pixel_is_judged() -> None:
    assert boundary_metrics(np.zeros((2, 5), dtype=np.int64)) == {}


def test_calibration_error_worked_by_hand() -> None:
    # Ten pixels. Four of confidence 0.6, of which one is right: 0.35 too sure. Six of 0.9, all right: 0.1 too doubtful.
    calibration = np.zeros((2, 15, 3))
    calibration[0, 9], calibration[1, 13] = (4, 2.4, 1), (6, 5.4, 6)
    assert calibration_error(calibration) == pytest.approx((4 * 0.35 + 6 * 0.1) / 10)


def test_calibration_is_pooled_before_it_is_compared() -> None:
    # Too sure in one image and too doubtful in the other by as much, in the same bin.
    calibration = np.zeros((2, 15, 3))
    calibration[:, 10] = (10, 7, 5), (10, 7, 9)
    assert calibration_error(calibration) == 0


def test_floors_worked_by_hand() -> None:
    # Image A: 3 of 4 pixels forest. Image B: 1 of 4, so that its majority is background.
    masks: NDArray[np.uint8] = np.array([[[1, 1], [1, 0]], [[0, 0], [0, 1]]], dtype=np.uint8)
    found = floors(masks)
    # All forest: 4 of 8 pixels right; forest IoU 4/8, background 0. By image: forest 3/4 and 1/4, background 0.
    assert found["all_forest"] | {"accuracy": 0.5, "miou": 0.25, "iou_forest": 0.5} == found["all_forest"]
    assert found["all_forest"]["image_miou"] == pytest.approx((3 / 8 + 1 / 8) / 2)
    # Majority: A all forest, B all background. 6 of 8 right; each class has 3 right, 1 missed, 1 too many.
    majority = found["image_majority"]
    assert majority | {"accuracy": 0.75, "miou": 3 / 5, "dice": 3 / 4, "recall": 3 / 4} == majority
    assert majority["image_miou"] == pytest.approx(3 / 8)  # 3/4 for the one class, 0 for the other, in both


def test_a_tie_counts_as_forest() -> None:
    masks = np.array([[[1, 0]], [[0, 0]]], dtype=np.uint8)
    assert floors(masks)["image_majority"]["iou_forest"] == 0.5  # one pixel right, one too many; else 0


def test_a_coin_flip_is_right_in_half_the_pixels_of_each_class() -> None:
    # 6 of 8 pixels are forest: 3 found, 3 missed, and 1 of the 2 others taken for it.
    masks = np.array([[[1, 1], [1, 1]], [[1, 1], [0, 0]]], dtype=np.uint8)
    coin = floors(masks)["coin_flip"]
    expected = {"accuracy": 1 / 2, "iou_forest": 3 / 7, "iou_background": 1 / 5, "recall": 1 / 2, "precision": 1 / 2}
    assert coin | expected == coin
    # By image: forest 2 of 4 and background 0 of something; then 1 of 3 for both.
    assert coin["image_miou"] == pytest.approx((1 / 4 + 1 / 3) / 2)


def test_the_coin_flip_floor_is_what_coins_give(rng: np.random.Generator) -> None:
    masks = (rng.random((2, 512, 512)) < 0.598).astype(np.uint8)
    coins = torch.from_numpy(rng.integers(0, 2, masks.shape))
    tossed = dataset_metrics(count(coins, torch.from_numpy(masks)))
    coin = floors(masks)["coin_flip"]
    assert {name: coin[name] for name in tossed} == pytest.approx(tossed, abs=0.003)
    assert coin["miou"] == pytest.approx(0.331, abs=0.001)  # the share of forest, and the floor, of ../shared


def test_floors_leave_unknown_pixels_out() -> None:
    masks = np.array([[[1, 1, 0, 255]], [[0, 255, 255, 255]], [[255, 255, 255, 255]]], dtype=np.uint8)
    found = floors(masks)
    assert {name: scores["accuracy"] for name, scores in found.items()} == {
        "all_forest": 2 / 4,
        "coin_flip": 1 / 2,
        "image_majority": 3 / 4,
    }
    assert found["all_forest"]["image_accuracy"] == pytest.approx((2 / 3 + 0) / 2)
