"""The segmenter: logits at points against dense ones, its size, its start, frozen encoders, gradient checkpointing."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import StochasticDepth

from study.design import FORWARD_GFLOP, NUM_PARAMETERS
from trainable.config import ENCODERS, TrainConfig
from trainable.model import DECODER_WIDTHS, DecoderBlock, Segmenter, build_model, sample_bilinear

RESNET18 = TrainConfig(encoder="resnet18", weights="none", image_size=64)
SMALL = replace(RESNET18, encoder="mobilenet_v2")
EXACT = 1e-12

every_encoder = pytest.mark.parametrize("encoder", ENCODERS)
every_stride = pytest.mark.parametrize("stride", [1, 2, 4])


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def assert_exact(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=EXACT)


def at(dense: Tensor, positions: Tensor) -> Tensor:
    """(B, C, H, W) at (B, P) flattened positions -> (B, P, C)."""
    flat = dense.flatten(2)
    return flat.gather(2, positions[:, None, :].expand(-1, flat.shape[1], -1)).transpose(1, 2)


def some_positions(height: int, width: int) -> Tensor:
    """(2, 14): the corners, a pixel beside each, one on each edge, one twice, and a padded place."""
    bottom, right = (height - 1) * width, width - 1
    corners = [0, right, bottom, bottom + right, 1, right - 1, bottom + 1, bottom + right - width]
    edges = [3, 5 * width, 6 * width + right, bottom + 7]
    return torch.tensor([[*corners, *edges, 5 * width, 0], [*range(5 * width + 1, 5 * width + 14), 0]])


# Logits at points


@pytest.mark.parametrize(
    ("encoder", "stride"),
    [
        ("resnet18", 1),
        ("mobilenet_v2", 1),
        ("mobilenet_v2", 2),
        ("mobilenet_v2", 4),
        ("efficientnet_b0", 4),
        ("convnext_tiny", 2),
    ],
)
def test_logits_at_the_points_are_the_dense_ones(encoder: str, stride: int) -> None:
    config = TrainConfig(encoder=encoder, weights="none", decoder_stride=stride)
    model = build_model(config, 3).double().eval()
    with torch.no_grad():
        features = model.features(random(2, 3, 32, 64))
        dense = model.dense_logits(features)
        all_pixels = torch.arange(32 * 64).repeat(2, 1)
        assert_exact(model.point_logits(features, all_pixels), dense.flatten(2).transpose(1, 2))
        assert_exact(model(random(2, 3, 32, 64)), dense)
    assert features.shape == (2, DECODER_WIDTHS[stride], 32 // stride, 64 // stride)
    assert dense.shape == (2, 2, 32, 64)  # two classes


@pytest.fixture(scope="module")
def heads() -> dict[int, Segmenter]:
    """Stride -> a model of which the head alone is of interest, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {stride: Segmenter(replace(SMALL, decoder_stride=stride), 3).double() for stride in (1, 2, 4)}


def gradients(logits: Tensor, model: Segmenter, features: Tensor) -> list[Tensor]:
    loss = (logits * random(*logits.shape, seed=1)).sum()
    return list(torch.autograd.grad(loss, [features, *model.head.parameters()]))


