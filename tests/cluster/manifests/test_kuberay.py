from typing import Any

import kubernetes_validate
import pytest
import yaml

from cluster.manifests.kuberay_pods import GRACE_S, LEAVE_WITHIN_S
from trainable.config import InputError

# Of KubeRay 1.7's API reference, without what concerns us never; its schema is a megabyte.
FIELDS = {
    "RayJobSpec": {
        "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint",
        "entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata",
        "preRunningDeadlineSeconds", "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode",
        "submitterConfig", "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished",
    },
    "RayClusterSpec": {
        "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
        "headServiceAnnotations", "managedBy", "rayVersion", "suspend", "workerGroupSpecs",
    },
    "AutoscalerOptions": {
        "env", "envFrom", "idleTimeoutSeconds", "image", "imagePullPolicy", "resources", "securityContext",
        "upscalingMode", "version", "volumeMounts",
    },
    "HeadGroupSpec": {"enableIngress", "headService", "rayStartParams", "serviceType", "template"},
    "WorkerGroupSpec": {
        "groupName", "idleTimeoutSeconds", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams", "replicas",
        "scaleStrategy", "suspend", "template",
    },
}  # fmt: skip
BUCKET = "storage=s3://bucket/studies"


def documents_of(text: str) -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def documents(rendered):
    return documents_of(rendered("kuberay"))


def templates(documents: dict[str, Any]) -> dict[str, Any]:
    job = documents["RayJob"]["spec"]
    cluster = job["rayClusterSpec"]
    workers = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return {"submitter": job["submitterPodTemplate"], "head": cluster["headGroupSpec"]["template"], **workers}


def container_of(template: dict[str, Any]) -> dict[str, Any]:
    [container] = template["spec"]["containers"]
    return container


@pytest.mark.parametrize("overrides", [[], [BUCKET], ["tracking.mode=online"], ["resources.gpus_per_trial=0"]])
def test_kubernetes_takes_every_object(rendered, overrides):
    documents = documents_of(rendered("kuberay", *overrides))
    version = kubernetes_validate.latest_version()
    for kind in {"ConfigMap", "PersistentVolumeClaim"} & documents.keys():
        kubernetes_validate.validate(documents[kind], version, strict=True)
    for template in templates(documents).values():
        pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "pod"}}
        kubernetes_validate.validate(pod, version, strict=True)


