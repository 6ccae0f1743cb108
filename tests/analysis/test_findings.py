import json

import numpy as np

from analysis.find import find


def test_findings_are_plain_json_with_a_version(make_study):
    mapping = find(make_study()).to_mapping()
    assert mapping == json.loads(json.dumps(mapping, allow_nan=False))
    assert mapping["schema_version"] == "1"
    assert mapping["factors"][0]["levels"][0]["difference"]["num_seeds"] == 3


def test_numpy_levels_become_plain_numbers(make_study, cells):
    levels = {type(level) for cell in find(make_study()).cells for level in cell.parameters.values()}
    assert levels <= {int, float}
    assert not levels & {np.int64, np.float64}
