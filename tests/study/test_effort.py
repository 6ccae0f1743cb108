import pytest

from study.effort import annotation_seconds


def test_points_cost_a_look_a_first_click_and_a_little_each() -> None:
    assert annotation_seconds(1) == pytest.approx(23.3)  # 20 to look, 2.4 more for the first point, 0.9
    assert annotation_seconds(11) - annotation_seconds(10) == pytest.approx(0.9)
    assert annotation_seconds(50) == pytest.approx(67.4)


def test_every_pixel_costs_a_mask() -> None:
    assert annotation_seconds("dense") == 239.7
    with pytest.raises(ValueError, match="dense"):
        annotation_seconds("all")
