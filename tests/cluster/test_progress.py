from dataclasses import replace

import pytest

from cluster.progress import REPORT_EVERY_S, Progress, duration, plan_text
from study.design import Trial
from study.plan import PhasePlan, Plan
from study.spec import Objective
from trainable.config import TrainConfig

TRIALS = [
    Trial(f"{seed:012x}", {"learning_rate": 1e-3}, TrainConfig(epochs=2, seed=seed), "explore", f"seed={seed}")
    for seed in range(2)
]
PHASES = [PhasePlan("explore", [0, 1, 2], 12, 9), PhasePlan("confirm", [100], 2, 2)]
PLAN = Plan("demo", "grid", 2, PHASES, 22, 2, 200.0, 1.25, "measured on 3 finished trials")


def make_row(epoch: int, score: float) -> dict[str, float]:
    return {"epoch": epoch, "val/miou": score, "val/dice": 0.9, "time/total_s": 3.4 * epoch}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def progress(said: list[str]) -> Progress:
    return Progress(total=2, num_epochs=4, objective=Objective(), say=said.append)


def train(progress: Progress, trial: Trial, *scores: float) -> None:
    rows = [make_row(epoch, score) for epoch, score in enumerate(scores, start=1)]
    for row in rows:
        progress.epoch(trial, row)
    progress.ended(trial, "completed", rows)


def test_every_finished_trial_gets_a_line(progress: Progress, said: list[str]) -> None:
    train(progress, TRIALS[0], 0.4, 0.5)
    train(progress, TRIALS[1], 0.4, 0.6789)
    assert len(said) == 2  # epochs that follow each other quickly say nothing
    assert said[0].startswith("[1/2] learning_rate=0.001 seed=0: val/miou 0.500 in 7 s; about ")
    assert said[1] == "[2/2] learning_rate=0.001 seed=1: val/miou 0.679 in 7 s; all trials done"


def test_a_failure_is_said_with_its_reason_and_counts(progress: Progress, said: list[str]) -> None:
    progress.failure(TRIALS[0], "FloatingPointError: the loss is nan")
    assert said == ["[1/2] learning_rate=0.001 seed=0: FAILED: FloatingPointError: the loss is nan"]
    assert (progress.failed, progress.finished) == (1, 0)


def test_the_epochs_of_a_failed_trial_are_not_waited_for(progress: Progress, said: list[str]) -> None:
    progress.failure(TRIALS[0], "out of memory")
    train(progress, TRIALS[1], 0.4, 0.5)
    assert "left" not in said[-1]  # no trial is


def test_the_epochs_done_before_an_interruption_are_not_waited_for(progress: Progress, said: list[str]) -> None:
    progress.epoch(TRIALS[0], make_row(2, 0.5))  # its first epoch was trained before
    progress.ended(TRIALS[0], "completed", [make_row(1, 0.4), make_row(2, 0.5)])
    train(progress, TRIALS[1], 0.4, 0.5)
    assert "left" not in said[-1]


def test_long_trials_are_heard_of_between_their_ends(progress: Progress, said: list[str]) -> None:
    progress._last_said -= REPORT_EVERY_S + 1
    progress.epoch(TRIALS[0], make_row(1, 0.4))
    progress.epoch(TRIALS[0], make_row(2, 0.5))
    assert said == ["  ... epoch 1/2 of learning_rate=0.001 seed=0: val/miou 0.400"]


def test_the_score_is_the_study_s_own_objective(said: list[str]) -> None:
    progress = Progress(total=1, num_epochs=2, objective=Objective(metric="val/dice"), say=said.append)
    train(progress, TRIALS[0], 0.4, 0.5)
    assert "val/dice 0.900" in said[0]
    assert "val/miou" not in said[0]


def test_a_log_holds_no_live_bar(progress: Progress, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    train(progress, TRIALS[0], 0.4, 0.5)
    progress.close()
    assert capsys.readouterr() == ("", "")  # all that is said goes through `say`
    assert len(said) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (45.4, "45 s"), (89, "89 s"), (90, "2 min"), (180, "3 min"), (5399, "90 min"), (9000, "2.5 h")],
)
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_plan_for_a_person() -> None:
    text = plan_text(PLAN)
    assert text.splitlines() == [
        "study        demo: grid over 2 scientific levels",
        "explore      12 trials at 3 seeds: 3 reused, 9 to run",
        "confirm      2 trials at 1 seed: 0 reused, 2 to run",
        "to run       11, 2 at a time",
        "time         about 3 min (measured on 3 finished trials)",
        "GPU-hours    1.2",
    ]


def test_other_ends_are_said_as_what_they_are(progress: Progress, said: list[str]) -> None:
    progress.ended(TRIALS[0], "stopped", [make_row(1, 0.4)])
    progress.ended(replace(TRIALS[1], phase="confirm"), "infeasible", [])
    assert said[0].startswith("[1/2] learning_rate=0.001 seed=0: stopped early after 1 of 2 epochs at val/miou 0.400;")
    assert said[1] == "[2/2] confirm learning_rate=0.001 seed=1: DIVERGED; all trials done"
