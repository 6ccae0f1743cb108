from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from bench.images import noise_batch
from bench.notebook_baseline import NotebookImages, draw_labels, image_metrics, load_batch, pack, partial_loss

IGNORE = 255
Files = list[tuple[Path, Path]]


def test_an_item_is_the_normalised_image_with_points_where_the_mask_is_above_zero(files: Files) -> None:
    images = NotebookImages(files, image_size=8, num_points=10)
    pixels, labels = images[0]
    stored = np.asarray(Image.open(files[0][0])) / 255
    expected = (stored - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(pixels.numpy(), expected.transpose(2, 0, 1), atol=1e-6)
    assert (pixels.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert (labels != IGNORE).sum() == 10
    assert labels[0, 0] == IGNORE  # the one pixel of mask 0


def test_evaluation_sees_the_class_of_every_pixel(files: Files) -> None:
    _, truth = NotebookImages(files, image_size=8, num_points=None)[0]
    assert truth.flatten().tolist() == [0] * 32 + [1] * 32  # 31 x 4 = 124 and 32 x 4 = 128 lie about the threshold


def test_an_image_without_forest_has_no_points(files: Files) -> None:
    _, labels = NotebookImages(files, image_size=8, num_points=10)[1]
    assert labels.unique().tolist() == [IGNORE]


def test_other_sizes_are_resized_and_a_batch_is_stacked(files: Files) -> None:
    images, labels = load_batch(NotebookImages(files, image_size=16, num_points=3), [1, 0, 0])
    assert (tuple(images.shape), tuple(labels.shape)) == ((3, 3, 16, 16), (3, 16, 16))


def test_points_are_distinct_and_carry_the_class_at_their_pixel() -> None:
    mask = np.array([[0, 1, 127], [128, 255, 0]], dtype=np.uint8)
    np.testing.assert_array_equal(draw_labels(mask, 9), [[IGNORE, 0, 0], [1, 1, IGNORE]])  # four pixels are above 0


def test_points_are_drawn_anew_at_every_access(files: Files) -> None:
    images = NotebookImages(files, image_size=8, num_points=10)
    assert any(not torch.equal(images[0][1], images[0][1]) for _ in range(5))


def test_its_loss_is_cross_entropy_over_its_points() -> None:
    logits = torch.randn(4, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    _, labels = noise_batch(4, 8, num_points=6)
    labels[2] = IGNORE  # an image without points
    loss = partial_loss(logits, labels)
    expected = F.cross_entropy(logits, labels, ignore_index=IGNORE)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    gradients = [torch.autograd.grad(each, logits)[0] for each in (loss, expected)]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_its_metrics_are_macro_means_per_image() -> None:
    truth = np.array([[[0, 0], [1, 1]], [[1, 1], [1, 1]]])
    predicted = np.array([[[0, 1], [1, 1]], [[1, 1], [1, 1]]])
    # First: IoU 1/2, 2/3; Dice 2/3, 4/5; precision 1, 2/3; recall 1/2, 1. Second: the absent class counts 0.
    expected = [[7 / 12, 11 / 15, 5 / 6, 3 / 4], [0.5, 0.5, 0.5, 0.5]]
    np.testing.assert_allclose(image_metrics(predicted, truth), expected)


def test_packing_gives_the_pixels_and_thresholded_masks(files: Files, tmp_path: Path) -> None:
    pack(files, 8, tmp_path)
    images, masks = np.load(tmp_path / "images.npy"), np.load(tmp_path / "masks.npy")
    np.testing.assert_array_equal(images[1], np.asarray(Image.open(files[1][0])))
    np.testing.assert_array_equal(masks[0], np.asarray(Image.open(files[0][1])) >= 128)
    assert (images.dtype, masks.dtype) == (np.uint8, np.uint8)
