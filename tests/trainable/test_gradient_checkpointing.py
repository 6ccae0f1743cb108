"""Gradient checkpointing: less memory, and the same loss, gradients and running statistics to the last bit."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainable.config import TrainConfig
from trainable.model import Segmenter, build_model

RESNET18 = TrainConfig(encoder="resnet18", weights="none", image_size=64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def train(model: Segmenter, *, autocast: bool) -> dict[str, Any]:
    """Loss, gradients, buffers and the state of the random stream after two training passes in a row."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for layers that are dropped at random
        losses = []
        for seed in (0, 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                features = model.features(random(3, 3, 32, 32, seed=seed))
            losses.append(model.dense_logits(features).square().mean())
        sum(losses, torch.zeros(())).backward()
        stream = torch.get_rng_state()
    found = {f"gradient of {name}": parameter.grad for name, parameter in model.named_parameters()}
    found |= {**dict(model.named_buffers()), "losses": torch.stack(losses), "random stream": stream}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "autocast", "drops_layers"),
    [
        ({}, False, False),
        ({}, True, False),
        ({"freeze_encoder": True}, False, False),
        ({"encoder": "mobilenet_v3_large"}, False, False),
        ({"encoder": "efficientnet_b0"}, False, True),
        ({"encoder": "convnext_tiny"}, False, True),
    ],
)
def test_gradient_checkpointing_changes_no_bit(changes: dict[str, Any], autocast: bool, drops_layers: bool) -> None:
    model = build_model(replace(RESNET18, **changes), 3)
    saving = copy.deepcopy(model)
    saving.saves_memory = True
    expected, found = train(model, autocast=autocast), train(saving, autocast=autocast)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    counts = {int(count) for name, count in found.items() if "num_batches_tracked" in name}
    assert counts == ({0, 2} if "freeze_encoder" in changes else {2})
    start = torch.Generator().manual_seed(0).get_state()
    assert torch.equal(found["random stream"], start) is not drops_layers


def kept_bytes(config: TrainConfig) -> int:
    """What a training pass holds for its gradients, weights apart."""
    model = build_model(config, 3)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        features = model.features(random(2, 3, 64, 64))
    assert features.requires_grad
    return sum(size for address, size in kept.items() if address not in weights)


def test_gradient_checkpointing_keeps_less() -> None:
    # What remains are the inputs of the blocks, images and skips among them: in a ResNet-18 a map of two convolutions'
    # and two normalisations' inputs or more.
    assert kept_bytes(replace(RESNET18, gradient_checkpointing=True)) < kept_bytes(RESNET18) / 3


def test_gradient_checkpointing_outlives_an_evaluation() -> None:
    model = build_model(replace(RESNET18, gradient_checkpointing=True), 3)
    images = random(2, 3, 64, 64)
    model(images).mean().backward()
    before = copy.deepcopy(dict(model.named_buffers()))
    with torch.no_grad():
        model.eval()(images)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    model.train()(images).mean().backward()
    assert {int(norm.num_batches_tracked) for norm in norms} == {2}


@pytest.mark.slow
def test_gradient_checkpointing_can_be_compiled() -> None:
    images = random(2, 3, 64, 64)
    eager, compiled = (build_model(replace(RESNET18, gradient_checkpointing=True), 3) for _ in range(2))
    for model, run in ((eager, eager.features), (compiled, torch.compile(compiled.features, backend="aot_eager"))):
        run(images).square().mean().backward()
        assert {int(count) for name, count in model.named_buffers() if "num_batches" in name} == {1}
    for ours, expected in zip(compiled.parameters(), eager.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-3, atol=1e-6)
    for ours, expected in zip(compiled.buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
