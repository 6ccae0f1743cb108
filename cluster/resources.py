"""What a trial needs, what a machine or a cluster has; refuses what could never be scheduled.

A trial gets whole CPUs, whole GPUs or a share of one, and perhaps memory, all on one node. It runs beside the node's
store: preflight opens the store on every node that can hold a trial, so that none waits for it later.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from study.spec import Resources
from trainable.config import InputError

GIB = 2**30
MAX_NAMED = 6
WORKERS = "CANOPOINT_WORKERS"
"""In the driver's environment, of a cluster that adds nodes on demand: its workers when it is full, as in
`8x4cpu1gpu16gib`: 8 of them, each with 4 CPUs, one GPU and 16 GiB of memory.

Ray does not tell a driver that, and who never asks for more trials than there is room for never gets more room.
"""
_WORKERS = re.compile(r"(\d{1,6})x(\d{1,6})cpu(\d{1,6})gpu(\d{1,6})gib", re.ASCII)


@dataclass(frozen=True)
class Node:
    """A node of the cluster.

    Attributes:
        node_id: Ray's.
        name: host name and address, as a person knows it.
        resources: what it has, by Ray's names: CPU, GPU, and memory in bytes.
    """

    node_id: str
    name: str
    resources: Mapping[str, float] = field(hash=False)


def trial_request(resources: Resources) -> dict[str, float]:
    """What Ray sets aside for one trial; memory in bytes. Ray counts memory when it schedules, and enforces none."""
    request = {"CPU": float(resources.cpus_per_trial), "GPU": float(resources.gpus_per_trial)}
    if resources.memory_gib_per_trial:
        request["memory"] = resources.memory_gib_per_trial * GIB
    return request


def num_cpus() -> int:
    """Cores that this process may use, which on a shared machine are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_gpus() -> int:
    """GPUs that torch sees on this machine."""
    import torch  # takes seconds, and only studies that ask for a GPU need it

    return torch.cuda.device_count()


