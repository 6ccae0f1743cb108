"""Figures of what factors do: a metric by level, exploration against confirmation, learning curves."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.findings import Arm, FactorFinding, Findings
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import is_number
from analysis.report.drawing import COLOURS, GREY, RUST, Plot, is_log, make_plot, positions, roomy, spread_over
from analysis.statistics import Estimate, number_text
from analysis.wording import level_text, num_seeds_text, printable, settings_text, words

LINE_STYLES = ("-", "--", "-.", ":")
MAX_CURVES, MAX_TOLD, MAX_SLANTED = 12, 24, 8
"""Of more levels some are drawn, told in words, or named on the axis: the tables have them all."""
AXIS_WIDTH = 3.0
"""Of a figure's levels, in inches, at least."""
SEEDS_ASIDE = 0.045
"""How far left of its mean a level's seeds are drawn, as a share of what all levels span."""


def level_plot(findings: Findings, factor: FactorFinding) -> Plot:
    """The metric by level: a dot a seed, mean and t interval, floors as labelled lines."""
    metric, name = findings.metric, words(factor.name)
    seeds = num_seeds_text([level.value for level in factor.levels])
    shown = [factor.levels[i] for i in spread_over(len(factor.levels), MAX_TOLD)]
    seen = "; ".join(f"{level_text(level.level)}: {level.value.text()}" for level in shown)
    told = _told(len(shown), len(factor.levels), "levels", "told here")
    floors = "".join(f" Floor, {words(floor.name)}: {number_text(floor.floor)}." for floor in findings.floors)
    return make_plot(
        f"levels_{factor.name}",
        f"{metric} by {name}",
        f"Dots: seeds. Discs and bars: mean and 95 % interval over {seeds}.{told} {seen}.{floors}",
        3.2,
        lambda figure: _draw_levels(figure.add_subplot(), findings, factor),
    )


def _draw_levels(axes: Axes, findings: Findings, factor: FactorFinding) -> None:
    places = positions([level.level for level in factor.levels])
    span = float(np.ptp(places)) or 1.0
    thin = min(1.0, MAX_TOLD / len(places))
    on_line = [(x, each.value.value) for x, each in zip(places, factor.levels, strict=True) if is_number(each.level)]
    axes.plot([x for x, _ in on_line], [y for _, y in on_line], color=COLOURS[0], linewidth=1.2, zorder=2)
    aside = min(SEEDS_ASIDE * span, 0.35 * float(np.diff(places).min(initial=np.inf)))
    for x, level in zip(places, factor.levels, strict=True):
        jitter = np.linspace(-0.2, 0.2, len(level.readings)) * aside if len(level.readings) > 1 else np.zeros(1)
        axes.scatter(x - aside + jitter, level.readings, s=11 * thin, color=GREY, alpha=0.8, linewidths=0, zorder=3)
        axes.plot(x, level.value.value, "o", color=COLOURS[0], markersize=5.5 * thin**0.5, zorder=4)
        if level.value.low is not None and level.value.high is not None:
            axes.vlines(x, level.value.low, level.value.high, color=COLOURS[0], linewidth=2.2 * thin, zorder=3)
    _draw_floors(axes, findings)
    names = [level_text(level.level) for level in factor.levels]
    _name_levels(axes, places, names)
    axes.set_xlim(places.min() - 0.1 * span, places.max() + 0.1 * span)
    axes.set_xlabel(words(factor.name) + (" (log scale)" if is_log([level.level for level in factor.levels]) else ""))
    axes.set_ylabel(printable(findings.metric))
    axes.grid(axis="x", visible=False)


def _name_levels(axes: Axes, places: NDArray[np.float64], names: list[str]) -> None:
    """Every level's name where there is room; of many, as many as fit, and of long ones, slanted."""
    shown = roomy(places, names, AXIS_WIDTH)
    if len(shown) == len(names) or len(names) > MAX_SLANTED:
        axes.set_xticks(places[shown], [names[i] for i in shown])
    else:
        axes.set_xticks(places, names, rotation=30, ha="right", rotation_mode="anchor")


def _told(shown: int, number: int, what: str, how: str) -> str:
    return f" {shown} of {number} {what} are {how}." if shown < number else ""


def _draw_floors(axes: Axes, findings: Findings) -> None:
    for floor in findings.floors:
        axes.axhline(floor.floor, color=COLOURS[1], linewidth=1.1, linestyle="--", zorder=1)
    low, high = axes.get_ylim()
    line = (high - low) / 17  # of text, in the units of the axis: as many of them stand beside it
    top = low - high
    for floor in sorted(findings.floors, key=lambda floor: floor.floor):
        lines = [*words(floor.name).split(), number_text(floor.floor)]
        middle = max(floor.floor, top + len(lines) * line / 2)  # above the label below
        top = middle + len(lines) * line / 2
        inks: dict[str, Any] = {"fontsize": 8, "color": RUST, "va": "center"}
        axes.text(1.015, middle, "\n".join(lines), transform=axes.get_yaxis_transform(), **inks)
    axes.set_ylim(low, high)


