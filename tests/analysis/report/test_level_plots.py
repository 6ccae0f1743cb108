import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from analysis.find import find
from analysis.report.drawing import WIDTH, positions, roomy, spread_over
from analysis.report.level_plots import MAX_CURVES, _draw_levels, curve_plot, level_plot


@pytest.fixture(scope="module")
def many(make_runs):
    """199 point counts."""
    runs = make_runs(levels=(tuple(range(1, 200)), (0.001,), (0.0,)))
    return runs, replace(find(runs), topics=[])


def drawn(findings):
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.add_subplot()
    _draw_levels(axes, findings, findings.factors[0])
    figure.draw_without_rendering()
    return figure, axes


def boxes_of_labels(axes):
    return [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]


def test_words_stand_beside_the_numbers_a_step_apart():
    # log10 of 10 and 1000 are 1 and 3: a quarter of 2 is the step.
    np.testing.assert_allclose(positions([10, 1000, "dense"]), [1, 3, 3.5])
    np.testing.assert_allclose(positions(["a", "b", "c"]), [0, 1, 2])
    np.testing.assert_allclose(positions([False, True]), [0, 1])
    np.testing.assert_allclose(positions([0.0, 2.0]), [0, 2])
    np.testing.assert_allclose(positions([5, "dense"]), [5, 6])


@pytest.mark.parametrize(
    ("levels", "line"),
    [((10, 100, 1000), 3), ((10, 100, "dense"), 2), (("resnet18", "mobilenet_v2"), 0), ((False, True), 0)],
)
def test_the_line_runs_through_numbers_alone(make_runs, levels, line):
    findings = find(make_runs(levels=(levels, (0.001,), (0.0,))))
    _, axes = drawn(findings)
    assert len(axes.lines[0].get_xdata()) == line


def test_no_two_names_of_levels_touch(many, make_runs):
    _, axes = drawn(many[1])
    boxes = boxes_of_labels(axes)
    assert 5 < len(boxes) < 20
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    few = find(make_runs(levels=((1, 2, 5, 10, 20, 50), (0.001,), (0.0,))))
    assert [label.get_text() for label in drawn(few)[1].get_xticklabels()] == ["1", "2", "5", "10", "20", "50"]


def test_long_names_are_slanted_and_all_there(make_runs):
    names = [f"an_encoder_of_a_long_name_{i}" for i in range(4)]
    findings = find(make_runs(levels=(tuple(names), (0.001,), (0.0,))))
    _, axes = drawn(findings)
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {30.0}


def test_of_many_levels_some_are_drawn_and_the_text_says_how_many(many):
    runs, findings = many
    plot = curve_plot(runs, findings)
    assert f"{MAX_CURVES} of 199 levels are drawn." in plot.text
    assert Image.open(io.BytesIO(plot.png)).height < 1000
    assert "24 of 199 levels are told here." in level_plot(findings, findings.factors[0]).text


def test_what_is_drawn_reaches_from_the_first_to_the_last():
    assert spread_over(3, 12) == [0, 1, 2]
    assert spread_over(199, 3) == [0, 99, 198]
    assert spread_over(0, 3) == []


def test_labels_leave_room_for_each_other():
    places = np.array([0.0, 0.1, 1.0])
    assert roomy(places, ["aaaa", "b", "cc"], 2.0) == [0, 2]
    assert roomy(places, ["a", "b", "c"], 10.0) == [0, 1, 2]
