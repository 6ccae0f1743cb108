"""The file that the analysis exports and `canopoint train` reads: one run's data and settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.secrets import refuse_secrets
from study.yaml_file import read_yaml
from trainable.config import DataConfig, InputError, TrainConfig, check_name, from_mapping

SECTIONS = ("data", "training", "reproduces")


@dataclass(frozen=True)
class TrainingFile:
    """One run, as a file states it.

    Attributes:
        reproduces: the trial that the file was exported from (`trial_id`, `result_sha256`, ...), or nothing.
    """

    data: DataConfig
    training: TrainConfig
    reproduces: dict[str, Any]


def read_training_file(path: Path) -> TrainingFile:
    """Reads and checks a training file.

    Raises:
        InputError: one line with the file, the field, the rule and the remedy.
    """
    if path.is_dir():
        name = "config.yaml" if (path / "config.yaml").is_file() else "the training file"
        raise InputError(f"{path}: is a folder; name {name} in it, as in {path / 'config.yaml'}")
    mapping = read_yaml(path)
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: must be a mapping with the sections {', '.join(SECTIONS)}")
    for key in mapping:
        check_name(key, SECTIONS, f"{path}: {key}", "section")
    refuse_secrets({name: mapping.get(name) for name in ("data", "training")}, str(path))  # the rest holds hashes
    try:
        data = from_mapping(DataConfig, mapping.get("data"), "data")
        training = from_mapping(TrainConfig, mapping.get("training"), "training")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return TrainingFile(data, training, _reproduces(path, mapping.get("reproduces") or {}))


def _reproduces(path: Path, section: object) -> dict[str, Any]:
    if not isinstance(section, dict):
        raise InputError(f"{path}: reproduces: must name the trial that the file was exported from, got {section!r}")
    for key in ("trial_id", "result_sha256"):
        if not isinstance(section.get(key, ""), str):
            raise InputError(f"{path}: reproduces.{key}: must be str, got {section[key]!r}; put it in quotes")
    return section
