"""A model in one file that holds no code."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from trainable.config import InputError
from trainable.weights_file import WEIGHTS, read_weights, write_weights

HEADER = {"training": {"encoder": "resnet18"}, "images": {"num_bands": 3, "scale": 0.5}, "study": "demo"}


def test_what_was_written_is_read_bit_by_bit(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), "n": torch.tensor(7)}
    write_weights(tmp_path, tensors, HEADER)
    read, header = read_weights(tmp_path)
    assert header == {"training": {"encoder": "resnet18"}, "images": {"num_bands": 3, "scale": 0.5}}
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor)


def test_any_reader_of_safetensors_reads_it(tmp_path: Path) -> None:
    write_weights(tmp_path, {"a": torch.arange(3.0)}, HEADER)
    assert load_file(tmp_path / WEIGHTS)["a"].tolist() == [0.0, 1.0, 2.0]
    with safe_open(tmp_path / WEIGHTS, framework="np") as file:
        metadata = file.metadata()
    assert metadata["study"] == "demo"
    assert json.loads(metadata["training"]) == {"encoder": "resnet18"}


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, (10**15).to_bytes(8, "little") + b"{}", b"PK\x03\x04pickle"])
def test_other_files_are_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.safetensors: no weights that canopoint export wrote") as caught:
        read_weights(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", [{"images": {}}, {"training": "{", "images": {}}])
def test_weights_of_others_are_refused(tmp_path: Path, header: dict[str, object]) -> None:
    write_weights(tmp_path, {"a": torch.zeros(1)}, header)
    with pytest.raises(InputError, match="export again"):
        read_weights(tmp_path)


def test_a_flipped_bit_in_the_header_never_passes_for_the_model(tmp_path: Path) -> None:
    write_weights(tmp_path, {"a": torch.zeros(2)}, HEADER)
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    content[0] ^= 1  # the length of the header
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, match="no weights"):
        read_weights(tmp_path)
