import math

import pytest

from study.effort import PUBLISHED, annotation_hours, annotation_money, annotation_seconds, setting_seconds
from study.sections import Effort


def test_points_cost_a_look_a_first_click_and_a_little_each() -> None:
    assert annotation_seconds(1) == pytest.approx(23.3)  # 20 to look, 2.4 more for the first point, 0.9
    assert annotation_seconds(11) - annotation_seconds(10) == pytest.approx(0.9)
    assert annotation_seconds(50) == pytest.approx(67.4)


def test_every_pixel_costs_a_mask() -> None:
    assert annotation_seconds("dense") == 239.7
    with pytest.raises(ValueError, match="dense"):
        annotation_seconds("all")


def test_the_users_rates_take_the_place_of_the_published_ones() -> None:
    slow = Effort(look_s=5, first_point_s=1, point_s=2, dense_s=600)
    assert annotation_seconds(10, slow) == 26  # 5 + 1 + 10 x 2
    assert annotation_seconds("dense", slow) == 600
    assert annotation_seconds(10, Effort(point_s=2)) == pytest.approx(42.4)  # the look and the first click as published


def test_a_whole_split_in_hours_and_money() -> None:
    # 3,600 images of 50 points: 67.4 s each are 67.4 hours; at 30 an hour, 2,022.
    hours = annotation_hours(50, 3600)
    assert hours == pytest.approx(67.4)
    assert annotation_money(hours, Effort(hourly_rate=30, currency="EUR")) == pytest.approx(2022)
    assert annotation_money(hours, PUBLISHED) is None


def test_where_images_are_searched_too_all_of_them_count() -> None:
    assert setting_seconds({"points_per_image": 50}) == pytest.approx(67.4)
    assert setting_seconds({"points_per_image": 50, "train_images": 3}) == pytest.approx(202.2)
    # 100 points on 10 images cost less than 10 points on 50: the look at an image is what is dear.
    assert setting_seconds({"points_per_image": 100, "train_images": 10}) == pytest.approx(1124)
    assert setting_seconds({"points_per_image": 10, "train_images": 50}) == pytest.approx(1570)
    assert math.isclose(setting_seconds({"points_per_image": "dense", "train_images": 2}), 479.4)