def curse_plot(findings: Findings) -> Plot | None:
    """What exploration had read of each chosen setting beside what fresh seeds read, by the objective's metric."""
    metric = findings.objective["metric"]
    pairs = [
        (settings_text(arm.scientific), arm.explored, arm.val) for arm in findings.arms if arm.explored and arm.val
    ]
    if not pairs:
        return None
    told = len(pairs)
    pairs = [pairs[i] for i in spread_over(told, MAX_TOLD)]
    seen = "; ".join(f"{name}: {had_read.text()} against {fresh.text()}" for name, had_read, fresh in pairs)
    return make_plot(
        "exploration_confirmation",
        f"{metric} in exploration and on fresh seeds",
        f"Circles: what exploration had read. Discs: the same setting on fresh seeds. Bars: 95 % intervals."
        f"{_told(len(pairs), told, 'settings', 'drawn')} {seen}.",
        0.9 + 0.42 * len(pairs),
        lambda figure: _draw_pairs(figure.add_subplot(), pairs, metric),
    )


def _draw_pairs(axes: Axes, pairs: list[tuple[str, Estimate, Estimate]], metric: str) -> None:
    for row, (_, had_read, fresh) in enumerate(pairs):
        _draw_reading(axes, row - 0.13, had_read, COLOURS[1], "white")
        _draw_reading(axes, row + 0.13, fresh, COLOURS[0], COLOURS[0])
    axes.set_yticks(range(len(pairs)), [name for name, _, _ in pairs])
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.set_xlabel(printable(metric))
    axes.grid(axis="y", visible=False)


def _draw_reading(axes: Axes, y: float, reading: Estimate, colour: str, face: str) -> None:
    if reading.low is not None and reading.high is not None:
        axes.hlines(y, reading.low, reading.high, color=colour, linewidth=1.8, zorder=2)
    axes.plot(reading.value, y, "o", color=colour, markerfacecolor=face, markersize=5.5, zorder=3)


def curve_plot(runs: StudyRuns, findings: Findings) -> Plot:
    """The objective's metric by epoch for each scientific level at its chosen setting."""
    metric = findings.objective["metric"]
    arms = [findings.arms[i] for i in spread_over(len(findings.arms), MAX_CURVES)]
    told = _told(len(arms), len(findings.arms), "levels", "drawn")
    ends = "; ".join(
        f"{arm_label(arm.parameters, arm.scientific)}: {number_text((arm.val or arm.value).value)}" for arm in arms
    )
    seeds = "fresh seeds" if findings.is_confirmed else "seeds"
    return make_plot(
        "learning_curves",
        f"{metric} by epoch",
        f"Thin lines: {seeds}. Thick lines: their mean, at each level's chosen setting.{told} Reached: {ends}.",
        2.7 + 0.17 * len(arms),
        lambda figure: _draw_curves(figure.add_subplot(), runs, arms, metric),
    )


def _draw_curves(axes: Axes, runs: StudyRuns, arms: list[Arm], metric: str) -> None:
    for i, arm in enumerate(arms):
        epochs, curves = _curves(runs, arm, metric)
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINE_STYLES[i % len(LINE_STYLES)]}
        marker = "o" if len(epochs) == 1 else ""
        axes.plot(epochs, curves, color=style["color"], linewidth=0.7, alpha=0.4, marker=marker, markersize=3)
        label = arm_label(arm.parameters, arm.scientific)
        axes.plot(epochs, curves.mean(axis=1), linewidth=2, marker=marker, markersize=5, label=label, **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(printable(metric))
    axes.legend(frameon=False, fontsize=8, handlelength=2.6, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def _curves(runs: StudyRuns, arm: Arm, metric: str) -> tuple[Any, Any]:
    """(num_epochs,) and (num_epochs, num_seeds)."""
    table = runs.curves([metric], set(arm.run_ids)).pivot(index="epoch", columns="run_id", values=metric)
    return table.index.to_numpy(), table.to_numpy(dtype=np.float64)


def arm_label(parameters: dict[str, Any], scientific: dict[str, Any]) -> str:
    """The scientific levels, then the rest: `points per image 50: learning rate 0.001`."""
    head = ", ".join(f"{words(name)} {level_text(level)}" for name, level in scientific.items())
    rest = ", ".join(f"{words(name)} {level_text(v)}" for name, v in parameters.items() if name not in scientific)
    return ": ".join(part for part in (head, rest) if part) or "all runs"