@every_stride
def test_gradients_at_the_points_are_those_of_the_dense_logits(heads: dict[int, Segmenter], stride: int) -> None:
    model, positions = heads[stride], some_positions(24, 40)
    features = random(2, DECODER_WIDTHS[stride], 24 // stride, 40 // stride).requires_grad_()
    ours = gradients(model.point_logits(features, positions), model, features)
    expected = gradients(at(model.dense_logits(features), positions), model, features)
    for gradient, each in zip(ours, expected, strict=True):
        assert_exact(gradient, each)
        assert each.any()


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
@pytest.mark.parametrize(("height", "width"), [(3, 5), (6, 4), (1, 1), (1, 7)])
def test_sampling_is_that_of_grid_sample(height: int, width: int, stride: int) -> None:
    features = random(2, 5, height, width)
    rows, columns = torch.meshgrid(torch.arange(height * stride), torch.arange(width * stride), indexing="ij")
    shares = [(columns.double() + 0.5) / (width * stride), (rows.double() + 0.5) / (height * stride)]
    grid = torch.stack(shares, dim=-1) * 2 - 1  # -1 and 1 are the outer edges
    expected = F.grid_sample(features, grid.expand(2, -1, -1, -1), padding_mode="border", align_corners=False)
    positions = (rows * width * stride + columns).flatten().repeat(2, 1)
    sampled = sample_bilinear(features, positions, stride)
    assert_exact(sampled, expected.flatten(2).transpose(1, 2))
    enlarged = F.interpolate(features, scale_factor=float(stride), mode="bilinear", align_corners=False)
    assert_exact(sampled, enlarged.flatten(2).transpose(1, 2))


def test_sampling_worked_by_hand() -> None:
    # One row of features 0, 8, 24 at stride 4: pixel centres lie at (column + .5) / 4 - .5 features, from -3/8 on.
    features = torch.tensor([0.0, 8.0, 24.0]).view(1, 1, 1, 3)
    sampled = sample_bilinear(features, torch.arange(12)[None], 4)
    assert sampled.flatten().tolist() == [0, 0, 1, 3, 5, 7, 10, 14, 18, 22, 24, 24]
    # Every row of the image sees the one row of features.
    assert sample_bilinear(features, torch.tensor([[2, 14, 26, 38]]), 4).flatten().tolist() == [1, 1, 1, 1]


def test_each_image_is_sampled_from_its_own_features() -> None:
    features = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    assert sample_bilinear(features, torch.tensor([[0, 15], [15, 0]]), 2)[..., 0].tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_logits_are_float32_whatever_the_features_are(
    precision: torch.dtype, memory_format: torch.memory_format
) -> None:
    model = build_model(replace(RESNET18, decoder_stride=2), 3)
    features = random(2, 32, 12, 20, dtype=torch.float32).to(precision, memory_format=memory_format)
    positions = some_positions(24, 40)
    points, dense = model.point_logits(features, positions), model.dense_logits(features)
    assert (points.dtype, dense.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(points, at(dense, positions), rtol=0, atol=1e-6)  # both from the same rounded features


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_the_same_bits_every_time(deterministic: None) -> None:
    # Deterministic algorithms refuse an operation that has none. All points on four pixels: their gradients collide.
    model = build_model(RESNET18, 3)
    positions = torch.randint(0, 4, (2, 500), generator=torch.Generator().manual_seed(0))
    images = random(2, 3, 64, 64, dtype=torch.float32)

    def run() -> list[Tensor]:
        model.zero_grad()
        copied = copy.deepcopy(model)
        features = copied.features(images)
        (copied.point_logits(features, positions).square().mean() + copied.dense_logits(features).mean()).backward()
        return [parameter.grad for parameter in copied.parameters() if parameter.grad is not None]

    first, second = run(), run()
    assert all(map(torch.equal, first, second))
    assert len(first) == len(list(model.parameters()))


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
    model(random(2, 4, 64, 64, dtype=torch.float32)).square().sum().backward()
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
    images = random(1, 4, 64, 32, dtype=torch.float32)
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


def step(model: Segmenter, images: Tensor) -> Tensor:
    """One step on some loss; returns the loss."""
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
    loss = model(images).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("encoder", ["resnet18", "efficientnet_b0"])
def test_a_frozen_encoder_stays_as_it_came(encoder: str) -> None:
    model = build_model(replace(RESNET18, encoder=encoder, freeze_encoder=True), 3)
    before = copy.deepcopy(model.state_dict())
    images = random(2, 3, 64, 64, dtype=torch.float32)
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
    step(model, random(2, 3, 64, 64, dtype=torch.float32))
    still = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert still == {"mean", "std"}


# Gradient checkpointing


def train(model: Segmenter, *, autocast: bool) -> dict[str, Any]:
    """Loss, gradients, buffers and the state of the random stream after two training passes in a row."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for layers that are dropped at random
        losses = []
        for seed in (0, 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                features = model.features(random(3, 3, 32, 32, seed=seed, dtype=torch.float32))
            losses.append(model.dense_logits(features).square().mean())
        sum(losses, torch.zeros(())).backward()
        stream = torch.get_rng_state()
    found = {f"gradient of {name}": parameter.grad for name, parameter in model.named_parameters()}
    found |= {**dict(model.named_buffers()), "losses": torch.stack(losses), "random stream": stream}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


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
        features = model.features(random(2, 3, 64, 64, dtype=torch.float32))
    assert features.requires_grad
    return sum(size for address, size in kept.items() if address not in weights)


def test_gradient_checkpointing_keeps_less() -> None:
    # What remains are the inputs of the blocks, images and skips among them: in a ResNet-18 a map of two convolutions'
    # and two normalisations' inputs or more.
    assert kept_bytes(replace(RESNET18, gradient_checkpointing=True)) < kept_bytes(RESNET18) / 3


def test_gradient_checkpointing_outlives_an_evaluation() -> None:
    model = build_model(replace(RESNET18, gradient_checkpointing=True), 3)
    images = random(2, 3, 64, 64, dtype=torch.float32)
    step(model, images)
    before = copy.deepcopy(dict(model.named_buffers()))
    with torch.no_grad():
        model.eval()(images)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    step(model.train(), images)
    assert {int(norm.num_batches_tracked) for norm in norms} == {2}


@pytest.mark.slow
def test_gradient_checkpointing_can_be_compiled() -> None:
    images = random(2, 3, 64, 64, dtype=torch.float32)
    eager, compiled = (build_model(replace(RESNET18, gradient_checkpointing=True), 3) for _ in range(2))
    for model, run in ((eager, eager.features), (compiled, torch.compile(compiled.features, backend="aot_eager"))):
        run(images).square().mean().backward()
        assert {int(count) for name, count in model.named_buffers() if "num_batches" in name} == {1}
    for ours, expected in zip(compiled.parameters(), eager.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-3, atol=1e-6)
    for ours, expected in zip(compiled.buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
