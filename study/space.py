"""The settings that are searched: every combination of values and ranges of the nuisance factors.

A number from a range carries three significant digits: nobody tunes finer, and a setting is read, compared and written
down without loss. A range that does not begin at 0 therefore holds finitely many.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from study.sections import Parameter, Value
from study.settings import number_type

Setting = dict[str, Value]
"""Nuisance factor -> value, in the order of the file."""


class Space:
    """The nuisance factors among `parameters`; without any, the one setting that names none.

    Attributes:
        axes: factor -> what it can be, in the order of the file.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        nuisance = {name: each for name, each in parameters.items() if each.role == "nuisance"}
        self.axes = {name: _to_axis(name, each) for name, each in nuisance.items()}

    @cached_property
    def size(self) -> int | None:
        """Number of settings; None where a range of real numbers begins at 0."""
        levels = [axis.levels for axis in self.axes.values()]
        return None if None in levels else math.prod(len(each or ()) for each in levels)

    def contains(self, setting: Mapping[str, object]) -> bool:
        """Whether a setting of an earlier session is one of this space."""
        is_complete = setting.keys() == self.axes.keys()
        return is_complete and all(axis.contains(setting[name]) for name, axis in self.axes.items())

    def settings(self) -> Iterator[Setting]:
        """Every setting, the last factor turning fastest.

        Raises:
            ValueError: the space has no size.
        """
        if self.size is None:
            raise ValueError("a range of real numbers that begins at 0 has no end")
        for combination in itertools.product(*(axis.levels or () for axis in self.axes.values())):
            yield dict(zip(self.axes, combination, strict=True))

    def from_unit(self, point: Sequence[float]) -> Setting:
        """The setting at a point of the unit cube.

        Args:
            point: a coordinate in [0, 1) for each factor, in the order of the file.
        """
        return {name: axis.at(share) for (name, axis), share in zip(self.axes.items(), point, strict=True)}

    def rounded(self, setting: Mapping[str, Value]) -> Setting:
        """The setting with its numbers as this space has them."""
        return {name: axis.rounded(setting[name]) for name, axis in self.axes.items()}


@dataclass(frozen=True)
class Choice:
    """A factor that takes one of its values."""

    levels: Sequence[Value]

    def at(self, share: float) -> Value:
        """The value at a share in [0, 1) of the list."""
        return self.levels[int(share * len(self.levels))]

    def rounded(self, value: Value) -> Value:
        """The value itself."""
        return value

    def contains(self, value: object) -> bool:
        """Whether it is one of the values."""
        return value in self.levels


@dataclass(frozen=True)
class Range:
    """A factor that takes any number between two, both included; integers where the ends are."""

    low: int | float
    high: int | float
    is_log: bool

    @property
    def is_integer(self) -> bool:
        """Whether it takes integers alone."""
        return isinstance(self.low, int)

    @property
    def bounds(self) -> tuple[float, float]:
        """What is rounded to the range: integers begin half a step before, so that the ends are as likely as others."""
        half = 0.5 if self.is_integer else 0.0
        return self.low - half, self.high + half

    @cached_property
    def levels(self) -> Sequence[Value] | None:
        """Every number of three digits and the ends; None where there is no end to them."""
        if isinstance(self.low, int) and self.high < 1000:
            return range(self.low, int(self.high) + 1)
        if self.low <= 0 and not self.is_integer:
            return None
        decades = range(_exponent(max(self.low, 1) if self.is_integer else self.low), _exponent(self.high) + 1)
        numbers = (float(f"{digits}e{decade - 2}") for decade in decades for digits in range(100, 1000))
        inside = [each for each in numbers if self.low < each < self.high]
        if self.is_integer:
            return [self.low, *(int(each) for each in inside if each.is_integer()), self.high]
        return [self.low, *inside, self.high]

    def at(self, share: float) -> Value:
        """The number at a share in [0, 1) of the way, on the range's own scale."""
        low, high = self.bounds
        if self.is_log:
            return self.rounded(low * (high / low) ** share)
        return self.rounded(low + share * (high - low))

    def rounded(self, value: Value) -> Value:
        """Three significant digits, within the range."""
        if self.is_integer:
            return min(max(int(float(f"{round(float(value)):.3g}")), self.low), self.high)
        return min(max(float(f"{value:.3g}"), self.low), self.high)

    def contains(self, value: object) -> bool:
        """Whether it is a number of the range."""
        is_number = isinstance(value, int) or (isinstance(value, float) and not self.is_integer)
        return is_number and not isinstance(value, bool) and self.low <= value <= self.high  # type: ignore[operator]


Axis = Choice | Range


def _to_axis(name: str, parameter: Parameter) -> Axis:
    if parameter.values is not None:
        return Choice(tuple(parameter.values))
    kind = number_type(name)
    if kind is None or parameter.min is None or parameter.max is None:
        raise ValueError(f"parameters.{name}: has no range")  # the study file was checked for it
    return Range(kind(parameter.min), kind(parameter.max), parameter.scale == "log")


def _exponent(number: float) -> int:
    return int(f"{number:.2e}".partition("e")[2])
