"""Prediction panels: pictures of the best and the worst scenes that a finished trial was evaluated on.

panels/<n>_<scene>.png   one image: it, its points, truth, prediction, errors (panel_picture.py)
panels/panels.json       sealed: what each picture shows, with a text in its place

Scenes are ranked by the mIoU of all their pixels together, from the counts that the trial stored: on the test split
where it opened that, else on the validation split. Of a scene, the image is shown whose own mIoU lies nearest to the
scene's, neither the luckiest nor the unluckiest. It is predicted in float32, as `canopoint predict` does.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainable.atomic import check_parent, write_atomically
from trainable.config import DENSE, IGNORE_INDEX, DataConfig, InputError
from trainable.data import load_index
from trainable.image_table import ImagePair
from trainable.metrics import dataset_metrics
from trainable.panel_files import NUM_SCENES, PANELS_FILE, Evaluated, drawn_panels, panels_folder, read_evaluated
from trainable.panel_picture import Prediction, draw_prediction
from trainable.points import Points, draw_points
from trainable.replaced_folder import check_replaceable, replaced_folder
from trainable.scenes import SceneIndex
from trainable.sealed import read_sealed, write_sealed
from trainable.store import decode_pair
from trainable.train import unit_scale
from trainable.trained import TrainedModel, load_trained

SPLIT_WORDS = {"test": "test", "val": "validation"}


@dataclass(frozen=True)
class _Pick:
    """A scene to be shown, by one of its images; the best of all scenes has rank 1."""

    rank: int
    num_scenes: int
    scene: str
    miou: float
    num_images: int
    image: str
    image_miou: float

    def title(self, split: str) -> str:
        """Which scene this is."""
        among = f"{self.rank} of {self.num_scenes} by mIoU" if self.num_scenes > 1 else "the only one"
        return f"{SPLIT_WORDS[split].capitalize()} scene {self.scene}, {among}"


@dataclass(frozen=True)
class _Labels:
    """What of an image is labelled.

    Attributes:
        points: None where every pixel is.
        title: what they are, in a few words.
        are_drawn: whether they are drawn for the picture, as the trial draws points.
    """

    points: Points | None
    title: str
    are_drawn: bool = False


def draw_panels(
    study_dir: Path,
    trial_id: str,
    data: DataConfig,
    cache: Path,
    say: Callable[[str], None],
    num_scenes: int = NUM_SCENES,
    *,
    out: Path,
) -> list[Path]:
    """Draws the panels of a trial into `out/analysis/panels`, unless they are there.

    Pictures are an extra of a report: where images or weights are no longer at hand, or nothing can be written, a line
    says so and why.

    Args:
        study_dir: the study's folder.
        trial_id: of a finished trial.
        data: the study's images.
        cache: folder of made data.
        say: told why there are none.
        num_scenes: how many of the best and how many of the worst; fewer where scenes would be shown twice.
        out: folder of the results; the study's own, or another.

    Returns:
        The pictures, best scene first, worst last.
    """
    folder = panels_folder(out)
    try:
        evaluated = read_evaluated(study_dir / "trials" / trial_id, num_scenes)
        files = drawn_panels(out, evaluated)
        if not files:
            check_parent(folder, "the report's panels")
            check_replaceable(folder, PANELS_FILE)
            files = _draw(folder, evaluated, _same_images(study_dir, data, cache))
    except (InputError, OSError) as error:
        say(f"no prediction panels: {error}")
        return []
    return [folder / file for file in files]


def _same_images(study_dir: Path, data: DataConfig, cache: Path) -> SceneIndex:
    """The study's images, by the fingerprint that its description says.

    Raises:
        InputError: they are not at hand, or others than those of the study.
    """
    index = load_index(data, cache)
    described = read_sealed(study_dir / "data.json")
    if described is None or described["fingerprint"] != index.fingerprint:
        raise InputError(f"{index.root}: other images than those that the study was run on; put those back")
    return index


def _draw(folder: Path, evaluated: Evaluated, index: SceneIndex) -> list[str]:
    trained = load_trained(evaluated.trial)
    pairs = {pair.image.name: pair for pair in index.pairs}
    picks = _pick_scenes(evaluated.counts, pairs, int(evaluated.source["num_scenes"]))
    trial_id, split = evaluated.trial.name, evaluated.split
    entries: list[dict[str, Any]] = []
    checksums: dict[str, str] = {}
    with replaced_folder(folder, PANELS_FILE) as scratch:
        for number, pick in enumerate(picks, 1):
            name = f"{number}_{re.sub(r'[^A-Za-z0-9._-]', '_', pick.scene)[:80]}.png"
            labels, prediction = _predict(trained, pairs[pick.image], pick, split)
            png = draw_prediction(prediction)
            write_atomically(scratch / name, png)
            checksums[name] = hashlib.sha256(png).hexdigest()
            entries.append(_entry(name, trial_id, split, pick, labels, prediction))
        content = {"trial_id": trial_id, "panels": entries, "source": evaluated.source, "files": checksums}
        write_sealed(scratch / PANELS_FILE, content)
    return list(checksums)


def _pick_scenes(counts: Mapping[str, NDArray[Any]], pairs: Mapping[str, ImagePair], num_scenes: int) -> list[_Pick]:
    """The best scenes, best first, then the worst, worst last; scenes of which nothing is known do not count."""
    names, confusion = [str(name) for name in counts["names"]], counts["confusion"]
    members: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        if confusion[position].any():
            members.setdefault(pairs[name].scene, []).append(position)
    miou = {scene: dataset_metrics(confusion[each])["miou"] for scene, each in members.items()}
    ranked = sorted(miou, key=lambda scene: (-miou[scene], scene))
    num = max(min(num_scenes, len(ranked) // 2), 1)
    ranks = sorted({*range(num), *range(len(ranked) - num, len(ranked))})
    picks = []
    for rank in ranks:
        scene = ranked[rank]
        own = {position: dataset_metrics(confusion[[position]])["miou"] for position in members[scene]}
        nearest = min(own, key=lambda position: (abs(own[position] - miou[scene]), names[position]))
        picks.append(_Pick(rank + 1, len(ranked), scene, miou[scene], len(own), names[nearest], own[nearest]))
    return picks


@torch.inference_mode()
def _predict(trained: TrainedModel, pair: ImagePair, pick: _Pick, split: str) -> tuple[_Labels, Prediction]:
    config = trained.config
    image, truth, _ = decode_pair(pair, trained.num_bands, config.image_size)
    logits = trained.model(unit_scale(torch.tensor(image[None])))[0]
    predicted = (logits[1] > logits[0]).numpy().astype(np.uint8)
    labels = _labels(trained, pair, truth)
    lines = [
        f"{SPLIT_WORDS[split]} scene {pick.scene}",
        f"{pick.rank} of {pick.num_scenes}: mIoU {pick.miou:.3f}",
        f"this image: {pick.image_miou:.3f}",
    ]
    return labels, Prediction(image, truth, predicted, labels.points, labels.title, lines)


def _labels(trained: TrainedModel, pair: ImagePair, truth: NDArray[np.uint8]) -> _Labels:
    """Labels as the trial would have them on this image, which nothing was trained on; those of people are as made."""
    config = trained.config
    if pair.mask is None:
        rows, columns = np.nonzero(truth != IGNORE_INDEX)
        return _Labels(Points(rows, columns, truth[rows, columns]), "people's points")
    if isinstance(config.points_per_image, str):
        assert config.points_per_image == DENSE, "TrainConfig knows no other word"
        return _Labels(None, "every pixel labelled")
    points = draw_points(truth, config.points_per_image, pair.image.name, config)
    return _Labels(points, f"{points.rows.size} points", are_drawn=True)


def _entry(
    name: str, trial_id: str, split: str, pick: _Pick, labels: _Labels, prediction: Prediction
) -> dict[str, Any]:
    title = pick.title(split)
    return {
        "file": name, "trial_id": trial_id, "split": split, "scene": pick.scene, "image": pick.image,
        "miou": pick.miou, "image_miou": pick.image_miou, "rank": pick.rank, "num_scenes": pick.num_scenes,
        "title": title, "text": _text(title, trial_id, pick, labels, prediction),
    }  # fmt: skip


def _text(title: str, trial_id: str, pick: _Pick, labels: _Labels, prediction: Prediction) -> str:
    """What the picture shows, in words, its colours too: on a small screen its own legend is small."""
    truth, predicted = prediction.truth, prediction.predicted
    num_known = int(np.count_nonzero(truth != IGNORE_INDEX))
    false, missed = (np.count_nonzero(truth[predicted == said] == true) / num_known for said, true in ((1, 0), (0, 1)))
    marks = "" if labels.points is None else "; green discs on forest, yellow squares on background"
    drawn = "; drawn as the trial draws points and shown alone, for nothing was trained on this image"
    return (
        f"{title}: mIoU {pick.miou:.3f} over its {pick.num_images} images; shown is {pick.image}, whose own is nearest"
        f" ({pick.image_miou:.3f}). Left to right, row by row: the image; its labels"
        f" ({labels.title}{marks}{drawn if labels.are_drawn else ''}); the truth, forest dark; the prediction of trial"
        f" {trial_id}; its errors: in orange {false:.1%} of the known pixels, called forest though they are not, in"
        f" blue {missed:.1%}, forest that was missed."
    )
