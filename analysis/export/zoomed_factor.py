"""One factor of a study, drawn together around what was found best: pure numbers, and a reason for each step."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from analysis.findings import SURELY_WORSE, FactorFinding
from analysis.reading.study_terms import is_number
from analysis.wording import level_text, listed
from study.sections import Parameter
from study.settings import number_type, takes_a_range
from trainable.config import TrainConfig

WIDE_GAP = 4.0
"""Two levels whose ratio is larger get two new ones between them, else one."""

STEPS_BEYOND = (2.0, 4.0)
"""By which ratio at least and at most a level beyond the largest or smallest one lies."""


@dataclass(frozen=True)
class ZoomedFactor:
    """What a factor becomes, as a study file has it, and why."""

    parameter: dict[str, Any]
    why: str


def is_numeric(name: str, values: Sequence[Any]) -> bool:
    """Whether a factor may take every number between those values; words such as `dense` do not count."""
    return takes_a_range(name) and any(is_number(value) for value in values)


def zoom_range(name: str, parameter: Parameter, best: Sequence[float]) -> ZoomedFactor:
    """Half as wide a range, on its own scale, around the best settings; wider where these lie farther apart.

    Where they lie at its edge, it reaches beyond.

    Args:
        name: of the factor.
        parameter: with `min` and `max`.
        best: the chosen setting at each level that is kept.
    """
    assert parameter.min is not None and parameter.max is not None, "a range has both ends"  # noqa: PT018
    to_scale, from_scale = _scales(parameter.scale == "log")
    ends = [to_scale(float(end)) for end in (parameter.min, parameter.max)]
    places = [to_scale(float(value)) for value in best]
    width = max((ends[1] - ends[0]) / 2, max(places) - min(places) + (ends[1] - ends[0]) / 4)
    centre = (max(places) + min(places)) / 2
    new = [from_scale(centre - width / 2), from_scale(centre + width / 2)]
    low, high = _within_rule(name, new, parameter)
    low, high = min(low, *best), max(high, *best)
    why = f"half of {level_text(parameter.min)} to {level_text(parameter.max)}, around {listed(sorted(set(best)))}"
    passed = [parameter.min] * (low < parameter.min) + [parameter.max] * (high > parameter.max)
    if passed:
        why += f", and beyond {listed(passed)}, near which the best lies"
    return ZoomedFactor({"role": parameter.role, "min": low, "max": high, "scale": parameter.scale}, why)


def zoom_values(name: str, values: Sequence[Any], best: Sequence[float]) -> ZoomedFactor:
    """Each best value, with one halfway to either neighbour; at the edge, one as far beyond.

    Halfway is the geometric mean where all values are positive.
    """
    known = sorted(value for value in values if is_number(value))
    to_scale, from_scale = _scales(known[0] > 0)
    places = [to_scale(value) for value in known]
    new: set[float] = set(best)
    for value in best if len(known) > 1 else ():
        place = to_scale(value)
        below = max((each for each in places if each < place), default=None)
        above = min((each for each in places if each > place), default=None)
        down = (place - below if below is not None else _or_zero(above) - place) / 2
        up = (above - place if above is not None else place - _or_zero(below)) / 2
        new |= {from_scale(place - down), from_scale(place + up)}
    levels = sorted(_allowed(name, new) | set(best))
    why = f"around {listed(sorted(set(best)))}, halfway to the neighbours among {listed(known)}"
    if any(each < known[0] or each > known[-1] for each in levels):
        why += ", and as far beyond the last of them"
    return ZoomedFactor({"role": "nuisance", "values": levels}, why)


def zoom_choices(values: Sequence[Any], best: Sequence[Any], finding: FactorFinding | None) -> ZoomedFactor:
    """The values that are no numbers: those that were chosen somewhere or are not shown to be worse."""
    worse = {level.level for level in finding.levels if level.verdict == "worse"} if finding else set()
    kept = [value for value in values if value in best or value not in worse]
    gone = [value for value in values if value not in kept]
    why = f"without {listed(gone)}, worse and chosen nowhere" if gone else "as before"
    return ZoomedFactor({"role": "nuisance", "values": kept}, why)


def zoom_levels(finding: FactorFinding, largest: float) -> ZoomedFactor:
    """A scientific factor: the levels that may be enough, and new ones where the answer lies between or beyond.

    Args:
        finding: verdicts on all its levels.
        largest: level that a run can have.
    """
    name = finding.name
    kept = [level.level for level in finding.levels if level.verdict not in SURELY_WORSE]
    gone = [level.level for level in finding.levels if level.verdict in SURELY_WORSE]
    said = listed(sorted({level.verdict for level in finding.levels} & {*SURELY_WORSE}))
    reasons = [f"without {listed(gone)}, {said}"] if gone else []
    new: list[float] = []
    if is_numeric(name, [*kept, *gone]):
        for levels, reason in (_between(finding), _below(finding), _above(finding)):
            fresh = {each for each in _allowed(name, levels) if each <= largest}
            if added := sorted(fresh - {*kept, *gone, *new}):
                new += added
                reasons.append(f"{listed(added)} {reason}")
    numbers = sorted([each for each in kept if is_number(each)] + new)
    levels = [*numbers, *(each for each in kept if not is_number(each))]
    return ZoomedFactor({"role": "scientific", "values": levels}, "; ".join(reasons) or "as before")


Added = tuple[list[float], str]


def _between(finding: FactorFinding) -> Added:
    """Between the largest level that is not enough and the smallest that is."""
    enough = _levels(finding, "best", "enough")
    lacking = [each for each in _levels(finding, "not enough") if enough and each < enough[0]]
    if not lacking:
        return [], ""
    low, high = lacking[-1], enough[0]
    to_scale, from_scale = _scales(low > 0)
    parts = 3 if low > 0 and high / low > WIDE_GAP else 2
    step = (to_scale(high) - to_scale(low)) / parts
    middle = [from_scale(to_scale(low) + i * step) for i in range(1, parts)]
    return middle, f"between {level_text(low)}, not enough, and {level_text(high)}"


def _below(finding: FactorFinding) -> Added:
    """Below the smallest level tried, where that is enough: less may do."""
    known, enough = _all_numbers(finding), _levels(finding, "best", "enough")
    if len(known) < 2 or not enough or enough[0] != known[0]:
        return [], ""
    return [_beyond(known[1], known[0])], f"below {level_text(known[0])}, the smallest tried, which is enough"


def _above(finding: FactorFinding) -> Added:
    """Above the largest number tried, where that leads or where a word such as `dense` does."""
    known = _all_numbers(finding)
    if len(known) < 2 or finding.best_level in known[:-1]:
        return [], ""
    leads = "which leads" if finding.best_level == known[-1] else f"as {level_text(finding.best_level)} leads"
    return [_beyond(known[-2], known[-1])], f"beyond {level_text(known[-1])}, the largest tried, {leads}"


def _beyond(neighbour: float, edge: float) -> float:
    """As far from the edge as its neighbour, but by no small and no large ratio."""
    if min(neighbour, edge) <= 0:
        return 2 * edge - neighbour
    ratio = min(max(max(edge, neighbour) / min(edge, neighbour), STEPS_BEYOND[0]), STEPS_BEYOND[1])
    return edge * ratio if edge > neighbour else edge / ratio


def _levels(finding: FactorFinding, *verdicts: str) -> list[float]:
    return sorted(each.level for each in finding.levels if each.verdict in verdicts and is_number(each.level))


def _all_numbers(finding: FactorFinding) -> list[float]:
    return sorted(each.level for each in finding.levels if is_number(each.level))


def _scales(is_log: bool) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """To the scale on which halves are taken, and back."""
    return (math.log, math.exp) if is_log else (float, float)


def _or_zero(place: float | None) -> float:
    return 0.0 if place is None else place


def _rounded(name: str, value: float) -> float:
    """Two significant digits, as the setting's own type."""
    rounded = float(f"{value:.2g}")
    if number_type(name) is not int:
        return rounded
    return max(round(rounded), 1) if value > 0 else round(rounded)


def _allowed(name: str, values: Iterable[float]) -> set[float]:
    """Those that a run can have once they are rounded: half a point is one."""
    return {rounded for rounded in (_rounded(name, value) for value in values) if _is_allowed(name, rounded)}


def _rule(name: str) -> dict[str, Any]:
    (field,) = (each for each in fields(TrainConfig) if each.name == name)
    return dict(field.metadata)


def _is_allowed(name: str, value: float) -> bool:
    """Whether a run can have that number."""
    rule = _rule(name)
    least, most, above = rule["minimum"], rule["maximum"], rule["above"]
    is_high_enough = (least is None or value >= least) and (above is None or value > above)
    return is_high_enough and (most is None or value <= most)


def _within_rule(name: str, ends: Sequence[float], parameter: Parameter) -> tuple[float, float]:
    """Both ends, rounded; where a run cannot have one, the nearest that it can, or the old one."""
    rule = _rule(name)
    nearest = (parameter.min if rule["minimum"] is None else rule["minimum"], rule["maximum"])
    pairs = zip(ends, nearest, strict=True)
    low, high = (next(iter(_allowed(name, [end])), limit) for end, limit in pairs)
    return low, max(high, low + 1) if number_type(name) is int else high
