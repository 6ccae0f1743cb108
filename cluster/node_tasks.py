"""A function run on many nodes at once, with a time limit for each: a node that hangs is named and not waited for."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cluster import node_checks
from cluster.resources import Node


@dataclass(frozen=True)
class Answer:
    """What a node answered.

    Attributes:
        value: what the function returned there; None where there is a problem.
        problem: why there is no value; empty where there is one.
        sent_s: when it was asked, unix seconds by our clock.
        received_s: when the answer was here.
    """

    value: Any
    problem: str
    sent_s: float
    received_s: float


def ask(
    nodes: Sequence[Node],
    function: Callable[..., Any],
    arguments: Callable[[Node], tuple[Any, ...]],
    within_s: float,
    num_gpus: float = 0.0,
) -> dict[Node, Answer]:
    """Runs a function of `node_checks` once on each node, beside whatever else runs there: it takes no CPU from Ray.

    Args:
        nodes: to run it on.
        function: takes and returns plain values.
        arguments: the function's, for each node.
        within_s: from now to the last answer, the start of a Python there included.
        num_gpus: that the task holds meanwhile.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # A process that has used a GPU keeps some of its memory until it ends.
    remote = ray.remote(max_calls=1) if num_gpus else ray.remote
    with _by_value():
        task = remote(function)
        sent_s = time.time()
        pending = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
            options = {"num_cpus": 0, "num_gpus": num_gpus, "max_retries": 0, "scheduling_strategy": there}
            pending[task.options(**options).remote(*arguments(node))] = node
    answers = {pending.pop(each): _answer(each, sent_s) for each in _as_they_come(list(pending), within_s)}
    for each in pending:
        ray.cancel(each, force=True)
    late = Answer(None, f"gave no answer within {within_s:g} s", sent_s, time.time())
    return {node: answers.get(node, late) for node in nodes}


def _as_they_come(pending: list[Any], within_s: float) -> Iterator[Any]:
    import ray

    until = time.monotonic() + within_s
    while pending:
        ready, pending = ray.wait(pending, num_returns=1, timeout=max(0.0, until - time.monotonic()))
        if not ready:
            return
        yield from ready


def _answer(reference: Any, sent_s: float) -> Answer:
    import ray
    from ray.exceptions import RayError

    received_s = time.time()
    try:
        return Answer(ray.get(reference), "", sent_s, received_s)
    except RayError as error:
        return Answer(None, f"cannot be asked ({str(error).strip().splitlines()[-1]})", sent_s, received_s)


@contextmanager
def _by_value() -> Iterator[None]:
    """Sends the functions themselves: by name, a node would run its own, which may be another one."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(node_checks)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(node_checks)  # type: ignore[no-untyped-call]
