"""Logits at the points alone are the dense logits there: values, gradients, and the same bits every time."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.config import TrainConfig
from trainable.model import DECODER_WIDTHS, Segmenter, build_model, sample_bilinear

RESNET18 = TrainConfig(encoder="resnet18", weights="none", image_size=64)
SMALL = replace(RESNET18, encoder="mobilenet_v2")
EXACT = 1e-12


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


@pytest.mark.parametrize("stride", [1, 2, 4])
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
