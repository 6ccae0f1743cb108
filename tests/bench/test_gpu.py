"""Nothing here needs a GPU: workers run on the CPU, small, as they would there."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import gpu, gpu_worker
from bench.gpu_worker import Task
from trainable.config import TrainConfig
from trainable.model import build_model

ROOT = Path(gpu.__file__).resolve().parent.parent
SMALL = Task(
    "ours",
    seconds=0.05,
    device="cpu",
    encoder="resnet18",
    precision="float32",
    batch_size=2,
    image_size=32,
    steps_at_once=1,
)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: it would be measured")
def test_without_a_gpu_it_says_so_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main()
    assert capsys.readouterr().out == "bench.gpu: skipped: torch sees no GPU here\n"


@pytest.mark.slow
def test_it_needs_the_core_alone() -> None:
    absent = [
        "ray",
        "wandb",
        "optuna",
        "pydantic",
        "yaml",
        "pandas",
        "scipy",
        "matplotlib",
        "jinja2",
        "tqdm",
        "sklearn",
    ]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import bench.gpu, bench.gpu_worker"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ours", "notebook", "matrix_product"])
def test_a_worker_reports_what_it_did(kind: str, tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    (tmp_path / "go").touch()
    task = replace(SMALL, kind=kind)
    gpu_worker.main(tmp_path / "worker", task)
    result = json.loads((tmp_path / "worker" / "result.json").read_text())
    assert (tmp_path / "worker" / "ready").exists()
    assert result["seconds"] >= task.seconds
    piece = 2 * 256**3 if kind == "matrix_product" else 2  # operations of a product, images of a step
    assert result["amount"] > 0
    assert result["amount"] % piece == 0


def test_the_operations_of_a_step_are_three_times_those_of_the_forward_pass_but_for_the_first_convolution() -> None:
    model = build_model(TrainConfig(encoder="resnet18", weights="none"), num_bands=3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        features = model.features(torch.zeros(1, 3, 64, 64))
        model.point_logits(features, torch.zeros(1, gpu.NUM_POINTS, dtype=torch.int64))
    first = 2 * 64 * 3 * 7 * 7 * 32 * 32  # its input needs no gradient
    expected = 3 * counter.get_total_flops() - first
    assert gpu.training_flop(replace(SMALL, image_size=64)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_trials_start_together_and_none_outlives_the_measurement() -> None:
    rates = gpu.measure([SMALL, SMALL])
    assert len(rates) == 2
    assert all(rate > 0 for rate in rates)


@pytest.mark.slow
def test_a_worker_that_fails_ends_the_measurement_with_its_last_words() -> None:
    broken = replace(SMALL, encoder="no such encoder")
    with pytest.raises(gpu.WorkerError, match=r"ended early: .*no such encoder"):
        gpu.measure([replace(SMALL, seconds=60), broken])
