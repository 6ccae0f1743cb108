"""Findings in plain words, for a terminal and for the reports."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from analysis.findings import SCIENTIFIC, Arm, Findings, LevelFinding
from analysis.statistics import Estimate

def findings_text(findings: Findings) -> str:
    """The findings in plain words, about a dozen and a half lines for a terminal."""
    lines = [findings.headline]
    for factor in findings.factors:
        lines += [factor.text, *(f"  {level.text}" for level in factor.levels if len(factor.levels) > 1)]
    lines += [floor.text for floor in findings.floors]
    if len(findings.seeds) > 1:
        lines.append(INTERVALS_MEAN)
    lines += ["Read with care:", *(f"  - {caveat.text}" for caveat in findings.caveats)]
    return "\n".join(lines)


def level_text(level: Any) -> str:
    """A factor's level as people write it: 50, 0.001, resnet18."""
    return f"{level:g}" if isinstance(level, int | float) and abs(level) < 1e6 else str(level)


def words(name: str) -> str:
    """A setting's name as words: points_per_image -> points per image."""
    return name.replace("_", " ")


def listed(items: Sequence[Any]) -> str:
    """`a, b and c`."""
    texts = [level_text(item) for item in items]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def _headline(runs: StudyRuns, arm: Arm, provisional: bool) -> str:
    settings = dict(arm.parameters)
    points = settings.pop("points_per_image", None) if "points_per_image" in arm.scientific else None
    named = listed([f"{words(name)} {level_text(level)}" for name, level in settings.items()]) or "these settings"
    what = f"Use {named}" if points is None else f"Label {level_text(points)} points per image, with {named}"
    seeds = f"over {arm.value.num_seeds} seeds" if arm.value.num_seeds > 1 else "from 1 seed, so without interval"
    result = f"{what}: {runs.objective['metric']} {arm.value.text()} {seeds}."
    return f"Provisional, as no difference is settled yet. {result}" if provisional else result


def _factor_text(name: str, role: str, best_level: Any, recommended: Any, levels: list[LevelFinding]) -> str:
    best, chosen = level_text(best_level), level_text(recommended)
    if len(levels) == 1:
        return f"{words(name).capitalize()}: only {best} was tried."
    how = "each at its own best other settings" if role == SCIENTIFIC else "mean over all other settings"
    result = f"{best} has the best mean"
    if chosen != best:
        result += f", {chosen} is enough" if role == SCIENTIFIC else f", {chosen} with the other chosen settings"
    if undecided := [level.level for level in levels if level.verdict == "undecided"]:
        result += f"; undecided: {listed(undecided)}"
    return f"{words(name).capitalize()} ({how}): {result}."
