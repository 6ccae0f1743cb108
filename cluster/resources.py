"""What a trial needs, what the machine has; refuses what could never be scheduled."""

import ray

from study.spec import Resources
from trainable.config import InputError


def trial_request(resources: Resources) -> dict[str, float]:
    """What Ray sets aside for one trial."""
    return {"CPU": float(resources.cpus_per_trial), "GPU": float(resources.gpus_per_trial)}


def check_schedulable(resources: Resources) -> None:
    """Refuses a request that no node can hold; Ray would wait for ever, with a warning.

    Raises:
        InputError: names what is asked for and what the nodes have.
    """
    request = trial_request(resources)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if any(all(node.get(name, 0) >= amount for name, amount in request.items()) for node in nodes):
        return
    have = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes)
    raise InputError(
        f"resources: a trial asks for {request['CPU']:g} CPU and {request['GPU']:g} GPU, but the nodes have {have};"
        f" lower cpus_per_trial or gpus_per_trial"
    )
