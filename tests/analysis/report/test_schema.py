import json

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
    ],
)
def test_anything_else_is_refused_at_its_place(validator, content, change, place):
    change(content)
    assert [list(error.absolute_path) for error in validator.iter_errors(content)] == [place]
