"""Factors drawn together around the best: worked by hand."""

import pytest

from analysis.export.zoomed_factor import is_numeric, zoom_choices, zoom_levels, zoom_range, zoom_values
from analysis.findings import FactorFinding, LevelFinding
from analysis.statistics import Estimate
from study.sections import Parameter

ESTIMATE = Estimate(0.7, 0.6, 0.8, 3, 0.95)


def finding(verdicts, name="points_per_image", best=None):
    levels = [LevelFinding(level, ESTIMATE, [0], [0.7], None, verdict, [], [], "") for level, verdict in verdicts]
    best = best or next(level for level, verdict in verdicts if verdict == "best")
    return FactorFinding(name, "scientific", "val/miou", best, best, False, levels, "")


def levels_of(verdicts, largest=10**6, **kwargs):
    return zoom_levels(finding(verdicts, **kwargs), largest).parameter["values"]


# One new count between 20 and 80 (ratio 4: their geometric mean), two between 2 and 50 (ratio 25: at its thirds, 5.85
# and 17.1, to two digits).
@pytest.mark.parametrize(
    ("verdicts", "levels"),
    [
        ([(20, "not enough"), (80, "enough"), (200, "best"), (400, "enough")], [40, 80, 200, 400]),
        ([(2, "not enough"), (50, "best"), (99, "enough")], [6, 17, 50, 99]),
        # Undecided counts stay, and the gap reaches from the largest that is not enough to the smallest that is.
        ([(10, "not enough"), (50, "undecided"), (100, "best"), (200, "enough")], [22, 46, 50, 100, 200]),
        # The largest leads: one beyond, at the ratio of the last step but at most 4.
        ([(2, "not enough"), (50, "best")], [6, 17, 50, 200]),
        ([(50, "undecided"), (100, "best")], [50, 100, 200]),
        # The smallest is enough: fewer may do.
        ([(10, "enough"), (50, "best"), (100, "enough")], [2, 10, 50, 100]),
        # Every pixel leads, and no count is known to be enough: more of them may be.
        ([(50, "not enough"), (100, "undecided"), ("dense", "best")], [100, 200, "dense"]),
        ([(50, "best")], [50]),
    ],
)
def test_counts_lie_where_the_answer_does(verdicts, levels):
    assert levels_of(verdicts) == levels


def test_half_a_point_is_one():
    # Beyond 2, at the largest ratio of 4, lies 0.5: less than any run has, and 1 as a count.
    assert levels_of([(2, "enough"), (50, "best")]) == [1, 2, 50, 200]
    assert zoom_values("points_per_image", [1, 4], [1]).parameter["values"] == [1, 2]


def test_no_number_below_zero_becomes_one():
    assert zoom_values("batch_size", [2, 4], [2]).parameter["values"] == [2, 3]  # 1.4 is 1, and too few
    assert zoom_values("num_threads", [1, 9], [1]).parameter["values"] == [1, 3]


def test_no_count_is_more_than_an_image_has_pixels():
    assert levels_of([(500, "not enough"), (900, "best")], largest=1024) == [670, 900]  # 1800 is too many


def test_a_factor_of_words_keeps_what_may_be_enough():
    verdicts = [("uniform", "best"), ("grid", "undecided"), ("per_class", "worse")]
    assert levels_of(verdicts, name="point_strategy") == ["uniform", "grid"]


def test_a_factor_with_gaps_gets_no_level_between():
    assert levels_of([(64, "not enough"), (256, "best")], name="image_size") == [256]
    assert not is_numeric("decoder_stride", [1, 4])


def test_a_scientific_factor_that_begins_at_zero_is_halved_plainly():
    assert levels_of([(0, "not enough"), (2, "best"), (4, "enough")], name="focal_gamma") == [1.0, 2, 4]


def log_range(low, high):
    return Parameter(role="nuisance", min=low, max=high, scale="log")


def test_a_range_is_halved_around_the_best_on_its_own_scale():
    # 1e-5 to 1e-1 are four decades; two of them around 1e-3.
    zoomed = zoom_range("learning_rate", log_range(1e-5, 1e-1), [1e-3])
    assert zoomed.parameter == {"role": "nuisance", "min": 1e-4, "max": 1e-2, "scale": "log"}
    assert "beyond" not in zoomed.why


def test_a_range_reaches_beyond_its_edge_where_the_best_is_there():
    zoomed = zoom_range("learning_rate", log_range(1e-5, 1e-3), [1e-3])  # one decade around 1e-3
    assert (zoomed.parameter["min"], zoomed.parameter["max"]) == (0.00032, 0.0032)
    assert "and beyond 0.001, near which the best lies" in zoomed.why


def test_a_range_holds_the_best_of_every_level():
    zoomed = zoom_range("learning_rate", log_range(1e-5, 1e-1), [1e-5, 1e-2])  # three decades and one for the margin
    assert (zoomed.parameter["min"], zoomed.parameter["max"]) == (3.2e-06, 0.032)


def test_a_range_never_holds_what_no_run_can_have():
    linear = Parameter(role="nuisance", min=0, max=5)
    assert zoom_range("focal_gamma", linear, [0.0]).parameter["min"] == 0
    assert zoom_range("focal_gamma", Parameter(role="nuisance", min=0, max=20), [19]).parameter["max"] == 20
    whole = zoom_range("epochs", Parameter(role="nuisance", min=1, max=3), [1]).parameter
    assert whole["min"] == 1
    assert isinstance(whole["max"], int)
    assert whole["max"] > whole["min"]


@pytest.mark.parametrize(
    ("name", "values", "best", "levels"),
    [
        # Geometric halves: sqrt(1e-4 * 1e-3) = 3.2e-4, and 3.2e-3 as far above.
        ("learning_rate", [1e-4, 1e-3], [1e-3], [0.00032, 1e-3, 0.0032]),
        ("learning_rate", [1e-4, 1e-3, 1e-2], [1e-3], [0.00032, 1e-3, 0.0032]),
        ("focal_gamma", [0, 2], [0], [0, 1.0]),  # no gamma is negative
        ("focal_gamma", [0, 2], [2], [1.0, 2, 3.0]),
        ("focal_gamma", [0, 2], [0, 2], [0, 1.0, 2, 3.0]),
        ("learning_rate", [1e-3], [1e-3], [1e-3]),
        ("batch_size", [8, 16], [16], [11, 16, 23]),
    ],
)
def test_values_are_halved_around_the_best(name, values, best, levels):
    assert zoom_values(name, values, best).parameter["values"] == pytest.approx(levels)


def test_of_words_the_worse_ones_go_unless_they_were_chosen():
    nuisance = finding([("adam", "best"), ("adamw", "worse"), ("x", "undecided")], name="optimizer")
    assert zoom_choices(["adam", "adamw", "x"], ["adam"], nuisance).parameter["values"] == ["adam", "x"]
    assert zoom_choices(["adam", "adamw"], ["adamw"], nuisance).parameter["values"] == ["adam", "adamw"]
    assert zoom_choices(["adam", "adamw"], ["adamw"], None).why == "as before"
