"""What a trial needs, what this machine has; refuses what could never be scheduled."""

import os
import socket
from collections.abc import Mapping

from study.spec import Resources
from trainable.config import InputError

REACHABLE_S = 5.0


def trial_request(resources: Resources) -> dict[str, float]:
    """What Ray sets aside for one trial."""
    return {"CPU": float(resources.cpus_per_trial), "GPU": float(resources.gpus_per_trial)}


def num_cpus() -> int:
    """Cores that this process may use, which on a shared machine are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_gpus() -> int:
    """GPUs that torch sees on this machine."""
    import torch  # takes seconds, and only studies that ask for a GPU need it

    return torch.cuda.device_count()


def num_concurrent(resources: Resources, available: Mapping[str, float] | None = None) -> int:
    """Trials that run at the same time, or fewer where the study says so; at least one.

    Args:
        resources: what a trial needs.
        available: what a cluster has, as Ray names it; this machine's own by default.
    """
    fitting = int((num_cpus() if available is None else available.get("CPU", 0)) // resources.cpus_per_trial)
    if resources.gpus_per_trial:
        gpus = num_gpus() if available is None else available.get("GPU", 0)
        fitting = min(fitting, int(gpus / resources.gpus_per_trial))
    return max(1, min(fitting, resources.max_concurrent or fitting))


def check_reachable(address: str) -> None:
    """Refuses an address at which nothing answers; Ray would try for minutes.

    Raises:
        InputError: names the address and the rule.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=REACHABLE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"--address {address}: no Ray answers there ({error}); give HOST:PORT of its head, as `ray start` prints it"
        ) from error


def check_cluster_fits(resources: Resources) -> None:
    """Refuses a request that no node of the connected cluster can hold; Ray would wait for ever, with a warning.

    Raises:
        InputError: names what is asked for and what the largest node has.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    request = trial_request(resources)
    if not any(all(node.get(name, 0) >= amount for name, amount in request.items()) for node in nodes):
        found = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(
            f"resources: a trial asks for {request['CPU']:g} CPUs and {request['GPU']:g} GPUs, and no node has both"
            f" (there are: {found}); lower the request, or add a node"
        )


def check_fits(resources: Resources) -> None:
    """Refuses a request that this machine cannot hold; Ray would wait for ever, with a warning.

    Raises:
        InputError: names what is asked for and what is there.
    """
    if resources.cpus_per_trial > num_cpus():
        raise InputError(
            f"resources.cpus_per_trial: {resources.cpus_per_trial} asked for, but this machine has {num_cpus()};"
            f" lower it (--set resources.cpus_per_trial={num_cpus()})"
        )
    if resources.gpus_per_trial and resources.gpus_per_trial > num_gpus():
        raise InputError(
            f"resources.gpus_per_trial: {resources.gpus_per_trial:g} asked for, but torch sees {num_gpus()} GPUs here;"
            f" run on a GPU machine, or on the CPU with --set resources.gpus_per_trial=0"
        )
