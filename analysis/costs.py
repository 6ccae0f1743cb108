"""What labelling the training images of an arm or a cell costs, by the study's rates (`study/effort.py`)."""

from dataclasses import dataclass
from typing import Any

from analysis.findings import Arm, CellFinding
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import is_number
from study.effort import annotation_hours, annotation_money
from trainable.config import DENSE

POINTS, IMAGES = "points_per_image", "train_images"

Row = Arm | CellFinding


@dataclass(frozen=True)
class Cost:
    """What the annotations of one training cost.

    Attributes:
        points: per image, or `dense`.
        images: labelled images of the training split.
        hours: of an annotator.
        money: in `effort.currency`; None where the study states no rate.
    """

    points: float | str
    images: int
    hours: float
    money: float | None


def cost_of(runs: StudyRuns, row: Row) -> Cost | None:
    """What the row's annotations cost; None where its points or the number of its training images are not known."""
    settings = {**runs.training.get(row.trial_ids[0], {}), **row.parameters}
    points: Any = settings.get(POINTS)
    images: Any = settings.get(IMAGES) or _training_images(runs)
    if not _is_count(images) or not (points == DENSE or _is_count(points)):
        return None
    hours = annotation_hours(points, int(images), runs.effort)
    return Cost(points, int(images), hours, annotation_money(hours, runs.effort))


def _training_images(runs: StudyRuns) -> Any:
    """Labelled images of the training split, as the runs say; where there are masks, that is all of them."""
    splits = runs.data.get("splits")
    train = splits.get("train") if isinstance(splits, dict) else None
    return train.get("num_labelled", train.get("num_images")) if isinstance(train, dict) else None


def _is_count(value: object) -> bool:
    return is_number(value) and value >= 1
