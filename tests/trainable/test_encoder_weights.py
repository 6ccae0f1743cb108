"""Where an encoder's initial weights come from: nowhere, a file of the user's, or torchvision's cache."""

import copy
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from trainable import encoders
from trainable.config import ENCODERS, InputError, TrainConfig
from trainable.encoders import Encoder, build_encoder, describe_weights, fetch_weights

PUBLISHED = {  # the names under which torchvision publishes IMAGENET1K_V1
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "mobilenet_v2": "mobilenet_v2-b0353104.pth",
    "mobilenet_v3_large": "mobilenet_v3_large-8738ca79.pth",
    "efficientnet_b0": "efficientnet_b0_rwightman-7f5810bc.pth",
    "convnext_tiny": "convnext_tiny-983f1562.pth",
}
SMALL = "mobilenet_v2"  # 14 MB of weights


@cache
def classifier(encoder: str) -> nn.Module:
    """torchvision's own, with random weights; copied where it is altered."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision.models.get_model(encoder)


def tensors(module: nn.Module) -> list[Tensor]:
    return list(module.state_dict().values())


# No weights


def test_without_weights_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    random = TrainConfig(encoder=SMALL, weights="none")
    fetch_weights(random)
    build_encoder(random, num_bands=3)
    assert list(tmp_path.iterdir()) == []
    assert describe_weights(random) == "none (random)"


# Weights from a file


def write(folder: Path, content: bytes, digits: int = 8) -> Path:
    """A file with that content and its hash in its name."""
    path = folder / f"local-{hashlib.sha256(content).hexdigest()[:digits]}.pth"
    path.write_bytes(content)
    return path


def save(folder: Path, content: object, digits: int = 8) -> Path:
    torch.save(content, folder / "unnamed")
    return write(folder, (folder / "unnamed").read_bytes(), digits)


def from_file(path: Path, encoder: str = SMALL) -> TrainConfig:
    return TrainConfig(encoder=encoder, weights=str(path))


def without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(("fc.", "classifier."))}


def other_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "classifier.1.weight": torch.zeros(19, 1280), "classifier.1.bias": torch.zeros(19)}


@pytest.mark.parametrize("digits", [8, 64])
@pytest.mark.parametrize("change", [dict, without_head, other_head])
def test_a_local_file_is_loaded_exactly(tmp_path: Path, change: Callable[..., dict[str, Tensor]], digits: int) -> None:
    source: Any = copy.deepcopy(classifier(SMALL))
    for number, norm in enumerate(module for module in source.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.fill_(number)  # statistics come along with the weights
    config = from_file(save(tmp_path, change(source.state_dict()), digits))
    fetch_weights(config)
    expected = tensors(source.features[:-1])
    assert all(map(torch.equal, tensors(build_encoder(config, num_bands=3)), expected))
    assert describe_weights(config) == Path(config.weights).name


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v3_large"])
def test_no_encoder_needs_a_head_in_its_file(tmp_path: Path, encoder: str) -> None:
    source = classifier(encoder)
    config = from_file(save(tmp_path, without_head(source.state_dict())), encoder)
    built, expected = build_encoder(config, num_bands=3), Encoder(copy.deepcopy(source), num_bands=3)
    assert all(map(torch.equal, tensors(built), tensors(expected)))


def test_a_local_file_is_adapted_to_other_bands(tmp_path: Path) -> None:
    source: Any = classifier(SMALL)
    built: Any = build_encoder(from_file(save(tmp_path, source.state_dict())), num_bands=4)
    first, rgb = built.stages[0][0][0].weight, source.features[0][0].weight
    torch.testing.assert_close(first.sum(dim=1), rgb.sum(dim=1))
    assert all(map(torch.equal, tensors(built)[1:], tensors(source.features[:-1])[1:]))


class Touch:
    """Pickled, it creates a file when it is read with anything but `weights_only`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


