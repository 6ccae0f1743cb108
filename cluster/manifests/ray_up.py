"""Cluster files for `ray up`: nodes rented from AWS or GCP as they are needed, or machines of one's own.

The study is not in them: such a cluster takes one study after the other, by `canopoint submit`.
"""

from collections.abc import Callable
from typing import Any

from cluster.manifests.folders import read, written
from cluster.manifests.machines import AWS, GCP, Machine, smallest
from cluster.manifests.text import as_steps, as_yaml, build_step, resource_name
from cluster.manifests.workers import Workers, idle_workers, workers_for
from cluster.resources import GIB, WORKERS, workers_text
from study.spec import StudySpec
from trainable.config import InputError
from trainable.storage_url import is_url

Mapping = dict[str, Any]

PORT = 6379
HEAD = "head"
TOKEN_FILE = "~/.ray/auth_token"  # where Ray's own tools look for it
IDLE_MINUTES = 5
DISK_GB = 200
HEAD_WORKER = Workers(num=0, trials_each=0, cpus=4, gpus=0, memory_gib=8)

# A container sees its own processes alone, so that `ray stop` ends no Ray but this one.
STOP = "ray stop"
PREPARE = (
    'export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.ray/auth_token" RAY_USAGE_STATS_ENABLED=0; ulimit -n 65536'
)
START_HEAD = (
    f"ray start --head --port={PORT} --dashboard-host=127.0.0.1 --autoscaling-config=~/ray_bootstrap_config.yaml"
)
START_WORKER = f"ray start --address=$RAY_HEAD_IP:{PORT}"

ENV_FILE = "/etc/canopoint.env"

COMMENT = """\
Canopoint: a Ray cluster for the study {study}, by `ray up` ({provider}).

{edit}

{steps}

A machine that vanishes costs every trial on it the running epoch and one of its failures.retries ({retries} here): the
trial goes on elsewhere, after its last epoch.
"""
ABOUT_RENTED = """

Workers come when they are needed, and leave when idle. They are spot machines: nobody tells Ray of the notice that the
cloud gives, so that one which is taken away vanishes. Where that happens often, --set failures.retries=100."""
AWS_EDIT = f"""\
Edit first: the region; ImageId, an image with Docker and NVIDIA's driver 580 or newer
  aws ssm get-parameter --query Parameter.Value --output text --name \\
    /aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id
and the workers' IamInstanceProfile, which may use the bucket and nothing else. Ray makes a role for the head, which
must be allowed to pass that profile on (iam:PassRole).{ABOUT_RENTED}"""
GCP_EDIT = f"""\
Edit first: project_id, region and zone; the workers' service account, which may use the bucket and nothing else; and,
if that family is gone, sourceImage: one with Docker and NVIDIA's driver 580 or newer, of
  gcloud compute images list --project deeplearning-platform-release{ABOUT_RENTED}"""
OWN_EDIT = """\
Edit first: head_ip, worker_ips and auth. Every machine has Docker and, for GPUs, NVIDIA's driver 580 or newer with its
Container Toolkit."""
FOLDERS_EDIT = """
Every machine has the same {folders}. The image's user must be the one whose they are:
build it with --build-arg UID=ID."""
ENV_EDIT = f"""
Every machine has {ENV_FILE} with the keys of the storage (AWS_ACCESS_KEY_ID=...), for its owner alone."""


def render(provider: str, spec: StudySpec, image: str) -> str:
    """The cluster file for a provider: `aws`, `gcp` or `onprem`.

    Raises:
        InputError: no machine is large enough, or nodes that share no folder would have to.
    """
    if provider == "onprem":
        return _on_premises(spec, image)
    if not is_url(spec.storage):
        raise InputError(
            f"storage: {spec.storage}: rented machines share no folder; give a place in an object store, as in"
            f" --set storage={'s3' if provider == 'aws' else 'gs'}://BUCKET/studies"
        )
    return _aws(spec, image) if provider == "aws" else _gcp(spec, image)


def _aws(spec: StudySpec, image: str) -> str:
    def config(machine: Machine) -> Mapping:
        disk = {"VolumeSize": DISK_GB, "VolumeType": "gp3", "Encrypted": True}
        return {
            "ImageId": "ami-EDIT",
            "InstanceType": machine.name,
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
            "MetadataOptions": {"HttpTokens": "required"},
        }

    extra = {"IamInstanceProfile": {"Name": "EDIT"}, "InstanceMarketOptions": {"MarketType": "spot"}}
    provider = {"type": "aws", "region": "us-west-2", "cache_stopped_nodes": False}
    return as_yaml(
        _comment(spec, "AWS", AWS_EDIT, build_step(image, "boto3")),
        {**_common(spec, image, provider), **_rented(spec, AWS, config, extra)},
    )


