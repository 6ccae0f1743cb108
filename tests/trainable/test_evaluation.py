"""From logits to metrics against sklearn and torchmetrics on pooled pixels, and what the counts must not depend on."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, log_loss, precision_score, recall_score
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_jaccard_index,
    multiclass_precision,
    multiclass_recall,
)

from trainable.config import IGNORE_INDEX, METRIC_NAMES
from trainable.evaluation import PIXELS_ON_CPU, Evaluation, calibration_sums, nll_sums
from trainable.metrics import all_metrics

SKLEARN: dict[str, Callable[..., float]] = {
    "miou": jaccard_score,
    "dice": f1_score,
    "precision": precision_score,
    "recall": recall_score,
}
TORCHMETRICS: dict[str, Callable[..., Tensor]] = {
    "miou": multiclass_jaccard_index,
    "dice": multiclass_f1_score,
    "precision": multiclass_precision,
    "recall": multiclass_recall,
}
EXACT = 1e-12


@pytest.fixture(scope="module")
def logits() -> Tensor:
    """(6, 2, 40, 24) float64, from doubtful to nearly certain; sklearn cuts a likelihood off at 2e-16."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 0.5, 1, 2, 3, 4]).view(-1, 1, 1, 1)
    return torch.randn(6, 2, 40, 24, generator=generator, dtype=torch.float64) * spread


@pytest.fixture(scope="module")
def truth(logits: Tensor) -> Tensor:
    """(6, 40, 24) uint8, right in some 80 % of the pixels, a tenth unknown, and of one image everything."""
    generator = torch.Generator().manual_seed(1)
    chance = torch.rand(6, 40, 24, generator=generator)
    truth = logits.argmax(dim=1) ^ (chance < 0.2)
    truth[chance > 0.9] = IGNORE_INDEX
    truth[2] = IGNORE_INDEX
    return truth.to(torch.uint8)


@pytest.fixture(scope="module")
def metrics(logits: Tensor, truth: Tensor) -> dict[str, float]:
    return all_metrics(counts_of(logits, truth))


