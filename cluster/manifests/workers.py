"""How large a worker node must be, and how many of them a study can use."""

import math
from dataclasses import dataclass

from cluster.resources import workers_text
from study.spec import Resources

TRIALS_AT_ONCE = 8
"""Where the study does not say `max_concurrent`."""

MIN_CPUS = 4
GIB_PER_CPU = 4


@dataclass(frozen=True)
class Workers:
    """Worker nodes, all alike.

    Attributes:
        num: how many at most.
        trials_each: trials that run side by side on each.
        cpus: of each.
        gpus: of each.
        memory_gib: of each, whole GiB.
    """

    num: int
    trials_each: int
    cpus: int
    gpus: int
    memory_gib: int

    @property
    def text(self) -> str:
        """All of them, as a driver is told of them."""
        return workers_text(self.num, self.cpus, self.gpus, self.memory_gib)


def workers_for(resources: Resources) -> Workers:
    """The workers that a study asks for: a whole GPU each or more, or at least four cores."""
    at_once = resources.max_concurrent or TRIALS_AT_ONCE
    gpus = math.ceil(resources.gpus_per_trial)
    # The tenth share of a GPU is 10 trials, whatever 1 / 0.1 is in binary.
    fitting = int(gpus / resources.gpus_per_trial + 1e-6) if gpus else MIN_CPUS // resources.cpus_per_trial
    trials_each = max(1, min(fitting, at_once))
    cpus = max(MIN_CPUS, trials_each * resources.cpus_per_trial)
    memory_gib = math.ceil(trials_each * (resources.memory_gib_per_trial or 0)) or cpus * GIB_PER_CPU
    return Workers(math.ceil(at_once / trials_each), trials_each, cpus, gpus, memory_gib)


def idle_workers(used: Workers) -> Workers:
    """The other kind of workers, without GPUs or with one, none of which the study asks for."""
    return Workers(0, 0, used.cpus, 0 if used.gpus else 1, used.memory_gib)
