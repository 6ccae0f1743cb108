"""The pods of a RayJob: restricted, with the volumes that the study needs, and no more than it asks for."""

from pathlib import PurePosixPath
from typing import Any

from cluster.manifests.workers import Workers
from cluster.resources import WORKERS
from study.spec import StudySpec
from trainable.storage_url import is_url

Mapping = dict[str, Any]

STUDY_FILE = PurePosixPath("/study/study.yaml")
CLAIM = "canopoint"
TRACKING_SECRET = "canopoint-wandb"
STORAGE_SECRET = "canopoint-storage"
USER = 1000
GRACE_S = 120
LEAVE_WITHIN_S = 100  # of them, for trials to end their epoch; then Ray ends
SHARED_MEMORY_GIB = 1
HEAD_CPUS, HEAD_MEMORY_GIB = 2, 8
SCRATCH_GIB = 64


class Pods:
    """The pods of one study: restricted, and with the volumes that it needs."""

    def __init__(self, name: str, spec: StudySpec, image: str, mount: PurePosixPath | None) -> None:
        self._name, self._spec, self._image, self._mount = name, spec, image, mount

    def head(self, used: Workers) -> Mapping:
        """The driver's pod. It alone may know the key for W&B: workers hold no credentials but those of the storage."""
        environment = {
            WORKERS: used.text,
            "RAY_JOB_STOP_SIGNAL": "SIGINT",
            "RAY_JOB_STOP_WAIT_TIME_S": "30",
        }
        amounts = amounts_of({"cpu": str(HEAD_CPUS), "memory": f"{HEAD_MEMORY_GIB + SHARED_MEMORY_GIB}Gi"})
        ports = {"gcs": 6379, "dashboard": 8265, "client": 10001}
        container = self._container("ray-head", amounts, environment, (TRACKING_SECRET, *self._storage_secrets()))
        container["ports"] = [{"name": name, "containerPort": port} for name, port in ports.items()]
        study = {"name": "study", "configMap": {"name": self._name}}
        container["volumeMounts"].append({"name": "study", "mountPath": str(STUDY_FILE.parent), "readOnly": True})
        return self._pod(container, [study])  # with the token of its service account: the autoscaler asks for pods

    def worker(self, workers: Workers) -> Mapping:
        """A pod for trials."""
        amounts = {"cpu": str(workers.cpus), "memory": f"{workers.memory_gib + SHARED_MEMORY_GIB}Gi"}
        if workers.gpus:
            amounts["nvidia.com/gpu"] = str(workers.gpus)
        environment = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(LEAVE_WITHIN_S)}  # cluster/preemption.py
        pod = self._pod(self._container("ray-worker", amounts_of(amounts), environment, self._storage_secrets()))
        pod["spec"]["automountServiceAccountToken"] = False
        if workers.gpus:
            tolerated = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
            pod["spec"]["tolerations"] = [tolerated]
        return pod

    def submitter(self) -> Mapping:
        """The pod that hands the entrypoint to the head and shows what it says."""
        amounts = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "512Mi"}}
        container = self._container("ray-job-submitter", amounts, {}, ())
        container["volumeMounts"] = [{"name": "scratch", "mountPath": "/tmp"}]
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": _pod_security(),
            "containers": [container],
            "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}],
        }
        return {"metadata": {"labels": labels_of(self._name)}, "spec": spec}

    def _storage_secrets(self) -> tuple[str, ...]:
        return (STORAGE_SECRET,) if is_url(self._spec.storage) else ()

    def _container(self, name: str, amounts: Mapping, environment: dict[str, str], secrets: tuple[str, ...]) -> Mapping:
        """A container that writes nowhere but to its volumes; HOME, where torch and others keep caches, is one."""
        environment = {"HOME": "/tmp", "RAY_USAGE_STATS_ENABLED": "0", **environment}
        mounts = [{"name": "scratch", "mountPath": "/tmp"}, {"name": "shared-memory", "mountPath": "/dev/shm"}]
        if self._mount:
            mounts.append({"name": "shared", "mountPath": str(self._mount)})
        container: Mapping = {
            "name": name,
            "image": self._image,
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "resources": amounts,
            "securityContext": container_security(),
            "volumeMounts": mounts,
        }
        if secrets:
            container["envFrom"] = [{"secretRef": {"name": secret, "optional": True}} for secret in secrets]
        return container

    def _pod(self, container: Mapping, volumes: list[Mapping] | None = None) -> Mapping:
        shared_memory = {"medium": "Memory", "sizeLimit": f"{SHARED_MEMORY_GIB}Gi"}
        own = [
            {"name": "scratch", "emptyDir": {"sizeLimit": f"{SCRATCH_GIB}Gi"}},
            {"name": "shared-memory", "emptyDir": shared_memory},
        ]
        if self._mount:
            own.append({"name": "shared", "persistentVolumeClaim": {"claimName": CLAIM}})
        spec = {
            "restartPolicy": "Never",  # the autoscaler's rule: who fails is replaced, not restarted
            "terminationGracePeriodSeconds": GRACE_S,
            "securityContext": _pod_security(),
            "containers": [container],
            "volumes": [*own, *(volumes or [])],
        }
        return {"metadata": {"labels": labels_of(self._name)}, "spec": spec}


def _pod_security() -> Mapping:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",  # else every start walks through the whole volume
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Mapping:
    """Kubernetes' restricted profile, and no writing beside the volumes."""
    return {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def amounts_of(amounts: dict[str, str]) -> Mapping:
    """As much as is asked for, and no more: Ray counts on what it was told."""
    return {"limits": amounts, "requests": amounts}


def labels_of(name: str) -> dict[str, str]:
    """What all objects of a study are found by."""
    return {"app.kubernetes.io/name": "canopoint", "app.kubernetes.io/instance": name}
