"""Files that start a study on a cluster: a KubeRay RayJob, a cluster file for `ray up`, or a Slurm script.

Each is rendered from one study and holds no secret. Credentials and tokens are named, and made where they are needed;
the first lines of every file say how. What a study or the command line puts into them is checked and quoted.
"""

from cluster.manifests import kuberay, ray_up, slurm
from cluster.manifests.text import check_image, default_image
from cluster.staging import check_travels
from study.spec import StudySpec
from trainable.config import InputError, check_name

KINDS = ("kuberay", "ray-aws", "ray-gcp", "ray-onprem", "slurm")
"""What can be rendered."""


def render(kind: str, spec: StudySpec, image: str | None = None) -> str:
    """The file that runs a study, overrides included, on a cluster of one kind.

    Args:
        kind: one of KINDS.
        spec: the study.
        image: the container image, as a registry names it; `canopoint:VERSION` by default. None for Slurm, which runs
            what is installed.

    Raises:
        InputError: no such kind, no image name, or the study names folders that the cluster would not have.
    """
    check_name(kind, KINDS, "manifest", "kind")
    if kind == "slurm":
        if image is not None:
            raise InputError("--image: a Slurm job runs what is installed; leave it out")
        return slurm.render(spec)
    check_travels(spec)
    image = default_image() if image is None else check_image(image)
    if kind == "kuberay":
        return kuberay.render(spec, image)
    return ray_up.render(kind.removeprefix("ray-"), spec, image)
