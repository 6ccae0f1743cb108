"""The notebook's own algorithm, re-implemented as a baseline; nothing is slower than it has to be to do what it does.

Loading: Pillow decodes, resizes and normalises at every access, and draws points among the pixels of mask > 0. Loss: a
loop over the images of a batch. Evaluation: four sklearn metrics per image.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score
from torch import Tensor

from trainable.config import IGNORE_INDEX

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def load_batch(files: list[tuple[Path, Path]], image_size: int, num_points: int) -> tuple[Tensor, Tensor]:
    """Decodes, resizes and draws points at every access: (B, 3, H, W) float32 and (B, H, W) int64 labels."""
    items = [load_item(image, mask, image_size, num_points) for image, mask in files]
    return torch.stack([image for image, _ in items]), torch.stack([labels for _, labels in items])


def load_item(image_path: Path, mask_path: Path, image_size: int, num_points: int) -> tuple[Tensor, Tensor]:
    """One access: the points are drawn among the pixels of mask > 0, where there are any."""
    size = (image_size, image_size)
    pixels = np.asarray(Image.open(image_path).convert("RGB").resize(size))
    image = (torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255 - MEAN) / STD
    mask = np.asarray(Image.open(mask_path).convert("L").resize(size))
    candidates = np.flatnonzero(mask.ravel() > 0)
    labels = np.full(mask.size, IGNORE_INDEX, dtype=np.int64)
    chosen = np.random.choice(candidates, min(num_points, candidates.size), replace=False) if candidates.size else []
    labels[chosen] = mask.ravel()[chosen] >= 128
    return image, torch.from_numpy(labels.reshape(mask.shape))


def partial_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """`log_softmax` of the whole map, then a loop over the images that sums the labelled pixels' NLL."""
    log_probs = F.log_softmax(logits, dim=1)
    total, count = logits.new_zeros(()), 0
    for image, truth in zip(log_probs, labels, strict=True):
        rows, columns = torch.nonzero(truth != IGNORE_INDEX, as_tuple=True)
        total = total - image[truth[rows, columns], rows, columns].sum()
        count += len(rows)
    return total / count


def image_metrics(predicted: NDArray[np.int64], truth: NDArray[np.int64]) -> list[float]:
    """Four sklearn metrics per image, macro over both labels, averaged over the images."""
    scores = [
        [
            score(t.ravel(), p.ravel(), labels=[0, 1], average="macro", zero_division=0)
            for score in (jaccard_score, f1_score, precision_score, recall_score)
        ]
        for p, t in zip(predicted, truth, strict=True)
    ]
    return [float(value) for value in np.mean(scores, axis=0)]
