"""A trained model as graphs that run without our code: ONNX, and a program of `torch.export`.

Both take (B, bands, H, W) float32 in [0, 1], that is bytes divided by 255; the normalisation by band is inside. They
give (B, C, H, W) logits, the largest of which is the class. B is any number, H and W are multiples of 32, from 64 on.

Each is held against our own model before it leaves the house (`check_graph`): its mask must be equal in every pixel
but those where the two logits are equal up to rounding. Other kernels add in another order, which moves a logit by some
1e-6; a pixel whose logits lie closer together than that has no class that any two programs need agree on.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trainable.config import InputError, SyntheticConfig
from trainable.model import Segmenter
from trainable.synthetic import make_scene
from trainable.train import unit_scale

ONNX_FILE, PROGRAM_FILE = "model.onnx", "model.pt2"
INPUT, OUTPUT = "images", "logits"
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

TIE = 1e-5
"""Pixels whose two logits differ by less, as a share of the largest logit (or of 1), count as ties: some twenty times
what rounding was measured to do."""

CHECKED_SIZES = ((8, 64, 64), (3, 96, 160), (1, 256, 128))
"""(images, height, width) of the made images that every graph is checked on; none is the size of the trace."""

Graph = Callable[[Tensor], NDArray[np.float32]]
"""(B, bands, H, W) float32 in [0, 1] -> (B, C, H, W) logits."""


@dataclass(frozen=True)
class Agreement:
    """How a graph's masks compare with our own.

    Attributes:
        num_images: compared.
        num_pixels: compared.
        num_different: pixels of another class, by more than rounding.
        num_ties: pixels of another class whose two logits are equal up to rounding.
        largest_difference: of any logit.
    """

    num_images: int
    num_pixels: int
    num_different: int
    num_ties: int
    largest_difference: float

    def to_mapping(self) -> dict[str, int | float]:
        """Plain values by name."""
        return asdict(self)


def check_onnx_installed() -> None:
    """Refuses before anything is computed where the extra is absent.

    Raises:
        InputError: says how to get it.
    """
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"--onnx: needs {', '.join(missing)}, not installed here; pip install 'canopoint[onnx]'")


def trace(model: Segmenter, num_bands: int) -> ExportedProgram:
    """The model's computation alone, for any number of images of any size that it takes.

    Args:
        model: in evaluation mode, on the CPU.
        num_bands: of its images.
    """
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # else weights are saved as odd views
    with torch.no_grad():
        return torch.export.export(
            plain, (torch.rand(2, num_bands, 64, 96),), dynamic_shapes=_dynamic_shapes(), strict=False
        )


def write_program(program: ExportedProgram, path: Path) -> None:
    """Writes what `torch.export.load` reads back."""
    torch.export.save(program, path)


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Writes the program as one ONNX file, weights inside; the packages must be there (`check_onnx_installed`)."""
    torch.onnx.export(
        program, (), path, dynamo=True, external_data=False, verbose=False,
        input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=_dynamic_shapes(),
    )  # fmt: skip


def open_program(path: Path) -> Graph:
    """The written program, ready to run."""
    module = torch.export.load(path).module()
    return lambda images: _run(module, images)


def open_onnx(path: Path) -> Graph:
    """The written ONNX file in onnxruntime, on the CPU in float32, ready to run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([OUTPUT], {INPUT: images.numpy()})[0], dtype=np.float32)


def made_images(num_bands: int) -> list[NDArray[np.uint8]]:
    """(N, H, W, bands) stacks of made landscapes: what a graph is checked on, at hand wherever it is exported."""
    stacks = []
    for num_images, height, width in CHECKED_SIZES:
        side = max(height, width)
        made = SyntheticConfig(images_per_scene=num_images, image_size=side)
        images, _ = make_scene(made, scene_index=0)
        stacks.append(images[:, :height, :width, np.arange(num_bands) % images.shape[3]])
    return stacks


def compare(model: Segmenter, graph: Graph, stacks: Iterable[NDArray[np.uint8]]) -> Agreement:
    """Holds a graph's masks against those of our own model, on the CPU in float32.

    Args:
        model: in evaluation mode.
        graph: to be held against it.
        stacks: (N, H, W, bands) uint8, H and W multiples of 32 from 64 on.
    """
    parts = [_compare(model, graph, stack) for stack in stacks]
    totals = {name: sum(getattr(part, name) for part in parts) for name in Agreement.__dataclass_fields__}
    return Agreement(**{**totals, "largest_difference": max(part.largest_difference for part in parts)})


def check_graph(model: Segmenter, graph: Graph, num_bands: int, what: str) -> Agreement:
    """Compares on made images, and refuses a graph whose masks differ by more than rounding.

    Raises:
        InputError: names the graph and how many pixels differ.
    """
    agreement = compare(model, graph, made_images(num_bands))
    if agreement.num_different:
        raise InputError(
            f"{what}: {agreement.num_different} of {agreement.num_pixels} pixels differ from our own masks, the logits"
            f" by up to {agreement.largest_difference:.2g}; nothing was exported; try other versions of torch or onnx"
        )
    return agreement


def _compare(model: Segmenter, graph: Graph, stack: NDArray[np.uint8]) -> Agreement:
    images = unit_scale(torch.from_numpy(stack))  # channels-last, as we predict
    ours, theirs = _run(model, images), graph(images.contiguous())
    differs = (ours[:, 1] > ours[:, 0]) != (theirs[:, 1] > theirs[:, 0])
    is_tie = np.abs(ours[:, 1] - ours[:, 0]) < TIE * max(1.0, float(np.abs(ours).max()))
    gap = np.abs(ours - theirs).max()
    # A logit that is no number differs from every number.
    broken = ~np.isfinite(theirs).all(axis=1)
    num_different = int(np.count_nonzero(differs & ~is_tie | broken))
    num_ties = int(np.count_nonzero(differs & is_tie & ~broken))
    return Agreement(len(stack), differs.size, num_different, num_ties, float(gap))


@torch.inference_mode()
def _run(module: nn.Module, images: Tensor) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = module(images).numpy()
    return logits


def _dynamic_shapes() -> dict[str, dict[int, object]]:
    return {INPUT: {0: Dim("batch"), 2: 32 * Dim("rows"), 3: 32 * Dim("columns")}}
