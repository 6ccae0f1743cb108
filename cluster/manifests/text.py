"""What the manifests have in common: names and text that others read as they are meant."""

import hashlib
import re
import shlex
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import yaml

from study.yaml_file import StudyDumper
from trainable.config import InputError

_IMAGE = re.compile(
    r"[a-z0-9][a-z0-9.-]*(?::[0-9]{1,5})?(?:/[a-z0-9][a-z0-9._-]*)*(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
MAX_NAME_CHARACTERS = 40  # KubeRay takes 47, and Ray's tools add to a cluster's name


def default_image() -> str:
    """The image as cluster/manifests/Containerfile says to build it."""
    return f"canopoint:{version('canopoint')}"


def build_step(image: str, extra: str = "") -> tuple[str, str]:
    """How the image comes to be, and to where nodes find it."""
    arguments = f" --build-arg EXTRA={shlex.quote(extra)}" if extra else ""
    return f"docker build -f cluster/manifests/Containerfile{arguments} -t {image} . && docker push {image}", ""


def check_image(image: str) -> str:
    """The name of an image, if it is one.

    Raises:
        InputError: says how a name looks.
    """
    if len(image) > 512 or not _IMAGE.fullmatch(image):
        raise InputError(
            f"--image {image[:80]}: is no image name; give REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST, as in"
            f" registry.example.org/lab/{default_image()}"
        )
    return image


def resource_name(study: str) -> str:
    """A study's name as Kubernetes, the clouds and Docker take it: small letters, digits and single hyphens.

    Different studies have different names: where letters had to be changed, digits of a checksum are added.
    """
    name = re.sub(r"[^a-z0-9]+", "-", study.lower()).strip("-")
    room = MAX_NAME_CHARACTERS - len("canopoint-")
    if name != study or len(name) > room:
        name = f"{name[: room - 9].strip('-')}-{hashlib.sha256(study.encode()).hexdigest()[:8]}".strip("-")
    return f"canopoint-{name}"


class _Dumper(StudyDumper):
    """Writes texts of several lines as they are, and everything in full: `*name` is not for readers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def add_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _Dumper.add_text)


def as_steps(steps: Iterable[tuple[str, str]]) -> str:
    """Commands and what they do, one a line."""
    return "\n".join(f"  {command:<40}  {meaning}".rstrip() for command, meaning in steps)


def as_yaml(comment: str, *documents: dict[str, Any]) -> str:
    """A file of YAML documents below a comment of ours."""
    dumped = (yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=120) for each in documents)
    return as_comment(comment) + "---\n".join(dumped)


def as_comment(text: str) -> str:
    """Lines that shells and YAML skip."""
    return "".join(f"# {line}".rstrip() + "\n" for line in text.strip().splitlines())
