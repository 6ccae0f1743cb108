import numpy as np

from analysis.find import find
from analysis.tried import MOST_TRIED

RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
REASON = "chosen among 7 settings on the same seeds, and not confirmed"


def cells_of(num_settings):
    """Two counts; each setting far behind the first, and the first count far behind the second."""
    rng = np.random.default_rng(0)
    return {
        (count, rate, 0.0): (0.5 + gain - 0.1 * (i > 0) + rng.normal(0, 0.001, 3)).tolist()
        for count, gain in ((10, 0.0), (50, 0.2))
        for i, rate in enumerate(RATES[:num_settings])
    }


def test_settled_verdicts_are_provisional_where_more_than_six_settings_were_tried_and_none_confirmed(make_study):
    assert MOST_TRIED == 6
    six, seven = find(make_study(cells_of(6))), find(make_study(cells_of(7)))
    assert [level.verdict for level in seven.scientific[0].levels] == ["not enough", "best"]
    assert not six.provisional
    assert REASON not in six.headline
    assert seven.provisional
    assert seven.headline.startswith("Provisional: label 50 points per image")
    assert seven.headline.endswith(f"; {REASON}.")


def test_fresh_seeds_lift_it(make_study):
    winners = {(count, RATES[0], 0.0): [value, value + 0.01, value + 0.021] for count, value in ((10, 0.5), (50, 0.7))}
    findings = find(make_study(cells_of(7), confirm=winners))
    assert findings.is_confirmed
    assert not findings.provisional


def test_a_single_level_has_no_verdict_that_it_could_change(make_study):
    cells = {cell: values for cell, values in cells_of(7).items() if cell[0] == 50}
    assert REASON not in find(make_study(cells)).headline


def test_a_setting_that_diverged_could_not_be_chosen(make_study):
    ended = [((count, RATES[6], 0.0), 0, "diverged") for count in (10, 50)]
    assert not find(make_study(cells_of(7), ended=ended)).provisional
