from pathlib import Path

import pytest

from study.training_file import read_training_file
from trainable.config import InputError, TrainConfig

DATA = "data: {root: forest}\n"
TRAINING = "training: {learning_rate: 1e-3, epochs: 2, focal_gamma: 2}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "best.yaml"
    path.write_text(text)
    return path


def test_a_file_without_origin(tmp_path: Path) -> None:
    file = read_training_file(write(tmp_path, DATA + TRAINING))
    assert file.data.root == "forest"
    assert file.training == TrainConfig(learning_rate=1e-3, epochs=2, focal_gamma=2.0)
    assert isinstance(file.training.focal_gamma, float)
    assert file.reproduces == {}


def test_an_exported_file_names_its_trial(tmp_path: Path) -> None:
    origin = "reproduces: {study: demo, trial_id: 3f0c00000000, result_sha256: abc}\n"
    file = read_training_file(write(tmp_path, DATA + TRAINING + origin))
    assert file.reproduces == {"study": "demo", "trial_id": "3f0c00000000", "result_sha256": "abc"}


@pytest.mark.parametrize("section", ["reproduces: {}\n", "reproduces:\n"])
def test_an_empty_origin_is_none(tmp_path: Path, section: str) -> None:
    assert read_training_file(write(tmp_path, DATA + TRAINING + section)).reproduces == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping with the sections data, training, reproduces"),
        ("- data\n", "must be a mapping with the sections data, training, reproduces"),
        (DATA + "trainign: {}\n", "trainign: no such section; did you mean training?"),
        ("study: s\n" + DATA, "study: no such section; known: data, training, reproduces"),
        (TRAINING, "data: must be a mapping of settings, got None"),
        (DATA, "training: must be a mapping of settings, got None"),
        ("data: {root: a, synthetic: {}}\n" + TRAINING, "data: give either root"),
        ('data: {root: ""}\n' + TRAINING, "data.root: "),
        (DATA + "training: {foacl_gamma: 1}\n", "training.foacl_gamma: no such setting; did you mean focal_gamma?"),
        (DATA + "training: {learning_rate: -1}\n", "training.learning_rate: must be greater than 0, got -1"),
        (DATA + "training: {image_size: 100}\n", "training.image_size: must be a multiple of 32"),
        (DATA + "training: {epochs: 2, epochs: 3}\n", "line 2: 'epochs' stands twice"),
        (DATA + TRAINING + "reproduces: demo\n", "reproduces: must name the trial"),
        # Bare, twelve digits are a number: no trial has it, and the comparison would silently be with nothing.
        (DATA + TRAINING + "reproduces: {trial_id: 123456789012}\n", "reproduces.trial_id: must be str"),
    ],
)
def test_a_bad_file_is_refused_with_its_place_and_rule(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_training_file(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_is_called_one_and_its_file_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(InputError, match=r"is a folder; name config\.yaml in it, as in .*config\.yaml"):
        read_training_file(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"best\.yaml: no such file"):
        read_training_file(tmp_path / "best.yaml")
