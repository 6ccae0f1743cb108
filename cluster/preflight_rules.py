"""The rules of preflight: from what a node said to what is wrong with it, in words; empty where all is well."""

from collections.abc import Collection, Mapping
from typing import Any

from cluster.resources import GIB
from study.design import initial_weights
from study.plan import NUM_PARAMETERS
from study.spec import StudySpec

SKEW_S = 30.0
"""How far a node's clock may be off. Status, progress and leases compare times that several machines wrote, and a lease
lives a minute; clocks that anybody sets agree within a second, and S3 refuses requests from 15 minutes on."""

PROCESS_BYTES = 0.6 * GIB
"""Least that a trial's Python with Ray and torch takes, before it has trained anything."""

WEIGHT_BYTES = 4
DRIVER = "driver"
"""Name of the driver's token, and its own among the readers; nodes have Ray's ids."""


def different_versions(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """What differs from the driver's own: other code or libraries give other numbers for the same settings."""
    return ", ".join(
        f"{name} {theirs.get(name, 'unknown')} (the driver has {version})"
        for name, version in ours.items()
        if theirs.get(name) != version
    )


def different_store(path: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Whether a packed store is there as the driver packed it, and can be mapped into memory."""
    if theirs["problem"]:
        return str(theirs["problem"])
    return "" if theirs == ours else f"{path} is not what the driver packed: other checksums or sizes"


def storage_problems(unwritten: Mapping[str, str], unread: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Node id -> why the storage is not shared with it: a token that one wrote must be read by all.

    The driver's view is the right one, so that a node with a storage of its own is at fault, and not its peers.

    Args:
        unwritten: node id -> why its token could not be written; empty where it could.
        unread: reader, the driver too -> names of the tokens that it could not read.
    """
    problems = {node: reason for node, reason in unwritten.items() if reason}
    for node in unwritten.keys() - problems.keys():
        if DRIVER in unread.get(node, ()):
            problems[node] = "cannot read what the driver wrote"
        elif node in unread[DRIVER]:
            problems[node] = "the driver cannot read what it wrote"
    for node in unwritten.keys() - problems.keys():
        if lost := set(unread.get(node, ())) - problems.keys():
            problems[node] = f"cannot read what {len(lost)} other nodes wrote"
    return problems


def too_little_disk(free: float, num_trials: int, spec: StudySpec, copied: float) -> str:
    """Each trial at work holds two checkpoints for a moment: the weights, and Adam's two moments of each.

    Args:
        free: bytes.
        num_trials: that run there side by side.
        spec: the study.
        copied: bytes of packed images that the node must copy for itself; 0 where storage is a folder.
    """
    needed = num_trials * 6 * WEIGHT_BYTES * _num_parameters(spec) + copied + 100e6
    return "" if free >= needed else f"{free / 1e9:.1f} GB are free, {num_trials} trials need {needed / 1e9:.1f}"


def too_little_memory(free: float, num_trials: int, spec: StudySpec) -> str:
    """Each trial takes `memory_gib_per_trial`, or where the study does not say, what none can do without.

    That is a process with torch in it and, for training on the CPU, four copies of the weights: themselves, gradients
    and Adam's two moments. The packed images are not counted, as their pages come and go; see `slow_store`.
    """
    needed = num_trials * trial_bytes(spec)
    if free >= needed:
        return ""
    return f"{free / GIB:.1f} GiB of memory are free, {num_trials} trials need {needed / GIB:.1f}"


def slow_store(free: float, num_trials: int, spec: StudySpec, store_bytes: int) -> str:
    """What to know where the trials fit and the packed images do not beside them."""
    if free >= num_trials * trial_bytes(spec) + store_bytes:
        return ""
    return f"the packed images ({store_bytes / GIB:.1f} GiB) do not fit into memory beside the trials; epochs read disk"


def wrong_clock(time_s: float, sent_s: float, received_s: float) -> str:
    """A node's time against the span in which it was read; what the journey took is not held against it.

    Args:
        time_s: unix seconds by the node's clock.
        sent_s: before the node was asked, by the driver's.
        received_s: after its answer had come.
    """
    behind_s, ahead_s = sent_s - time_s, time_s - received_s
    if max(behind_s, ahead_s) <= SKEW_S:
        return ""
    way = f"{behind_s:.0f} s behind" if behind_s > 0 else f"{ahead_s:.0f} s ahead of"
    return f"its clock is {way} the driver's; {SKEW_S:g} s are the most"


def trial_bytes(spec: StudySpec) -> float:
    """Memory that a trial of the study needs at least."""
    if spec.resources.memory_gib_per_trial:
        return spec.resources.memory_gib_per_trial * GIB
    trained_here = 0.0 if spec.resources.gpus_per_trial else 4 * WEIGHT_BYTES * _num_parameters(spec)
    return PROCESS_BYTES + trained_here


def _num_parameters(spec: StudySpec) -> float:
    """Of the study's largest network."""
    return max(NUM_PARAMETERS[config.encoder] for config in initial_weights(spec))