def some_weights() -> dict[str, Tensor]:
    return classifier(SMALL).state_dict()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: [1, 2], "not a state dict of torchvision's mobilenet_v2"),
        (lambda: None, "not a state dict of torchvision's mobilenet_v2"),
        (lambda: {1: torch.zeros(1)}, "not a state dict of torchvision's mobilenet_v2"),
        (lambda: {}, "260 of its tensors are absent and 0 unknown ones are there (as features.0.0.weight)"),
        (lambda: {**some_weights(), "extra": torch.zeros(1)}, "0 of its tensors are absent and 1 unknown ones"),
        (lambda: {**some_weights(), "features.0.0.weight": "text"}, 'parameter named "features.0.0.weight"'),
        (lambda: {**some_weights(), "features.0.0.weight": torch.zeros(32, 4, 3, 3)}, "size mismatch for features.0.0"),
        (lambda: {"state_dict": some_weights()}, "(as features.0.0.weight); name its own encoder"),
        (lambda: classifier("resnet18").state_dict(), "mobilenet_v2: 260 of its tensors are absent"),
        (lambda: classifier("efficientnet_b0").state_dict(), "name its own encoder"),
    ],
)  # fmt: skip
def test_what_is_not_this_encoders_state_dict_is_refused(
    tmp_path: Path, content: Callable[[], object], reason: str
) -> None:
    path = save(tmp_path, content())
    with pytest.raises(InputError) as caught:
        fetch_weights(from_file(path))
    assert str(caught.value).startswith(f"training.weights: {path}: not ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_shallower_network_of_the_same_family_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, classifier("resnet18").state_dict())
    with pytest.raises(InputError, match="not of torchvision's resnet34: 80 of its tensors are absent and 0 unknown"):
        fetch_weights(from_file(path, "resnet34"))


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"not an archive of weights", b"PK\x03\x04", b"\x80\x02r", b"\x80\x02.", b"\x80\x02j\x01\x00\x00\x00."],
)
def test_what_torch_cannot_read_is_refused(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError, match="not a file of tensors alone") as caught:
        fetch_weights(from_file(path))
    assert str(caught.value).startswith(f"training.weights: {path}: ")


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    harmed = tmp_path / "harmed"
    path = save(tmp_path, {**some_weights(), "extra": Touch(harmed)})
    with pytest.raises(InputError, match="not a file of tensors alone"):
        fetch_weights(from_file(path))
    assert not harmed.exists()
    torch.load(path, weights_only=False)  # it would have been harmed
    assert harmed.exists()


def test_a_damaged_or_misnamed_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, some_weights())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one bit, in the middle of some weight
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()[:8]
    with pytest.raises(InputError, match=f"its SHA-256 begins with {found}, not with the {path.stem[-8:]} of its name"):
        fetch_weights(from_file(path))


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "gone-01234567.pth", tmp_path / "folder-01234567.pth"):
        (tmp_path / "folder-01234567.pth").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=f"^training.weights: {path}: no such file; give imagenet, none, or"):
            fetch_weights(from_file(path))


# ImageNet weights


@pytest.mark.parametrize("encoder", ENCODERS)
def test_imagenet_weights_are_recorded_with_their_hash(encoder: str) -> None:
    assert describe_weights(TrainConfig(encoder=encoder, weights="imagenet")) == PUBLISHED[encoder]


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torchvision looks for the small encoder's ImageNet weights before it downloads them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / PUBLISHED[SMALL]
    path.parent.mkdir(parents=True)
    return path


IMAGENET = TrainConfig(encoder=SMALL, weights="imagenet")


def test_imagenet_weights_come_from_the_cache(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source: Any = classifier(SMALL)  # any weights do, by a name of their own; the real ones are on the network
    torch.save(source.state_dict(), cached)
    digest = hashlib.sha256(cached.read_bytes()).hexdigest()[:8]
    cached.rename(cached.with_name(f"small-{digest}.pth"))
    monkeypatch.setattr(encoders, "imagenet_url", lambda encoder: f"https://example.org/small-{digest}.pth")
    fetch_weights(IMAGENET)
    assert all(map(torch.equal, tensors(build_encoder(IMAGENET, num_bands=3)), tensors(source.features[:-1])))


def test_weights_out_of_reach_are_refused_with_the_remedy(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens: refused at once, on any machine
    with pytest.raises(InputError) as caught:
        fetch_weights(IMAGENET)
    for part in ("training.weights: ", PUBLISHED[SMALL], str(cached.parent), "training.weights to none"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_file_under_the_published_name_is_refused(cached: Path) -> None:
    torch.save(classifier(SMALL).state_dict(), cached)
    with pytest.raises(InputError, match="its SHA-256 begins with"):
        fetch_weights(IMAGENET)


@pytest.mark.parametrize("content", [b"", b"not an archive of weights", b"\x80\x02r", b"\x80\x02."])
def test_a_damaged_file_in_the_cache_is_refused(cached: Path, content: bytes) -> None:
    cached.write_bytes(content)
    with pytest.raises(InputError, match=PUBLISHED[SMALL]) as caught:
        fetch_weights(IMAGENET)
    assert "\n" not in str(caught.value)
