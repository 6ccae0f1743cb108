"""Exported graphs give our masks: other sizes and batches than traced, several encoders, one hundred images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from trainable import graphs
from trainable.config import InputError, SyntheticConfig, TrainConfig
from trainable.graphs import (
    Agreement,
    check_graph,
    check_onnx_installed,
    compare,
    made_images,
    open_onnx,
    open_program,
    trace,
    write_onnx,
    write_program,
)
from trainable.model import Segmenter, build_model
from trainable.synthetic import make_scene
from trainable.train import unit_scale
from trainable.trained import load_trained

Finished = dict[int, Path]


def random_model(encoder: str, stride: int, num_bands: int = 3) -> Segmenter:
    config = TrainConfig(encoder=encoder, weights="none", decoder_stride=stride, image_size=64, seed=3)
    model = build_model(config, num_bands, (torch.full((num_bands,), 0.4), torch.full((num_bands,), 0.2)))
    model = model.to(memory_format=torch.channels_last)
    with torch.no_grad():  # batch statistics and a head as training leaves them, so that both classes occur
        for stack in made_images(num_bands)[:2]:
            model(unit_scale(torch.tensor(stack)))
        model.eval()
        logits = torch.cat([model(unit_scale(torch.tensor(stack))).flatten(2) for stack in made_images(num_bands)[:1]])
        model.head.bias[1] -= (logits[:, 1] - logits[:, 0]).median()
        model.head.weight *= 20
        model.head.bias *= 20
    return model


def hundred_images(side: int) -> NDArray[np.uint8]:
    made = SyntheticConfig(images_per_scene=25, image_size=side, seed=5)
    return np.concatenate([make_scene(made, scene)[0] for scene in range(4)])


def both_graphs(model: Segmenter, folder: Path, num_bands: int = 3) -> dict[str, graphs.Graph]:
    program = trace(model, num_bands)
    write_program(program, folder / "model.pt2")
    write_onnx(program, folder / "model.onnx")
    return {"model.pt2": open_program(folder / "model.pt2"), "model.onnx": open_onnx(folder / "model.onnx")}


def assert_equal_masks(model: Segmenter, opened: dict[str, graphs.Graph]) -> None:
    images = hundred_images(64)
    for graph in opened.values():
        agreement = compare(model, graph, [images])
        assert (agreement.num_images, agreement.num_pixels) == (100, 100 * 64 * 64)
        assert agreement.num_different == 0
        assert agreement.num_ties == 0  # no rule, as rounding decides one pixel in some millions; but so it is here
        assert agreement.largest_difference < 1e-4


def test_the_program_gives_equal_masks_on_100_images_of_a_trained_run(stopped: Finished, tmp_path: Path) -> None:
    model = load_trained(stopped[3]).model
    write_program(trace(model, 3), tmp_path / "model.pt2")
    assert_equal_masks(model, {"model.pt2": open_program(tmp_path / "model.pt2")})


@pytest.mark.slow
def test_both_graphs_give_equal_masks_on_100_images_of_a_trained_run(stopped: Finished, tmp_path: Path) -> None:
    model = load_trained(stopped[3]).model
    assert_equal_masks(model, both_graphs(model, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "stride", "num_bands"),
    [("resnet18", 1, 3), ("mobilenet_v3_large", 2, 4), ("efficientnet_b0", 4, 3), ("convnext_tiny", 2, 1)],
)
def test_every_kind_of_encoder_and_stride(encoder: str, stride: int, num_bands: int, tmp_path: Path) -> None:
    model = random_model(encoder, stride, num_bands)
    images = hundred_images(64)[..., np.arange(num_bands) % 3]
    for graph in both_graphs(model, tmp_path, num_bands).values():
        agreement = compare(model, graph, [images, *made_images(num_bands)])
        assert agreement.num_images == 112
        assert agreement.num_different == 0
        forest = np.mean([(logits := graph(unit_scale(torch.tensor(images[:8]))))[:, 1] > logits[:, 0]])
        assert 0.05 < forest < 0.95  # a mask of one class would agree with anything


@pytest.fixture(scope="module")
def traced() -> tuple[Segmenter, ExportedProgram]:
    model = random_model("resnet18", 4)
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in model.state_dict().items()}
    program = trace(model, 3)
    for name, tensor in model.state_dict().items():  # tracing leaves the model as it was
        assert torch.equal(tensor, before[name][0])
        assert tensor.stride() == before[name][1]
    return model, program


def test_the_onnx_file_says_what_it_takes(traced: tuple[Segmenter, ExportedProgram], tmp_path: Path) -> None:
    import onnxruntime

    model, program = traced
    write_onnx(program, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]  # weights inside
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[1]) == ("images", "tensor(float)", 3)
    assert (logits.name, logits.shape[1]) == ("logits", 2)
    assert all(isinstance(images.shape[axis], str) for axis in (0, 2, 3))  # any number of images of any size
    assert check_graph(model, open_onnx(tmp_path / "model.onnx"), 3, "model.onnx").num_ties == 0


def test_one_image_and_sides_that_differ(traced: tuple[Segmenter, ExportedProgram], tmp_path: Path) -> None:
    write_program(traced[1], tmp_path / "model.pt2")
    graph = open_program(tmp_path / "model.pt2")
    assert graph(torch.rand(1, 3, 64, 160)).shape == (1, 2, 64, 160)
    with pytest.raises(AssertionError, match="Guard failed"):  # refused, not predicted wrongly
        graph(torch.rand(1, 3, 65, 64))


def wrong(model: Segmenter, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> graphs.Graph:
    def graph(images: torch.Tensor) -> NDArray[np.float32]:
        with torch.no_grad():
            return change(model(images.to(memory_format=torch.channels_last)).numpy())

    return graph


def test_a_graph_that_errs_in_one_pixel_is_refused() -> None:
    model = random_model("mobilenet_v2", 4)

    def swap_one(logits: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = logits.copy()
        logits[0, :, 3, 5] = logits[0, ::-1, 3, 5]
        return logits

    with pytest.raises(InputError, match=r"model\.onnx: 3 of \d+ pixels differ from our own masks"):  # one a stack
        check_graph(model, wrong(model, swap_one), 3, "model.onnx")


def test_a_graph_that_gives_no_numbers_is_refused() -> None:
    model = random_model("mobilenet_v2", 4)
    with pytest.raises(InputError, match="pixels differ"):
        check_graph(model, wrong(model, lambda logits: np.full_like(logits, np.nan)), 3, "model.onnx")


def test_ties_are_counted_apart_and_not_refused() -> None:
    """Two logits that are equal but for the last bits have no class that two programs need agree on."""

    class Tied(torch.nn.Module):
        def __init__(self, gap: float) -> None:
            super().__init__()
            self.gap = gap

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(len(images), 2, *images.shape[2:])
            logits[:, 1] = 1.0
            logits[:, 1, 0, 0] = self.gap
            return logits

    stack = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    graph: graphs.Graph = lambda images: Tied(-1e-7)(images).numpy()  # noqa: E731
    agreement = compare(Tied(1e-7), graph, [stack])  # type: ignore[arg-type]
    assert (agreement.num_different, agreement.num_ties) == (0, 2)
    agreement = compare(Tied(1e-3), graph, [stack])  # type: ignore[arg-type]
    assert (agreement.num_different, agreement.num_ties) == (2, 0)


def test_agreements_add_up() -> None:
    assert Agreement(1, 2, 0, 1, 0.5).to_mapping() == {
        "num_images": 1, "num_pixels": 2, "num_different": 0, "num_ties": 1, "largest_difference": 0.5,
    }  # fmt: skip
    assert [stack.shape for stack in made_images(5)] == [(8, 64, 64, 5), (3, 96, 160, 5), (1, 256, 128, 5)]


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(InputError, match=r"--onnx: needs onnxscript, .*pip install 'canopoint\[onnx\]'"):
        check_onnx_installed()
