import pytest

from cluster.manifests.workers import Workers, idle_workers, workers_for
from study.spec import Resources


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # num, trials_each, cpus, gpus, memory_gib: 8 trials at once, 4 GiB a core
        ({}, Workers(2, 4, 4, 0, 16)),
        ({"cpus_per_trial": 3}, Workers(8, 1, 4, 0, 16)),
        ({"cpus_per_trial": 16, "max_concurrent": 2}, Workers(2, 1, 16, 0, 64)),
        ({"max_concurrent": 1}, Workers(1, 1, 4, 0, 16)),
        ({"gpus_per_trial": 0.5, "cpus_per_trial": 4}, Workers(4, 2, 8, 1, 32)),
        ({"gpus_per_trial": 0.1}, Workers(1, 8, 8, 1, 32)),  # ten fit, eight are wanted
        ({"gpus_per_trial": 0.3, "max_concurrent": 7}, Workers(3, 3, 4, 1, 16)),
        ({"gpus_per_trial": 4.0, "cpus_per_trial": 8}, Workers(8, 1, 8, 4, 32)),
        ({"gpus_per_trial": 0.5, "memory_gib_per_trial": 10.2}, Workers(4, 2, 4, 1, 21)),
    ],
)
def test_workers_hold_the_trials_that_run_at_once(asked, expected):
    assert workers_for(Resources(**asked)) == expected


def test_the_other_kind_has_what_this_one_lacks():
    used = workers_for(Resources(gpus_per_trial=0.5))
    assert (idle_workers(used).num, idle_workers(used).gpus) == (0, 0)
    assert idle_workers(workers_for(Resources())).gpus == 1
