"""The weights of `trainable.loss` from the counts of a run's points."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from trainable.config import InputError
from trainable.loss import class_weights_from_counts, point_focal_loss


def as_priors(priors: list[float] | None) -> Tensor | None:
    return None if priors is None else torch.tensor(priors, dtype=torch.float64)


def test_none_is_no_weights() -> None:
    assert class_weights_from_counts(torch.tensor([30, 10]), "none") is None


@pytest.mark.parametrize(
    ("mode", "counts", "priors", "expected"),
    [
        ("balanced", [30, 10], None, [2 / 3, 2]),  # 40 points / (2 classes x 30 or 10 points)
        ("balanced", [30, 0, 10], None, [2 / 3, 0, 2]),  # a class without points takes no share
        ("balanced", [7, 0], None, [1, 0]),
        ("prior", [10, 10], [0.9, 0.1], [1.8, 0.2]),  # wanted 90 %, labelled 50 %
        ("prior", [10, 10], [900, 100], [1.8, 0.2]),  # numbers of pixels do as well
        ("prior", [30, 10], [0.75, 0.25], [1, 1]),  # labelled as the pixels are: nothing to undo
        ("prior", [10, 0, 10], [0.4, 0.2, 0.4], [1, 0, 1]),
        ("prior", [10, 10], [1, 0], [2, 0]),
    ],
)
def test_weights_worked_by_hand(
    mode: str, counts: list[int], priors: list[float] | None, expected: list[float]
) -> None:
    counted = torch.tensor(counts)
    weights = class_weights_from_counts(counted, mode, as_priors(priors))
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (weights * counted).sum() / counted.sum() == pytest.approx(1, abs=1e-12)


def test_balanced_is_that_of_sklearn() -> None:
    classes = torch.tensor([0] * 17 + [1] * 5 + [2] * 40)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=classes.numpy())
    weights = class_weights_from_counts(classes.bincount(), "balanced")
    torch.testing.assert_close(weights, torch.tensor(expected), rtol=0, atol=1e-12)


def test_prior_undoes_what_equal_points_per_class_distort() -> None:
    # A tenth of the pixels is forest. Five points of each class, weighted, give the loss of all pixels.
    labels = torch.tensor([0] * 90 + [1] * 10)
    logits = torch.tensor([[0.3, -0.4], [1.0, 0.2]], dtype=torch.float64)[labels]
    points = torch.tensor([*range(5), *range(90, 95)])
    weights = class_weights_from_counts(labels[points].bincount(), "prior", labels.bincount())
    expected = point_focal_loss(logits, labels, 2.0)
    torch.testing.assert_close(point_focal_loss(logits[points], labels[points], 2.0, weights), expected)
    assert abs(point_focal_loss(logits[points], labels[points], 2.0) - expected) > 1e-2


@pytest.mark.parametrize(
    ("mode", "counts", "priors", "message"),
    [
        ("prior", [3, 4], None, "prior needs the classes' share of the pixels"),
        ("prior", [3, 0], [0, 1], r"prior needs labelled points .* have \[3, 0\] points"),
        ("balanced", [0, 0], None, "balanced needs labelled points"),
    ],
)
def test_what_cannot_be_weighted_is_refused(
    mode: str, counts: list[int], priors: list[float] | None, message: str
) -> None:
    with pytest.raises(InputError, match=rf"training\.class_weights: {message}"):
        class_weights_from_counts(torch.tensor(counts), mode, as_priors(priors))
