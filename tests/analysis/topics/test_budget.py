"""Points x images: which split of a budget is best."""

from typing import Any

import pandas as pd
import pytest

from analysis.find import find
from analysis.findings import Topic
from analysis.reading.runs import StudyRuns
from analysis.topics.budget import find_budget

ROLES = {"points_per_image": "scientific", "train_images": "scientific"}
# Hours of a cell: images x (22.4 + .9 points) / 3600. 4 and 104 points are 26 and 116 s.
SPLITS = [(4, 360), (4, 1440), (104, 90), (104, 360)]
# 2.6, 10.4, 2.9 and 11.6 hours.


def study(values: dict[tuple[Any, ...], list[float]], roles: dict[str, str] = ROLES) -> StudyRuns:
    trials = [
        {
            "run_id": f"demo-{cell}-{seed}", "trial_id": f"{cell}-{seed}", "seed": seed, "phase": "explore",
            **dict(zip(roles, cell, strict=True)), "objective": value, "test": float("nan"), "time_s": 1.0,
        }
        for cell, row in values.items()
        for seed, value in enumerate(row)
    ]  # fmt: skip
    return StudyRuns(
        study="demo",
        parameters=roles,
        objective={"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
        data={},
        data_config={},
        epochs=pd.DataFrame([{**trial, "epoch": 1, "val/miou": trial["objective"]} for trial in trials]),
        trials=pd.DataFrame(trials),
        training={trial["trial_id"]: {"epochs": 1} for trial in trials},
        excluded=[],
    )


def budgets(runs: StudyRuns) -> Topic:
    topic = find_budget(runs, find(runs))
    assert topic is not None
    return topic


def sure(*means: float) -> list[list[float]]:
    """Three equal seeds each, so that every difference is known exactly."""
    return [[mean] * 3 for mean in means]


def test_each_number_of_images_takes_part_with_what_the_budget_pays_for() -> None:
    topic = budgets(study(dict(zip(SPLITS, sure(0.60, 0.72, 0.55, 0.65), strict=True))))
    # 2.9 h: 360 images with 4 points (2.6 h) against 90 with 104. 10.4 h: 1,440 images with 4 points have no rival, as
    # 90 images with 104 points use less than half of it. 11.6 h: they meet 360 images with 104.
    assert [claim.subject for claim in topic.claims] == ["2.9 h", "11.6 h"]
    first, last = (claim.values for claim in topic.claims)
    assert (first["images"], first["points"], first["next_images"], first["next_points"]) == (360, 4, 90, 104)
    assert (last["images"], last["points"], last["next_images"], last["next_points"]) == (1440, 4, 360, 104)
    assert (first["spent_hours"], last["spent_hours"]) == (pytest.approx(2.6), pytest.approx(10.4))
    assert (first["gain"], last["gain"]) == (pytest.approx(0.05), pytest.approx(0.07))
    assert [claim.verdict for claim in topic.claims] == ["surely best"] * 2
    assert topic.text.startswith(
        "Points x images: at 2 of 2 budgets one split is surely best; for 11.6 h it is 1440 images with 4 points each."
    )
    assert len(topic.claims[0].run_ids) == 6


def test_noise_decides_no_budget() -> None:
    means = (0.60, 0.72, 0.55, 0.65)
    rows = {
        split: [mean + (0.1, -0.1, 0)[(i + seed) % 3] for seed in range(3)]
        for i, (split, mean) in enumerate(zip(SPLITS, means, strict=True))
    }
    topic = budgets(study(rows))
    assert [claim.verdict for claim in topic.claims] == ["undecided"] * 2
    assert topic.text.startswith("Points x images: at 0 of 2 budgets one split is surely best.")


def test_intervals_are_simultaneous_over_all_pairs_of_arms() -> None:
    rows = {(4, 360): [0.59, 0.60, 0.61], (4, 1440): [0.72] * 3, (104, 90): [0.55] * 3, (104, 360): [0.65] * 3}
    values = budgets(study(rows)).claims[0].values
    # Six pairs share 5 %, two-sided, at 2 degrees of freedom: 10.8859 standard errors of 0.01 / sqrt(3).
    assert values["gain_low"] == pytest.approx(0.05 - 10.8859 * 0.01 / 3**0.5, abs=1e-5)


def test_other_questions_have_budgets_of_their_own() -> None:
    roles = {"encoder": "scientific", **ROLES}
    means = {"resnet18": (0.60, 0.72, 0.55, 0.65), "resnet50": (0.60, 0.62, 0.65, 0.75)}
    rows = {
        (name, *split): [mean] * 3 for name, each in means.items() for split, mean in zip(SPLITS, each, strict=True)
    }
    topic = budgets(study(rows, roles))
    assert {claim.subject: claim.values["images"] for claim in topic.claims} == {
        "2.9 h (encoder resnet18)": 360,
        "11.6 h (encoder resnet18)": 1440,
        "2.9 h (encoder resnet50)": 90,
        "11.6 h (encoder resnet50)": 360,
    }


@pytest.mark.parametrize(
    "roles", [{"points_per_image": "scientific", "batch_size": "scientific"}, {**ROLES, "train_images": "nuisance"}]
)
def test_where_one_of_the_two_is_no_question_there_is_no_answer(roles: dict[str, str]) -> None:
    runs = study(dict(zip(SPLITS, sure(0.60, 0.72, 0.55, 0.65), strict=True)), roles)
    assert find_budget(runs, find(runs)) is None


def test_budgets_that_nobody_competes_for_are_none() -> None:
    runs = study({(4, 360): [0.6, 0.6], (104, 360): [0.7, 0.7], (104, 3600): [0.8, 0.8]})
    assert find_budget(runs, find(runs)) is None  # 2.6, 11.6 and 116 hours
