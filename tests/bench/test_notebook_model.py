import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.images import noise_batch
from bench.notebook_model import NotebookSegmenter, NotebookTraining, notebook_settings


@pytest.fixture(scope="module")
def model() -> NotebookSegmenter:
    return NotebookSegmenter()


def test_it_is_the_model_that_the_description_counts(model: NotebookSegmenter) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        logits = model(torch.zeros(1, 3, 256, 256))
    assert logits.shape == (1, 2, 256, 256)
    assert counter.get_total_flops() / 1e9 == pytest.approx(28.8, rel=0.01)
    assert sum(each.numel() for each in model.parameters()) / 1e6 == pytest.approx(61.2, rel=0.01)


def test_it_keeps_the_activations_that_the_description_counts(model: NotebookSegmenter) -> None:
    kept = {each.untyped_storage().data_ptr(): 0 for each in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model.train()(torch.zeros(2, 3, 256, 256))
    assert logits.requires_grad
    assert sum(kept.values()) / 2 / 2**20 == pytest.approx(170, rel=0.02)  # MiB an image


def test_the_encoder_is_torchvisions(model: NotebookSegmenter) -> None:
    encoder = [model.stem, *model.layers]
    classifier = 2048 * 1000 + 1000  # ResNet-50 has 25,557,032 parameters with its classifier
    assert sum(each.numel() for part in encoder for each in part.parameters()) == 25_557_032 - classifier


@pytest.mark.slow
def test_it_trains_and_evaluates() -> None:
    notebook_settings(num_threads=1)
    torch.manual_seed(0)
    training = NotebookTraining()
    batch = noise_batch(4, 32, num_points=50)
    losses = [training.train_epoch([batch]) for _ in range(2)]
    assert losses[-1] < losses[0]
    labels = batch[1].clamp(max=1)
    scores = training.evaluate([(batch[0], labels), (batch[0], labels)])
    assert scores.shape == (4,)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_its_settings_undo_ours() -> None:
    torch.use_deterministic_algorithms(True)
    notebook_settings(num_threads=1)
    assert not torch.are_deterministic_algorithms_enabled()
