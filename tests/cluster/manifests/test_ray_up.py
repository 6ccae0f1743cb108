import copy
import re
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.resources import WORKERS, num_to_come
from study.spec import load_study
from trainable.config import InputError

KINDS = ("ray-aws", "ray-gcp", "ray-onprem")
RENTED = ("ray-aws", "ray-gcp")


def cluster_of(text: str) -> dict[str, Any]:
    [cluster] = yaml.safe_load_all(text)
    return cluster


@pytest.mark.parametrize("overrides", [[], ["resources.gpus_per_trial=0"], ["tracking.mode=online"]])
@pytest.mark.parametrize("kind", KINDS)
def test_ray_takes_it(kind, rendered, overrides):
    validate_config(prepare_config(cluster_of(rendered(kind, *overrides))))


def test_ray_would_notice_a_misspelt_field(rendered):
    wrong = {**cluster_of(rendered("ray-aws")), "idle_timeout_minute": 5}
    with pytest.raises(Exception, match="idle_timeout_minute"):
        validate_config(prepare_config(copy.deepcopy(wrong)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_start_asks_for_a_token_from_a_file(kind, rendered):
    cluster = cluster_of(rendered(kind))
    starts = [
        each for key in ("head", "worker") for each in cluster[f"{key}_start_ray_commands"] if "ray start" in each
    ]
    assert len(starts) == 2
    for start in starts:
        assert start.index("RAY_AUTH_MODE=token") < start.index("ray start")
        assert 'RAY_AUTH_TOKEN_PATH="$HOME/.ray/auth_token"' in start
        assert "RAY_AUTH_TOKEN=" not in start
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("kind", KINDS)
def test_the_dashboard_listens_on_loopback(kind, rendered):
    assert set(re.findall(r"--dashboard-host=(\S+)", rendered(kind))) == {"127.0.0.1"}


@pytest.mark.parametrize("kind", KINDS)
def test_containers_gain_no_rights_and_install_nothing(kind, rendered):
    cluster = cluster_of(rendered(kind))
    assert {"--security-opt no-new-privileges", "--cap-drop ALL"} <= set(cluster["docker"]["run_options"])
    assert not any(cluster[key] for key in cluster if key.endswith(("setup_commands", "initialization_commands")))


@pytest.mark.parametrize("kind", RENTED)
def test_workers_are_spot_machines_that_come_when_needed_and_leave(kind, rendered):
    cluster = cluster_of(rendered(kind))
    types = cluster["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu-worker"]["resources"] == {"CPU": 8, "GPU": 1, "memory": 22 * 2**30}  # of 32 GiB
    assert [types[f"{each}-worker"]["max_workers"] for each in ("cpu", "gpu")] == [0, 4]
    assert all(each.get("min_workers", 0) == 0 for each in types.values())
    assert "spot" in str(types["gpu-worker"]) or "'preemptible': True" in str(types["gpu-worker"])
    assert "spot" not in str(types["head"])
    assert "preemptible" not in str(types["head"])
    assert cluster["idle_timeout_minutes"] == 5
    assert "export CANOPOINT_WORKERS=4x8cpu1gpu22gib;" in cluster["head_start_ray_commands"][1]


@pytest.mark.parametrize("kind", KINDS)
def test_its_first_lines_say_what_happens_with_machines_and_studies(kind, rendered):
    text = " ".join(re.sub(r"^# ?", "", rendered(kind, "failures.retries=7"), flags=re.MULTILINE).split())
    assert (
        "A machine that vanishes costs every trial on it the running epoch and one of its failures.retries (7 here)"
        in text
    )
    assert "canopoint submit STUDY --address http://127.0.0.1:8265 with the --set that made this file" in text
    assert ("come when they are needed" in text) is (kind in RENTED)
    assert ("spot machines: nobody tells Ray of the notice" in text) is (kind in RENTED)


@pytest.mark.parametrize("kind", RENTED)
@pytest.mark.parametrize("asked", [{}, {"memory_gib_per_trial": 10.2}, {"gpus_per_trial": 0, "cpus_per_trial": 3}])
def test_the_driver_is_told_of_workers_that_hold_the_trials(kind, rendered, asked, monkeypatch):
    overrides = [f"resources.{name}={value}" for name, value in asked.items()]
    start = cluster_of(rendered(kind, *overrides))["head_start_ray_commands"][1]
    monkeypatch.setenv(WORKERS, re.search(rf"{WORKERS}=(\w+);", start)[1])
    assert num_to_come(load_study("lr_gamma", overrides).resources) >= 8


@pytest.mark.parametrize("kind", RENTED)
def test_images_are_copied_to_every_rented_machine(kind, rendered):
    assert cluster_of(rendered(kind))["file_mounts"]["/shared/forest"] == "/shared/forest"


@pytest.mark.parametrize("kind", RENTED)
def test_rented_machines_share_no_folder(kind, rendered):
    with pytest.raises(InputError, match=r"storage: /shared/studies: rented .*://BUCKET"):
        rendered(kind, "storage=/shared/studies")


def test_disks_are_encrypted_and_metadata_asks_for_a_session(rendered):
    for each in cluster_of(rendered("ray-aws"))["available_node_types"].values():
        assert each["node_config"]["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
        assert each["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}


@pytest.mark.parametrize(
    ("kind", "asked", "machine"),
    [
        ("ray-aws", {"gpus_per_trial": 0, "cpus_per_trial": 1}, "m7i.xlarge"),
        ("ray-aws", {"gpus_per_trial": 1, "cpus_per_trial": 16}, "g6.4xlarge"),
        ("ray-aws", {"gpus_per_trial": 8, "cpus_per_trial": 8}, "g6.48xlarge"),
        ("ray-aws", {"gpus_per_trial": 1, "cpus_per_trial": 4, "memory_gib_per_trial": 60}, "g6.8xlarge"),
        ("ray-gcp", {"gpus_per_trial": 0.5, "cpus_per_trial": 2}, "g2-standard-4"),
        ("ray-gcp", {"gpus_per_trial": 2, "cpus_per_trial": 4}, "g2-standard-24"),
    ],
)
def test_the_smallest_machine_that_holds_a_worker_is_rented(rendered, kind, asked, machine):
    cluster = cluster_of(rendered(kind, *(f"resources.{name}={value}" for name, value in asked.items())))
    [used] = [each for name, each in cluster["available_node_types"].items() if name != "head" and each["max_workers"]]
    assert machine in used["node_config"].values()


def test_a_request_beyond_all_machines_is_refused(rendered):
    with pytest.raises(InputError, match=r"resources: 1 trials on a node need 4 CPUs, 16 GPUs"):
        rendered("ray-aws", "resources.gpus_per_trial=16")


def test_ones_own_machines_mount_what_all_of_them_have(rendered):
    options = cluster_of(rendered("ray-onprem"))["docker"]["run_options"]
    assert options[-2:] == ["-v /shared/studies:/shared/studies:rw", "-v /shared/forest:/shared/forest:ro"]
    assert "--env-file /etc/canopoint.env" not in options
    options = cluster_of(rendered("ray-onprem", "storage=s3://bucket/studies"))["docker"]["run_options"]
    assert "--env-file /etc/canopoint.env" in options


@pytest.mark.parametrize("place", ["storage", "data.root"])
def test_paths_that_a_shell_would_read_are_refused(rendered, place):
    with pytest.raises(InputError, match=place):
        rendered("ray-onprem", f"{place}='/shared/a;reboot'")
