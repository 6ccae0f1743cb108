"""The shape of what a run says of its data: anyone may have written it, and reports read it as ours would be."""

from collections.abc import Callable, Iterator
from typing import Any

from analysis.reading.study_terms import is_finite

TEXTS = ("source", "annotations")


def data_problem(data: dict[str, Any]) -> str:
    """The first part of `config.data` that a reader would stumble over; empty where there is none."""
    if not isinstance(data.get("fingerprint"), str):
        return "config.data.fingerprint: must be text"
    return next((f"config.data.{rule}" for rule, holds in _rules(data) if not holds), "")


def once_each(problem: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    """The same, which looks at each object once: the configs of ten thousand runs share what is equal."""
    seen: dict[int, tuple[dict[str, Any], str]] = {}

    def ask(content: dict[str, Any]) -> str:
        if id(content) not in seen:
            seen[id(content)] = (content, problem(content))  # kept, lest another object take its place
        return seen[id(content)][1]

    return ask


def _rules(data: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Each rule, and whether it holds; what is not there breaks none."""
    splits, floors = data.get("splits", {}), data.get("floors", {})
    yield from ((f"{name}: must be text", isinstance(data.get(name, ""), str)) for name in TEXTS)
    yield "splits: must be sections by name", _are_sections(splits)
    yield "splits: scenes must be a list of names", all(_are_names(each.get("scenes", [])) for each in splits.values())
    counts = [each[name] for each in splits.values() for name in ("num_images", "num_labelled") if name in each]
    yield "splits: numbers of images must be numbers", all(map(is_finite, counts))
    yield "forest_share: must be numbers by split", _are_numbers(data.get("forest_share", {}))
    yield "floors: must be sections by name", _are_sections(floors)
    yield "floors: must hold numbers by metric", all(map(_are_numbers, floors.values()))
    yield "class_names: must be a list of names", _are_names(data.get("class_names", []))
    yield "warnings: must be a list of texts", _are_names(data.get("warnings", []))


def _are_sections(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, dict) for each in value.values())


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(is_finite, value.values()))


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