@pytest.fixture(scope="module")
def known(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Truth, prediction and probabilities (n, 2) of the known pixels, pooled."""
    where = truth != IGNORE_INDEX
    probabilities = logits.softmax(dim=1).movedim(1, 3)[where]
    return truth[where].long(), logits.argmax(dim=1)[where], probabilities


def counts_of(logits: Tensor, truth: Tensor) -> dict[str, np.ndarray]:
    evaluation = Evaluation()
    evaluation.add(logits, truth)
    return evaluation.counts()


@pytest.mark.parametrize("name", SKLEARN)
def test_ratios_against_sklearn(metrics: dict[str, float], known: tuple[Tensor, ...], name: str) -> None:
    truth, predicted, _ = known
    assert metrics[name] == pytest.approx(SKLEARN[name](truth, predicted, average="macro"), abs=EXACT)


@pytest.mark.parametrize("name", TORCHMETRICS)
def test_ratios_against_torchmetrics(metrics: dict[str, float], known: tuple[Tensor, ...], name: str) -> None:
    truth, predicted, _ = known
    # It divides in float32; what it divides is compared exactly below.
    expected = TORCHMETRICS[name](predicted, truth, num_classes=2, average="macro").item()
    assert metrics[name] == pytest.approx(expected, abs=1e-7)


def test_pooled_confusion_against_torchmetrics(logits: Tensor, truth: Tensor) -> None:
    expected = multiclass_confusion_matrix(logits, truth.long(), num_classes=2, ignore_index=IGNORE_INDEX)
    assert counts_of(logits, truth)["confusion"].sum(axis=0).tolist() == expected.tolist()


def test_accuracy_against_sklearn(metrics: dict[str, float], known: tuple[Tensor, ...]) -> None:
    assert metrics["accuracy"] == pytest.approx(accuracy_score(*known[:2]), abs=EXACT)


def test_nll_against_sklearn(metrics: dict[str, float], known: tuple[Tensor, ...]) -> None:
    assert metrics["nll"] == pytest.approx(log_loss(known[0], known[2]), abs=EXACT)


def test_calibration_error_against_torchmetrics(metrics: dict[str, float], known: tuple[Tensor, ...]) -> None:
    truth, predicted, probabilities = known
    # The binary form bins what it is given, in float64: the confidence, and whether it was right.
    confidence = probabilities.max(dim=1).values
    expected = binary_calibration_error(confidence, (predicted == truth).long(), n_bins=15, norm="l1")
    assert metrics["ece"] == pytest.approx(expected.item(), abs=EXACT)


def test_every_metric_of_a_study_is_there(metrics: dict[str, float]) -> None:
    everything = all_metrics(counts_of(torch.zeros(1, 2, 16, 16), torch.zeros(1, 16, 16, dtype=torch.uint8)))
    assert {prefix + name for name in METRIC_NAMES for prefix in ("", "image_")} <= set(everything)
    assert all(math.isfinite(value) for value in everything.values())


def test_truth_at_scattered_points_defines_all_but_the_border(logits: Tensor) -> None:
    truth = torch.full((6, 40, 24), IGNORE_INDEX, dtype=torch.uint8)
    truth[:, ::8, ::8] = 1
    metrics = all_metrics(counts_of(logits, truth))
    assert {"miou", "image_miou", "ece", "nll"} <= set(metrics)
    assert not [name for name in metrics if "border" in name or "boundary" in name]
    assert all(math.isfinite(value) for value in metrics.values())


def test_counts_do_not_depend_on_the_batches(logits: Tensor, truth: Tensor) -> None:
    whole, parts = counts_of(logits, truth), Evaluation()
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        parts.add(logits[part], truth[part])
    assert_equal(parts.counts(), whole)


def test_counts_do_not_depend_on_how_much_a_cpu_is_given_at_a_time() -> None:
    truth = torch.randint(0, 2, (9, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    logits = torch.randn(9, 2, 256, 256, generator=torch.Generator().manual_seed(1))
    assert truth.numel() > 2 * PIXELS_ON_CPU
    one_by_one = Evaluation()
    for index in range(len(truth)):
        one_by_one.add(logits[[index]], truth[[index]])
    assert_equal(counts_of(logits, truth), one_by_one.counts())


def test_counts_do_not_depend_on_the_memory_layout(logits: Tensor, truth: Tensor) -> None:
    assert_equal(counts_of(logits.to(memory_format=torch.channels_last), truth), counts_of(logits, truth))


def test_half_precision_is_widened(logits: Tensor, truth: Tensor) -> None:
    half = logits.to(torch.bfloat16)
    assert_equal(counts_of(half, truth), counts_of(half.float(), truth))


def test_float32_differs_from_float64_by_its_rounding(logits: Tensor, truth: Tensor) -> None:
    double, single = (all_metrics(counts_of(each, truth)) for each in (logits, logits.float()))
    assert single == pytest.approx(double, abs=1e-6)


def test_nothing_waits_for_the_device() -> None:
    # A meta tensor has no values: whatever asks for one, or for a shape that depends on one, fails.
    evaluation = Evaluation()
    evaluation.add(torch.empty(2, 2, 9, 9, device="meta"), torch.empty(2, 9, 9, dtype=torch.uint8, device="meta"))
    with pytest.raises((NotImplementedError, RuntimeError)):
        evaluation.counts()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_counts_the_same_without_waiting(logits: Tensor, truth: Tensor) -> None:
    evaluation = Evaluation()
    on_device = logits.cuda(), truth.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        evaluation.add(*on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected, found = counts_of(logits, truth), evaluation.counts()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-12)


def test_equal_logits_mean_background_as_argmax_has_it() -> None:
    counts = counts_of(torch.ones(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8))
    assert counts["confusion"].tolist() == [[[16, 0], [0, 0]]]


@pytest.mark.parametrize(
    ("confidence", "bin_index"), [(0.5, 7), (0.52, 7), (0.54, 8), (0.59, 8), (0.61, 9), (0.94, 14), (1.0, 14)]
)
@pytest.mark.parametrize("class_index", [0, 1])
def test_bins_of_confidence(confidence: float, bin_index: int, class_index: int) -> None:
    # Forest leads by the log odds; below 0 it is background that is predicted. Three pixels are forest, one unknown.
    odds = math.log(confidence / (1 - confidence)) if confidence < 1 else 1000.0
    margin = torch.full((1, 2, 2), odds if class_index else -odds, dtype=torch.float64)
    truth = torch.tensor([[[1, 1], [1, IGNORE_INDEX]]], dtype=torch.uint8)
    (bins,) = calibration_sums(margin, truth)
    correct = 3 if class_index and confidence > 0.5 else 0
    assert bins[bin_index].tolist() == pytest.approx([3, 3 * confidence, correct], abs=EXACT)
    assert bins.sum(dim=0).tolist() == bins[bin_index].tolist()


@pytest.mark.parametrize(
    ("margin", "nll"),
    [
        (0.0, math.log(2)),
        (3.0, math.log1p(math.exp(-3))),
        (-25.0, 25 + math.log1p(math.exp(-25))),  # torch's own softplus would say 25
        (-1000.0, 1000.0),
        (1000.0, 0.0),
    ],
)
def test_nll_of_a_margin(margin: float, nll: float) -> None:
    margins = torch.tensor([[[margin, -margin, 7.0]]], dtype=torch.float64)
    truth = torch.tensor([[[1, 0, IGNORE_INDEX]]], dtype=torch.uint8)
    assert nll_sums(margins, truth).tolist() == pytest.approx([2 * nll], rel=1e-14)


def test_a_diverged_model_shows_in_the_nll(truth: Tensor) -> None:
    metrics = all_metrics(counts_of(torch.full((6, 2, 40, 24), math.nan), truth))
    assert math.isnan(metrics["nll"])


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected) == {"confusion", "boundary", "calibration", "nll"}
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-14, err_msg=name)