def test_a_misspelt_field_would_be_noticed(documents):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": {"containers": [], "volume": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_kuberay_knows_every_field(documents):
    job = documents["RayJob"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert job["spec"].keys() <= FIELDS["RayJobSpec"]
    assert cluster.keys() <= FIELDS["RayClusterSpec"]
    assert cluster["autoscalerOptions"].keys() <= FIELDS["AutoscalerOptions"]
    assert cluster["headGroupSpec"].keys() <= FIELDS["HeadGroupSpec"]
    for group in cluster["workerGroupSpecs"]:
        assert group.keys() <= FIELDS["WorkerGroupSpec"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert len(job["metadata"]["name"]) <= 47


def test_it_comes_back_into_the_same_study_and_leaves_nothing_running(documents):
    job = documents["RayJob"]["spec"]
    assert job["entrypoint"] == "canopoint run /study/study.yaml"
    assert job["backoffLimit"] == 3
    assert job["shutdownAfterJobFinishes"] is True
    assert job["submissionMode"] == "K8sJobMode"


def test_every_pod_is_restricted(documents):
    for name, template in templates(documents).items():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & pod.keys()
        assert all(
            volume.keys() <= {"name", "emptyDir", "configMap", "persistentVolumeClaim"} for volume in pod["volumes"]
        )
        check_container(container_of(template)["securityContext"])
        # The autoscaler beside the head asks Kubernetes for pods; nobody else has anything to ask.
        assert pod.get("automountServiceAccountToken", True) is (name == "head")
    check_container(documents["RayJob"]["spec"]["rayClusterSpec"]["autoscalerOptions"]["securityContext"])


def check_container(security: dict[str, Any]) -> None:
    assert security == {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_ray_asks_for_a_token_which_the_operator_makes(documents):
    cluster = documents["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert tuple(map(int, cluster["rayVersion"].split(".")[:2])) >= (2, 52)  # what authOptions need
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_groups_grow_and_shrink_and_the_head_holds_no_trial(documents):
    cluster = documents["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    sizes = {name: [group[key] for key in ("minReplicas", "replicas", "maxReplicas")] for name, group in groups.items()}
    assert sizes == {"cpu-workers": [0, 0, 0], "gpu-workers": [0, 1, 4]}  # 8 trials at once, 2 on a GPU
    environment = {each["name"]: each["value"] for each in container_of(templates(documents)["head"])["env"]}
    assert environment["CANOPOINT_WORKERS"] == "4x8cpu1gpu32gib"


def test_a_study_without_gpus_grows_in_cpu_workers(rendered):
    overrides = ["resources.gpus_per_trial=0", "resources.cpus_per_trial=2", "resources.max_concurrent=6"]
    documents = documents_of(rendered("kuberay", *overrides))
    groups = {g["groupName"]: g for g in documents["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    assert [groups[name]["maxReplicas"] for name in ("cpu-workers", "gpu-workers")] == [3, 0]
    assert container_of(groups["cpu-workers"]["template"])["resources"]["limits"] == {"cpu": "4", "memory": "17Gi"}


def test_amounts_come_from_the_study(rendered):
    overrides = ["resources.gpus_per_trial=2", "resources.cpus_per_trial=6", "resources.memory_gib_per_trial=20.5"]
    template = templates(documents_of(rendered("kuberay", *overrides)))["gpu-workers"]
    amounts = container_of(template)["resources"]
    assert amounts["limits"] == amounts["requests"] == {"cpu": "6", "memory": "22Gi", "nvidia.com/gpu": "2"}
    assert template["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_workers_get_time_to_end_their_epoch(documents):
    for name in ("cpu-workers", "gpu-workers"):
        template = templates(documents)[name]
        environment = {each["name"]: each["value"] for each in container_of(template)["env"]}
        assert template["spec"]["terminationGracePeriodSeconds"] == GRACE_S
        assert 30 < int(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) == LEAVE_WITHIN_S < GRACE_S


def test_shared_memory_is_memory_with_a_limit(documents):
    for name in ("head", "gpu-workers"):
        template = templates(documents)[name]
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container_of(template)["volumeMounts"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
        assert "emptyDir" in volumes[mounts["/tmp"]]


def test_results_and_images_are_on_a_volume_that_all_nodes_write(documents):
    assert documents["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    for name in ("head", "cpu-workers", "gpu-workers"):
        assert {"name": "shared", "mountPath": "/shared"} in container_of(templates(documents)[name])["volumeMounts"]


def test_an_object_store_needs_no_volume_for_results(rendered):
    documents = documents_of(rendered("kuberay", BUCKET, "data={synthetic: {num_scenes: 3}}"))
    assert "PersistentVolumeClaim" not in documents
    for template in templates(documents).values():
        assert all("persistentVolumeClaim" not in volume for volume in template["spec"]["volumes"])


def test_images_in_a_folder_still_need_one(rendered):
    documents = documents_of(rendered("kuberay", BUCKET))
    mounts = container_of(templates(documents)["gpu-workers"])["volumeMounts"]
    assert {"name": "shared", "mountPath": "/shared"} in mounts


def test_secrets_are_named_alone_and_the_key_for_wandb_stays_with_the_driver(rendered):
    found = templates(documents_of(rendered("kuberay", BUCKET, "tracking.mode=online")))
    secrets = {
        name: [each["secretRef"] for each in container_of(template).get("envFrom", [])]
        for name, template in found.items()
    }
    storage, tracking = ({"name": f"canopoint-{name}", "optional": True} for name in ("storage", "wandb"))
    assert secrets == {
        "submitter": [],
        "head": [tracking, storage],
        "cpu-workers": [storage],
        "gpu-workers": [storage],
    }


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("storage=/studies", "storage: /studies: the shared volume"),
        ("data.root=/elsewhere/forest", "data.root: /elsewhere/forest: must lie below /shared"),
        ("training.weights=/w/net-0123abcd.pth", "training.weights: /w/net-0123abcd.pth: must lie below /shared"),
        ("storage=/tmp/studies", "storage: /tmp/studies: /tmp is the container's own"),
        ("storage=/shared/../etc/x", "storage: /shared/../etc/x: for a container"),
        ("storage='/shared/a b'", "storage: /shared/a b: for a container"),
        ("storage='/shared/$(id)'", "storage: /shared/"),
    ],
)
def test_folders_that_no_volume_can_hold_are_refused(rendered, override, problem):
    with pytest.raises(InputError) as error:
        rendered("kuberay", override)
    assert str(error.value).startswith(problem)
    assert "--set" in str(error.value)
