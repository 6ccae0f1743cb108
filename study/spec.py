"""StudySpec: the study file as checked models.

    study: point-budget
    data: {root: data/forest}
    training: {encoder: resnet50, epochs: 10}
    parameters:
      points_per_image: {role: scientific, values: [10, 50]}
      learning_rate: {role: nuisance, min: 1e-5, max: 1e-2, scale: log}
      focal_gamma: {role: nuisance, values: [0, 2]}
    search: {method: optuna, trials_per_level: 24, seeds: [0]}
    confirm: {seeds: [100, 101, 102]}

Scientific factors carry the question and are never optimised away; nuisance factors are chosen anew at each of their
levels, and the choice is confirmed on fresh seeds. Everything not named keeps TrainConfig's default.
"""

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from study.explain import explain
from study.secrets import refuse_secrets
from study.sections import (
    MAX_TRIALS,
    METRICS,
    Budget,
    Confirm,
    Effort,
    Failures,
    Objective,
    Parameter,
    Resources,
    Search,
    Section,
    Tracking,
    Value,
)
from study.settings import check_parameter, check_setting
from study.yaml_file import parse_yaml, read_yaml
from trainable.config import FLOOR_NAMES, DataConfig, InputError, TrainConfig, check_name, from_mapping
from trainable.storage_url import check_storage, is_url, working_copy

__all__ = [
    "CATALOG", "METRICS", "Objective", "Parameter", "Resources", "StudySpec", "Value",
    "find_study", "load_study", "parse_study",
]  # fmt: skip

CATALOG = Path(__file__).parent / "catalog"


def _data(value: object) -> object:
    return value if isinstance(value, DataConfig) else from_mapping(DataConfig, value, "data")


def _training(value: object) -> object:
    """The fixed settings, each checked by itself; a whole TrainConfig is made for every cell."""
    if not isinstance(value, dict):
        raise ValueError(f"must be a mapping of settings, got {value!r}")
    for name, setting in value.items():
        check_setting(str(name), setting, f"training.{name}")
    return value


def _storage(value: object) -> object:
    if isinstance(value, str):
        check_storage(value, "storage")
    return value


