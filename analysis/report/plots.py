"""Findings -> figures, as self-contained SVG text: no remote parts, no date, the same bytes for the same study.

Each figure is 12 cm wide, so that its 9-point text stays legible when a phone shows it at half that width or a journal
prints it in one column. Colours: Okabe and Ito 2008, told apart by colour-blind readers; the maps use cividis.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log10
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.findings import NUISANCE, Arm, FactorFinding, Findings
from analysis.grid import level_order
from analysis.reading.runs import StudyRuns
from analysis.wording import level_text, num_seeds_text, words

WIDTH = 4.8  # inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", "-.", ":")
GREY = "#5a5a5a"

FIGURE_NAME = re.compile(r"levels_\w+|learning_curves|map_\w+", re.ASCII)
"""Names, without suffix, that figures of ours have; anything else in their folder is not ours to remove."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",  # letters as shapes: no font is looked up, the figure looks the same everywhere
    "svg.hashsalt": "canopoint",  # else ids, and with them the file, change at every call
    "text.parse_math": False,  # a level or metric with a dollar sign is no formula
    "font.family": "DejaVu Sans",  # the font that matplotlib brings along
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class Plot:
    """One figure: `name` is its file name, `text` says in words what it shows, for those who cannot see it."""

    name: str
    title: str
    text: str
    svg: str


def draw(runs: StudyRuns, findings: Findings) -> list[Plot]:
    """Every figure that the study's factors allow, in reading order."""
    plots = [_level_plot(findings, factor) for factor in findings.scientific]
    plots.append(_curve_plot(runs, findings))
    nuisance = [factor.name for factor in findings.factors if factor.role == NUISANCE]
    if len(nuisance) >= 2:
        plots.append(_map_plot(findings, nuisance[0], nuisance[1]))
    return plots


def _level_plot(findings: Findings, factor: FactorFinding) -> Plot:
    """The objective by level: a dot a seed, mean and t interval, floors as labelled lines."""
    metric, name = findings.metric, words(factor.name)
    seeds = num_seeds_text([level.value for level in factor.levels])
    seen = "; ".join(f"{level_text(level.level)}: {level.value.text()}" for level in factor.levels)
    floors = "".join(f" Floor, {words(floor.name)}: {floor.floor:.3f}." for floor in findings.floors)
    return Plot(
        _file_name(f"levels_{factor.name}"),
        f"{metric} by {name}",
        f"Dots: seeds. Discs and bars: mean and 95 % interval over {seeds}. {seen}.{floors}",
        _svg(3.2, lambda figure: _draw_levels(figure.add_subplot(), findings, factor)),
    )


def _draw_levels(axes: Axes, findings: Findings, factor: FactorFinding) -> None:
    positions = _positions([level.level for level in factor.levels])
    span = float(np.ptp(positions)) or 1.0
    axes.plot(positions, [level.value.value for level in factor.levels], color=COLOURS[0], linewidth=1.2, zorder=2)
    for x, level in zip(positions, factor.levels, strict=True):
        jitter = np.linspace(-0.012, 0.012, len(level.readings)) * span if len(level.readings) > 1 else np.zeros(1)
        axes.scatter(x - 0.03 * span + jitter, level.readings, s=11, color=GREY, alpha=0.8, linewidths=0, zorder=3)
        axes.plot(x, level.value.value, "o", color=COLOURS[0], markersize=5.5, zorder=4)
        if level.value.low is not None and level.value.high is not None:
            axes.vlines(x, level.value.low, level.value.high, color=COLOURS[0], linewidth=2.2, zorder=3)
    for floor in findings.floors:
        axes.axhline(floor.floor, color=COLOURS[1], linewidth=1.1, linestyle="--", zorder=1)
        label = "\n".join([*words(floor.name).split(), f"{floor.floor:.3f}"])
        inks: dict[str, Any] = {"fontsize": 8, "color": "#9c4400", "va": "center"}
        axes.text(1.015, floor.floor, label, transform=axes.get_yaxis_transform(), **inks)
    axes.set_xticks(positions, [level_text(level.level) for level in factor.levels])
    axes.set_xlim(positions.min() - 0.1 * span, positions.max() + 0.1 * span)
    axes.set_xlabel(words(factor.name) + (" (log scale)" if _is_log([level.level for level in factor.levels]) else ""))
    axes.set_ylabel(findings.metric)
    axes.grid(axis="x", visible=False)


def _curve_plot(runs: StudyRuns, findings: Findings) -> Plot:
    """The objective's metric by epoch for each scientific level at its chosen setting."""
    metric = findings.objective["metric"]
    ends = "; ".join(
        f"{_arm_label(arm.parameters, arm.scientific)}: {(arm.val or arm.value).value:.3f}" for arm in findings.arms
    )
    seeds = "fresh seeds" if findings.is_confirmed else "seeds"
    return Plot(
        "learning_curves",
        f"{metric} by epoch",
        f"Thin lines: {seeds}. Thick lines: their mean, at each level's chosen setting. Reached: {ends}.",
        _svg(3.2, lambda figure: _draw_curves(figure.add_subplot(), runs, findings)),
    )


