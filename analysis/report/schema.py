"""The layout of findings.json as JSON Schema 2020-12, made from the dataclasses that it is written from.

`findings.schema.json` beside this file is the published one; `python -m analysis.report.schema` writes it anew.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from analysis.findings import SCHEMA_VERSION, Findings
from trainable.atomic import write_atomically

PUBLISHED = Path(__file__).with_name("findings.schema.json")


def findings_schema() -> dict[str, Any]:
    """The schema of what `Findings.to_mapping` gives; whatever it does not name is not allowed."""
    schema = TypeAdapter(Findings).json_schema(mode="serialization")
    for part in (schema, *schema["$defs"].values()):
        part["additionalProperties"] = False
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


def schema_text() -> str:
    """As it is published."""
    return json.dumps(findings_schema(), indent=2) + "\n"


if __name__ == "__main__":
    write_atomically(PUBLISHED, schema_text().encode())
