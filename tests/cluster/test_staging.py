import os
import shutil
import tomllib
from pathlib import Path

import pytest

from cluster.staging import MAX_BYTES, PROGRAM, check_travels, stage
from study.spec import parse_study
from study.yaml_file import read_yaml
from trainable.config import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def spec(make_spec, tmp_path):
    return make_spec(tmp_path / "shared")


@pytest.fixture
def program(tmp_path) -> Path:
    """The program as it lies on a developer's disk, with what must not travel beside it."""
    root = tmp_path / "program"
    for name in ("study", "trainable", "cluster", "analysis"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "canopoint.py", root)
    for name in (".env", "id_rsa", "secrets.yaml", "study/.env", "study/catalog/token.key", "cluster/aws.json",
                 "tests/test_x.py", "docs/x.md", "data/image.png", ".git/config", "cluster/__pycache__/x.pyc",
                 "trainable/weights.pth", ".venv/lib/x.py"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("canary")
    return root


def test_the_list_of_what_travels_is_that_of_our_packages():
    """A new package, or data of one, that is only installed would be missing on the cluster."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {name: name.replace(".", "/") for name in setuptools["packages"]}
    expected = {f"{name}.py" for name in setuptools["py-modules"]} | {f"{path}/*.py" for path in folders.values()}
    data = setuptools["package-data"].items()
    expected |= {f"{folders[package]}/{pattern}" for package, patterns in data for pattern in patterns}
    assert set(PROGRAM) == expected


def test_the_program_and_the_study_travel_and_nothing_else(spec, program):
    staged = stage(spec, program)
    assert {"canopoint.py", "study.yaml", "study/catalog/demo.yaml", "trainable/train.py"} <= set(staged.contents)
    assert not [name for name, content in staged.contents.items() if content == b"canary"]
    assert all(Path(name).parts[0] in ("canopoint.py", "study.yaml", "study", "trainable", "cluster", "analysis")
               for name in staged.contents)  # fmt: skip
    assert staged.num_bytes < 3e6


def test_the_study_travels_with_its_overrides_and_reads_back_as_it_was(spec, program, tmp_path):
    stage(spec, program).write(tmp_path / "job")
    assert parse_study(read_yaml(tmp_path / "job" / "study.yaml"), "job") == spec


def test_the_same_content_is_the_same_package_for_ray(spec, program, tmp_path):
    from ray._private.runtime_env.packaging import get_uri_for_directory

    uris = []
    for name in ("a", "b"):
        stage(spec, program).write(tmp_path / name)
        uris.append(get_uri_for_directory(str(tmp_path / name), include_gitignore=True))
        os.utime(program / "canopoint.py", (1, 1))
    assert uris[0] == uris[1]
    (program / "canopoint.py").write_text("changed")
    stage(spec, program).write(tmp_path / "c")
    assert get_uri_for_directory(str(tmp_path / "c"), include_gitignore=True) != uris[0]


@pytest.mark.parametrize("name", ["cluster/linked.py", "study/catalog"])
def test_links_are_refused_whatever_they_point_to(spec, program, tmp_path, name):
    target = tmp_path / "elsewhere"
    if (program / name).is_dir():
        shutil.move(program / name, target)
    else:
        target.write_text("canary")
    (program / name).symlink_to(target)
    with pytest.raises(InputError, match="is a link, and links do not travel"):
        stage(spec, program)


def test_what_is_no_file_is_refused(spec, program):
    (program / "cluster" / "folder.py").mkdir()
    with pytest.raises(InputError, match="is no file"):
        stage(spec, program)


def test_too_much_is_refused_before_the_upload_and_the_largest_file_is_named(spec, program):
    with (program / "trainable" / "big.py").open("wb") as file:
        file.truncate(MAX_BYTES)
    with pytest.raises(InputError, match=r"trainable/big\.py: what travels must not be larger than 100 MiB"):
        stage(spec, program)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"storage": "studies"}, "storage"),
        ({"storage": "~/studies"}, "storage"),
        ({"data": {"root": "data/forest"}}, "data.root"),
        ({"training": {"encoder": "resnet18", "weights": "w-0123abcd.pth", "epochs": 2}}, "training.weights"),
    ],
)
def test_what_does_not_travel_is_refused_with_the_remedy(make_spec, changes, field):
    spec = make_spec(changes.pop("storage", "/shared"), **changes)
    with pytest.raises(InputError, match=rf"^{field}: .* does not travel; .*--set {field}="):
        check_travels(spec)


@pytest.mark.parametrize("changes", [{}, {"storage": "s3://bucket/prefix"}, {"data": {"root": "/shared/forest"}}])
def test_what_every_node_sees_needs_not_travel(make_spec, changes):
    check_travels(make_spec(changes.pop("storage", "/shared"), **changes))