def num_fitting(resources: Resources, node: Mapping[str, float]) -> int:
    """Trials that fit on one node side by side; none of them reaches over two nodes, or over two GPUs in part.

    Args:
        resources: what a trial needs.
        node: what the node has, by Ray's names.
    """
    fitting = [node.get("CPU", 0) // resources.cpus_per_trial]
    if share := resources.gpus_per_trial:
        gpus = int(node.get("GPU", 0))
        fitting.append(gpus // share if share >= 1 else gpus * int(1 / share + 1e-6))
    if resources.memory_gib_per_trial:
        fitting.append(node.get("memory", 0) // (resources.memory_gib_per_trial * GIB))
    return int(min(fitting))


def num_concurrent(resources: Resources, nodes: Sequence[Node] | None = None) -> int:
    """Trials that run at the same time, or fewer where the study says so; at least one.

    Args:
        resources: what a trial needs.
        nodes: of a cluster; this machine by default.
    """
    here = [this_machine(resources)] if nodes is None else [node.resources for node in nodes]
    fitting = sum(num_fitting(resources, each) for each in here)
    if nodes is not None:
        fitting = max(fitting, num_to_come(resources))
    return max(1, min(fitting, resources.max_concurrent or fitting))


def num_to_come(resources: Resources) -> int:
    """Trials that the cluster holds once it has added all nodes that it may add; 0 where it adds none that holds one.

    Raises:
        InputError: as `workers_to_come` does.
    """
    num, worker = workers_to_come()
    return num * num_fitting(resources, worker)


def workers_text(num: int, cpus: int, gpus: int, memory_gib: int) -> str:
    """The value of `WORKERS` for so many workers, each with that."""
    return f"{num}x{cpus}cpu{gpus}gpu{memory_gib}gib"


def workers_to_come() -> tuple[int, dict[str, float]]:
    """Workers of the full cluster, and what each of them has, by Ray's names; no worker where it adds none.

    Raises:
        InputError: the environment says it in another form.
    """
    text = os.environ.get(WORKERS, workers_text(0, 0, 0, 0))
    if not (found := _WORKERS.fullmatch(text)):
        raise InputError(f"{WORKERS}: must be as in 8x4cpu1gpu16gib, got {text[:80]!r}; mend or remove it")
    num, cpus, gpus, memory_gib = map(int, found.groups())
    return num, {"CPU": cpus, "GPU": gpus, "memory": memory_gib * GIB}


def this_machine(resources: Resources) -> dict[str, float]:
    """What this machine has of what a trial needs, by Ray's names."""
    found = {"CPU": float(num_cpus())}
    if resources.gpus_per_trial:
        found["GPU"] = float(num_gpus())
    if resources.memory_gib_per_trial:
        from cluster.node_checks import free_memory

        found["memory"] = float(free_memory())
    return found


def cluster_nodes() -> list[Node]:
    """The nodes of the connected cluster that are alive."""
    import ray

    return [
        Node(each["NodeID"], f"{each['NodeManagerHostname']} ({each['NodeManagerAddress']})", each["Resources"])
        for each in ray.nodes()  # type: ignore[no-untyped-call]
        if each["Alive"]
    ]


def check_cluster_fits(resources: Resources, nodes: Sequence[Node]) -> None:
    """Refuses a request that no node of a cluster, there or to come, can hold; Ray would wait for ever, with a warning.

    Raises:
        InputError: names what is asked for and what each node has.
    """
    if num_to_come(resources) or any(num_fitting(resources, node.resources) for node in nodes):
        return
    num, worker = workers_to_come()
    found = Counter(_amounts(node.resources, resources) for node in nodes)
    texts = [f"{count} x {text}" if count > 1 else text for text, count in found.most_common(MAX_NAMED)]
    more = "; ..." if len(found) > MAX_NAMED else ""
    more += f"; it may add {num} x {_amounts(worker, resources)}" if num else ""
    way_out = "add such a node, or lower the request"
    if resources.gpus_per_trial and not any(each.get("GPU") for each in [worker, *(n.resources for n in nodes)]):
        way_out = "add a GPU node, or run on the CPU with --set resources.gpus_per_trial=0"
    raise InputError(
        f"resources: a trial asks for {_amounts(trial_request(resources), resources)}, and no node has that;"
        f" the cluster's {len(nodes)} nodes have: {'; '.join(texts)}{more}; {way_out}"
    )


def _amounts(found: Mapping[str, float], resources: Resources) -> str:
    """CPUs, GPUs and, where the study asks for it, memory."""
    texts = [f"{found.get('CPU', 0):g} CPUs", f"{found.get('GPU', 0):g} GPUs"]
    if resources.memory_gib_per_trial:
        texts.append(f"{found.get('memory', 0) / GIB:.1f} GiB")
    return ", ".join(texts)


def check_fits(resources: Resources) -> None:
    """Refuses a request that this machine cannot hold; Ray would wait for ever, with a warning.

    Raises:
        InputError: names what is asked for and what is there.
    """
    here = this_machine(resources)
    if resources.cpus_per_trial > here["CPU"]:
        raise InputError(
            f"resources.cpus_per_trial: {resources.cpus_per_trial} asked for, but this machine has {here['CPU']:g};"
            f" lower it (--set resources.cpus_per_trial={here['CPU']:g})"
        )
    if resources.gpus_per_trial > here.get("GPU", 0):
        raise InputError(
            f"resources.gpus_per_trial: {resources.gpus_per_trial:g} asked for, but torch sees {here['GPU']:g} GPUs"
            f" here; run on a GPU machine, or on the CPU with --set resources.gpus_per_trial=0"
        )
    if (asked := resources.memory_gib_per_trial or 0) * GIB > here.get("memory", 0):
        raise InputError(
            f"resources.memory_gib_per_trial: {asked:g} asked for, but {here['memory'] / GIB:.1f} GiB are free here;"
            f" lower it, or free some"
        )
