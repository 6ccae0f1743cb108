"""A figure for each topic that has something to draw: a few by what they are, every other by its intervals."""

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from analysis.findings import Claim, Topic
from analysis.reading.study_terms import is_number
from analysis.report.drawing import COLOURS, GREY, Plot, is_log, make_plot
from analysis.statistics import Estimate, number_text
from analysis.wording import printable

MAX_ROWS = 24
"""Of a figure: more than fit on a page are no picture any more; the table has them all."""
LABEL_WIDTH = 26


def topic_plot(topic: Topic) -> Plot | None:
    """The figure of one topic; None where fewer than two of its claims can be drawn."""
    draw = DRAWN_BY_NAME.get(topic.name)
    return (draw(topic) if draw else None) or _interval_plot(topic)


def _interval_plot(topic: Topic) -> Plot | None:
    """Estimates with their intervals, one below the other."""
    rows = [(claim, claim.estimate) for claim in topic.claims if claim.estimate and claim.estimate.low is not None]
    if len(rows) < 2:
        return None
    shown = rows[:MAX_ROWS]
    return _plot(
        topic,
        f"Discs and bars: estimate and interval over {topic.population or 'what was measured'}.{_rest(rows)}"
        f" {_seen(shown)}",
        0.75 + 0.3 * len(shown),
        lambda axes: _draw_intervals(axes, topic.unit, shown),
    )


def _draw_intervals(axes: Axes, unit: str, rows: list[tuple[Claim, Estimate]]) -> None:
    for row, (_, estimate) in enumerate(rows):
        axes.hlines(row, estimate.low or 0.0, estimate.high or 0.0, color=COLOURS[0], linewidth=2, zorder=2)
        axes.plot(estimate.value, row, "o", color=COLOURS[0], markersize=5.5, zorder=3)
    if min(estimate.low or 0.0 for _, estimate in rows) < 0 < max(estimate.high or 0.0 for _, estimate in rows):
        axes.axvline(0, color=GREY, linewidth=1.1, zorder=1)
    _name_rows(axes, [claim for claim, _ in rows])
    axes.set_xlabel(_label(unit))


def _importance_plot(topic: Topic) -> Plot | None:
    """Each importance beside what chance alone reaches."""
    rows = [(c, c.estimate, c.values["null"]) for c in topic.claims if c.estimate and is_number(c.values.get("null"))]
    if len(rows) < 2:
        return None
    shown = rows[:MAX_ROWS]
    seen = "; ".join(f"{claim.subject}: {e.text()}, chance {number_text(null)}" for claim, e, null in shown)
    return _plot(
        topic,
        f"Bars: importance. Strokes: what chance alone reaches; a bar that does not pass its stroke is noise. {seen}.",
        0.75 + 0.34 * len(shown),
        lambda axes: _draw_importance(axes, topic.unit, shown),
    )


def _draw_importance(axes: Axes, unit: str, rows: list[tuple[Claim, Estimate, float]]) -> None:
    for row, (_, estimate, null) in enumerate(rows):
        axes.barh(row, estimate.value, height=0.5, color=COLOURS[0] if estimate.value > null else GREY, zorder=2)
        axes.vlines(null, row - 0.4, row + 0.4, color=COLOURS[1], linewidth=2.2, zorder=3)
    _name_rows(axes, [claim for claim, _, _ in rows])
    axes.set_xlabel(_label(unit))


def _effort_plot(topic: Topic) -> Plot | None:
    """The metric against annotation hours; what no cheaper setting reaches is the front."""
    rows = [
        (c.values["hours"], c.estimate, bool(c.values.get("on_front")), c.subject)
        for c in topic.claims
        if c.estimate and is_number(c.values.get("hours"))
    ]
    if len(rows) < 2:
        return None
    rows.sort(key=lambda row: row[0])
    front = "; ".join(f"{name}: {estimate.text()} for {hours:.3g} h" for hours, estimate, on, name in rows if on)
    return _plot(
        topic,
        f"Discs on the line: the Pareto front, which no setting of as little effort exceeds: {front}. Grey: others.",
        3.2,
        lambda axes: _draw_effort(axes, topic.unit, rows),
    )


