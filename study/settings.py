"""What a study file may say of TrainConfig's settings, one by one; a whole TrainConfig is made for every trial."""

import functools
import typing
from dataclasses import fields

from study.sections import Parameter
from trainable.config import InputError, TrainConfig, check_name, check_value

RUN_SETTINGS = {
    "seed": "search.seeds",
    "device": "resources",
    "num_threads": "resources",
    "evaluate_test": "confirm",
}
"""TrainConfig fields that another section decides, not `training` or `parameters`."""

SETTINGS = tuple(name for name in TrainConfig.__dataclass_fields__ if name not in RUN_SETTINGS)
WITH_GAPS = ("image_size",)  # a multiple of 32
"""Numbers of which a run cannot have every one between two that it can have."""


def check_setting(name: str, value: object, where: str) -> None:
    """Refuses a setting that a study may not make, or a value that it cannot take.

    Raises:
        InputError: names the field, the rule and the value or the nearest name.
    """
    _check_name(name, where)
    check_value(TrainConfig, name, value, where)


def check_parameter(name: str, parameter: Parameter) -> None:
    """Refuses a factor whose levels, or ends of its range, are none of the setting it varies.

    Raises:
        InputError: names the field, the rule and the value.
    """
    where = f"parameters.{name}"
    _check_name(name, where)
    if name == "points_seed" and parameter.role == "nuisance":
        raise InputError(
            f"{where}: must not have role: nuisance, as the draw of points that is chosen is the luckiest one; give it"
            f" role: scientific to tell points from weights, or fix it under training"
        )
    if parameter.values is not None:
        for value in parameter.values:
            check_value(TrainConfig, name, value, where)
        return
    if not takes_a_range(name):
        raise InputError(
            f"{where}: a run cannot have every number from {parameter.min} to {parameter.max} as its {name};"
            f" list values in place of min and max"
        )
    check_value(TrainConfig, name, parameter.min, f"{where}.min")
    check_value(TrainConfig, name, parameter.max, f"{where}.max")


@functools.cache
def number_type(name: str) -> type[int] | type[float] | None:
    """The number that a setting is, or may be where it may also be a word; None where it is none."""
    hint = typing.get_type_hints(TrainConfig)[name]
    options = typing.get_args(hint) or (hint,)
    return int if int in options else float if float in options else None


def takes_a_range(name: str) -> bool:
    """Whether a run can have every number between two that it can have as this setting."""
    (spec,) = (each for each in fields(TrainConfig) if each.name == name)
    has_choices = any(isinstance(choice, int) for choice in spec.metadata["choices"] or ())
    return number_type(name) is not None and not has_choices and name not in WITH_GAPS


def _check_name(name: str, where: str) -> None:
    if name in RUN_SETTINGS:
        raise InputError(f"{where}: set by {RUN_SETTINGS[name]}; remove it here")
    check_name(name, SETTINGS, where, "training setting")
