import json

import numpy as np

from analysis.find import find


def test_findings_are_plain_json_with_a_version(make_study):
    mapping = find(make_study()).to_mapping()
    assert mapping == json.loads(json.dumps(mapping, allow_nan=False))
    assert mapping["schema_version"] == "4"
    assert mapping["factors"][0]["levels"][0]["difference"]["num_seeds"] == 3


def test_numpy_levels_become_plain_numbers(make_study, cells):
    levels = {type(level) for cell in find(make_study()).cells for level in cell.parameters.values()}
    assert levels <= {int, float}
    assert not levels & {np.int64, np.float64}


def test_floors_not_beaten_are_those_that_may_be_better(make_study):
    # The recommended 50 points reach .71 [.685, .735].
    floors = {name: {"val/miou": value} for name, value in (("low", 0.3), ("inside", 0.7), ("high", 0.8))}
    findings = find(make_study(data={"source": "x", "floors": floors}))
    assert [floor.name for floor in findings.floors_not_beaten()] == ["inside", "high"]
