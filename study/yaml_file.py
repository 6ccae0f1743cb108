"""YAML as a study file means it: `1e-3` is a number, `off` a word, a key stands once, nothing is an alias or a date."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from trainable.config import InputError

MAX_BYTES = 100_000
MAX_DEPTH = 20

# PyYAML follows YAML 1.1, where 1e-3 lacks a point and is text, 010 is eight, 1:30 is ninety and off is false.
_FLOAT = r"""[-+]?\d[\d_]*(?:\.\d*)?[eE][-+]?\d+ | [-+]?(?:\d[\d_]*)?\.\d+(?:[eE][-+]?\d+)? | [-+]?\d[\d_]*\.
    | [-+]?\.inf | \.nan"""
_INT = r"[-+]?(?:0|[1-9][\d_]*)"
_SCALARS = {
    "tag:yaml.org,2002:float": (_FLOAT, "-+0123456789."),
    "tag:yaml.org,2002:int": (_INT, "-+0123456789"),
    "tag:yaml.org,2002:bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
}


class StudyLoader(yaml.SafeLoader):
    """PyYAML's safe loader without its traps."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuses aliases and deep nesting: a small file could expand without end, and a study needs neither."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            _refuse("aliases (*name) are not allowed", mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            _refuse(f"nested more than {MAX_DEPTH} deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Names the line of a value that its tag does not fit."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError, IndexError, TypeError) as error:
            raise _problem(f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}", node.start_mark) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Refuses a key that stands twice; PyYAML would let the last one win."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                _refuse(f"the key {key!r} is not a name", key_node.start_mark)
            if key in seen:
                _refuse(f"{key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def refuse_date(self, node: yaml.ScalarNode) -> NoReturn:
        """Nothing in a study is a date, and PyYAML takes `2020-01-02` for one."""
        _refuse(f"{node.value} is a date; put it in quotes", node.start_mark)


class StudyDumper(yaml.SafeDumper):
    """Puts text in quotes where `StudyLoader`, or any reader of YAML 1.1, would read a number."""


def _teach_scalars() -> None:
    StudyLoader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _SCALARS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for tool in (StudyLoader, StudyDumper):
        for tag, (pattern, first) in _SCALARS.items():
            tool.add_implicit_resolver(tag, re.compile(f"^(?:{pattern})$", re.VERBOSE), list(first))


_teach_scalars()
StudyLoader.add_constructor("tag:yaml.org,2002:timestamp", StudyLoader.refuse_date)


def parse_yaml(text: str, where: str) -> Any:
    """The value that a YAML text holds.

    Raises:
        InputError: not YAML as we allow it, with the line.
    """
    try:
        return yaml.load(text, Loader=StudyLoader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{where}:{line or ' not YAML'}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: not YAML: {str(error).splitlines()[0]}") from error


def to_yaml(value: object) -> str:
    """YAML that `parse_yaml` reads back as the same value, keys in their order."""
    return yaml.dump(value, Dumper=StudyDumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> Any:
    """Reads a YAML file of a sane size.

    Raises:
        InputError: no such file, too large, not text, or not YAML as we allow it.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES} bytes; a study file is a page of text")
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    return parse_yaml(text, str(path))


def _problem(text: str, mark: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, text, mark)


def _refuse(text: str, mark: Any) -> NoReturn:
    raise _problem(text, mark)
