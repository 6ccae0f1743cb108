"""What travels to a cluster: the program and the study, by a list of what may, into a folder of its own.

A job's working directory is uploaded whole, `.env` files, keys and the targets of links included. So nobody's folder is
uploaded: only the files listed here are read, and a link among them is refused. The same content gives the same package
for Ray, which it uploads once.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from study.design import initial_weights
from study.spec import StudySpec
from study.yaml_file import to_yaml
from trainable.config import InputError
from trainable.storage_url import is_url

STUDY_FILE = "study.yaml"
MAX_BYTES = 100 * 2**20  # Ray's own limit for a working directory, of which it tells after the upload
PROGRAM = (
    "canopoint.py",
    "study/*.py",
    "study/catalog/*.yaml",
    "trainable/*.py",
    "cluster/*.py",
    "cluster/manifests/*.py",
    "cluster/manifests/Containerfile",
    "cluster/manifests/Containerfile.dockerignore",
    "cluster/manifests/*.sh",
    "analysis/*.py",
    "analysis/reading/*.py",
    "analysis/topics/*.py",
    "analysis/report/*.py",
    "analysis/report/*.html.j2",
    "analysis/report/*.css",
    "analysis/report/*.js",
    "analysis/report/*.json",
    "analysis/export/*.py",
)
"""Our packages with their data, as pyproject.toml lists them."""


@dataclass(frozen=True)
class StagedFiles:
    """The files that travel.

    Attributes:
        contents: path in the job's folder -> bytes, sorted by path.
    """

    contents: Mapping[str, bytes]

    @property
    def num_bytes(self) -> int:
        """Size of all together."""
        return sum(map(len, self.contents.values()))

    def write(self, folder: Path) -> None:
        """Writes them into an empty folder."""
        for name, content in self.contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def stage(spec: StudySpec, root: Path | None = None) -> StagedFiles:
    """Reads what travels: the program, and the study with every override applied.

    Args:
        spec: the study.
        root: the folder that holds canopoint.py and our packages; where this one lies by default.

    Raises:
        InputError: the study names files that do not travel, a file is a link, or all are too large together.
    """
    check_travels(spec)
    root = root or Path(__file__).resolve().parent.parent
    found = {str(path.relative_to(root)): path.read_bytes() for path in _program_files(root)}
    found[STUDY_FILE] = to_yaml(spec.to_mapping()).encode()
    staged = StagedFiles(dict(sorted(found.items())))
    if staged.num_bytes > MAX_BYTES:
        largest = max(found, key=lambda name: len(found[name]))
        raise InputError(
            f"{root / largest}: what travels must not be larger than {MAX_BYTES >> 20} MiB, and is"
            f" {staged.num_bytes >> 20} MiB, most of it this file; move data out of the program's folders"
        )
    return staged


def check_travels(spec: StudySpec) -> None:
    """Refuses relative paths: a job runs in a folder of its own, on another machine, which is deleted afterwards.

    Raises:
        InputError: names the field and what to set instead.
    """
    if not is_url(spec.storage):
        _check_absolute("storage", spec.storage, "/shared/studies or s3://BUCKET/PREFIX")
    if spec.data.root:
        _check_absolute("data.root", spec.data.root, "/shared/data/forest")
    for config in initial_weights(spec):
        if config.weights not in ("imagenet", "none"):
            _check_absolute("training.weights", config.weights, "/shared/weights/NAME-HASH.pth")


def _check_absolute(field: str, path: str, example: str) -> None:
    if not Path(path).is_absolute():
        raise InputError(
            f"{field}: {path} is relative to a folder of this machine, and does not travel; name what every node of"
            f" the cluster sees (--set {field}=PATH, as in {example})"
        )


def _program_files(root: Path) -> Iterator[Path]:
    for pattern in PROGRAM:
        yield from _regular(root, sorted(root.glob(pattern)))


def _regular(root: Path, paths: Iterable[Path]) -> Iterator[Path]:
    """Refuses links, a linked folder on the way included: what they point to may be anything."""
    for path in paths:
        steps = [path, *path.parents][: len(path.relative_to(root).parts)]
        if link := next((step for step in steps if step.is_symlink()), None):
            raise InputError(f"{link}: is a link, and links do not travel; put the file itself there")
        if not path.is_file():
            raise InputError(f"{path}: is no file, and only files travel; remove it")
        yield path
