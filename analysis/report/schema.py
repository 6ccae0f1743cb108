"""The layout of findings.json as JSON Schema 2020-12, made from the dataclasses that it is written from.

`findings.schema.json` beside this file is the published one; `python -m analysis.report.schema` writes it anew.
"""

import inspect
import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter

from analysis.findings import NUISANCE, SCHEMA_VERSION, SCIENTIFIC, Findings
from analysis.levels import AMOUNT_VERDICTS, VERDICTS
from analysis.reading.study_terms import CONFIRM, EXPLORE
from analysis.wording import FLOOR_VERDICTS
from trainable.atomic import write_atomically

PUBLISHED = Path(__file__).with_name("findings.schema.json")

WORDS = {
    ("Findings", "phase"): (EXPLORE, CONFIRM),
    ("FactorFinding", "role"): (SCIENTIFIC, NUISANCE),
    ("LevelFinding", "verdict"): ("best", *AMOUNT_VERDICTS.values(), *VERDICTS.values()),
    ("FloorFinding", "verdict"): tuple(FLOOR_VERDICTS),
}
"""Fields that hold one of a few words; a topic's verdicts are its own."""
OBJECTIVE = {
    "metric": {"type": "string"},
    "mode": {"enum": ["max", "min"]},
    "at": {"enum": ["last", "best"]},
    "margin": {"type": "number"},
    "references": {"type": "object", "additionalProperties": {"type": "number"}},
}


def findings_schema() -> dict[str, Any]:
    """The schema of what `Findings.to_mapping` gives; whatever it does not name is not allowed."""
    schema = TypeAdapter(Findings).json_schema(mode="serialization")
    parts = {"Findings": schema, **schema["$defs"]}
    for name, kind in _dataclasses(Findings).items():
        parts[name] |= {"additionalProperties": False, "description": _purpose(kind)}
        for field, text in _attributes(kind).items():
            parts[name]["properties"][field]["description"] = text
    for (name, field), words in WORDS.items():
        parts[name]["properties"][field]["enum"] = list(dict.fromkeys(words))
    schema["properties"]["objective"]["properties"] = OBJECTIVE
    version = {
        "const": SCHEMA_VERSION,
        "description": "Which layout this is: the number at the end of the schema's $id.",
    }
    schema["properties"] = {"schema_version": version, **schema["properties"]}
    schema["required"] = ["schema_version", *schema["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:canopoint:findings:{SCHEMA_VERSION}",
        **schema,
    }


def _dataclasses(kind: type) -> dict[str, type]:
    """Every dataclass that one is made of, itself included, by name."""
    found = {kind.__name__: kind}
    waiting = [get_type_hints(kind)[field.name] for field in fields(kind)]
    while waiting:
        each = waiting.pop()
        waiting += get_args(each)
        if isinstance(each, type) and is_dataclass(each):
            found |= _dataclasses(each)
    return found


def _purpose(kind: type) -> str:
    """The docstring without its list of attributes, on one line."""
    return " ".join(_doc(kind).partition("\nAttributes:")[0].split())


def _attributes(kind: type) -> dict[str, str]:
    """Attribute -> what its docstring says of it, on one line."""
    listed = _doc(kind).partition("\nAttributes:\n")[2]
    pairs = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", listed, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in pairs}


def _doc(kind: type) -> str:
    return inspect.getdoc(kind) or ""


def schema_text() -> str:
    """As it is published."""
    return json.dumps(findings_schema(), indent=2) + "\n"


if __name__ == "__main__":
    write_atomically(PUBLISHED, schema_text().encode())
