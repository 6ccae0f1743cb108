"""Reading YAML as a study file means it: `1e-3` is a number, a key stands once, nothing is an alias or an object."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from trainable.config import InputError

MAX_BYTES = 1_000_000
_FLOAT = r"[-+]?(?:\d[\d_]*)(?:\.\d*)?(?:[eE][-+]?\d+)|[-+]?(?:\d[\d_]*)?\.\d+(?:[eE][-+]?\d+)?|[-+]?\d[\d_]*\."


class StudyLoader(yaml.SafeLoader):
    """PyYAML's safe loader without its traps."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuses aliases: nested ones make a small file expand without end, and a study needs none."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Refuses a key that stands twice; PyYAML would let the last one win."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in seen:
                problem = f"{key!r} stands twice" if key in seen else f"the key {key!r} is not a name"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# PyYAML follows YAML 1.1, where 1e-3 lacks a point and is a string.
StudyLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT})$"), list("-+0123456789."))


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


def read_yaml(path: Path) -> Any:
    """Reads a YAML file of a sane size."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES} bytes; a study file is a page of text")
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    return parse_yaml(text, str(path))
