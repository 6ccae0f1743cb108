"""A pydantic error in one line that a user understands: field, rule, value, remedy."""

import re
from typing import Any

from pydantic import BaseModel, ValidationError

from trainable.config import InputError, known_or_nearest

_RULES = {
    "missing": "is missing",
    "too_short": "must have at least 1 item",
    "too_long": "has too many items",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "string_pattern_mismatch": "must be a short name of letters, digits, dots, dashes and underscores",
}
_MEMBERS = ("bool", "int", "float", "str")
_MAX_VALUE = 60


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a ValidationError of `model`."""
    problems = error.errors(include_url=False)
    # A mistyped key explains the key that is missing, not the other way round.
    problem: Any = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    # Pydantic names the member of a union last, and has a problem for each of them.
    is_member = problem["loc"][-1:] and problem["loc"][-1] in _MEMBERS
    location = problem["loc"][:-1] if is_member else problem["loc"]
    members = {each["loc"][-1] for each in problems if is_member and each["loc"][:-1] == location}
    place = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        return f"{place}: no such key{known_or_nearest(str(location[-1]), _keys_at(model, location[:-1]))}"
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InputError) and re.split(r"[.:]", str(cause))[0] in model.model_fields:
        return str(cause)  # names its place by itself
    message = str(cause) if cause else _rule(problem, members)
    return f"{place}: {message}" if place else message


def _rule(problem: Any, members: set[Any]) -> str:
    kind, text = problem["type"], str(problem["msg"])
    rule = _RULES.get(kind) or text.replace("Input should be", "must be").replace("a valid ", "a ")
    if members and kind != "finite_number":
        rule = "must be a number" if "str" not in members else "must be a number, a word, true or false"
    return rule if kind == "missing" else f"{rule}, got {_short(problem['input'])}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}..."


def _keys_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys that a section allows; of a mapping of sections, those of each."""
    for part in location:
        if part in model.model_fields:  # else it is a name of the user's, as a factor is
            annotation: Any = model.model_fields[part].annotation
            sections = (annotation, *getattr(annotation, "__args__", ()))  # of a mapping or union, its members
            model = next(each for each in sections if hasattr(each, "model_fields"))
    return list(model.model_fields)
