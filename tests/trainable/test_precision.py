"""Which arithmetic a run gets, and that bfloat16 changes little more than the time it takes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from trainable.config import ENCODERS, TrainConfig
from trainable.model import build_model
from trainable.precision import GAINS_ON_AMX, autocast, chosen_precision

CONFIG = TrainConfig(encoder="resnet18", weights="none", image_size=64)
DEPTHWISE = ("mobilenet_v3_large", "efficientnet_b0")

SetMachine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SetMachine:
    """What torch says of the machine."""

    def set_machine(cpu: dict[str, bool] | None = None, gpu: tuple[int, int] = (0, 0)) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu or {})
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)

    return set_machine


AMX = {"amx_bf16": True, "avx512_bf16": True}
BEFORE_AMX = {"amx_bf16": False, "avx512_bf16": True}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("cpu", [AMX, BEFORE_AMX, {}])  # a machine that is no x86 has no such entry
def test_on_a_cpu_amx_and_the_encoder_decide(machine: SetMachine, encoder: str, cpu: dict[str, bool]) -> None:
    machine(cpu, gpu=(9, 0))  # its GPU does not matter
    expected = "bfloat16" if cpu is AMX and encoder not in DEPTHWISE else "float32"
    assert chosen_precision(replace(CONFIG, encoder=encoder)) == expected


@pytest.mark.parametrize("encoder", ["resnet18", *DEPTHWISE])
@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ((7, 0), "float32"),  # V100
        ((7, 5), "float32"),  # T4
        ((8, 0), "bfloat16"),  # A100
        ((8, 9), "bfloat16"),  # L4
        ((10, 0), "bfloat16"),  # B200
    ],
)
def test_on_a_gpu_its_generation_decides(
    machine: SetMachine, encoder: str, gpu: tuple[int, int], expected: str
) -> None:
    machine(BEFORE_AMX, gpu)
    assert chosen_precision(replace(CONFIG, encoder=encoder, device="cuda")) == expected


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("cpu", [AMX, {}])
def test_what_is_asked_for_is_done_on_any_machine(
    machine: SetMachine, precision: str, device: str, cpu: dict[str, bool]
) -> None:
    machine(cpu, gpu=(9, 0) if cpu else (6, 0))
    assert chosen_precision(replace(CONFIG, precision=precision, device=device)) == precision


def test_the_measured_encoders_exist() -> None:
    assert set(GAINS_ON_AMX) == set(ENCODERS) - set(DEPTHWISE)


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v3_large", "convnext_tiny"])
def test_bfloat16_is_close_to_float32(encoder: str) -> None:
    config = replace(CONFIG, encoder=encoder)
    model = build_model(config, 3).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs = {}
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(replace(config, precision=precision)), torch.no_grad():
            features = model.features(images)
        outputs[precision] = model.dense_logits(features)
        assert (features.dtype, outputs[precision].dtype) == (dtype, torch.float32)
    scale = outputs["float32"].std()
    error = (outputs["bfloat16"] - outputs["float32"]).square().mean().sqrt()
    assert 0 < error < 0.05 * scale  # 8 bits of mantissa are 0.4 % an operation, over some twenty layers


def test_float32_is_as_without_autocast() -> None:
    model = build_model(CONFIG, 3).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with autocast(replace(CONFIG, precision="float32")):
        inside = model(images)
    assert torch.equal(inside, model(images))


def test_weights_stay_float32_and_get_gradients_close_to_float32s() -> None:
    gradients = {}
    for precision in ("float32", "bfloat16"):
        model = build_model(CONFIG, 3)
        images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with autocast(replace(CONFIG, precision=precision)):
            features = model.features(images)
        model.dense_logits(features).square().mean().backward()
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        gradients[precision] = torch.cat([parameter.grad.ravel() for parameter in model.head.parameters()])
    assert (gradients["bfloat16"] - gradients["float32"]).norm() < 0.05 * gradients["float32"].norm()
