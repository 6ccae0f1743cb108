import itertools
import json
import math
import random
from typing import Any

import pytest

from study.sections import Parameter
from study.space import Range, Space


def make_space(**factors: Any) -> Space:
    return Space({name: Parameter(role="nuisance", **each) for name, each in factors.items()})


RATES = {"learning_rate": {"min": 1e-5, "max": 1e-2, "scale": "log"}}
GAMMAS = {"focal_gamma": {"values": [0, 2, 5]}}
SPACES = {
    "values": make_space(**GAMMAS, optimizer={"values": ["adamw", "adam"]}),
    "log": make_space(**RATES, **GAMMAS),
    "narrow": make_space(learning_rate={"min": 1.2345e-3, "max": 1.2362e-3}),
    "integers": make_space(epochs={"min": 2, "max": 5}, batch_size={"min": 2, "max": 4096, "scale": "log"}),
    "large integers": make_space(points_per_image={"min": 990, "max": 20_000}),
    "from zero": make_space(label_flip_rate={"min": 0, "max": 0.5}),
    "nothing": make_space(),
}
CORNERS = (0.0, 1e-9, 0.5, 1 - 2**-53)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_every_point_of_the_unit_cube_is_a_setting_of_three_digits(space: Space) -> None:
    generator = random.Random(0)
    num_factors = len(space.axes)
    points = [*itertools.product(CORNERS, repeat=num_factors)]
    points += [tuple(generator.random() for _ in range(num_factors)) for _ in range(300)]
    everything = None if space.size is None else {tuple(each.values()) for each in space.settings()}
    for point in points:
        setting = space.from_unit(point)
        assert space.contains(setting)
        assert list(setting) == list(space.axes)
        assert space.rounded(setting) == setting
        assert space.contains(json.loads(json.dumps(setting)))  # as the ledger has it
        assert everything is None or tuple(setting.values()) in everything


@pytest.mark.parametrize("name", [name for name, space in SPACES.items() if space.size is not None])
def test_a_finite_space_lists_each_setting_once(name: str) -> None:
    space = SPACES[name]
    settings = [tuple(each.values()) for each in space.settings()]
    assert len(settings) == len(set(settings)) == space.size


def test_sizes_are_those_counted_by_hand() -> None:
    sizes = {name: space.size for name, space in SPACES.items()}
    assert sizes["values"] == 6
    assert sizes["log"] == 3 * 2701  # 900 numbers in each of three decades, and the upper end
    assert sizes["narrow"] == 2  # the ends alone: 0.00123 and 0.00124 lie outside
    assert sizes["integers"] == 4 * (998 + 310 + 1)  # 2 to 999, 1000 to 4090 by tens, 4096
    assert sizes["large integers"] == 10 + 900 + 101  # 990 to 999; 1000, 1010 to 9990; 10,000, 10,100 to 20,000
    assert sizes["from zero"] is None
    assert sizes["nothing"] == 1


def test_settings_stand_in_the_order_of_the_file() -> None:
    settings = [tuple(each.values()) for each in SPACES["values"].settings()]
    assert settings == [(0, "adamw"), (0, "adam"), (2, "adamw"), (2, "adam"), (5, "adamw"), (5, "adam")]
    assert list(SPACES["nothing"].settings()) == [{}]
    assert SPACES["nothing"].from_unit(()) == {}


def test_what_never_ends_cannot_be_listed() -> None:
    with pytest.raises(ValueError, match="no end"):
        next(SPACES["from zero"].settings())


def test_scientific_factors_are_not_searched() -> None:
    scientific = Parameter(role="scientific", values=[10, 50])
    space = Space({"points_per_image": scientific, "focal_gamma": Parameter(role="nuisance", values=[0, 2])})
    assert list(space.axes) == ["focal_gamma"]


def test_a_log_range_is_even_over_its_exponents_and_a_linear_one_over_its_numbers() -> None:
    assert [SPACES["log"].from_unit((share, 0.0))["learning_rate"] for share in (0, 1 / 3, 0.5, 2 / 3)] == [
        1e-5,
        1e-4,
        0.000316,
        1e-3,
    ]
    assert [SPACES["from zero"].from_unit((share,))["label_flip_rate"] for share in (0, 0.1, 0.25, 1 / 3)] == [
        0,
        0.05,
        0.125,
        0.167,
    ]


def test_every_value_and_every_integer_has_the_same_share() -> None:
    epochs = Range(2, 5, is_log=False)
    drawn = [epochs.at((i + 0.5) / 400) for i in range(400)]
    assert [drawn.count(each) for each in (2, 3, 4, 5)] == [100] * 4
    drawn = [SPACES["values"].from_unit(((i + 0.5) / 300, 0))["focal_gamma"] for i in range(300)]
    assert [drawn.count(each) for each in (0, 2, 5)] == [100] * 3


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(3.14159e-4, 3.14e-4), (9.996e-4, 1e-3), (2e-6, 1e-5), (0.5, 1e-2), (1e-5, 1e-5)],
)
def test_numbers_are_rounded_and_kept_within_the_range(value: float, rounded: float) -> None:
    assert SPACES["log"].rounded({"learning_rate": value, "focal_gamma": 2})["learning_rate"] == rounded


def test_integers_stay_integers() -> None:
    setting = SPACES["integers"].rounded({"epochs": 3.4, "batch_size": 1234.0})
    assert setting == {"epochs": 3, "batch_size": 1230}
    assert all(isinstance(value, int) for value in setting.values())


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"learning_rate": 1e-3},
        {"learning_rate": 1e-3, "focal_gamma": 2, "epochs": 3},
        {"focal_gamma": 1, "learning_rate": 1e-3},
        {"focal_gamma": 2, "learning_rate": 0.1},
        {"focal_gamma": 2, "learning_rate": math.nan},
        {"focal_gamma": 2, "learning_rate": "high"},
        {"focal_gamma": [2], "learning_rate": 1e-3},
        {"focal_gamma": 2, "learning_rate": None},
    ],
)
def test_a_setting_of_another_space_is_none_of_this(setting: dict[str, Any]) -> None:
    assert SPACES["log"].contains({"focal_gamma": 2, "learning_rate": 1e-3})  # in whatever order
    assert not SPACES["log"].contains(setting)


def test_a_fraction_and_a_truth_are_no_integers() -> None:
    assert not SPACES["integers"].contains({"epochs": 2.5, "batch_size": 4})
    assert not SPACES["integers"].contains({"epochs": True, "batch_size": 4})
