from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from trainable.config import InputError, TrainConfig
from trainable.model import DecoderBlock, Segmenter, build_model, fetch_weights

RESNET18 = TrainConfig(encoder="resnet18", weights="none", image_size=32)
PRETRAINED = TrainConfig(encoder="resnet18", weights="imagenet", image_size=32)
WEIGHTS_FILE = "resnet18-f37072fd.pth"  # the name under which torchvision publishes its IMAGENET1K_V1 weights


def on_paper(encoder: str, num_bands: int) -> Segmenter:
    """The model with shapes but without numbers: nothing is drawn, nothing computed."""
    with torch.device("meta"):
        return Segmenter(encoder, num_bands, pretrained=False)


@pytest.mark.parametrize("num_bands", [1, 3, 4])
@pytest.mark.parametrize("encoder", ["resnet18", "resnet34", "resnet50"])
def test_logits_have_the_size_of_the_images(encoder: str, num_bands: int) -> None:
    logits = on_paper(encoder, num_bands)(torch.empty(2, num_bands, 64, 96, device="meta"))
    assert logits.shape == (2, 2, 64, 96)  # two classes


@pytest.mark.parametrize(("encoder", "millions"), [("resnet18", 14.3), ("resnet34", 24.4), ("resnet50", 32.5)])
def test_number_of_parameters(encoder: str, millions: float) -> None:
    # The table of SCIENCE.md, counted on the U-Nets of segmentation_models_pytorch.
    counted = sum(parameter.numel() for parameter in on_paper(encoder, 3).parameters())
    assert counted == pytest.approx(millions * 1e6, rel=0.02)


def test_a_decoder_block_doubles_and_joins() -> None:
    block = DecoderBlock(8, 4, 6).eval()
    skip = torch.rand(1, 4, 10, 14)
    assert block(torch.rand(1, 8, 5, 7), skip).shape == (1, 6, 10, 14)
    assert DecoderBlock(8, 0, 6).eval()(torch.rand(1, 8, 5, 7), None).shape == (1, 6, 10, 14)


def test_every_parameter_takes_part() -> None:
    # An encoder stage or a skip that leads nowhere would have no gradient.
    model = build_model(RESNET18, 3)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def weights(config: TrainConfig, num_bands: int = 3) -> Tensor:
    return torch.cat([parameter.detach().ravel() for parameter in build_model(config, num_bands).parameters()])


def test_the_seed_alone_decides_the_start() -> None:
    # Seeds are blocks: cells are compared on equal initial weights.
    first = weights(RESNET18)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert torch.equal(weights(replace(RESNET18, learning_rate=0.1, points_per_image=3, focal_gamma=2.0)), first)
    assert torch.equal(torch.get_rng_state(), before)  # nothing is drawn from the global stream
    other = weights(replace(RESNET18, seed=1))
    # Batch normalisation starts at 1 and 0 in both; everything else, nearly all, is drawn.
    assert (other != first).float().mean() > 0.99


@pytest.mark.parametrize("num_bands", [1, 4])
def test_a_grey_image_looks_the_same_in_any_number_of_bands(num_bands: int) -> None:
    grey = torch.rand(1, 1, 32, 32)
    rgb, adapted = (build_model(RESNET18, bands).eval().stem for bands in (3, num_bands))
    torch.testing.assert_close(adapted(grey.expand(-1, num_bands, -1, -1)), rgb(grey.expand(-1, 3, -1, -1)))


def test_without_pretraining_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    fetch_weights(RESNET18)
    assert list(tmp_path.iterdir()) == []


def test_weights_out_of_reach_are_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens: refused at once, on any machine
    with pytest.raises(InputError) as caught:
        fetch_weights(PRETRAINED)
    for part in ("training.weights: ", WEIGHTS_FILE, f"{tmp_path}/hub/checkpoints", "training.weights to none"):
        assert part in str(caught.value)


def put_into_cache(cache: Path, content: object) -> None:
    path = cache / "hub" / "checkpoints" / WEIGHTS_FILE
    path.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)


@pytest.mark.parametrize("content", [b"", b"not an archive of weights"])
def test_a_damaged_file_in_the_cache_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    put_into_cache(tmp_path, content)
    with pytest.raises(InputError, match=WEIGHTS_FILE):
        fetch_weights(PRETRAINED)


def test_pretrained_weights_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision.models.resnet18()  # any weights do; the real ones are 45 MB away
    put_into_cache(tmp_path, published.state_dict())
    fetch_weights(PRETRAINED)
    colour: Any = build_model(PRETRAINED, 3)
    four: Any = build_model(PRETRAINED, 4)
    torch.testing.assert_close(colour.stem[0].weight, published.conv1.weight, rtol=0, atol=0)
    torch.testing.assert_close(four.stages[3][1].conv2.weight, published.layer4[1].conv2.weight, rtol=0, atol=0)
    # Each of the four bands has the mean of the RGB weights, times 3/4: their sum is that of RGB.
    torch.testing.assert_close(four.stem[0].weight.sum(dim=1), published.conv1.weight.sum(dim=1))
