"""torchvision's image classifiers as encoders: feature maps at falling resolution, by name, for 1 to 8 bands."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn

from trainable.config import WEIGHTS_FILE, InputError, TrainConfig

IMAGENET_WEIGHTS = "IMAGENET1K_V1"  # the weights that every published comparison on these encoders starts from
HEADS = ("fc.", "classifier.")  # where torchvision's classifiers keep what an encoder has no use for


def _run_plainly(stage: nn.Module, features: Tensor) -> Tensor:
    return cast(Tensor, stage(features))


class Encoder(nn.Module):
    """A classifier without its head, as stages that each end at a smaller resolution.

    Attributes:
        strides: input pixels per feature, stage by stage; the last is 32.
        widths: channels that each stage gives.
    """

    def __init__(self, classifier: nn.Module, num_bands: int) -> None:
        super().__init__()
        if num_bands != 3:
            _adapt_first_convolution(classifier, num_bands)
        self.stages, self.strides, self.widths = _stages(_blocks(classifier), num_bands)

    def forward(self, images: Tensor, run: Callable[[nn.Module, Tensor], Tensor] = _run_plainly) -> list[Tensor]:
        """(B, bands, H, W) -> one (B, width, H / stride, W / stride) per stage, each applied by `run`."""
        features = [images]
        for stage in self.stages:
            features.append(run(stage, features[-1]))
        return features[1:]


def build_encoder(config: TrainConfig, num_bands: int) -> Encoder:
    """The run's encoder with its initial weights.

    Raises:
        InputError: the file of weights is absent, damaged, or not of this encoder.
    """
    classifier = torchvision.models.get_model(config.encoder, weights=None)
    if config.weights != "none":
        is_path = config.weights != "imagenet"
        _load_file(classifier, Path(config.weights) if is_path else imagenet_file(config.encoder), config.encoder)
    return Encoder(classifier, num_bands)


def fetch_weights(config: TrainConfig) -> None:
    """Gets the encoder's initial weights to hand, and checked, before any trial needs them.

    Raises:
        InputError: they are neither in torchvision's cache nor to be downloaded, or the file is not as it must be.
    """
    if config.weights != "none":
        build_encoder(config, num_bands=3)


def imagenet_file(encoder: str) -> Path:
    """The ImageNet weights of torchvision in torch's own cache, downloaded if they are not there.

    Read like any other file from there: torch itself checks the hash of a download alone, and would run what a copy in
    the cache holds.

    Raises:
        InputError: not there, and not to be downloaded.
    """
    url = imagenet_url(encoder)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            raise InputError(
                f"training.weights: {url} cannot be downloaded ({error}); put the file into {path.parent}, or set"
                f" training.weights to none (random initial weights)"
            ) from error
    return path


def imagenet_url(encoder: str) -> str:
    """Where torchvision publishes the encoder's ImageNet weights; the name ends in its hash."""
    return str(torchvision.models.get_model_weights(encoder)[IMAGENET_WEIGHTS].url)


def describe_weights(config: TrainConfig) -> str:
    """Where the encoder's initial weights came from, for the record: a name with the start of its hash."""
    if config.weights == "none":
        return "none (random)"
    if config.weights == "imagenet":
        return Path(imagenet_url(config.encoder)).name
    return Path(config.weights).name


def _load_file(classifier: nn.Module, path: Path, encoder: str) -> None:
    """Puts a state dict of torchvision's names into the classifier; its classification head does not matter."""
    state = _read_tensors(path)
    try:
        body = {name: tensor for name, tensor in state.items() if not name.startswith(HEADS)}
        missing, unexpected = classifier.load_state_dict(body, strict=False)
    except (RuntimeError, AttributeError) as error:
        raise InputError(
            f"training.weights: {path}: not a state dict of torchvision's {encoder}"
            f" ({' '.join(str(error).split())[:200]}); save model.state_dict() of that encoder"
        ) from error
    lost = [name for name in missing if not name.startswith(HEADS)]
    if lost or unexpected:
        raise InputError(
            f"training.weights: {path}: not of torchvision's {encoder}: {len(lost)} of its tensors are absent and"
            f" {len(unexpected)} unknown ones are there (as {[*lost, *unexpected][0]}); name its own encoder"
        )


def _read_tensors(path: Path) -> Any:
    """What torch.save put into a file whose name ends in its hash; nothing in it is run."""
    if not path.is_file():
        raise InputError(f"training.weights: {path}: no such file; give imagenet, none, or the path of one")
    match = WEIGHTS_FILE.search(path.name)
    assert match, "TrainConfig checks the name"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(match.group(1)):
        raise InputError(
            f"training.weights: {path}: its SHA-256 begins with {found[:8]}, not with the {match.group(1)[:8]} of its"
            f" name; the file is damaged or misnamed"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of something else raises anything, from KeyError to struct.error
        raise InputError(
            f"training.weights: {path}: not a file of tensors alone ({type(error).__name__}); save"
            f" model.state_dict() with torch.save"
        ) from error


def _blocks(classifier: nn.Module) -> list[nn.Module]:
    """The classifier's convolutional part in order, without the last widening that only a classification head needs."""
    if isinstance(classifier, torchvision.models.ResNet):
        stem = nn.Sequential(classifier.conv1, classifier.bn1, classifier.relu)
        first = nn.Sequential(classifier.maxpool, classifier.layer1)
        return [stem, first, classifier.layer2, classifier.layer3, classifier.layer4]
    blocks = list(cast(nn.Sequential, classifier.features))
    is_widening = isinstance(blocks[-1], torchvision.ops.Conv2dNormActivation)
    return blocks[:-1] if is_widening else blocks


@torch.no_grad()
def _stages(blocks: list[nn.Module], num_bands: int) -> tuple[nn.ModuleList, list[int], list[int]]:
    """Consecutive blocks of one resolution form a stage; a probe image tells where the resolution falls."""
    side = 64
    features = torch.zeros(1, num_bands, side, side)
    stages: list[nn.Sequential] = []
    strides: list[int] = []
    widths: list[int] = []
    for block in blocks:
        features = block.eval()(features)  # in training mode the probe would enter the batch statistics
        stride = side // features.shape[2]
        if not strides or stride > strides[-1]:
            stages.append(nn.Sequential())
            strides.append(stride)
            widths.append(0)
        stages[-1].append(block.train())
        widths[-1] = features.shape[1]
    return nn.ModuleList(stages), strides, widths


def _adapt_first_convolution(classifier: nn.Module, num_bands: int) -> None:
    """Gives the first convolution another number of bands: each gets the mean of the RGB weights, at the same total."""
    name, first = next((n, m) for n, m in classifier.named_modules() if isinstance(m, nn.Conv2d))
    options: dict[str, Any] = {"stride": first.stride, "padding": first.padding, "bias": first.bias is not None}
    adapted = nn.Conv2d(num_bands, first.out_channels, cast("tuple[int, int]", first.kernel_size), **options)
    mean = first.weight.detach().mean(dim=1, keepdim=True)
    adapted.weight = nn.Parameter(mean.repeat(1, num_bands, 1, 1) * 3 / num_bands)
    if first.bias is not None:
        adapted.bias = first.bias
    parent, _, child = name.rpartition(".")
    setattr(classifier.get_submodule(parent), child, adapted)
