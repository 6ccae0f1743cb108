import os

import pytest

from cluster.resources import (
    GIB,
    WORKERS,
    Node,
    check_cluster_fits,
    check_fits,
    num_concurrent,
    num_cpus,
    num_fitting,
    num_to_come,
    trial_request,
)
from study.spec import Resources
from trainable.config import InputError


def nodes(*found: dict[str, float]) -> list[Node]:
    return [Node(f"id-{number}", f"node-{number} (10.0.0.{number})", each) for number, each in enumerate(found)]


def resources(**changes: float) -> Resources:
    return Resources.model_validate(changes)


@pytest.mark.parametrize(
    ("asked", "cluster", "at_once"),
    [
        ({"cpus_per_trial": 2}, [{"CPU": 3}, {"CPU": 3}], 2),  # of 6 CPUs, two are left over
        ({"cpus_per_trial": 1}, [{"CPU": 0}, {"CPU": 3}], 3),
        ({"cpus_per_trial": 1, "max_concurrent": 2}, [{"CPU": 4}, {"CPU": 4}], 2),
        ({"gpus_per_trial": 0.5}, [{"CPU": 8, "GPU": 2}, {"CPU": 8}], 4),
        ({"gpus_per_trial": 0.4}, [{"CPU": 8, "GPU": 2}], 4),  # two on each GPU, and none across
        ({"gpus_per_trial": 0.1}, [{"CPU": 16, "GPU": 1}], 10),
        ({"gpus_per_trial": 2}, [{"CPU": 8, "GPU": 3}, {"CPU": 8, "GPU": 1}], 1),
        ({"gpus_per_trial": 1}, [{"CPU": 1, "GPU": 8}], 1),
        ({"memory_gib_per_trial": 3}, [{"CPU": 8, "memory": 7 * GIB}, {"CPU": 8, "memory": 2 * GIB}], 2),
    ],
)
def test_trials_at_once_are_counted_node_by_node(asked, cluster, at_once):
    assert num_concurrent(resources(**asked), nodes(*cluster)) == at_once


def test_what_is_spread_over_nodes_holds_no_trial():
    asked = resources(cpus_per_trial=3)
    assert [num_fitting(asked, node.resources) for node in nodes({"CPU": 2}, {"CPU": 2})] == [0, 0]
    with pytest.raises(InputError) as refused:
        check_cluster_fits(asked, nodes({"CPU": 2}, {"CPU": 2}))
    assert str(refused.value) == (
        "resources: a trial asks for 3 CPUs, 0 GPUs, and no node has that; the cluster's 2 nodes have:"
        " 2 x 2 CPUs, 0 GPUs; add such a node, or lower the request"
    )


def test_a_gpu_request_on_a_cpu_cluster_names_the_way_out():
    with pytest.raises(InputError, match=r"0.5 GPUs, and no node has that; .* --set resources.gpus_per_trial=0$"):
        check_cluster_fits(resources(gpus_per_trial=0.5), nodes({"CPU": 2}, {"CPU": 4}))


def test_memory_is_asked_of_ray_in_bytes_and_named_in_gib():
    asked = resources(memory_gib_per_trial=1.5)
    assert trial_request(asked) == {"CPU": 1.0, "GPU": 0.0, "memory": 1.5 * 2**30}
    assert "memory" not in trial_request(resources())
    with pytest.raises(InputError, match=r"1 CPUs, 0 GPUs, 1.5 GiB, and no node has that; .* 4 CPUs, 0 GPUs, 1.0 GiB"):
        check_cluster_fits(asked, nodes({"CPU": 4, "memory": GIB}))


def test_a_cluster_that_grows_is_asked_for_all_it_may_become(monkeypatch):
    monkeypatch.setenv(WORKERS, "6x4cpu1gpu16gib")
    asked = resources(gpus_per_trial=1)
    check_cluster_fits(asked, nodes({"CPU": 2}))
    assert num_concurrent(asked, nodes({"CPU": 2})) == 6
    assert num_concurrent(resources(gpus_per_trial=1, max_concurrent=4), nodes({"CPU": 2})) == 4
    assert num_concurrent(resources(cpus_per_trial=2), nodes({"CPU": 2})) == 12  # six workers of two
    assert num_concurrent(resources(cpus_per_trial=4), nodes({"CPU": 64})) == 16  # more than would come
    assert num_to_come(resources(memory_gib_per_trial=6)) == 12
    assert num_to_come(resources(memory_gib_per_trial=17)) == 0


@pytest.mark.parametrize(
    ("asked", "way_out"),
    [
        ({"gpus_per_trial": 2}, "2 x 4 CPUs, 1 GPUs; add such a node, or lower the request"),
        ({"cpus_per_trial": 5}, "2 x 4 CPUs, 1 GPUs; add such a node, or lower the request"),
        ({"memory_gib_per_trial": 17}, "2 x 4 CPUs, 1 GPUs, 16.0 GiB; add such a node, or lower the request"),
    ],
)
def test_what_no_node_there_or_to_come_can_hold_is_refused(monkeypatch, asked, way_out):
    monkeypatch.setenv(WORKERS, "2x4cpu1gpu16gib")
    with pytest.raises(InputError) as refused:
        check_cluster_fits(resources(**asked), nodes({"CPU": 2}))
    assert str(refused.value).endswith(f"; it may add {way_out}")


def test_a_gpu_request_where_no_gpu_will_come_names_the_way_out(monkeypatch):
    monkeypatch.setenv(WORKERS, "2x4cpu0gpu16gib")
    with pytest.raises(InputError, match=r"it may add 2 x 4 CPUs, 0 GPUs; .* --set resources.gpus_per_trial=0$"):
        check_cluster_fits(resources(gpus_per_trial=1), nodes({"CPU": 2}))


@pytest.mark.parametrize("text", ["", "8", "many", "8x4cpu", "8x-4cpu0gpu1gib", "٣x4cpu0gpu1gib", "8x4cpu1gpu16gib\n"])
def test_workers_in_another_form_are_refused(monkeypatch, text):
    monkeypatch.setenv(WORKERS, text)
    with pytest.raises(InputError) as refused:
        check_cluster_fits(resources(), nodes({"CPU": 2}))
    assert str(refused.value) == f"{WORKERS}: must be as in 8x4cpu1gpu16gib, got {text!r}; mend or remove it"


def test_this_machine_counts_by_itself():
    assert num_concurrent(resources()) == num_cpus() == len(os.sched_getaffinity(0))
    check_fits(resources(memory_gib_per_trial=0.01))
    with pytest.raises(InputError, match=r"^resources.memory_gib_per_trial: 100000 asked for, but [\d.]+ GiB are free"):
        check_fits(resources(memory_gib_per_trial=1e5))
