"""Real point annotations on real four-band images: a run trains on them and is judged by those of other cities."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainable.config import AnnotationConfig, DataConfig, TrainConfig
from trainable.data import load_index, load_store
from trainable.store import open_store
from trainable.train import TrainingRun

ROOT = Path("../shared/data/urban_trees")


@pytest.mark.slow
@pytest.mark.skipif(not ROOT.is_dir(), reason=f"{ROOT} is not here")
def test_a_four_band_run_trains_and_is_judged_at_held_out_points(tmp_path: Path) -> None:
    marked = AnnotationConfig(format="geojson", path="geojson", default_class="forest", negatives="sampled")
    index = load_index(DataConfig(root=str(ROOT), annotations=marked), tmp_path)
    store = open_store(load_store(index, 64, tmp_path, lambda done: None))
    assert store.images.shape == (60, 64, 64, 4)
    assert set(index.scenes("train")).isdisjoint(index.scenes("val"))
    config = TrainConfig(
        encoder="mobilenet_v2", weights="none", image_size=64, points_per_image=100, augmentation="light",
        optimizer="adamw", learning_rate=1e-3, schedule="cosine", epochs=6, batch_size=8,
    )  # fmt: skip
    *_, last = TrainingRun(config, store).epochs()
    known = np.count_nonzero(store.masks[store.splits["val"]] != 255)
    assert last.counts["val"]["confusion"].sum() == known
    assert last.metrics["train/loss"] < 0.69  # below ln 2: the points can be told apart
    assert "val/boundary_f1" not in last.metrics  # there are no masks
    again = TrainingRun(replace(config, epochs=1), store)
    assert again.model.mean.flatten().tolist() == pytest.approx(list(store.band_mean), rel=1e-6)
