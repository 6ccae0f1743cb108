"""Real Ray and trials that end their own process, or fail, instead of training."""

import os
import re
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError

from bench.driver_trainable import TrivialTrainable
from cluster.local_ray import connected_ray
from cluster.preemption import IDLE_S, LOOK_EVERY_S, NodeWatch, taken_node
from cluster.retries import Retries, failure_reason
from cluster.tuner import Outcome, run_study
from study.ledger import read_ledger
from study.spec import Resources, StudySpec
from trainable.object_store import StoreError

NUM_TRIALS = 6


@pytest.fixture
def run(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> Callable[[type[TrivialTrainable], int], tuple[Outcome, list[str]]]:
    """Runs six trials of a kind, two of which fit at once."""

    def run(trainable: type[TrivialTrainable], retries: int) -> tuple[Outcome, list[str]]:
        said: list[str] = []
        failures = {"retries": retries, "stop_after": NUM_TRIALS}
        search = {"method": "grid", "seeds": list(range(NUM_TRIALS // 2))}
        spec = make_spec(tmp_path / "storage", search=search, failures=failures)
        return run_study(spec, said.append, trainable=trainable), said

    return run


@pytest.mark.cluster
def test_a_process_that_dies_between_two_trials_costs_none_of_them(run: Callable[..., Any]) -> None:
    """Ray Tune by itself gives a trial up that was about to take such a process over."""

    class DiesBetween(TrivialTrainable):
        def reset_config(self, new_config: dict[str, Any]) -> bool:
            os._exit(1)

    outcome, said = run(DiesBetween, NUM_TRIALS)  # it may happen to a trial again and again
    assert outcome.complete, said
    assert outcome.num_trained == NUM_TRIALS
    assert sum("tried again (1 of 6)" in line for line in said) >= 2


@pytest.mark.cluster
@pytest.mark.parametrize("retries", [0, 2])
def test_a_trial_is_tried_as_often_as_the_study_says(run: Callable[..., Any], retries: int, tmp_path: Path) -> None:
    class FailsTwice(TrivialTrainable):
        def step(self) -> dict[str, Any]:
            tries = tmp_path / self.trial["trial_id"]
            with tries.open("a") as file:
                file.write(".")
            if tries.stat().st_size <= 2:
                raise RuntimeError("no luck")
            return super().step()

    outcome, said = run(FailsTwice, retries)
    tries = sorted(path.stat().st_size for path in tmp_path.glob("*") if path.is_file())
    again = [line for line in said if "tried again" in line]
    events = [event["state"] for event in read_ledger(outcome.folder) if event["event"] == "trial_ended"]
    if retries:
        assert outcome.complete, said
        assert tries == [3] * NUM_TRIALS
        assert len(again) == 2 * NUM_TRIALS
        assert re.fullmatch(r"points_per_image=\d+ learning_rate=0.001 seed=\d: RuntimeError: no luck; .*", again[0])
        assert events == ["completed"] * NUM_TRIALS
    else:
        assert len(outcome.failures) == outcome.num_missing == NUM_TRIALS
        assert tries == [1] * NUM_TRIALS
        assert events == ["failed"] * NUM_TRIALS
    assert not any("did not complete" in line for line in said)


@pytest.mark.cluster
def test_a_cluster_without_room_is_told_now_and_then() -> None:
    said: list[str] = []
    with connected_ray():
        assert taken_node("RuntimeError: no luck") is None
        assert taken_node(f"actor_id: {'0' * 32}") is None
        too_large = NodeWatch(Resources(cpus_per_trial=1000), said.append)
        for _ in range(3):
            _idle(too_large)
        assert [line.partition(":")[0] for line in said] == ["waiting for a node that can hold a trial"] * 3
        assert re.search(r"the cluster has 1 node with \d+ CPUs and 0 GPUs; interrupting is safe$", said[0])
        too_large.look([])
        assert len(said) == 3  # it has just looked
        said.clear()
        fitting = NodeWatch(Resources(), said.append)
        _idle(fitting)
        assert said == []  # a process starts slowly: nothing waits for room
        ray.util.placement_group([{"CPU": 1000}])
        _idle(fitting)
        assert said[0].startswith("waiting for room: others use what the cluster has, 1 node with")


def _idle(nodes: NodeWatch) -> None:
    """Lets it look as if nothing had trained for long."""
    nodes._busy = time.monotonic() - IDLE_S - 1
    nodes._next_look -= LOOK_EVERY_S
    nodes.look([])


def make_retries(said: list[str]) -> Retries:
    return Retries(2, NodeWatch(Resources(), said.append), said.append)


def test_a_store_that_is_away_uses_up_no_ones_tries_and_ends_the_run() -> None:
    said: list[str] = []
    try:
        raise StoreError("s3://b/p: no good answer from http://127.0.0.1:9; check the network")
    except StoreError as error:
        found = RayTaskError("train", traceback.format_exc(), error, ip="127.0.0.1")  # as Ray makes it in a worker
    retries = make_retries(said)
    with pytest.raises(StoreError, match=r"^\[Errno 5\] s3://b/p: no good answer from http://127.0.0.1:9; check"):
        retries.take(object(), f"Failure # 1\n{found.as_instanceof_cause()}\n")
    assert isinstance(found.cause, StoreError)
    assert (said, retries.next_trial()) == ([], None)


@pytest.mark.cluster
def test_a_run_that_a_store_ended_says_so_and_goes_on(tmp_path: Path, make_spec: Callable[..., StudySpec]) -> None:
    class StoreIsAway(TrivialTrainable):
        def step(self) -> dict[str, Any]:
            raise StoreError("s3://b/p: no good answer")

    spec, said = make_spec(tmp_path / "storage", failures={"retries": 0, "stop_after": 1}), list[str]()
    with pytest.raises(StoreError, match="s3://b/p: no good answer"):
        run_study(spec, said.append, trainable=StoreIsAway)
    *events, last = read_ledger(spec.folder)
    assert (last["event"], last["reason"]) == ("session_ended", "incomplete")
    assert "s3://b/p: no good answer" in last["detail"]
    assert "trial_ended" not in [event["event"] for event in events]
    outcome = run_study(spec, said.append, trainable=TrivialTrainable)
    assert outcome.complete, said


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "no reason is known"), ("Failure # 1\nRuntimeError: no\n", "RuntimeError: no"), ("a\n  b  \n\n", "b")],
)
def test_the_reason_is_the_last_line_of_an_error(text: str, reason: str) -> None:
    assert failure_reason(text) == reason
