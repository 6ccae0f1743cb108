"""The arms by scene: the second population that a reading stands for, beside seeds.

A metric of pooled pixels is no mean over scenes, but behaves like the mean of its jackknife values: how much it changes
where one scene is left out, times how many the others are. These take the place of readings by seed, so that the same
intervals hold: Student's t over scenes, paired by scene. In simulated data of 4 to 38 scenes (unequal in size and share
of forest) nominal 95 % intervals then cover 92 to 96 %, of means and of all differences together; a percentile
bootstrap of scenes covers 79 to 92 %, least with few. tests/analysis/test_scenes.py.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.findings import Findings
from analysis.reading.runs import StudyRuns
from analysis.reading.scene_counts import pooled_metric, read_scene_counts
from trainable.config import InputError

MIN_SCENES = 6
"""Below this many scenes nothing is claimed: one odd scene then decides."""

SAME = 1e-6
"""Counts and reading of one run differ by less; they are the same numbers, added in another order."""


@dataclass(frozen=True)
class ScenesByArm:
    """Jackknife values of the arms.

    Attributes:
        scenes: (num_scenes,) at least two.
        values: (num_arms, num_scenes), in the order of the findings' arms; the mean of a row is the arm's reading.
    """

    scenes: list[str]
    values: NDArray[np.float64]


def scenes_by_arm(runs: StudyRuns, findings: Findings) -> ScenesByArm | None:
    """The arms by scene, each as the mean over its seeds.

    Returns:
        None where counts are not at hand, where the metric is none of pooled pixels, or where it is read at the best
        epoch and not the last, of which alone there are counts.

    Raises:
        InputError: a file of counts is damaged, or is not of the run that was read.
    """
    split, _, name = findings.metric.partition("/")
    is_last = findings.is_confirmed or runs.objective["at"] == "last"
    if runs.study_dir is None or split not in ("val", "test") or not is_last:
        return None
    trial_ids = [trial_id for arm in findings.arms for trial_id in arm.trial_ids]
    counts = read_scene_counts(runs.study_dir, trial_ids, split)
    if counts is None or len(counts.scenes) < 2:
        return None
    values = jackknife_values(counts.confusion, name)
    if values is None:
        return None
    readings = [reading for arm in findings.arms for reading in arm.readings]
    _check_same(findings.metric, trial_ids, values.mean(axis=1), np.array(readings))
    ends = np.cumsum([len(arm.trial_ids) for arm in findings.arms])[:-1]
    return ScenesByArm(counts.scenes, np.array([each.mean(axis=0) for each in np.split(values, ends)]))


def jackknife_values(confusion: NDArray[np.float64], name: str) -> NDArray[np.float64] | None:
    """What each scene adds to a metric of pooled pixels; of a plain mean over scenes, what each scene reads.

    Args:
        confusion: (..., num_scenes, C, C) pixels by true and predicted class; at least two scenes.
        name: the metric, without its split.

    Returns:
        (..., num_scenes), of which the mean is the metric itself; None for a metric that these counts do not define.
    """
    total = confusion.sum(axis=-3, keepdims=True)
    whole, without = pooled_metric(total, name), pooled_metric(total - confusion, name)
    if whole is None or without is None:
        return None
    return np.asarray(whole + (confusion.shape[-3] - 1) * (without.mean(axis=-1, keepdims=True) - without))


def _check_same(metric: str, trial_ids: list[str], counted: NDArray[np.float64], read: NDArray[np.float64]) -> None:
    for trial_id, count, reading in zip(trial_ids, counted.tolist(), read.tolist(), strict=True):
        if not abs(count - reading) < SAME:
            raise InputError(
                f"trial {trial_id}: its counts give {metric} {count:.6f}, its W&B run {reading:.6f}; run"
                f" `canopoint run STUDY` again, which repairs either"
            )
