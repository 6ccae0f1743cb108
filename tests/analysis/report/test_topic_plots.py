import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from analysis.find import find
from analysis.findings import Claim, Topic
from analysis.report.topic_plots import MAX_ROWS, topic_plot
from analysis.statistics import Estimate


@pytest.fixture(scope="module")
def topics(make_runs, add_topics):
    return {topic.name: topic for topic in add_topics(find(make_runs())).topics}


def test_a_text_alternative_says_every_number(topics):
    texts = {name: plot.text for name, topic in topics.items() if (plot := topic_plot(topic))}
    assert set(texts) == {"returns", "importance", "effort", "power"}  # stability has no estimate
    # .031, .028, .036: mean .03167; 4.302653 * .004041 / sqrt(3) = .01004.
    assert "2 to 10: 0.032 [0.022, 0.042]" in texts["returns"]
    assert "focal gamma: 0.040 [0.015, 0.065], chance 0.120" in texts["importance"]
    assert "50 points, 45 images: 0.710 [0.685, 0.735] for 6.3 h" in texts["effort"]
    assert "10 points" not in texts["effort"]  # not on the front
    assert texts["power"].endswith("3 seeds: 0.033; 5 seeds: 0.020; 8 seeds: 0.013.")


def test_the_curve_of_power_takes_the_smallest_difference_of_each_number_of_seeds(topics):
    hard = Claim("2 against 50", None, {"num_seeds": 3, "difference": 0.9}, "", [])
    plot = topic_plot(replace(topics["power"], claims=[hard, *topics["power"].claims]))
    assert "3 seeds: 0.033; 5" in plot.text


def test_a_topic_without_its_special_numbers_is_drawn_by_its_intervals(topics):
    plain = replace(topics["effort"], claims=[replace(c, values={}) for c in topics["effort"].claims])
    assert topic_plot(plain).text.startswith("Discs and bars: estimate and interval over seeds.")
    assert topic_plot(replace(plain, claims=plain.claims[:1])) is None


def test_many_rows_are_cut_and_the_text_says_so():
    claims = [Claim(f"scene {n}", Estimate(n, n - 1.0, n + 1.0, 3, 0.95), {}, "", []) for n in range(100)]
    plot = topic_plot(Topic("scenes", "Scenes", "miou", "scenes", "", {}, claims))
    assert f"The first {MAX_ROWS} of 100 rows." in plot.text
    assert "scene 24:" not in plot.text


def test_the_png_shows_the_figure_at_200_dots_an_inch_and_holds_its_text(topics):
    plot = topic_plot(topics["returns"])
    picture = Image.open(io.BytesIO(plot.png))
    assert picture.size == (960, 270)  # 4.8 x 1.35 inches
    assert picture.info["Title"] == "Diminishing returns"
    assert picture.info["Description"] == plot.text
    assert "Software" not in picture.info
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_names_that_no_figure_can_show_are_no_reason_to_fail(topics):
    name = "\x1b[2J</svg>&$\\frac{\ud800"
    topic = replace(topics["returns"], title=name, claims=[replace(c, subject=name) for c in topics["returns"].claims])
    plot = topic_plot(topic)
    assert "</svg>&" not in plot.svg
    assert plot.png.startswith(b"\x89PNG")
