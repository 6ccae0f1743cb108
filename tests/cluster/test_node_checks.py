"""What a node finds out about itself, on this one."""

import shutil
import sys
from pathlib import Path

import pytest

from bench.s3_server import s3_server
from cluster import node_checks
from trainable.shared_folder import make_once

MEMINFO = "MemTotal: 8000 kB\nMemFree: 100 kB\nMemAvailable: 4000 kB\n"


def test_versions_are_those_of_this_environment():
    found = node_checks.versions()
    assert found["python"] == "3.11"
    assert found.keys() == {"python", "ray", "torch", "torchvision", "numpy", "canopoint", "canopoint's sources"}
    assert node_checks.ABSENT not in found.values()


def test_a_changed_byte_in_our_sources_changes_their_hash(tmp_path, monkeypatch):
    root = Path(node_checks.__file__).parent.parent
    for package in node_checks.PACKAGES:
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(tmp_path)
    for package in node_checks.PACKAGES:
        monkeypatch.delitem(sys.modules, package, raising=False)
    same = node_checks.source_hash()
    (tmp_path / "trainable" / "notes.txt").write_text("no source")
    assert node_checks.source_hash() == same
    with (tmp_path / "trainable" / "loss.py").open("a") as file:
        file.write("#")
    assert node_checks.source_hash() not in (same, node_checks.ABSENT)


def test_tokens_are_read_where_they_were_written_and_nowhere_else(tmp_path):
    for name in ("driver", "a"):
        assert node_checks.write_token(str(tmp_path), name) == ""
    (tmp_path / "b").write_text("something else")
    assert node_checks.unread_tokens(str(tmp_path), ["driver", "a", "b", "c"]) == ["b", "c"]


def test_a_folder_of_tokens_is_never_made_by_a_node(tmp_path):
    folder = tmp_path / "studies" / ".preflight"
    assert node_checks.write_token(str(folder), "a") == f"the driver's {folder} is not there"
    assert list(tmp_path.iterdir()) == []


def test_tokens_are_objects_where_the_study_lives_in_an_object_store(monkeypatch):
    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        folder = f"s3://{server.bucket}/studies/tiny/.preflight-1"
        assert node_checks.write_token(folder, "a") == ""
        assert server.names() == ["studies/tiny/.preflight-1/a"]
        assert node_checks.unread_tokens(folder, ["a", "b"]) == ["b"]
        elsewhere = folder.replace(server.bucket, "nowhere")
        assert "no such bucket" in node_checks.write_token(elsewhere, "a")
        assert node_checks.unread_tokens(elsewhere, ["a"]) == ["a"]


def test_a_store_is_described_by_its_checksums_and_sizes(tmp_path):
    path = tmp_path / "store"
    make_once(path, lambda scratch: (scratch / "images.npy").write_bytes(b"x" * 5000) and None)
    described = node_checks.describe_store(str(path))
    assert described["sizes"] == {"images.npy": 5000}
    assert described["problem"] == ""
    assert node_checks.describe_stores([str(path)]) == {str(path): described}
    with (path / "images.npy").open("ab") as file:
        file.write(b"x")
    assert node_checks.describe_store(str(path)) != described
    (path / "images.npy").write_bytes(b"")
    assert "cannot be read (cannot mmap an empty file)" in node_checks.describe_store(str(path))["problem"]
    (path / "images.npy").unlink()
    assert node_checks.describe_store(str(path))["problem"] == f"{path / 'images.npy'} is not there"
    assert "cannot be read" in node_checks.describe_store("/proc/self/mem")["problem"]


def write(folder: Path, **contents: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name.replace("__", ".")).write_text(content)


@pytest.mark.parametrize(
    ("container", "free"),
    [
        ({}, 4000 * 1024),
        ({"": {"memory__max": "max\n", "memory__current": "7", "memory__stat": "inactive_file 3\n"}}, 4000 * 1024),
        # Version 2: 2,000,000 of limit, 900,000 used, of which 100,000 is files that can be read again.
        (
            {"": {"memory__max": "2000000", "memory__current": "900000", "memory__stat": "inactive_file 100000\n"}},
            1.2e6,
        ),
        (
            {
                "memory": {
                    "memory__limit_in_bytes": "2000000",
                    "memory__usage_in_bytes": "900000",
                    "memory__stat": "inactive_file 5\ntotal_inactive_file 100000\n",
                }
            },
            1.2e6,
        ),
        ({"": {"memory__max": "100", "memory__current": "900", "memory__stat": ""}}, 0),
    ],
)
def test_free_memory_is_what_is_left_to_the_machine_or_the_container(tmp_path, container, free):
    write(tmp_path / "proc", meminfo=MEMINFO)
    for name, contents in container.items():
        write(tmp_path / "cgroup" / name, **contents)
    assert node_checks.free_memory(tmp_path / "proc", tmp_path / "cgroup") == free


def test_free_memory_and_disk_of_this_machine_are_known():
    assert 2**20 < node_checks.free_memory() < 2**50
    assert node_checks.free_disk("/not/there/yet") == pytest.approx(shutil.disk_usage("/").free, rel=0.1)


def test_weights_that_are_not_there_are_named(tmp_path):
    training = {"encoder": "resnet18", "weights": str(tmp_path / "resnet18-f37072fd.pth")}
    assert node_checks.fetch_weights([training]).startswith(
        f"training.weights: {tmp_path}/resnet18-f37072fd.pth: no such"
    )
    assert node_checks.fetch_weights([{"encoder": "resnet18", "weights": "none"}]) == ""


def test_a_gpu_that_torch_does_not_see_is_named():
    import torch

    found = node_checks.use_gpu()
    assert found == "" if torch.cuda.is_available() else "torch" in found and "sees none" in found
