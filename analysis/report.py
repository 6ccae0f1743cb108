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

from analysis.findings import Findings, LevelFinding
from analysis.plots import FIGURE_NAME, Plot, draw
from analysis.runs import StudyRuns
from analysis.wording import INTERVALS_MEAN, level_text, listed, rivals_text, words
from trainable.atomic import write_atomically

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

METHOD = (
    "A seed is a block: the same draw of points, the same starting weights and the same image order in every cell, so"
    " that differences are paired by seed. Each level of a scientific factor, such as the point count, is read at its"
    " own other settings of the best mean over all seeds. Intervals are Student's t, nominally 95 %; those of"
    " differences hold for all pairs of levels of a factor together (Bonferroni). Settings are chosen and measured on"
    " the same seeds and validation images, so the values read somewhat too well; fresh seeds would tell by how much."
    " In simulated studies of two counts, with equal noise, 3 to 8 seeds and up to six settings tied at a count,"
    " nominal 95 % intervals of the difference miss in 1 to 9 % of studies (5 % nominal): least where both counts have"
    " ties, most where one has a clear winner and the other six ties. In that worst case a count that truly lies one"
    " margin behind is wrongly called enough in at most 9 %. Beyond that it gets worse: 13 % where the tied settings"
    " also have all the noise, 15 % with 16 ties. So it stands until confirmation seeds exist."
)

Rows = list[tuple[str, str]]


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


# What both reports show ----------------------------------------------------------------------------------------------


def _data_rows(runs: StudyRuns) -> Rows:
    data = runs.data
    classes = ", ".join(map(str, data.get("class_names", [])))
    return [
        ("Source", str(data.get("source", "unknown"))),
        ("Images", f"{data.get('num_images', 'unknown')} used of {data.get('num_images_available', 'unknown')}"),
        ("Scenes", str(data.get("num_scenes", "unknown"))),
        ("Image size", f"{data.get('image_size', 'unknown')} pixels a side"),
        ("Classes", classes or "unknown"),
        ("Labels", "points that people made" if data.get("annotations") == "points" else "masks"),
        ("Fingerprint", str(data.get("fingerprint", "unknown"))),
        *(("To be known", str(warning)) for warning in data.get("warnings", [])),
    ]


def _split_rows(runs: StudyRuns) -> list[tuple[str, str, str, str]]:
    """(split, number of images, forest share, scenes)."""
    shares = runs.data.get("forest_share", {})
    return [
        (
            name,
            str(split.get("num_images", "unknown")),
            f"{shares[name]:.3f}" if name in shares else "unknown",
            ", ".join(map(str, split.get("scenes", []))),
        )
        for name, split in runs.data.get("splits", {}).items()
    ]


def _protocol_rows(runs: StudyRuns, findings: Findings) -> Rows:
    objective = runs.objective
    goal = "larger is better" if objective["mode"] == "max" else "smaller is better"
    trial_id = findings.cell(findings.recommended.parameters).trial_ids[0]
    varied = {*runs.parameters, "seed"}
    fixed = {name: value for name, value in runs.training[trial_id].items() if name not in varied}
    minutes = float(runs.trials["time_s"].sum()) / 60
    return [
        ("Objective", f"{objective['metric']} at the {objective['at']} epoch; {goal}"),
        ("Margin", f"{objective['margin']:.3f}: a smaller difference is called negligible"),
        ("Seeds", listed(findings.seeds)),
        (
            "Runs",
            f"{len(findings.cells)} cells at {len(findings.seeds)} seeds; {minutes:.1f} minutes of training in all",
        ),
        *_points_rows(runs, findings),
        ("Same in all runs", ", ".join(f"{words(name)} {level_text(value)}" for name, value in fixed.items())),
    ]


def _points_rows(runs: StudyRuns, findings: Findings) -> Rows:
    """What the annotations really held, for each scientific level, as a mean over its runs."""
    if "points/per_image" not in runs.epochs:
        return []
    texts = []
    for arm in findings.arms:
        means = runs.epochs[runs.epochs["run_id"].isin(arm.run_ids)].mean(numeric_only=True)
        texts.append(
            f"{_parameters_text(arm.scientific) or 'all runs'}: {means['points/per_image']:.6g} an image"
            f" (fewest {means['points/fewest']:.6g}), {means['points/forest_share']:.1%} forest,"
            f" {means['points/images_of_one_class']:.6g} images with one class alone"
        )
    return [("Labels obtained", "; ".join(texts))]


def _parameters_text(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{words(name)} {level_text(level)}" for name, level in parameters.items())


# The files -----------------------------------------------------------------------------------------------------------


def _html(runs: StudyRuns, findings: Findings, plots: list[Plot]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(level=level_text, words=words, parameters=_parameters_text, rivals=rivals_text)
    template = resources.files("analysis").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        findings=findings,
        figures=[(plot, _inline(plot)) for plot in plots],
        data=_data_rows(runs),
        splits=_split_rows(runs),
        protocol=_protocol_rows(runs, findings),
        method=METHOD,
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
        head = (words(factor.name), "verdict", "mean", f"difference to {level_text(factor.best_level)}")
        parts += [_md(factor.text), _md_table(head, rows)]
    parts += [_md(INTERVALS_MEAN), *(_md(floor.text) for floor in findings.floors), "## Figures"]
    parts += [f"![{_md(plot.title)}](figures/{plot.name}.svg)\n\n{_md(plot.text)}" for plot in plots]
    parts += ["## Read with care", "\n".join(f"- {_md(caveat.text)}" for caveat in findings.caveats)]
    parts += ["## Data", _md_table(("", ""), _data_rows(runs))]
    parts += [_md_table(("split", "images", "forest share", "scenes"), _split_rows(runs))]
    parts += ["## Protocol", _md_table(("", ""), _protocol_rows(runs, findings)), _md(METHOD)]
    cells = [(_parameters_text(cell.parameters), cell.value.text(), ", ".join(cell.run_ids)) for cell in findings.cells]
    parts += ["## Runs", _md_table(("cell", findings.objective["metric"], "runs"), cells)]
    if findings.excluded:
        parts += [_md_table(("left out", "reason"), [tuple(item) for item in findings.excluded])]
    return "\n\n".join(parts) + "\n"


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
