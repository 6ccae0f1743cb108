"""A map of two nuisance factors for every scientific level."""

from math import ceil
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from analysis.findings import NUISANCE, Arm, Findings
from analysis.grid import level_order
from analysis.report.drawing import COLOURS, ON_MAP, Plot, make_plot, spread_over
from analysis.report.level_plots import arm_label
from analysis.wording import level_text, printable, words

MOST_ACROSS, MOST_DOWN = 6, 10
"""Cells of a map whose numbers can be read; a larger map has a colour bar in their place, and fewer ticks."""

MAX_MAPS = 8


def map_plot(findings: Findings) -> Plot | None:
    """Means by the first two nuisance factors; None where there are fewer."""
    nuisance = [factor.name for factor in findings.factors if factor.role == NUISANCE]
    if len(nuisance) < 2:
        return None
    across, down = nuisance[:2]
    arms, number = _drawn(findings), len(_explored(findings))
    told = f" {len(arms)} of {number} levels are drawn." if len(arms) < number else ""
    chosen = "; ".join(arm_label(arm.parameters, arm.scientific) for arm in arms)
    num_levels = len({cell.parameters[down] for cell in findings.cells})
    return make_plot(
        f"map_{across}_{down}",
        f"{findings.objective['metric']} by {words(across)} and {words(down)}",
        f"Means over exploration seeds, on one colour scale; the best of each map is framed.{told} Chosen: {chosen}.",
        ceil(len(arms) / 2) * (0.75 + 0.34 * min(num_levels, MOST_DOWN)) + 0.3,
        lambda figure: _draw_maps(figure, findings, across, down),
    )


def _draw_maps(figure: Figure, findings: Findings, across: str, down: str) -> None:
    arms = _drawn(findings)
    maps = [_means(findings, arm.scientific, across, down) for arm in arms]
    scale = Normalize(min(np.nanmin(m) for m in maps), max(np.nanmax(m) for m in maps))
    num_columns = min(2, len(maps))
    grid = figure.subplots(ceil(len(maps) / num_columns), num_columns, squeeze=False).ravel()
    for axes, arm, means in zip(grid, arms, maps, strict=False):
        axes.set_title(arm_label(arm.scientific, arm.scientific), fontsize=9)
        _draw_map(axes, means, scale, _best_cell(means, findings.objective["mode"]))
        axes.set_xticks(*_ticks(_levels(findings, across), MOST_ACROSS))
        axes.set_yticks(*_ticks(_levels(findings, down), MOST_DOWN))
        axes.set_xlabel(words(across))
        axes.set_ylabel(words(down))
    for axes in grid[len(maps) :]:
        axes.set_visible(False)
    if not _has_numbers(maps[0]):
        shades = ScalarMappable(scale, matplotlib.colormaps["cividis"].resampled(32))
        figure.colorbar(shades, ax=list(grid), label=printable(findings.objective["metric"]), shrink=0.6)


def _ticks(levels: list[Any], most: int) -> tuple[NDArray[np.float64], list[str]]:
    """Places and names of as many levels as there is room for; where not all are named, half as many and rounded."""
    if len(levels) <= most:
        return np.arange(float(len(levels))) + 0.5, [level_text(level) for level in levels]
    shown = range(0, len(levels), ceil(2 * len(levels) / most))
    rounded = [float(f"{level:.2g}") if isinstance(level, float) else level for level in levels]
    return np.array(shown, dtype=np.float64) + 0.5, [level_text(rounded[i]) for i in shown]


def _has_numbers(means: NDArray[np.float64]) -> bool:
    return bool(means.shape[0] <= MOST_DOWN and means.shape[1] <= MOST_ACROSS)


def _explored(findings: Findings) -> list[Arm]:
    """The arms whose level was explored; a cell given by hand may be confirmed at any other."""
    return [arm for arm in findings.arms if any(c.parameters.items() >= arm.scientific.items() for c in findings.cells)]


def _drawn(findings: Findings) -> list[Arm]:
    arms = _explored(findings)
    return [arms[i] for i in spread_over(len(arms), MAX_MAPS)]


def _draw_map(axes: Axes, means: NDArray[np.float64], scale: Normalize, best: tuple[int, int]) -> None:
    """Cells with their values, where there is room; the best one framed."""
    axes.pcolormesh(means, cmap=matplotlib.colormaps["cividis"], norm=scale, edgecolors="white", linewidth=0.5)
    axes.invert_yaxis()
    for (row, column), mean in np.ndenumerate(means):
        if np.isfinite(mean) and _has_numbers(means):
            ink = ON_MAP[0] if scale(mean) > 0.47 else ON_MAP[1]
            weight = "bold" if (row, column) == best else "normal"
            middle: dict[str, Any] = {"ha": "center", "va": "center"}
            axes.text(
                column + 0.5, row + 0.5, f"{mean:.3f}", fontsize=8, color=ink, fontweight=weight, **middle
            )  # fmt: skip
    frame = Rectangle((best[1] + 0.04, best[0] + 0.06), 0.92, 0.88, fill=False, edgecolor=COLOURS[1], linewidth=2.2)
    axes.add_patch(frame)
    axes.grid(visible=False)
    axes.tick_params(length=0, labelsize=8)


def _means(findings: Findings, scientific: dict[str, Any], across: str, down: str) -> NDArray[np.float64]:
    """(levels of down, levels of across) mean over any further factors; NaN where a cell is missing."""
    inside = [cell for cell in findings.cells if cell.parameters.items() >= scientific.items()]
    rows, columns = _levels(findings, down), _levels(findings, across)
    table = np.full((len(rows), len(columns)), np.nan)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            values = [c.value.value for c in inside if (c.parameters[down], c.parameters[across]) == (row, column)]
            table[i, j] = np.mean(values) if values else np.nan
    return table


def _levels(findings: Findings, name: str) -> list[Any]:
    return sorted({cell.parameters[name] for cell in findings.cells}, key=level_order)


def _best_cell(means: NDArray[np.float64], mode: str) -> tuple[int, int]:
    flat = np.nanargmax(means) if mode == "max" else np.nanargmin(means)
    row, column = np.unravel_index(flat, means.shape)
    return int(row), int(column)
