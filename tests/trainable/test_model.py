"""The segmenter: its size, its start, the images it takes, frozen encoders."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import StochasticDepth

from study.plan import FORWARD_GFLOP, NUM_PARAMETERS
from trainable.config import ENCODERS, TrainConfig
from trainable.model import DecoderBlock, Segmenter, build_model

RESNET18 = TrainConfig(encoder="resnet18", weights="none", image_size=64)
SMALL = replace(RESNET18, encoder="mobilenet_v2")

every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


def random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


# What it is made of


@every_encoder
def test_parameters_and_operations_are_those_of_the_plan(encoder: str) -> None:
    # study.design prices a study by these tables; SCIENCE.md has those of ResNets, counted on other implementations.
    with torch.device("meta"):  # shapes without numbers
        model = Segmenter(TrainConfig(encoder=encoder, weights="none", decoder_stride=1), 3)
        images = torch.empty(1, 3, 256, 256)
    counter, gflop = FlopCounterMode(display=False), {}
    for stride, block in zip(model.decoder_strides, model.decoder, strict=True):
        # What has been computed when a block is done is what a decoder costs that stops there.
        block.register_forward_hook(lambda *_, stride=stride: gflop.update({stride: counter.get_total_flops() / 1e9}))
    with counter:
        model.features(images)
    assert {stride: gflop[stride] for stride in (1, 2, 4)} == pytest.approx(FORWARD_GFLOP[encoder], rel=0.02)
    assert sum(map(torch.numel, model.parameters())) == pytest.approx(NUM_PARAMETERS[encoder], rel=0.02)


@every_encoder
def test_every_parameter_takes_part(encoder: str) -> None:
    # A stage, a skip, or the widening before a classification head that leads nowhere would have no gradient.
    model = build_model(replace(RESNET18, encoder=encoder), 4)
    for module in model.modules():
        if isinstance(module, StochasticDepth):
            module.eval()  # it may leave out a layer for both images
    model(random(2, 4, 64, 64)).square().sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, gradient in found.items() if gradient is None] == []
    assert [name for name, gradient in found.items() if not gradient.isfinite().all()] == []
    assert [name for name, gradient in found.items() if not gradient.any()] == []


def test_a_decoder_block_doubles_and_joins() -> None:
    block = DecoderBlock(8, 4, 6).eval()
    skip = torch.rand(1, 4, 10, 14)
    assert block(torch.rand(1, 8, 5, 7), skip).shape == (1, 6, 10, 14)
    assert DecoderBlock(8, 0, 6).eval()(torch.rand(1, 8, 5, 7), None).shape == (1, 6, 10, 14)


def test_images_are_normalised_by_statistics_that_travel_with_the_weights() -> None:
    mean, std = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.5, 0.25, 0.125, 1.0])
    plain, model = build_model(RESNET18, 4).eval(), build_model(RESNET18, 4, (mean, std)).eval()
    images = random(1, 4, 64, 32)
    normalised = torch.stack([(images[:, band] - mean[band]) / std[band] for band in range(4)], dim=1)
    torch.testing.assert_close(model(images), plain(normalised), rtol=0, atol=0)
    assert not torch.equal(model(images), plain(images))
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(images), model(images))


# Its start


def weights(config: TrainConfig) -> Tensor:
    return torch.cat([parameter.detach().ravel() for parameter in build_model(config, 3).parameters()])


def test_the_seed_alone_decides_the_start() -> None:
    # Seeds are blocks: cells are compared on equal initial weights.
    first = weights(SMALL)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert torch.equal(weights(replace(SMALL, learning_rate=0.1, points_per_image=3, focal_gamma=2.0)), first)
    assert torch.equal(weights(replace(SMALL, freeze_encoder=True, gradient_checkpointing=True)), first)
    assert torch.equal(torch.get_rng_state(), before)  # nothing is drawn from the global stream
    other = weights(replace(SMALL, seed=1))
    # Batch normalisation starts at 1 and 0 in both; everything else, nearly all, is drawn.
    assert (other != first).float().mean() > 0.98


def test_decoders_that_stop_elsewhere_start_alike() -> None:
    states = [build_model(replace(SMALL, decoder_stride=stride), 3).state_dict() for stride in (1, 2, 4)]
    shared = [name for name in states[2] if not name.startswith("head.")]
    for state in states[:2]:
        assert all(torch.equal(state[name], states[2][name]) for name in shared)


# Frozen encoder


def step(model: Segmenter, images: Tensor) -> None:
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
    model(images).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("encoder", ["resnet18", "efficientnet_b0"])
def test_a_frozen_encoder_stays_as_it_came(encoder: str) -> None:
    model = build_model(replace(RESNET18, encoder=encoder, freeze_encoder=True), 3)
    before = copy.deepcopy(model.state_dict())
    images = random(2, 3, 64, 64)
    step(model, images)  # as it was built
    model.eval()
    step(model.train(), images)  # and after an evaluation
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    decoder = {name for name in before if name.startswith(("decoder.", "head."))}
    assert moved == decoder
    assert {module.training for module in model.encoder.modules()} == {False}
    assert {module.training for module in model.decoder.modules()} == {True}


def test_a_trained_encoder_moves_with_its_statistics() -> None:
    model = build_model(RESNET18, 3)
    before = copy.deepcopy(model.state_dict())
    step(model, random(2, 3, 64, 64))
    still = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert still == {"mean", "std"}
