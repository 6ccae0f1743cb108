"""Nodes that are taken away: their trials go on elsewhere, after their last epoch.

A node that drains takes no new actors. Ray drains it for `ray drain-node`, for its autoscaler, and where
`ray start --block` gets SIGTERM, as when a pod is deleted: for 30 s then, or RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S. A
trial there ends the epoch that it is in, which is on the study's storage then, and gives its actor up. Where the time
is too short for that, the node is gone with less than one epoch. None of this counts as a failure.

A node that vanishes undrained, as a spot machine does where nobody tells Ray of its cloud's notice (so under `ray up`),
cannot be told from one that its trials have brought down: that counts as one of their failures.retries.
"""

import re
import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private.state import state as cluster_state  # what drains is told nowhere else
from ray.core.generated.common_pb2 import NodeDeathInfo  # type: ignore[attr-defined]

from cluster.preparation import Say
from cluster.resources import Node, cluster_nodes, num_fitting
from study.spec import Resources
from trainable.tune_trainable import Trainable

LOOK_EVERY_S = 2.0
IDLE_S = 30.0
"""Time without a trial that trains after which the reason is looked for, and said; then again and again."""
TAKEN_AWAY = (
    NodeDeathInfo.EXPECTED_TERMINATION,
    NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED,
    NodeDeathInfo.AUTOSCALER_DRAIN_IDLE,
)
"""Ways of a node to end that no trial can have caused."""
ACTOR = re.compile(r"actor_id: ([0-9a-f]{32})")
LEFT = re.compile(r"NodeDrainingError: node ([0-9a-f]{56})")
WAITING = ("PENDING", "RESCHEDULING")


class NodeDrainingError(Exception):
    """A trial's node is being taken away, so that it must go on elsewhere."""


class MovableTrainable(Trainable):
    """A trial that leaves its node between two epochs where the node drains."""

    def step(self) -> dict[str, Any]:
        """Trains one epoch.

        Raises:
            NodeDrainingError: not here any more. Tune then ends the actor, and uses it for no other trial.
        """
        node_id = ray.get_runtime_context().get_node_id()
        if node_id in cluster_state.get_draining_nodes():  # takes about 1 ms
            raise NodeDrainingError(f"node {node_id} is being taken away")
        return super().step()


def taken_node(error: str) -> str | None:
    """Id of the node whose end, meant or announced, is all that a trial failed for; None where it failed by itself.

    A node that crashed is none: its trials may be the cause, and would take the next one down, too.

    Args:
        error: what Tune wrote down of it.
    """
    if left := LEFT.search(error):
        return left[1]
    found = ACTOR.search(error)
    actor = cluster_state.actor_table(found[1]) if found else {}
    if not actor:
        return None
    reason = actor["DeathCause"].actor_died_error_context.node_death_info.reason
    return str(actor["Address"]["NodeID"]) if reason in TAKEN_AWAY else None


@dataclass
class NodeWatch:
    """Says once of every node that it is taken away, and time and again that no trial can be started.

    Attributes:
        resources: what a trial needs.
    """

    resources: Resources
    say: Say
    _told: set[str] = field(default_factory=set)
    _next_look: float = 0.0
    _busy: float = field(default_factory=time.monotonic)

    def look(self, trials: Iterable[Any]) -> None:
        """Looks at the cluster, unless that was done just now.

        Args:
            trials: Tune's.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY_S
        draining = cluster_state.get_draining_nodes()
        if new := draining.keys() - self._told:
            self._tell(new, draining)
        if any(trial.status == "RUNNING" for trial in trials):
            self._busy = now
        elif now - self._busy > IDLE_S:
            self._busy = now
            self._tell_waiting(draining)

    def tell_gone(self, node_id: str) -> None:
        """Says that a node was taken away, unless it was said before that it would be."""
        if node_id not in self._told:
            self._tell([node_id], cluster_state.get_draining_nodes())

    def _tell(self, new: Iterable[str], draining: Mapping[str, int]) -> None:
        """Names nodes that are being taken away, or where they are not `draining` any more, were."""
        names = _names()
        can_go = any(num_fitting(self.resources, node.resources) for node in _staying(draining))
        where = "go on elsewhere" if can_go else "wait for another node"
        for node_id in new:
            self._told.add(node_id)
            left_s = max(0.0, draining.get(node_id, 0) / 1000 - time.time())
            within = f" within {left_s:.0f} s" if left_s else ""
            how = "is being" if node_id in draining else "was"
            name = names.get(node_id, node_id[:8])
            self.say(f"node {name} {how} taken away{within}: its trials {where}, after their last epoch")

    def _tell_waiting(self, draining: Container[str]) -> None:
        nodes = _staying(draining)
        if not any(num_fitting(self.resources, node.resources) for node in nodes):
            self.say(f"waiting for a node that can hold a trial: the cluster has {_found(nodes)}; {_SAFE}")
        elif any(each["state"] in WAITING for each in ray.util.placement_group_table().values()):
            self.say(f"waiting for room: others use what the cluster has, {_found(nodes)}; {_SAFE}")


_SAFE = "interrupting is safe"


def _names() -> dict[str, str]:
    """Node id -> host name and address, also of nodes that are gone."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in nodes}


def _staying(draining: Container[str]) -> list[Node]:
    return [node for node in cluster_nodes() if node.node_id not in draining]


def _found(nodes: list[Node]) -> str:
    """What nodes have in all."""
    totals = {name: sum(node.resources.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    return f"{len(nodes)} node{'s' * (len(nodes) != 1)} with {totals['CPU']:g} CPUs and {totals['GPU']:g} GPUs"
