"""Spec -> levels, cells, trials: what a study consists of, each trial with an identity."""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from study.secrets import refuse_secrets
from study.sections import MAX_TRIALS
from study.settings import check_setting
from study.spec import Parameter, StudySpec, Value, find_study, load_study
from study.yaml_file import parse_yaml
from trainable.config import TRAINER_VERSION, InputError, TrainConfig, check_compatible, from_mapping

MAX_CORNERS = 5_000  # some seconds to check

Cell = dict[str, Value]
"""Factor -> level. A cell names all factors, a scientific level the scientific ones, a setting the nuisance ones."""

Phase = Literal["explore", "confirm"]


@dataclass(frozen=True)
class Trial:
    """Cell x seed: one training run.

    Attributes:
        trial_id: 12 hex digits; same id, same result.
        parameters: the cell: the level of each factor.
        group: trials that a scheduler may compare with this one; empty where it must be left alone.
    """

    trial_id: str
    parameters: Cell
    config: TrainConfig
    phase: Phase
    group: str

    @property
    def name(self) -> str:
        """What a person calls the trial."""
        return " ".join([*(f"{name}={value}" for name, value in self.parameters.items()), f"seed={self.config.seed}"])


def open_study(name: str, overrides: list[str]) -> StudySpec:
    """Reads a study file, or one of the catalog by its name, and checks that a run can have what it asks for.

    Raises:
        InputError: one line with the file, the field, the rule and the remedy.
    """
    spec = load_study(name, overrides)
    try:
        for cell in _cells_to_check(spec):
            make_config(spec, cell, seed=0)
    except InputError as error:
        raise InputError(f"{find_study(name)}: {error}") from error
    return spec


def list_levels(spec: StudySpec) -> list[Cell]:
    """Every combination of scientific levels, in the order of the file; one without names where no factor is one."""
    return _product({name: each.values or [] for name, each in spec.parameters.items() if each.role == "scientific"})


def nuisance_factors(spec: StudySpec) -> dict[str, Parameter]:
    """The factors that are searched at each scientific level."""
    return {name: each for name, each in spec.parameters.items() if each.role == "nuisance"}


def list_cells(spec: StudySpec) -> list[Cell]:
    """Every cell of a grid, in the order of the file.

    Raises:
        InputError: more trials than anybody means to run.
    """
    values = {name: parameter.values or [] for name, parameter in spec.parameters.items()}
    num_trials = math.prod(map(len, values.values())) * len(spec.search.seeds)
    if num_trials > MAX_TRIALS:
        raise InputError(
            f"parameters: the grid has {num_trials} trials; at most {MAX_TRIALS}; give fewer levels or seeds"
        )
    return _product(values)


def make_config(spec: StudySpec, cell: Mapping[str, Value], seed: int, *, evaluate_test: bool = False) -> TrainConfig:
    """The settings of one training run.

    Raises:
        InputError: a combination of levels that no run can have.
    """
    device = "cuda" if spec.resources.gpus_per_trial else "cpu"
    placed = {"device": device, "num_threads": spec.resources.cpus_per_trial, "evaluate_test": evaluate_test}
    config = from_mapping(TrainConfig, {**spec.training, **cell, **placed, "seed": seed}, "training")
    check_compatible(config, spec.data)
    return config


def make_trial(spec: StudySpec, fingerprint: str, cell: Cell, seed: int, phase: Phase = "explore") -> Trial:
    """The trial of a cell at a seed, on the data of that fingerprint."""
    config = make_config(spec, cell, seed, evaluate_test=phase == "confirm")
    # Trials of one seed block and one scientific level: the same points, the same question.
    group = f"{level_name(level_of(spec, cell))} seed={seed}".strip() if phase == "explore" else ""
    return Trial(trial_id(config, fingerprint), dict(cell), config, phase, group)


def initial_weights(spec: StudySpec) -> list[TrainConfig]:
    """A config for each encoder and each initial weights that a trial of the study may have."""
    factors = {name: _extremes(each) for name, each in spec.parameters.items()}
    choices = {name: values for name, values in factors.items() if name in ("encoder", "weights")}
    first = {name: values[0] for name, values in factors.items()}
    return [make_config(spec, {**first, **choice}, seed=0) for choice in _product(choices)]


def longest_training(spec: StudySpec) -> int:
    """Epochs of the study's longest trial."""
    parameter = spec.parameters.get("epochs")
    if parameter is None:
        return int(spec.training.get("epochs", TrainConfig().epochs))
    return max(int(value) for value in _extremes(parameter))


def most_train_images(spec: StudySpec) -> int | None:
    """The most labelled images that a trial of the study asks for; None where all take what there is."""
    parameter = spec.parameters.get("train_images")
    asked = _extremes(parameter) if parameter else [spec.training.get("train_images")]
    return max((int(number) for number in asked if number is not None), default=None)


def read_cell(spec: StudySpec, text: str) -> Cell:
    """A cell as a user types it, as in `{points_per_image: 50, learning_rate: 1e-3}`.

    Raises:
        InputError: it does not name each parameter once, or a run cannot have such a level.
    """
    refuse_secrets(text, "--cell")
    cell = parse_yaml(text, "--cell")
    if not isinstance(cell, dict) or cell.keys() != spec.parameters.keys():
        raise InputError(f"--cell {text}: must give each of {', '.join(spec.parameters)}, as in '{{name: value, ...}}'")
    ordered = {name: cell[name] for name in spec.parameters}
    for name, value in ordered.items():
        check_setting(name, value, f"--cell: {name}")
    make_config(spec, ordered, seed=0)
    return ordered


def level_of(spec: StudySpec, cell: Cell) -> Cell:
    """The scientific level that a cell belongs to."""
    return {name: value for name, value in cell.items() if spec.parameters[name].role == "scientific"}


def level_name(level: Cell) -> str:
    """What a person calls a level."""
    return " ".join(f"{name}={value}" for name, value in level.items())


def trial_id(config: TrainConfig, fingerprint: str) -> str:
    """The trial's content address: a hash of all settings, the data and the trainer's version."""
    identity = {"training": config.to_mapping(), "data": fingerprint, "trainer_version": TRAINER_VERSION}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _cells_to_check(spec: StudySpec) -> list[Cell]:
    """Every cell of a grid; of a searched space the corners, or where these are many, each of their values once."""
    if spec.search.method == "grid":
        return list_cells(spec)
    corners = {name: _extremes(each) for name, each in spec.parameters.items()}
    if math.prod(map(len, corners.values())) <= MAX_CORNERS:
        return _product(corners)
    values = {name: _extremes(each) for name, each in nuisance_factors(spec).items()}
    middle = {name: each[0] for name, each in values.items()}
    settings = [middle, *({**middle, name: value} for name, each in values.items() for value in each[1:])]
    return [{**level, **setting} for level in list_levels(spec) for setting in settings]


def _extremes(parameter: Parameter) -> list[Value]:
    """Every value, or both ends of a range."""
    return parameter.values or [end for end in (parameter.min, parameter.max) if end is not None]


def _product(values: Mapping[str, list[Value]]) -> list[Cell]:
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]
