from dataclasses import replace

import pytest

from analysis.find import find
from analysis.findings import Topic
from analysis.statistics import Estimate
from analysis.wording import (
    INTERVALS_MEAN,
    WIDTH,
    counted,
    findings_text,
    first_of,
    level_text,
    listed,
    num_seeds_text,
    percent,
    points_text,
    settings_text,
)


def test_the_text_has_a_line_for_every_level(make_study):
    lines = findings_text(find(make_study())).splitlines()
    assert "  10: 0.593, not enough; -0.117 [-0.155, -0.079] against 50" in lines
    assert "  50: 0.710, best" in lines
    assert 10 <= len(lines) <= 26


@pytest.mark.parametrize(
    ("level", "text"), [(50, "50"), (1e-5, "1e-05"), (0.0, "0"), ("resnet18", "resnet18"), (True, "true")]
)
def test_levels_read_as_people_write_them(level, text):
    assert level_text(level) == text


def test_lists_read_as_people_write_them():
    assert [listed([]), listed([1]), listed([1, 2, 3])] == ["", "1", "1, 2 and 3"]


def test_the_first_line_is_the_answer_and_unbeaten_floors_follow_at_once(make_study):
    runs = make_study(data={"source": "x", "floors": {"all_forest": {"val/miou": 0.8}}})
    lines = findings_text(find(runs)).splitlines()
    assert lines[0].startswith("Label 50 points per image, with learning rate 0.001 and focal gamma 0:")
    assert 'The networks do NOT beat calling every pixel "forest" (val/miou 0.800).' in lines[:3]


def test_lines_are_wrapped_with_a_hanging_indent_and_no_interval_is_broken(make_study):
    # 40 levels of a factor make its line long: 10 to 49 points, no two of them settled.
    runs = make_study({(10 + i, 0.001, 0.0): [0.5 + 0.001 * i, 0.6, 0.7 - 0.001 * i] for i in range(40)})
    lines = findings_text(find(runs)).splitlines()
    assert max(map(len, lines)) <= WIDTH
    first = next(i for i, line in enumerate(lines) if line.startswith("Points per image ("))
    assert lines[first + 1].startswith("  ")
    assert all(line.count("[") == line.count("]") for line in lines)
    assert INTERVALS_MEAN in " ".join(" ".join(lines).split())


def test_no_name_moves_the_cursor_of_a_terminal(make_study):
    runs = make_study(data={"source": "x", "floors": {"\x1b[2J\x1b[31mred\r": {"val/miou": 0.3}}})
    text = findings_text(find(runs))
    assert "red" in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_settings_and_counts_read_as_people_write_them():
    assert settings_text({"points_per_image": 50, "learning_rate": 1e-3}) == "points per image 50, learning rate 0.001"
    assert settings_text({}) == "the study"
    assert [counted(0, "cell"), counted(1, "cell"), counted(2, "cell")] == ["0 cells", "1 cell", "2 cells"]
    assert [first_of("ab"), first_of("abc"), first_of("abcd"), first_of("abc", 1)] == [
        "a and b", "a, b and c", "a, b and 2 more", "a and 2 more",
    ]  # fmt: skip


def test_one_point_is_one(points_study):
    findings = points_study({1: [0.7, 0.71, 0.72], 50: [0.6, 0.61, 0.63]})
    assert findings.headline.startswith("Label 1 point per image, with learning rate 0.001")
    assert [points_text(points) for points in (1, 50, "dense")] == ["1 point", "50 points", "every pixel"]


def test_what_brackets_mean_is_said_before_the_first_of_a_factor(make_study):
    lines = findings_text(find(make_study())).splitlines()
    assert lines.index(INTERVALS_MEAN) < next(
        i for i, line in enumerate(lines) if line.startswith("Points per image (")
    )


def test_further_seeds_are_no_promise(points_study):
    """They decide with a chance of 80 %."""
    ten = points_study({10: [0.60, 0.63, 0.61], 50: [0.61, 0.61, 0.63]}).factors[0].levels[0]
    assert ten.seeds_needed
    assert ten.text.endswith("would likely decide (80 %)")


def test_shares_read_as_people_write_them():
    assert [percent(0.8), percent(0.0312, 1)] == ["80 %", "3.1 %"]


def test_small_numbers_are_no_zeros_in_words(points_study):
    findings = points_study({10: [2e-5, 3e-5, 4e-5], 50: [1e-5, 1.1e-5, 1.2e-5]})
    assert "0.00003" in findings.factors[0].levels[0].text
    assert "0.000 " not in findings.headline


def test_the_number_of_seeds_may_differ():
    one, five = (Estimate(0.5, None, None, num, 0.95) for num in (1, 5))
    assert [num_seeds_text([one]), num_seeds_text([five, five]), num_seeds_text([five, one])] == [
        "1 seed", "5 seeds", "1 to 5 seeds",
    ]  # fmt: skip


def test_each_topic_is_told_by_its_first_sentence(make_study):
    findings = replace(find(make_study()), topics=[])
    text = "Gains .02 [0.01, 0.03] per h at 0.5 lr. More is to be said."
    topic = Topic("x", "Title", "miou", "seeds", text, {}, [])
    lines = findings_text(replace(findings, topics=[topic])).splitlines()
    assert "  - Gains .02 [0.01, 0.03] per h at 0.5 lr." in lines
    assert not [line for line in lines if "More is to be said" in line]
    assert "What else it shows:" not in findings_text(findings)
