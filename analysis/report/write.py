"""Findings -> files: JSON for programs, Markdown and one self-contained HTML page for people, CSV for further work.

Names of studies, scenes and folders come out of run files, which may be anyone's: HTML is escaped by jinja2 and may
load or run nothing (its Content-Security-Policy), Markdown is escaped here, no CSV cell can be taken for a formula.
"""

import json
import re
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis.findings import CellFinding, FactorFinding, Findings, LevelFinding
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import on_test_split
from analysis.report.plots import FIGURE_NAME, Plot, draw
from analysis.report.protocol import data_rows, method_text, protocol_rows, split_rows
from analysis.wording import (
    INTERVALS_MEAN,
    confirmation_text,
    level_text,
    num_seeds_text,
    rivals_text,
    settings_text,
    words,
)
from trainable.atomic import write_atomically

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_report(study_dir: Path, runs: StudyRuns, findings: Findings) -> dict[str, Path]:
    """Writes everything but `best.yaml` into `<study_dir>/analysis`; each file is there whole or not at all.

    Returns:
        Name below `analysis/` -> path. Figures of an earlier report that this one lacks are gone.
    """
    plots = draw(runs, findings)
    texts = {
        "findings.json": json.dumps(findings.to_mapping(), indent=2, allow_nan=False) + "\n",
        "report.md": _markdown(runs, findings, plots),
        "report.html": _html(runs, findings, plots),
        "runs.csv": _csv(runs.epochs),
        **{f"figures/{plot.name}.svg": f'<?xml version="1.0" encoding="utf-8"?>\n{plot.svg}' for plot in plots},
    }
    paths = {name: study_dir / "analysis" / name for name in texts}
    figures = study_dir / "analysis" / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(paths[name], text.encode("utf-8", errors="replace"))  # half a surrogate pair has no bytes
    _remove_stale(figures, {path.name for path in paths.values()})
    return paths


def _remove_stale(figures: Path, fresh: set[str]) -> None:
    """Removes earlier figures of ours: a factor may be gone from the study. Files of others stay."""
    for path in figures.glob("*.svg"):
        if FIGURE_NAME.fullmatch(path.stem) and path.name not in fresh:
            path.unlink()


def _confirmation_rows(findings: Findings) -> list[tuple[str, str, str, str]]:
    """(level, what exploration had read, the same on fresh seeds, the test split on fresh seeds)."""
    return [
        (
            settings_text(arm.scientific),
            arm.explored.text() if arm.explored else "not explored",
            arm.val.text() if arm.val else "",
            arm.value.text(),
        )
        for arm in findings.arms
        if findings.is_confirmed
    ]


def _cell_rows(cells: list[CellFinding]) -> list[tuple[str, str, str, str]]:
    """(cell, mean, difference to the confirmed cell that is read at its level, runs)."""
    return [
        (
            settings_text(cell.parameters),
            cell.value.text(),
            cell.difference.text("+") if cell.difference else "",
            ", ".join(cell.run_ids),
        )
        for cell in cells
    ]


def _caption(factor: FactorFinding) -> str:
    return f"{factor.metric} by {words(factor.name)}, {num_seeds_text([level.value for level in factor.levels])}"


# The files -----------------------------------------------------------------------------------------------------------


def _html(runs: StudyRuns, findings: Findings, plots: list[Plot]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(level=level_text, words=words, rivals=rivals_text, caption=_caption)
    template = resources.files("analysis.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        findings=findings,
        figures=[(plot, _inline(plot)) for plot in plots],
        data=data_rows(runs),
        splits=split_rows(runs),
        protocol=protocol_rows(runs, findings),
        confirmation=_confirmation_rows(findings),
        confirmation_text=confirmation_text(findings),
        confirmed=_cell_rows(findings.confirmed),
        explored=_cell_rows(findings.cells),
        method=method_text(runs, findings),
        intervals_mean=INTERVALS_MEAN,
    )


def _inline(plot: Plot) -> Markup:
    """The figure as an element of the page: as wide as there is room, with its text alternative, naming no address."""
    view_box = re.search(r'viewBox="[0-9. -]+"', plot.svg)
    assert view_box, "matplotlib gives every figure a viewBox"
    inner = plot.svg[plot.svg.index(">") + 1 :]
    # Inside HTML the namespaces are implied. Our own drawing, from escaped text: safe as it stands.
    return Markup(f'<svg {view_box[0]} role="img" aria-label="{escape(plot.title)}. {escape(plot.text)}">{inner}')


def _csv(epochs: pd.DataFrame) -> str:
    """The tidy table; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    guarded = epochs.apply(lambda column: column.map(_inert)) if len(epochs) else epochs
    return guarded.rename(columns=_inert).to_csv(index=False, lineterminator="\n")


def _inert(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def _markdown(runs: StudyRuns, findings: Findings, plots: list[Plot]) -> str:
    parts = [f"# Study {_md(findings.study)}", f"**{_md(findings.headline)}**"]
    parts += [*(f"**{_md(floor.text)}**" for floor in findings.floors_not_beaten()), "## Findings"]
    for factor in findings.factors:
        rows = [_md_level(level, factor.best_level) for level in factor.levels]
        head = (words(factor.name), "verdict", factor.metric, f"difference to {level_text(factor.best_level)}")
        parts += [_md(factor.text), _md_table(head, rows)]
    parts += [_md(INTERVALS_MEAN), *(_md(floor.text) for floor in findings.floors), *_md_confirmation(findings)]
    parts += ["## Figures"]
    parts += [f"![{_md(plot.title)}](figures/{plot.name}.svg)\n\n{_md(plot.text)}" for plot in plots]
    parts += ["## Read with care", "\n".join(f"- {_md(caveat.text)}" for caveat in findings.caveats)]
    parts += ["## Data", _md_table(("", ""), data_rows(runs))]
    parts += [_md_table(("split", "images", "forest share", "scenes"), split_rows(runs))]
    parts += ["## Protocol", _md_table(("", ""), protocol_rows(runs, findings)), _md(method_text(runs, findings))]
    explored = [(cell, mean, run_ids) for cell, mean, _, run_ids in _cell_rows(findings.cells)]
    parts += ["## Runs", _md_table(("explored cell", findings.objective["metric"], "runs"), explored)]
    if findings.excluded:
        parts += [_md_table(("left out", "reason"), [tuple(item) for item in findings.excluded])]
    return "\n\n".join(parts) + "\n"


def _md_confirmation(findings: Findings) -> list[str]:
    if not findings.confirmed:
        return []
    val, test = findings.objective["metric"], on_test_split(findings.objective["metric"])
    parts = ["## Confirmation"]
    if findings.is_confirmed:
        head = ("level", f"explored: {val}", f"fresh seeds: {val}", f"fresh seeds: {test}")
        parts += [_md(confirmation_text(findings)), _md_table(head, _confirmation_rows(findings))]
    head = ("confirmed cell", test, "difference to the one that is read at its level", "runs")
    return [*parts, _md_table(head, _cell_rows(findings.confirmed))]


def _md_level(level: LevelFinding, best_level: Any) -> tuple[str, str, str, str]:
    note = rivals_text(level, best_level)
    verdict = f"{level.verdict}: {note}" if note else level.verdict
    difference = level.difference.text("+") if level.difference else ""
    return level_text(level.level), verdict, level.value.text(), difference


def _md_table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell if cell == "---" else _md(cell) for cell in line) + " |" for line in lines)


def _md(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", escape(" ".join(text.split()), quote=False))