class StudySpec(Section):
    """A study: the question, and all that is needed to answer it again."""

    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    data: Annotated[DataConfig, BeforeValidator(_data)]
    training: Annotated[dict[str, Value], BeforeValidator(_training)] = Field(default={})
    parameters: dict[str, Parameter] = Field(min_length=1)
    search: Search = Search()
    confirm: Confirm | None = None
    budget: Budget = Budget()
    failures: Failures = Failures()
    objective: Objective = Objective()
    effort: Effort = Effort()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    storage: Annotated[str, BeforeValidator(_storage)] = Field(default="studies", min_length=1)

    @model_validator(mode="after")
    def _parameters_fit(self) -> "StudySpec":
        for name, parameter in self.parameters.items():
            check_parameter(name, parameter)
            if name in self.training:
                raise InputError(f"parameters.{name}: also fixed under training; keep one of the two")
        return self

    @model_validator(mode="after")
    def _search_fits(self) -> "StudySpec":
        for name, parameter in self.parameters.items():
            if self.search.method == "grid" and parameter.is_range:
                raise InputError(
                    f"parameters.{name}: a grid needs values, got a range from {parameter.min} to {parameter.max}; list"
                    f" them, or set search.method to random, quasi_random or optuna"
                )
        points = self.parameters.get("points_per_image")
        if self.search.method == "optuna_pareto" and (points is None or points.role != "nuisance"):
            raise InputError(
                "search.method: optuna_pareto weighs the metric against annotation effort and searches"
                " points_per_image too; make it a parameter with role: nuisance, or choose another method"
            )
        return self

    @model_validator(mode="after")
    def _search_is_not_too_long(self) -> "StudySpec":
        scientific = [each.values or [] for each in self.parameters.values() if each.role == "scientific"]
        counts = (math.prod(map(len, scientific)), self.search.trials_per_level or 0, len(self.search.seeds))
        if math.prod(counts) > MAX_TRIALS:
            raise InputError(
                f"search: {counts[0]} levels x {counts[1]} settings x {counts[2]} seeds are {math.prod(counts)} trials;"
                f" at most {MAX_TRIALS}; lower trials_per_level, or give fewer levels or seeds"
            )
        return self

    @model_validator(mode="after")
    def _scheduler_can_stop(self) -> "StudySpec":
        scheduler, grace = self.search.scheduler, self.search.grace_epochs
        varied = self.parameters.get("epochs")
        if scheduler == "none":
            return self
        if varied and varied.role == "nuisance":
            raise InputError(
                f"search.scheduler: {scheduler} compares trials epoch by epoch, and parameters.epochs makes them"
                f" differ in length; set it to none, or fix epochs under training"
            )
        fixed = self.training.get("epochs", TrainConfig.epochs)
        fewest = min(int(each) for each in (varied and varied.values) or [fixed])
        if grace >= fewest:
            raise InputError(
                f"search.grace_epochs: must be less than the {fewest} epochs of a trial, got {grace}; otherwise"
                f" {scheduler} stops none: train for more epochs, or set search.scheduler to none"
            )
        return self

    @model_validator(mode="after")
    def _seeds_of_confirmation_are_fresh(self) -> "StudySpec":
        if self.confirm and (used := sorted(set(self.confirm.seeds) & set(self.search.seeds))):
            raise InputError(
                f"confirm.seeds: {used[0]} is one of search.seeds too, by which winners are chosen; give fresh seeds"
            )
        return self

    @model_validator(mode="after")
    def _objective_fits(self) -> "StudySpec":
        if taken := sorted(self.objective.references.keys() & set(FLOOR_NAMES)):
            raise InputError(f"objective.references.{taken[0]}: is the name of a floor; choose another")
        if self.data.annotations and self.objective.metric.endswith("boundary_f1"):
            raise InputError(
                f"objective.metric: {self.objective.metric} needs masks, and the data hold points made by people"
                f" (data.annotations); use val/miou"
            )
        return self

    @property
    def folder(self) -> Path:
        """Where the study lives; of one that lives in an object store, the local copy that a driver works in."""
        storage = working_copy(self.storage) if is_url(self.storage) else Path(self.storage)
        return storage / self.study

    @property
    def url(self) -> str:
        """Where the study lives, if that is an object store; else empty."""
        return f"{self.storage.rstrip('/')}/{self.study}" if is_url(self.storage) else ""

    def to_mapping(self) -> dict[str, Any]:
        """The study as plain values, defaults written out; a factor has either values or a range."""
        parameters = {name: each.model_dump(exclude_defaults=True) for name, each in self.parameters.items()}
        return {**self.model_dump(exclude={"data"}), "data": asdict(self.data), "parameters": parameters}


def load_study(name: str, overrides: list[str]) -> StudySpec:
    """Reads a study file, or one of the catalog by its name, with `a.b=value` overrides.

    Raises:
        InputError: one line with the file, the field, the rule and the nearest valid name.
    """
    path = find_study(name)
    mapping = read_yaml(path)
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: must be a mapping of sections (study, data, parameters, ...)")
    for override in overrides:
        _apply_override(mapping, override)
    return parse_study(mapping, str(path))


def parse_study(mapping: dict[str, Any], where: str) -> StudySpec:
    """Checks a study given as plain values; `where` begins every error."""
    refuse_secrets(mapping, where)  # before any other message could show one
    try:
        return StudySpec.model_validate(mapping)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error, StudySpec)}") from error


def find_study(name: str) -> Path:
    """The path of a study file: a path as given, or a name of the catalog."""
    path = Path(name)
    if os.path.isfile(path):  # Path.is_file raises where no file could have such a name
        return path
    if path.suffix in (".yaml", ".yml"):
        raise InputError(f"{path}: no such file")
    names = sorted(entry.stem for entry in CATALOG.glob("*.yaml"))
    check_name(name, names, f"{name}: no such file, and in the catalog", "study")
    return CATALOG / f"{name}.yaml"


def _apply_override(mapping: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    refuse_secrets({path: text}, "--set")
    if not separator or not all(path.split(".")):
        raise InputError(f"--set {override}: must be a.b=value, as in training.epochs=2")
    *sections, last = path.split(".")
    for section in sections:
        mapping = mapping.setdefault(section, {})
        if not isinstance(mapping, dict):
            raise InputError(f"--set {override}: {section} is a value, not a section")
    mapping[last] = parse_yaml(text, f"--set {path}")
