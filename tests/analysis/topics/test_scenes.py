from dataclasses import replace

import numpy as np
import pytest

from analysis.find import find
from analysis.scenes import jackknife_values, scenes_by_arm
from analysis.statistics import mean_interval
from analysis.topics.scenes import find_scenes
from trainable.config import InputError


def draw(share_right, num_scenes=8, num_seeds=2, seed=0):
    """(num_seeds, num_scenes, 2, 2) pixels of which about this share is right; scenes differ in how hard they are."""
    rng = np.random.default_rng(seed)
    right = np.clip(share_right + rng.normal(0, 0.05, num_scenes) + rng.normal(0, 0.002, (num_seeds, num_scenes)), 0, 1)
    size = rng.integers(2000, 6000, num_scenes)
    return np.round(
        np.moveaxis(np.array([[right, 1 - right], [1 - right, right]]), (0, 1), (2, 3)) * size[:, None, None]
    )


COUNTS = {10: draw(0.7), 50: draw(0.8)}


@pytest.mark.parametrize("split", ["val", "test"])
def test_arms_and_their_differences_are_paired_by_scene(make_scenes, split):
    runs = make_scenes(COUNTS, split=split)
    findings = find(runs)
    topic = find_scenes(runs, findings)
    few, many = topic.claims
    values = [jackknife_values(each, "miou").mean(axis=0) for each in COUNTS.values()]
    expected, difference = mean_interval(values[0]), mean_interval(values[0] - values[1])
    assert (few.estimate.value, few.estimate.low) == pytest.approx((expected.value, expected.low))
    assert [few.values[name] for name in ("difference", "low", "high")] == pytest.approx(
        [difference.value, difference.low, difference.high]
    )
    assert (few.values["scenes"], few.values["seeds"], few.estimate.num_seeds) == (8, 2, 2)
    assert (few.verdict, many.verdict) == ("beyond the margin", "recommended")
    assert topic.unit == f"{split}/miou"
    assert topic.text.startswith(f"On other scenes like these 8, the recommended settings read {split}/miou 0.")
    assert "seeds_not_scenes" in [caveat.kind for caveat in findings.caveats]
    (caveat,) = (caveat for caveat in findings.caveats if caveat.kind == "seeds_not_scenes")
    assert caveat.text == "Other scenes: the verdicts do not speak of them; the topic on scenes does."


def test_below_six_scenes_nothing_is_claimed(make_scenes):
    runs = make_scenes({10: draw(0.7, 5), 50: draw(0.8, 5)})
    topic = find_scenes(runs, find(runs))
    assert {claim.verdict for claim in topic.claims} == {"too few scenes"}
    assert topic.text.startswith("Too few scenes: 5 were read, and below 6 nothing is claimed of others")


def test_arms_are_means_over_their_seeds(make_scenes):
    runs = make_scenes(COUNTS)
    findings = find(runs)
    found = scenes_by_arm(runs, findings)
    assert found.scenes == [f"scene{i}" for i in range(8)]
    assert found.values.mean(axis=1).tolist() == pytest.approx([arm.value.value for arm in findings.arms])


def test_counts_of_another_state_are_refused(make_scenes):
    with pytest.raises(InputError, match=r"^trial 000000000000: its counts give val/miou 0\.\d+, its W&B run 0\.\d+;"):
        find(make_scenes(COUNTS, shift=0.001))


def test_what_counts_do_not_tell_is_not_said(make_scenes, tmp_path):
    runs = make_scenes(COUNTS)
    findings = find(runs)
    for changes in (
        {"study_dir": None},
        {"study_dir": tmp_path / "trials"},
        {"objective": {**runs.objective, "at": "best"}},
    ):
        assert find_scenes(replace(runs, **changes), findings) is None
