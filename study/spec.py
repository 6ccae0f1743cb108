"""StudySpec: the study file as checked models.

    study: point-budget
    data: {root: data/forest}
    training: {encoder: resnet50, epochs: 10}
    parameters:
      points_per_image: {role: scientific, values: [10, 50]}
      learning_rate: {role: nuisance, values: [1e-3, 1e-4]}
    search: {method: grid, seeds: [0, 1, 2]}

Scientific factors carry the question and are never optimised away; nuisance factors are chosen anew at each of their
levels. Everything not named keeps TrainConfig's default.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from study.explain import explain
from study.yaml_file import parse_yaml, read_yaml
from trainable.config import (
    FLOOR_NAMES,
    METRIC_NAMES,
    DataConfig,
    InputError,
    TrainConfig,
    check_name,
    check_value,
    from_mapping,
    known_or_nearest,
)

CATALOG = Path(__file__).parent / "catalog"
SETTINGS = tuple(TrainConfig.__dataclass_fields__)
RUN_SETTINGS = ("seed", "device", "num_threads")
"""TrainConfig fields that `search.seeds` and `resources` decide, not `training` or `parameters`."""

METRICS = tuple(f"val/{prefix}{name}" for prefix in ("", "image_") for name in METRIC_NAMES)
Value = bool | int | float | str


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Parameter(_Section):
    """What varies: a factor with its role and levels."""

    role: Literal["scientific", "nuisance"]
    values: list[Value] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _levels_differ(self) -> "Parameter":
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"values: each level stands once, got {self.values}")
        return self


class Search(_Section):
    """How settings are proposed, and the seed blocks in which every cell is run."""

    method: Literal["grid"] = "grid"
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 1, 2], min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _seeds_differ(self) -> "Search":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: each seed stands once, got {self.seeds}")
        return self


class Objective(_Section):
    """The one metric that search, table, findings and export use, and the epoch it is read at.

    `margin` is the difference that the user calls negligible, in units of the metric. `references` are known results of
    others on these data, name -> value: the report says whether the networks beat them, as it does of the floors.
    """

    metric: str = "val/miou"
    mode: Literal["max"] = "max"  # every metric here is better when larger
    at: Literal["last"] = "last"  # the epoch whose weights are kept
    margin: float = Field(default=0.01, ge=0, le=1)
    references: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")], Annotated[float, Field(ge=0, le=1)]] = {}

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"no such metric, got {metric}{known_or_nearest(metric, METRICS)}")
        return metric


class Resources(_Section):
    """What one trial gets. Threads of torch are pinned to `cpus_per_trial`."""

    cpus_per_trial: int = Field(default=1, ge=1, le=1024)
    gpus_per_trial: float = Field(default=0.0, ge=0, le=64)
    max_concurrent: int | None = Field(default=None, ge=1)

    @field_validator("gpus_per_trial")
    @classmethod
    def _gpus_are_schedulable(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"a share of one GPU or whole GPUs, got {gpus:g}")
        return gpus


class Tracking(_Section):
    """The W&B mirror: `offline` writes run files, `online` also sends them."""

    project: str = Field(default="canopoint", pattern=r"^[A-Za-z0-9._-]{1,128}$")
    mode: Literal["offline", "online"] = "offline"


def _data(value: object) -> object:
    return value if isinstance(value, DataConfig) else from_mapping(DataConfig, value, "data")


def _training(value: object) -> object:
    """The fixed settings, each checked by itself; a whole TrainConfig is made for every cell."""
    if not isinstance(value, dict):
        raise ValueError(f"must be a mapping of settings, got {value!r}")
    for name, setting in value.items():
        _check_setting(str(name), setting, f"training.{name}")
    return value


class StudySpec(_Section):
    """A study: the question, and all that is needed to answer it again."""

    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    data: Annotated[DataConfig, BeforeValidator(_data)]
    training: Annotated[dict[str, Value], BeforeValidator(_training)] = {}
    parameters: dict[str, Parameter] = Field(min_length=1)
    search: Search = Search()
    objective: Objective = Objective()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    storage: str = Field(default="studies", min_length=1)

    @model_validator(mode="after")
    def _parameters_fit(self) -> "StudySpec":
        for name, parameter in self.parameters.items():
            where = f"parameters.{name}"
            for value in parameter.values:
                _check_setting(name, value, where)
            if name in self.training:
                raise InputError(f"{where}: also fixed under training; keep one of the two")
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
        """Where the study lives."""
        return Path(self.storage) / self.study

    def to_mapping(self) -> dict[str, Any]:
        """The study as plain values, defaults written out."""
        return {**self.model_dump(exclude={"data"}), "data": asdict(self.data)}


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
    try:
        return StudySpec.model_validate(mapping)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error, StudySpec)}") from error


def find_study(name: str) -> Path:
    """The path of a study file: a path as given, or a name of the catalog."""
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml"):
        raise InputError(f"{path}: no such file")
    names = sorted(entry.stem for entry in CATALOG.glob("*.yaml"))
    check_name(name, names, f"{name}: no such file, and in the catalog", "study")
    return CATALOG / f"{name}.yaml"


def _check_setting(name: str, value: object, where: str) -> None:
    if name in RUN_SETTINGS:
        section = "search.seeds" if name == "seed" else "resources"
        raise InputError(f"{where}: set by {section}; remove it here")
    check_name(name, [setting for setting in SETTINGS if setting not in RUN_SETTINGS], where, "training setting")
    check_value(TrainConfig, name, value, where)


def _apply_override(mapping: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not all(path.split(".")):
        raise InputError(f"--set {override}: must be a.b=value, as in training.epochs=2")
    *sections, last = path.split(".")
    for section in sections:
        mapping = mapping.setdefault(section, {})
        if not isinstance(mapping, dict):
            raise InputError(f"--set {override}: {section} is a value, not a section")
    mapping[last] = parse_yaml(text, f"--set {path}")