def _draw_effort(axes: Axes, unit: str, rows: list[tuple[float, Estimate, bool, str]]) -> None:
    for hours, estimate, on_front, name in rows:
        colour = COLOURS[0] if on_front else GREY
        if estimate.low is not None and estimate.high is not None:
            axes.vlines(hours, estimate.low, estimate.high, color=colour, linewidth=1.6, alpha=0.7, zorder=2)
        axes.plot(hours, estimate.value, "o", color=colour, markersize=5 if on_front else 4, zorder=4)
        if on_front:
            side: Any = "right" if hours == rows[-1][0] else "left"
            beside: dict[str, Any] = {"textcoords": "offset points", "ha": side, "fontsize": 7, "zorder": 5}
            axes.annotate(_short(name), (hours, estimate.value), (4 if side == "left" else -4, -9), **beside)
    on = [(hours, estimate.value) for hours, estimate, on_front, _ in rows if on_front]
    axes.step(*np.array(on).T.reshape(2, -1), where="post", color=COLOURS[0], linewidth=1.2, zorder=3)
    if is_log([hours for hours, *_ in rows]):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda hours, _: f"{hours:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.12)
    axes.set_xlabel("annotation hours")
    axes.set_ylabel(_label(unit))


def _power_plot(topic: Topic) -> Plot | None:
    """The smallest difference that a study of so many seeds would find."""
    smallest: dict[float, float] = {}
    for values in (claim.values for claim in topic.claims):
        seeds, difference = values.get("num_seeds"), values.get("difference")
        if is_number(seeds) and is_number(difference):
            smallest[seeds] = min(difference, smallest.get(seeds, difference))
    points = sorted(smallest.items())
    if len(points) < 2:
        return None
    seen = "; ".join(f"{seeds:g} seeds: {number_text(difference)}" for seeds, difference in points)
    return _plot(
        topic,
        f"The smallest difference that so many seeds detect. {seen}.",
        2.8,
        lambda axes: _draw_power(axes, topic.unit, points),
    )


def _draw_power(axes: Axes, unit: str, points: list[tuple[float, float]]) -> None:
    axes.plot(*np.array(points).T, "o-", color=COLOURS[0], linewidth=1.4, markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seeds")
    axes.set_ylabel(_label(f"detectable difference ({unit})"))


DRAWN_BY_NAME: dict[str, Callable[[Topic], Plot | None]] = {
    "importance": _importance_plot,
    "effort": _effort_plot,
    "power": _power_plot,
}


def _plot(topic: Topic, text: str, height: float, draw_on: Callable[[Axes], None]) -> Plot:
    return make_plot(
        f"topic_{topic.name}", topic.title, text, height, lambda figure: draw_on(figure.add_subplot())
    )  # fmt: skip


def _name_rows(axes: Axes, claims: list[Claim]) -> None:
    axes.set_yticks(range(len(claims)), [_short(claim.subject) for claim in claims])
    axes.set_ylim(len(claims) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def _label(unit: str) -> str:
    return textwrap.fill(printable(unit), 2 * LABEL_WIDTH)


def _short(subject: str) -> str:
    """Two lines at most."""
    lines = textwrap.wrap(printable(subject), LABEL_WIDTH) or [""]
    return "\n".join(lines if len(lines) <= 2 else [lines[0], f"{lines[1][: LABEL_WIDTH - 1]}…"])


def _seen(rows: list[tuple[Claim, Estimate]]) -> str:
    return "; ".join(f"{claim.subject}: {estimate.text()}" for claim, estimate in rows) + "."


def _rest(rows: list[Any]) -> str:
    return f" The first {MAX_ROWS} of {len(rows)} rows." if len(rows) > MAX_ROWS else ""
