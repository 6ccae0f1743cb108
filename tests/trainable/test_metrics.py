from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score
from torch import Tensor

from trainable.config import CLASS_NAMES, IGNORE_INDEX, METRIC_NAMES
from trainable.metrics import Counts, confusion_counts, dataset_metrics, floors, image_metrics

ORACLES: dict[str, Callable[..., float]] = {
    "miou": jaccard_score,
    "dice": f1_score,
    "precision": precision_score,
    "recall": recall_score,
}


def count(predicted: Tensor, truth: Tensor) -> Counts:
    counts: Counts = confusion_counts(predicted, truth).numpy()
    return counts


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


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_pooled_pixels_against_sklearn(maps: tuple[Tensor, Tensor], name: str) -> None:
    assert dataset_metrics(count(*maps))[name] == pytest.approx(oracle(name, *maps), abs=1e-12)


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_means_over_images_against_sklearn(maps: tuple[Tensor, Tensor], name: str) -> None:
    each = [oracle(name, predicted, truth) for predicted, truth in zip(*maps, strict=True)]
    assert image_metrics(count(*maps))[f"image_{name}"] == pytest.approx(np.mean(each), abs=1e-12)


@pytest.mark.parametrize(("index", "name"), list(enumerate(CLASS_NAMES)))
def test_iou_of_a_class_against_sklearn(maps: tuple[Tensor, Tensor], index: int, name: str) -> None:
    predicted, truth = (each.ravel().numpy() for each in maps)
    expected = jaccard_score(truth, predicted, pos_label=index)
    assert dataset_metrics(count(*maps))[f"iou_{name}"] == pytest.approx(expected, abs=1e-12)


def test_counts_are_image_true_predicted() -> None:
    truth = torch.tensor([[[0, 0, 0, 1]], [[1, 1, 1, 1]]])
    predicted = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 1]]])
    assert count(predicted, truth).tolist() == [[[2, 1], [0, 1]], [[0, 0], [3, 1]]]


def test_worked_by_hand() -> None:
    # The counts above pooled: background 2 right, 1 missed, 3 too many; forest 2 right, 3 missed, 1 too many.
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


def test_unknown_pixels_do_not_count() -> None:
    truth = torch.tensor([[[0, 1, IGNORE_INDEX, IGNORE_INDEX]]], dtype=torch.uint8)
    predicted = torch.tensor([[[0, 0, 0, 1]]])
    assert count(predicted, truth).tolist() == [[[1, 0], [1, 0]]]


def test_pooling_weighs_pixels_and_the_image_mean_weighs_images() -> None:
    # 90 pixels all right beside 10 all wrong: accuracy 0.9 of the pixels, 0.5 of the images.
    counts = np.array([[[90, 0], [0, 0]], [[0, 0], [10, 0]]])
    assert dataset_metrics(counts)["accuracy"] == 0.9
    assert image_metrics(counts)["image_accuracy"] == 0.5


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
