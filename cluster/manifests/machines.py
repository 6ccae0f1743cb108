"""Machines to rent: sizes of one family each, with and without GPUs, and the smallest that holds a worker."""

from dataclasses import dataclass

from cluster.manifests.workers import Workers
from study.spec import Resources
from trainable.config import InputError

USABLE_MEMORY = 0.7
"""Share of a machine's memory that Ray hands out: the rest is the system's and Ray's own."""


@dataclass(frozen=True)
class Machine:
    """A machine as its cloud names it; memory in GiB."""

    name: str
    cpus: int
    gpus: int
    memory_gib: int

    @property
    def usable_gib(self) -> int:
        """Memory for trials, whole GiB."""
        return int(self.memory_gib * USABLE_MEMORY)


AWS = (
    *(Machine(f"m7i.{size}", cpus, 0, 4 * cpus) for size, cpus in (("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16))),
    *(Machine(f"m7i.{size}", cpus, 0, 4 * cpus) for size, cpus in (("8xlarge", 32), ("16xlarge", 64))),
    *(Machine(f"g6.{size}", cpus, 1, 4 * cpus) for size, cpus in (("xlarge", 4), ("2xlarge", 8), ("4xlarge", 16))),
    *(Machine(f"g6.{size}", cpus, 1, 4 * cpus) for size, cpus in (("8xlarge", 32), ("16xlarge", 64))),
    Machine("g6.12xlarge", 48, 4, 192),
    Machine("g6.48xlarge", 192, 8, 768),
)
"""Intel Sapphire Rapids; NVIDIA L4 with 24 GB."""

GCP = (
    *(Machine(f"n2-standard-{cpus}", cpus, 0, 4 * cpus) for cpus in (4, 8, 16, 32, 64)),
    *(Machine(f"g2-standard-{cpus}", cpus, 1, 4 * cpus) for cpus in (4, 8, 12, 16, 32)),
    Machine("g2-standard-24", 24, 2, 96),
    Machine("g2-standard-48", 48, 4, 192),
    Machine("g2-standard-96", 96, 8, 384),
)
"""Intel Cascade or Ice Lake; NVIDIA L4 with 24 GB."""


def smallest(machines: tuple[Machine, ...], workers: Workers, resources: Resources) -> Machine:
    """The smallest machine that holds one worker; one without GPUs where it needs none.

    Raises:
        InputError: none is large enough.
    """
    memory_gib = workers.memory_gib if resources.memory_gib_per_trial else 0
    fitting = [
        each
        for each in machines
        if each.cpus >= workers.cpus
        and each.gpus >= workers.gpus
        and bool(each.gpus) == bool(workers.gpus)
        and each.usable_gib >= memory_gib
    ]
    if not fitting:
        raise InputError(
            f"resources: {workers.trials_each} trials on a node need {workers.cpus} CPUs, {workers.gpus} GPUs and"
            f" {workers.memory_gib} GiB, more than the largest machine listed; lower cpus_per_trial, gpus_per_trial"
            f" or memory_gib_per_trial"
        )
    return min(fitting, key=lambda each: (each.gpus, each.cpus, each.memory_gib))