def _draw_curves(axes: Axes, runs: StudyRuns, findings: Findings) -> None:
    metric = findings.objective["metric"]
    for i, arm in enumerate(findings.arms):
        table = runs.epochs[runs.epochs["run_id"].isin(arm.run_ids)].pivot(
            index="epoch", columns="run_id", values=metric
        )
        epochs, curves = table.index.to_numpy(), table.to_numpy(dtype=np.float64)
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINE_STYLES[i % len(LINE_STYLES)]}
        marker = "o" if len(epochs) == 1 else ""
        axes.plot(epochs, curves, color=style["color"], linewidth=0.7, alpha=0.4, marker=marker, markersize=3)
        label = _arm_label(arm.parameters, arm.scientific)
        axes.plot(epochs, curves.mean(axis=1), linewidth=2, marker=marker, markersize=5, label=label, **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric)
    axes.legend(frameon=False, fontsize=8, handlelength=2.6, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def _arm_label(parameters: dict[str, Any], scientific: dict[str, Any]) -> str:
    head = ", ".join(f"{words(name)} {level_text(level)}" for name, level in scientific.items())
    rest = ", ".join(f"{words(name)} {level_text(v)}" for name, v in parameters.items() if name not in scientific)
    return ": ".join(part for part in (head, rest) if part) or "all runs"


def _map_plot(findings: Findings, across: str, down: str) -> Plot:
    """One map of two nuisance factors for every scientific level."""
    metric = findings.objective["metric"]
    chosen = "; ".join(_arm_label(arm.parameters, arm.scientific) for arm in _explored(findings))
    arms = _explored(findings)
    num_rows = ceil(len(arms) / 2)
    num_levels = len({cell.parameters[down] for cell in findings.cells})
    return Plot(
        _file_name(f"map_{across}_{down}"),
        f"{metric} by {words(across)} and {words(down)}",
        f"Means over exploration seeds, on one colour scale; the best of each map is framed. Chosen: {chosen}.",
        _svg(num_rows * (0.75 + 0.34 * num_levels) + 0.3, lambda figure: _draw_maps(figure, findings, across, down)),
    )


def _draw_maps(figure: Figure, findings: Findings, across: str, down: str) -> None:
    arms = _explored(findings)
    maps = [_means(findings, arm.scientific, across, down) for arm in arms]
    scale = Normalize(min(np.nanmin(m) for m in maps), max(np.nanmax(m) for m in maps))
    num_columns = min(2, len(maps))
    grid = figure.subplots(ceil(len(maps) / num_columns), num_columns, squeeze=False).ravel()
    for axes, arm, means in zip(grid, arms, maps, strict=False):
        axes.set_title(_arm_label(arm.scientific, arm.scientific), fontsize=9)
        _draw_map(axes, means, scale, _best_cell(means, findings.objective["mode"]))
        axes.set_xticks(np.arange(means.shape[1]) + 0.5, [level_text(level) for level in _levels(findings, across)])
        axes.set_yticks(np.arange(means.shape[0]) + 0.5, [level_text(level) for level in _levels(findings, down)])
        axes.set_xlabel(words(across))
        axes.set_ylabel(words(down))
    for axes in grid[len(maps) :]:
        axes.set_visible(False)


def _explored(findings: Findings) -> list[Arm]:
    """The arms whose level was explored; a cell given by hand may be confirmed at any other."""
    return [arm for arm in findings.arms if any(c.parameters.items() >= arm.scientific.items() for c in findings.cells)]


def _draw_map(axes: Axes, means: NDArray[np.float64], scale: Normalize, best: tuple[int, int]) -> None:
    """Cells with their values; the best one framed."""
    colours = matplotlib.colormaps["cividis"]
    axes.pcolormesh(means, cmap=colours, norm=scale, edgecolors="white", linewidth=0.5)
    axes.invert_yaxis()
    for (row, column), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            ink = "black" if scale(mean) > 0.47 else "white"
            weight = "bold" if (row, column) == best else "normal"
            axes.text(
                column + 0.5,
                row + 0.5,
                f"{mean:.3f}",
                ha="center",
                va="center",
                fontsize=8,
                color=ink,
                fontweight=weight,
            )
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


def _file_name(name: str) -> str:
    """Letters, digits and underscores alone: names of factors come out of run files, which may be anyone's."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def _is_log(levels: Sequence[Any]) -> bool:
    """A log axis where positive numbers span a decade."""
    numbers = [level for level in levels if isinstance(level, int | float) and level > 0]
    return len(numbers) == len(levels) and max(numbers) >= 10 * min(numbers)


def _positions(levels: Sequence[Any]) -> NDArray[np.float64]:
    """Where levels lie on the axis: log10, the number itself, or their rank where they are names."""
    if _is_log(levels):
        return np.array([log10(level) for level in levels])
    is_numeric = all(isinstance(level, int | float) for level in levels)
    return np.array(levels if is_numeric else range(len(levels)), dtype=np.float64)


def _svg(height: float, draw_on: Callable[[Figure], None]) -> str:
    """Draws on a fresh figure, `height` inches high, and returns a bare <svg> element."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw_on(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # the metadata would name remote addresses
        figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    return re.sub(r"<!--.*?-->\n?", "", svg[svg.index("<svg") :], flags=re.DOTALL)
