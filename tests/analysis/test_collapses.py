import pytest

from analysis.find import find

BLOCKS = [0.60, 0.70, 0.65, 0.72]
NEAR = [0.001, -0.002, 0.002, 0.0]


def rows(first, second=(0.0, 0.0, 0.0, 0.0), sign=1):
    return {
        10: [sign * (block + own) for block, own in zip(BLOCKS, first, strict=True)],
        50: [sign * (block + own) for block, own in zip(BLOCKS, second, strict=True)],
    }


def collapses(findings):
    return [caveat.text for caveat in findings.caveats if caveat.kind == "collapse"]


@pytest.mark.parametrize(("mode", "sign"), [("max", 1), ("min", -1)])
def test_one_run_that_collapses_is_named_though_seeds_shift_all_levels_as_much(points_study, mode, sign):
    objective = {"metric": "val/miou", "mode": mode, "at": "last", "margin": 0.01}
    findings = points_study(rows([0.001, -0.15, 0.002, 0.0], NEAR, sign), objective=objective)
    assert collapses(findings) == [
        "Far out: points per image 10 at seed 1; few seeds cannot tell how often a run collapses."
    ]


@pytest.mark.parametrize("first", [NEAR, [-0.2, -0.2, -0.2, -0.2], [-0.15, 0.1, 0.2, -0.1], [0.001, -0.02, 0.0, 0.0]])
def test_neither_a_worse_level_nor_noise_nor_what_is_near_the_margin_is_a_collapse(points_study, first):
    assert collapses(points_study(rows(first, NEAR[::-1]))) == []


def test_of_a_single_level_nothing_is_said(make_study):
    assert collapses(find(make_study({(10, 0.001, 0.0): [0.6, 0.2, 0.6]}))) == []
