import pytest

from analysis.find import find
from analysis.wording import findings_text, level_text, listed


def test_the_text_has_a_line_for_every_level(make_study):
    lines = findings_text(find(make_study())).splitlines()
    assert "  10: 0.553, not enough; -0.157 [-0.293, -0.020] against 50" in lines
    assert "  50: 0.710, best" in lines
    assert 10 <= len(lines) <= 20


@pytest.mark.parametrize(("level", "text"), [(50, "50"), (1e-5, "1e-05"), (0.0, "0"), ("resnet18", "resnet18")])
def test_levels_read_as_people_write_them(level, text):
    assert level_text(level) == text


def test_lists_read_as_people_write_them():
    assert [listed([]), listed([1]), listed([1, 2, 3])] == ["", "1", "1, 2 and 3"]
