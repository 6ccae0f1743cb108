import json
import re

import jsonschema
import pytest

from analysis.findings import SCHEMA_VERSION
from analysis.report.schema import PUBLISHED, schema_text


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def content(everything):
    folder, _, _ = everything
    return json.loads((folder / "analysis" / "findings.json").read_text(encoding="utf-8"))


def test_the_published_schema_is_that_of_the_code():
    assert PUBLISHED.read_text(encoding="utf-8") == schema_text(), "run: python -m analysis.report.schema"


def test_findings_are_as_the_schema_says(validator, content):
    assert content["topics"]
    assert content["confirmed"]
    assert content["excluded"]
    assert list(validator.iter_errors(content)) == []
    assert validator.schema["$id"] == f"urn:canopoint:findings:{content['schema_version']}"
    assert content["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda c: c.pop("headline"), []),
        (lambda c: c.update(surprise=1), []),
        (lambda c: c.update(schema_version="3"), ["schema_version"]),
        (lambda c: c["recommended"]["value"].update(value="high"), ["recommended", "value", "value"]),
        (lambda c: c["topics"][0]["claims"][0].pop("run_ids"), ["topics", 0, "claims", 0]),
        (lambda c: c.update(phase="later"), ["phase"]),
        (lambda c: c["objective"].update(mode="maximum"), ["objective", "mode"]),
        (lambda c: c["factors"][0].update(role="main"), ["factors", 0, "role"]),
        (lambda c: c["factors"][0]["levels"][0].update(verdict="fine"), ["factors", 0, "levels", 0, "verdict"]),
        (lambda c: c["floors"][0].update(verdict="fine"), ["floors", 0, "verdict"]),
    ],
)
def test_anything_else_is_refused_at_its_place(validator, content, change, place):
    change(content)
    assert [list(error.absolute_path) for error in validator.iter_errors(content)] == [place]


def test_descriptions_are_of_one_thing_each_and_name_no_code(validator):
    parts = [validator.schema, *validator.schema["$defs"].values()]
    texts = [part["description"] for part in parts]
    texts += [field["description"] for part in parts for field in part["properties"].values() if "description" in field]
    assert len(texts) > 50
    for text in texts:
        assert "\n" not in text
        assert "Attributes:" not in text
        assert not set(validator.schema["$defs"]) & set(re.findall(r"`(\w+)[.`]", text))
    described = validator.schema["$defs"]["Arm"]["properties"]["explored"]["description"]
    assert described.startswith("of a confirmed arm, what exploration had read")
