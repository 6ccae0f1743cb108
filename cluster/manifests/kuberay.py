"""A RayJob for KubeRay: the study in a ConfigMap, its results on a shared volume or in an object store."""

from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any

from cluster.manifests.folders import Place, read, written
from cluster.manifests.kuberay_pods import (
    CLAIM,
    STORAGE_SECRET,
    STUDY_FILE,
    TRACKING_SECRET,
    Pods,
    amounts_of,
    container_security,
    labels_of,
)
from cluster.manifests.text import as_steps, as_yaml, build_step, resource_name
from cluster.manifests.workers import Workers, idle_workers, workers_for
from study.spec import StudySpec
from study.yaml_file import to_yaml
from trainable.config import InputError
from trainable.storage_url import is_url

Mapping = dict[str, Any]

RETRIES = 3
OBJECT_STORE_BYTES = 512 * 2**20  # images are memory-mapped files; what goes through Ray is small

COMMENT = """\
Canopoint: the study {study} on Kubernetes, by KubeRay 1.5.1 or newer.

{steps}

`canopoint run` does what is missing of a study. So a retry (backoffLimit), which starts it on a new cluster, comes
back into the same study, and so does this file when it is applied again after the RayJob was deleted.
The operator makes the token that Ray's nodes show each other (authOptions), and keeps it in a Secret of the cluster.
{claim}
"""
ABOUT_CLAIM = """\
The claim {claim} is mounted at {mount}, and what the study reads must be there. Edit its size, and its storageClassName
where the default one does not offer ReadWriteMany. `kubectl delete -f FILE` would delete it with all results."""


def render(spec: StudySpec, image: str) -> str:
    """The ConfigMap, the claim and the RayJob of a study.

    Raises:
        InputError: no volume can be mounted so that it holds the study's folders.
    """
    name, mount = resource_name(spec.study), _mount_path(written(spec) + read(spec))
    documents = [_config_map(name, spec), *([_claim()] if mount else []), _ray_job(name, spec, image, mount)]
    return as_yaml(_comment(name, spec, image, mount), *documents)


def _mount_path(places: list[Place]) -> PurePosixPath | None:
    """Where the shared volume is mounted: the folder that the first place lies in; None where there is none."""
    if not places:
        return None
    first, path = places[0]
    mount = path.parent
    if mount == PurePosixPath("/"):
        raise InputError(
            f"{first}: {path}: the shared volume is mounted on the folder above it, which is /; give a path with one"
            f" more folder, as in --set {first}=/shared{path}"
        )
    for field, other in places[1:]:
        if mount not in other.parents:
            raise InputError(
                f"{field}: {other}: must lie below {mount}, where the shared volume is mounted, as {first} does; give"
                f" such a path, as in --set {field}={mount / other.name}"
            )
    return mount


def _config_map(name: str, spec: StudySpec) -> Mapping:
    text = to_yaml(spec.to_mapping())
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta(name), "data": {STUDY_FILE.name: text}}


def _claim() -> Mapping:
    asked = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "100Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": asked}


def _ray_job(name: str, spec: StudySpec, image: str, mount: PurePosixPath | None) -> Mapping:
    pods = Pods(name, spec, image, mount)
    used = workers_for(spec.resources)
    cluster = {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": 300,
            "securityContext": container_security(),
            "resources": amounts_of({"cpu": "500m", "memory": "1Gi"}),
            "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
        },
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            # No trials beside the driver: a head that runs out of memory takes the study with it.
            "rayStartParams": {"num-cpus": "0", "object-store-memory": str(OBJECT_STORE_BYTES)},
            "template": pods.head(used),
        },
        "workerGroupSpecs": [_worker_group(pods, each) for each in sorted((used, idle_workers(used)), key=_gpus)],
    }
    job = {
        "entrypoint": f"canopoint run {STUDY_FILE}",
        "submissionMode": "K8sJobMode",
        "submitterPodTemplate": pods.submitter(),
        "backoffLimit": RETRIES,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 60,
        "rayClusterSpec": cluster,
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": _meta(name), "spec": job}


def _worker_group(pods: Pods, workers: Workers) -> Mapping:
    """A group that starts with one worker, for preflight to check before the first trial; idle ones leave."""
    return {
        "groupName": "gpu-workers" if workers.gpus else "cpu-workers",
        "replicas": min(1, workers.num),
        "minReplicas": 0,
        "maxReplicas": workers.num,
        "rayStartParams": {"num-cpus": str(workers.cpus), "object-store-memory": str(OBJECT_STORE_BYTES)},
        "template": pods.worker(workers),
    }


def _meta(name: str) -> Mapping:
    return {"name": name, "labels": labels_of(name)}


def _gpus(workers: Workers) -> int:
    return workers.gpus


def _comment(name: str, spec: StudySpec, image: str, mount: PurePosixPath | None) -> str:
    steps = [build_step(image)]
    if spec.tracking.mode == "online":
        steps.append((f"kubectl create secret generic {TRACKING_SECRET} --from-file=WANDB_API_KEY=KEYFILE", ""))
    if is_url(spec.storage):
        steps.append((f"kubectl create secret generic {STORAGE_SECRET} --from-env-file=ENVFILE", ""))
    steps += [
        ("kubectl apply -f FILE", "starts it"),
        (f"kubectl get rayjob {name}", "how it stands"),
        (f"kubectl logs -f -l job-name={name}", "what it says"),
        (f"kubectl delete rayjob {name}", "stops it"),
    ]
    claim = ABOUT_CLAIM.format(claim=CLAIM, mount=mount) if mount else ""
    return COMMENT.format(study=spec.study, steps=as_steps(steps), claim=claim)
