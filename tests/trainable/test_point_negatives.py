"""Background where people labelled the forest alone: refused, or drawn away from it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainable.config import AnnotationConfig, InputError
from trainable.point_files import PointAnnotation
from trainable.point_negatives import require_both_classes, sample_negatives

BACKGROUND, FOREST = 0, 1
SAMPLED = AnnotationConfig(negatives="sampled", negative_distance_px=3)


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Two images of 40 x 30 pixels."""
    paths = {name: tmp_path / name for name in ("a.png", "b.png")}
    for path in paths.values():
        Image.new("L", (40, 30)).save(path)
    return paths


def trees(count: int, seed: int = 0) -> list[PointAnnotation]:
    places = np.random.default_rng(seed).uniform((0, 0), (30, 40), (count, 2))
    return [PointAnnotation(row, column, FOREST) for row, column in places.tolist()]


def allowed_pixels(points: list[PointAnnotation], width: int, height: int, distance: float) -> set[tuple[int, int]]:
    """By the definition, over all pixels and points."""
    return {
        (row, column)
        for row in range(height)
        for column in range(width)
        if all((row + 0.5 - p.row) ** 2 + (column + 0.5 - p.column) ** 2 >= distance**2 for p in points)
    }


@pytest.mark.parametrize("distance", [0, 0.4, 1, 2.5, 4, 1000])
def test_negatives_are_exactly_the_pixels_far_enough(distance: float) -> None:
    """Asked for more than there are, so that all of them come, each once."""
    points = trees(15)
    allowed = allowed_pixels(points, 20, 15, distance)
    negatives = sample_negatives(points * 100, (20, 15), distance, seed=1)
    pixels = [(int(p.row), int(p.column)) for p in negatives]
    assert set(pixels) == allowed
    assert len(pixels) == len(allowed)
    assert {(p.row % 1, p.column % 1, p.class_index) for p in negatives} <= {(0.5, 0.5, BACKGROUND)}


def test_as_many_as_positives_and_at_least_one() -> None:
    for count in (0, 1, 7):
        assert len(sample_negatives(trees(count), (40, 30), 3, seed=0)) == max(count, 1)


def test_negatives_are_uniform_over_what_is_allowed() -> None:
    """One tree in the middle of 9 x 9; 4,000 draws of one: each allowed pixel has its share within 5 sigma."""
    tree = [PointAnnotation(4.5, 4.5, FOREST)]
    allowed = allowed_pixels(tree, 9, 9, 2)
    counts = dict.fromkeys(allowed, 0)
    for seed in range(4000):
        (point,) = sample_negatives(tree, (9, 9), 2, seed)
        counts[int(point.row), int(point.column)] += 1
    expected = 4000 / len(allowed)
    assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5


def test_a_set_with_both_classes_stays_as_it_is(images: dict[str, Path]) -> None:
    points = {"a.png": [*trees(3), PointAnnotation(1.0, 1.0, BACKGROUND)], "b.png": trees(2)}
    assert require_both_classes(points, SAMPLED, images) == points


def test_sampled_negatives_go_to_every_image_that_was_looked_at(images: dict[str, Path]) -> None:
    points = {"a.png": trees(5), "b.png": []}
    found = require_both_classes(points, SAMPLED, images)
    assert found["a.png"][:5] == points["a.png"]
    assert [p.class_index for p in found["a.png"][5:]] == [BACKGROUND] * 5
    assert [p.class_index for p in found["b.png"]] == [BACKGROUND]
    assert points["b.png"] == []  # what was handed in is not changed
    assert [*require_both_classes({"a.png": trees(5)}, SAMPLED, images)] == ["a.png"]


def test_negatives_depend_on_the_image_alone(images: dict[str, Path]) -> None:
    """Not on the other images, nor on the process; images differ from each other."""
    alone = require_both_classes({"a.png": trees(5)}, SAMPLED, images)["a.png"]
    together = require_both_classes({"b.png": trees(5), "a.png": trees(5)}, SAMPLED, images)
    assert together["a.png"] == alone
    assert together["a.png"] != together["b.png"]
    assert [(p.row, p.column) for p in alone[5:7]] == [(19.5, 16.5), (5.5, 31.5)]


def test_what_cannot_be_trained_on_is_refused(images: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"no point is background.*data.annotations.negatives: sampled"):
        require_both_classes({"a.png": trees(3)}, AnnotationConfig(), images)
    with pytest.raises(InputError, match=r"no point is forest; check data.annotations.classes"):
        require_both_classes({"a.png": [PointAnnotation(1.0, 1.0, BACKGROUND)]}, SAMPLED, images)
    with pytest.raises(InputError, match="no point is forest"):
        require_both_classes({}, SAMPLED, images)
    far = AnnotationConfig(negatives="sampled", negative_distance_px=1000)
    with pytest.raises(InputError, match="negative_distance_px: nothing is 1000 pixels away"):
        require_both_classes({"a.png": trees(3)}, far, images)