def _gcp(spec: StudySpec, image: str) -> str:
    def config(machine: Machine) -> Mapping:
        source = "projects/deeplearning-platform-release/global/images/family/common-cu129-ubuntu-2204-nvidia-580"
        disk = {"diskSizeGb": DISK_GB, "sourceImage": source}
        return {
            "machineType": machine.name,
            "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": disk}],
        }

    extra = {
        "serviceAccounts": [{"email": "EDIT", "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}],
        "scheduling": [{"preemptible": True, "onHostMaintenance": "TERMINATE"}],  # as a GPU machine must
    }
    provider = {"type": "gcp", "region": "us-west1", "availability_zone": "us-west1-a", "project_id": "EDIT"}
    return as_yaml(
        _comment(spec, "GCP", GCP_EDIT, build_step(image, "gcsfs google-api-python-client")),
        {**_common(spec, image, provider), **_rented(spec, GCP, config, extra)},
    )


def _on_premises(spec: StudySpec, image: str) -> str:
    """All machines are started, the head trains too, and folders that all have are mounted, none copied."""
    provider = {"type": "local", "head_ip": "head.example.org", "worker_ips": ["worker-1.example.org"]}
    cluster = _common(spec, image, provider)
    cluster["auth"] = {"ssh_user": "EDIT", "ssh_private_key": "~/.ssh/id_ed25519"}
    mounts = [(str(path), "rw") for _, path in written(spec)] + [(str(path), "ro") for _, path in read(spec)]
    edit = OWN_EDIT
    if mounts:
        edit += FOLDERS_EDIT.format(folders=" and ".join(path for path, _ in mounts))
    options = [f"-v {path}:{path}:{how}" for path, how in mounts]
    if is_url(spec.storage):
        edit += ENV_EDIT
        options.append(f"--env-file {ENV_FILE}")
    cluster["docker"]["run_options"] += options
    return as_yaml(_comment(spec, "machines of your own", edit, build_step(image)), cluster)


def _common(spec: StudySpec, image: str, provider: Mapping) -> Mapping:
    """What all cluster files share."""
    is_rented = provider["type"] != "local"
    options = ["--ulimit nofile=65536:65536", "--security-opt no-new-privileges", "--cap-drop ALL"]
    copied = [TOKEN_FILE, *(str(path) for _, path in read(spec) if is_rented)]
    return {
        "cluster_name": resource_name(spec.study),
        "provider": provider,
        "auth": {"ssh_user": "ubuntu"},
        "idle_timeout_minutes": IDLE_MINUTES,
        "docker": {"image": image, "container_name": "canopoint", "pull_before_run": True, "run_options": options},
        "file_mounts": {path: path for path in copied},
        "initialization_commands": [],
        "setup_commands": [],  # the image has all; by default Ray would install another Ray
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [STOP, f"{PREPARE}; {START_HEAD}"],
        "worker_start_ray_commands": [STOP, f"{PREPARE}; {START_WORKER}"],
    }


def _rented(
    spec: StudySpec, machines: tuple[Machine, ...], config: Callable[[Machine], Mapping], extra: Mapping
) -> Mapping:
    """A head that holds no trials, and spot workers with and without GPUs, of which the study uses one kind.

    The head knows how many of those may come.

    Args:
        spec: the study.
        machines: what can be rented.
        config: how a provider describes one of them.
        extra: what it is told of workers beside that.
    """
    used = workers_for(spec.resources)
    head = smallest(machines, HEAD_WORKER, spec.resources)
    types: Mapping = {HEAD: {"resources": {"CPU": 0}, "max_workers": 0, "node_config": config(head)}}
    for workers in sorted((used, idle_workers(used)), key=lambda each: each.gpus):
        machine = smallest(machines, workers, spec.resources)
        types["gpu-worker" if machine.gpus else "cpu-worker"] = {
            "resources": _amounts(machine),
            "min_workers": 0,
            "max_workers": workers.num,
            "node_config": {**config(machine), **extra},
        }
    machine = smallest(machines, used, spec.resources)
    to_come = workers_text(used.num, machine.cpus, machine.gpus, machine.usable_gib)
    return {
        "max_workers": used.num,
        "head_node_type": HEAD,
        "available_node_types": types,
        "head_start_ray_commands": [STOP, f"{PREPARE}; export {WORKERS}={to_come}; {START_HEAD}"],
    }


def _amounts(machine: Machine) -> Mapping:
    """What a machine has for trials, by Ray's names; memory, too, which Ray would find out of AWS's machines alone."""
    gpus = {"GPU": machine.gpus} if machine.gpus else {}
    return {"CPU": machine.cpus, **gpus, "memory": machine.usable_gib * GIB}


def _comment(spec: StudySpec, provider: str, edit: str, build: tuple[str, str]) -> str:
    steps = [
        build,
        ("export RAY_AUTH_MODE=token", ""),
        ("ray get-auth-token --generate", "once: makes ~/.ray/auth_token, which `ray up` copies to every node"),
        ("ray up FILE", "starts it"),
        ("ray dashboard FILE &", "forwards the dashboard, which listens on the head's loopback alone"),
        ("canopoint submit STUDY --address http://127.0.0.1:8265", "with the --set that made this file"),
        ("ray down FILE", "ends all of it"),
    ]
    if spec.tracking.mode == "online":
        steps.insert(4, ("ray rsync-up FILE ~/.netrc '~/.netrc'", "the key for W&B, to the head alone"))
    return COMMENT.format(
        study=spec.study, provider=provider, edit=edit, steps=as_steps(steps), retries=spec.failures.retries
    )
