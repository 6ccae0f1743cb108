"""Findings in plain words, for a terminal and for the reports. Names in them come out of run files: anyone's."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from analysis.findings import NUISANCE, SCIENTIFIC, Arm, CellFinding, Findings, LevelFinding
from analysis.reading.study_terms import CONFIRM, EXPLORE
from analysis.sample_size import MAX_SEEDS, POWER
from analysis.statistics import Estimate, direction, number_text
from trainable.config import DENSE

WIDTH = 100
"""Columns of the terminal text at most."""

FLOORS = {
    "all_forest": 'calling every pixel "forest"',
    "coin_flip": "a coin flip for every pixel",
    "image_majority": "an oracle of each image's majority class",
}
FLOOR_VERDICTS = {"beats": "beat", "does not beat": "do NOT beat", "undecided": "may or may not beat"}
HOW_READ = {
    (SCIENTIFIC, EXPLORE): "each at its best other settings",
    (SCIENTIFIC, CONFIRM): "each at its confirmed settings",
    (NUISANCE, EXPLORE): "in exploration, mean over {over} other settings",
}
INTERVALS_MEAN = "In brackets: 95 % intervals over new points, starting weights and order; differences hold jointly."

SAME_POINTS = "same_points"
"""Kind of the caveat where seeds do not draw the points anew."""


def intervals_mean(findings: Findings) -> str:
    """What the intervals speak of."""
    if any(caveat.kind == SAME_POINTS for caveat in findings.caveats):
        return INTERVALS_MEAN.replace("new points, starting weights", "new starting weights")
    return INTERVALS_MEAN


def findings_text(findings: Findings) -> str:
    """The findings for a terminal, the answer first: some twenty-five lines of at most `WIDTH` columns."""
    return "\n".join(line for indent, text in _paragraphs(findings) for line in _wrapped(indent, text))


def _paragraphs(findings: Findings) -> Iterator[tuple[str, str]]:
    """(what stands before the first line, text)."""
    yield "", findings.headline
    yield from (("", floor.text) for floor in findings.floors)
    if any(arm.value.num_seeds > 1 for arm in findings.arms):
        yield "", intervals_mean(findings)
    for factor in findings.factors:
        yield "", factor.text
        if len(factor.levels) > 1:
            yield from (("  ", level.text) for level in factor.levels)
    if others := [cell for cell in findings.confirmed if cell.difference and findings.is_confirmed]:
        yield "", f"Confirmed beside them ({findings.metric}, difference to the one at the same level):"
        yield from (("  ", confirmed_text(cell)) for cell in others)
    is_told = any(topic.name == "curse" for topic in findings.topics)
    if (text := confirmation_text(findings)) and not is_told:
        yield "", text
    if findings.topics:
        yield "", "What else it shows:"
        yield from (("  - ", first_sentence(topic.text)) for topic in findings.topics)
    yield "", "Read with care:"
    yield from (("  - ", caveat.text) for caveat in findings.caveats)


def first_sentence(text: str) -> str:
    """Up to the first full stop before a space and a capital letter; all of it where there is none."""
    return re.split(r"(?<=[.!?]) (?=[A-Z\"])", text, maxsplit=1)[0]


def _wrapped(indent: str, text: str) -> list[str]:
    """Lines with a hanging indent that break no interval in two."""
    whole = re.sub(r"\[[^\]]*\]", lambda interval: interval[0].replace(" ", "\xa0"), printable(text))
    lines = textwrap.wrap(
        whole, WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent) + "  ", break_on_hyphens=False
    )
    return [line.replace("\xa0", " ") for line in lines]


def printable(text: str) -> str:
    """One line without anything that moves a cursor, ends a comment or has no bytes."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def level_text(level: Any) -> str:
    """A factor's level as people write it: 50, 0.001, resnet18, true."""
    if isinstance(level, bool):
        return str(level).lower()
    return f"{level:g}" if isinstance(level, int | float) and abs(level) < 1e6 else printable(str(level))


def words(name: str) -> str:
    """A setting's name as words: points_per_image -> points per image."""
    return printable(name.replace("_", " "))


def listed(items: Sequence[Any]) -> str:
    """`a, b and c`."""
    texts = [level_text(item) for item in items]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def settings_text(settings: Mapping[str, Any]) -> str:
    """Levels by name: points per image 50, learning rate 0.001; of a study without scientific factor, `the study`."""
    return ", ".join(f"{words(name)} {level_text(level)}" for name, level in settings.items()) or "the study"


def first_of(texts: Sequence[str], num: int = 2) -> str:
    """The first few of a list that may be long: `a, b and 3 more`."""
    return listed([*texts[:num], f"{len(texts) - num} more"]) if len(texts) > num + 1 else listed(texts)


def points_text(points: Any) -> str:
    """`1 point`, `50 points`, `every pixel`."""
    if points == DENSE:
        return "every pixel"
    return f"{level_text(points)} point" + ("s" if points != 1 else "")


def percent(share: float, decimals: int = 0) -> str:
    """`80 %`."""
    return f"{100 * share:.{decimals}f} %"


def counted(num: int, noun: str) -> str:
    """`1 cell`, `3 cells`."""
    return f"{num} {noun}" + ("s" if num != 1 else "")


