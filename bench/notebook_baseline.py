"""The notebook's own algorithm, from its description in SCIENCE.md: loading, loss, metrics; its model is beside.

A baseline is worth something only if it is neither weakened nor strengthened: it does what the notebook did, and where
the description leaves a choice, it takes the faster one. Only what the notebook got *wrong* in a way that has no cost,
its labels, is put right (points, not rows; threshold 128).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from trainable.config import IGNORE_INDEX

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
FOREST_THRESHOLD = 128


class NotebookImages(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of files; each is opened, decoded, resized and normalised at every access, and its points drawn anew.

    Args:
        files: image and mask of each item.
        image_size: side of the squares, pixels.
        num_points: labelled pixels per image, or None for all of them, as its evaluation needs.
    """

    def __init__(self, files: Sequence[tuple[Path, Path]], image_size: int, num_points: int | None) -> None:
        self.files = list(files)
        self.size = (image_size, image_size)
        self.num_points = num_points

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """(3, H, W) float32 normalised, and (H, W) int64 classes, IGNORE_INDEX where unlabelled."""
        image_path, mask_path = self.files[index]
        # Bilinear, as torchvision's Resize does it and as Pillow's own default, bicubic, does not.
        pixels = np.array(Image.open(image_path).convert("RGB").resize(self.size, Image.Resampling.BILINEAR))
        mask = np.array(Image.open(mask_path).convert("L").resize(self.size, Image.Resampling.BILINEAR))
        image = torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255).sub_(MEAN).div_(STD)
        if self.num_points is None:
            return image, torch.from_numpy((mask >= FOREST_THRESHOLD).astype(np.int64))
        return image, torch.from_numpy(draw_labels(mask, self.num_points))


def draw_labels(mask: NDArray[np.uint8], num_points: int) -> NDArray[np.int64]:
    """Draws points with `np.random.choice` among the pixels of mask > 0, where there are any.

    Args:
        mask: (H, W) grey values.
        num_points: how many; fewer where fewer pixels are above 0.

    Returns:
        (H, W) classes, IGNORE_INDEX where unlabelled.
    """
    values = mask.ravel()
    candidates = np.flatnonzero(values > 0)
    labels = np.full(values.size, IGNORE_INDEX, dtype=np.int64)
    if candidates.size:
        chosen = np.random.choice(candidates, min(num_points, candidates.size), replace=False)
        labels[chosen] = values[chosen] >= FOREST_THRESHOLD
    return labels.reshape(mask.shape)


def load_batch(images: NotebookImages, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What one of its workers does for a batch: (B, 3, H, W) float32 and (B, H, W) int64."""
    items = [images[index] for index in indices]
    return torch.stack([image for image, _ in items]), torch.stack([labels for _, labels in items])


def pack(files: Sequence[tuple[Path, Path]], image_size: int, folder: Path) -> None:
    """The same two arrays as our store, by one thread and Pillow's calls as everyone writes them.

    The notebook packed nothing; this is the loop that one would write first.
    """
    size, shape = (image_size, image_size), (len(files), image_size, image_size)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (*shape, 3))
    masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, shape)
    for position, (image, mask) in enumerate(files):
        images[position] = np.asarray(Image.open(image).convert("RGB").resize(size, Image.Resampling.BILINEAR))
        grey = np.asarray(Image.open(mask).convert("L").resize(size, Image.Resampling.NEAREST))
        masks[position] = grey >= FOREST_THRESHOLD
    images.flush()
    masks.flush()


def partial_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """`log_softmax` of the whole map, then a loop over the images that sums the labelled pixels' NLL.

    Args:
        logits: (B, C, H, W) float.
        labels: (B, H, W) int64, IGNORE_INDEX where unlabelled.

    Returns:
        Scalar. A batch without labels gives an error, as it did in the notebook.
    """
    log_probs = F.log_softmax(logits, dim=1)
    total, count = logits.new_zeros(()), 0
    # Iterating unbinds once; indexing by number would build a gradient of the whole batch for every image.
    for image, truth in zip(log_probs, labels, strict=True):
        rows, columns = torch.nonzero(truth != IGNORE_INDEX, as_tuple=True)
        total = total - image[truth[rows, columns], rows, columns].sum()
        count += len(rows)
    return total / count


def image_metrics(predicted: NDArray[np.int64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """Four sklearn metrics per image, macro over both labels: (B, H, W) classes twice -> (B, 4)."""
    # Not at the top: bench/gpu.py runs where there is torch and torchvision alone.
    from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

    scores = (jaccard_score, f1_score, precision_score, recall_score)
    settings = {"labels": [0, 1], "average": "macro", "zero_division": 0}
    return np.array(
        [[score(t.ravel(), p.ravel(), **settings) for score in scores] for p, t in zip(predicted, truth, strict=True)]
    )
