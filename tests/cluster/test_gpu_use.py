import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.gpu_use import GpuUse, parse_gpus, parse_nodes

TWO = "0, NVIDIA H100 80GB HBM3, 93, 40960, 81559\n1, Tesla K80, [N/A], 0, [N/A]\n"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program of that name first in the path."""

    def put(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return put


def test_each_gpu_of_this_machine_gets_a_line(nvidia_smi: Callable[[str], None], tmp_path: Path) -> None:
    (tmp_path / "answer").write_text(TWO)
    nvidia_smi(f'[ "$1" = --query-gpu=index,name,utilization.gpu,memory.used,memory.total ] && cat {tmp_path}/answer')
    assert GpuUse().read() == [
        "GPU 0: NVIDIA H100 80GB HBM3, 93 % busy, 40.0 of 79.6 GiB",
        "GPU 1: Tesla K80, use unknown",
    ]


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("exec true", "none here"),
        ("exit 9", "not known now: nvidia-smi ended with 9"),
        ("exec sleep 60", "not known now: nvidia-smi did not answer in 3 s"),
    ],
)
def test_a_driver_that_does_not_answer_is_told(nvidia_smi: Callable[[str], None], script: str, line: str) -> None:
    nvidia_smi(script)
    before = time.monotonic()
    assert GpuUse().read() == [line]
    assert time.monotonic() - before < 10


def test_a_machine_without_the_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert GpuUse().read() == ["none here"]


def test_a_cluster_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    (line,) = GpuUse().read()
    assert "not known now: --address http://127.0.0.1:9: nothing answers there" in line


def test_an_address_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://[::1")
    (line,) = GpuUse().read()
    assert "not known now: --address http://[::1: is no address of the Jobs API" in line


def test_lines_that_are_none_of_a_gpu_are_left_out() -> None:
    assert parse_gpus("NVIDIA-SMI has failed, because\n\n") == []
    assert len(parse_gpus(TWO)) == 2


def test_the_nodes_of_a_dashboard() -> None:
    gpu = {"index": 1, "name": "NVIDIA A100", "utilizationGpu": 7, "memoryUsed": 1024, "memoryTotal": 40960}
    nodes = [{"hostname": "a", "gpus": [gpu]}, {"hostname": "b", "gpus": []}, {"hostname": "c"}]
    found = parse_nodes({"data": {"summary": nodes}})
    assert [str(each) for each in found] == ["a GPU 1: NVIDIA A100, 7 % busy, 1.0 of 40.0 GiB"]


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"data": 3}, {"data": {"summary": [3, {"gpus": 4}, {"gpus": [5, {"name": None}]}]}}]
)
def test_an_answer_of_others_is_no_trouble(answer: object) -> None:
    assert all(str(each) for each in parse_nodes(answer))