def num_seeds_text(values: Iterable[Estimate]) -> str:
    """How many seeds are behind some means: `3 seeds`, `3 to 5 seeds`."""
    numbers = [value.num_seeds for value in values]
    few, many = min(numbers), max(numbers)
    return (f"{few} to " if few < many else "") + counted(many, "seed")


def headline(metric: str, phase: str, arm: Arm, provisional: bool, unsettled: list[str], flattered: str = "") -> str:
    """What to do, what it reached, the deciding factors of which nothing is settled, and how it was `flattered`."""
    settings = dict(arm.parameters)
    points = settings.pop("points_per_image", None) if "points_per_image" in arm.scientific else None
    named = listed([f"{words(name)} {level_text(level)}" for name, level in settings.items()])
    what = f"use {named or 'these settings'}"
    if points is not None:
        per_image = "" if points == DENSE else " per image"
        what = f"label {points_text(points)}{per_image}" + (f", with {named}" if named else "")
    fresh = "fresh " if phase == CONFIRM else ""
    seeds = f"over {arm.value.num_seeds} {fresh}seeds"
    if arm.value.num_seeds == 1:
        seeds = f"from 1 {fresh}seed, so without interval"
    result = f"{what}: {metric} {arm.value.text()} {seeds}"
    if unsettled:
        result += f"; no difference in {listed([words(name) for name in unsettled])} is settled"
    if flattered:
        result += f"; {flattered}"
    return f"Provisional: {result}." if provisional else f"{result[0].upper()}{result[1:]}."


def factor_text(
    name: str, role: str, phase: str, best_level: Any, recommended: Any, levels: list[LevelFinding], over: str = "all"
) -> str:
    """One factor: which level leads, which is recommended, which are open; `over` how many of the other settings."""
    best, chosen = level_text(best_level), level_text(recommended)
    if len(levels) == 1:
        return f"{words(name).capitalize()}: only {best} was tried."
    has_equal_seeds = all(level.seeds == levels[0].seeds for level in levels)
    result = f"{best} has the best mean" if has_equal_seeds else f"{best} leads on the seeds that levels share"
    if any(level.withheld for level in levels):
        is_whole = any(level.level == best_level and not level.withheld for level in levels)
        result = f"{best} leads" + (" those that lost no run" if is_whole else "")
    if chosen != best:
        result += f", {chosen} is enough" if role == SCIENTIFIC else f", {chosen} with the other chosen settings"
    if undecided := [level.level for level in levels if level.verdict == "undecided"]:
        result += f"; undecided: {listed(undecided)}"
    return f"{words(name).capitalize()} ({HOW_READ[role, phase].format(over=over)}): {result}."


def confirmation_text(findings: Findings) -> str:
    """What fresh seeds make of what exploration had read, the winner's curse. Empty without confirmation."""
    sign = direction(findings.objective["mode"])
    gains = [sign * (arm.explored.value - arm.val.value) for arm in findings.arms if arm.explored and arm.val]
    if not gains:
        return ""
    mean = sum(gains) / len(gains)
    curse = ", as the winner's curse has it" if mean > 0 else ""
    return (
        f"Exploration had read {findings.objective['metric']} of the chosen settings {number_text(abs(mean))}"
        f" {'better' if mean > 0 else 'worse'} on average than fresh seeds do{curse};"
        f" {findings.metric} stands on fresh seeds alone."
    )


def confirmed_text(cell: CellFinding) -> str:
    """A confirmed cell that does not speak for its level."""
    difference = f"; {cell.difference.text('+')}" if cell.difference else ""
    return f"{settings_text(cell.parameters)}: {cell.value.text()}{difference}"


def level_finding_text(finding: LevelFinding, best_level: Any) -> str:
    """One level: mean, verdict, difference to the best, and who else keeps it undecided."""
    text = f"{level_text(finding.level)}: {number_text(finding.value.value)}, {finding.verdict}"
    if finding.difference is not None:
        text += f"; {finding.difference.text('+')} against {level_text(best_level)}"
    notes = [rivals_text(finding, best_level), seeds_needed_text(finding)]
    return "; ".join([text, *(note for note in notes if note)])


def rivals_text(finding: LevelFinding, best_level: Any) -> str:
    """Who or what keeps a level undecided that is within the margin of the best mean: without it, a contradiction."""
    if finding.withheld:
        return f"{finding.withheld}, so that its mean reads too well"
    if finding.verdict != "undecided" or best_level in finding.rivals:
        return ""
    return f"{listed(finding.rivals)} may lead by more than the margin"


def seeds_needed_text(finding: LevelFinding) -> str:
    """What would decide an undecided level; empty where it is decided, or the spread is not known."""
    if finding.verdict != "undecided" or finding.withheld:
        return ""
    if finding.difference is None or finding.difference.low is None:
        return ""
    if finding.seeds_needed is None:
        return f"{MAX_SEEDS} further seeds would not decide"
    some = "some " if finding.seeds_needed > 1 else ""
    return f"{some}{counted(finding.seeds_needed, 'further seed')} would likely decide ({percent(POWER)})"


def floor_text(name: str, floor: float, measured: str, arm: Arm, verdict: str) -> str:
    """Whether the networks are worth more than a rule without any; `measured` says what the floor's number is."""
    rule = f"{FLOORS.get(name, words(name))} ({measured} {number_text(floor)})"
    if arm.value.low is None:
        return f"One seed cannot tell if the networks beat {rule}."
    return f"The networks {FLOOR_VERDICTS[verdict]} {rule}."
