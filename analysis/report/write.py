"""Findings -> files: JSON for programs, Markdown and one self-contained HTML page for people, tables for further work.

Names of studies, scenes and folders come out of run files, which may be anyone's: the page escapes them and may load
or run nothing else (`page.py`), Markdown is escaped (`markdown.py`), no CSV cell is a formula (`run_tables.py`).
"""

import json
import re
from pathlib import Path

from analysis.findings import Findings
from analysis.reading.runs import StudyRuns
from analysis.report.markdown import render_markdown
from analysis.report.page import render_page
from analysis.report.panels import read_panels
from analysis.report.run_tables import epochs_parquet, runs_csv
from analysis.report.sections import build_document
from trainable.atomic import write_atomically
from trainable.config import InputError

FIGURE_NAME = re.compile(
    r"(levels_\w+|learning_curves|map_\w+|exploration_confirmation|topic_\w+)\.(svg|png)", re.ASCII
)
"""Figures of ours; anything else in their folder is not ours to remove."""


def write_report(out: Path, runs: StudyRuns, findings: Findings) -> dict[str, Path]:
    """Writes everything but `best.yaml` into `<out>/analysis`; each file is there whole or not at all.

    Args:
        out: folder of the results, the study's own or another.
        runs: what was read.
        findings: what was found in it.

    Returns:
        Name below `analysis/` -> path. Figures of an earlier report that this one lacks are gone.

    Raises:
        InputError: a folder of the results is a link.
    """
    folder = _own_folder(out)
    document = build_document(runs, findings, read_panels(folder, findings, runs.study_dir))
    texts = {
        "findings.json": json.dumps(findings.to_mapping(), indent=2, allow_nan=False) + "\n",
        "report.md": render_markdown(document),
        "report.html": render_page(document),
        "runs.csv": runs_csv(runs),
        **{f"figures/{plot.name}.svg": plot.svg for plot in document.plots},
    }
    # Half a surrogate pair, which JSON can hold, has no bytes.
    files = {name: text.encode("utf-8", errors="replace") for name, text in texts.items()}
    files["epochs.parquet"] = epochs_parquet(runs.epochs)
    files |= {f"figures/{plot.name}.png": plot.png for plot in document.plots}
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(folder / name, content)
    _remove_stale(folder / "figures", {Path(name).name for name in files})
    return {name: folder / name for name in files}


def _own_folder(out: Path) -> Path:
    """The folder of the analysis, in which files are replaced and removed: it must not lie somewhere else.

    Raises:
        InputError: it, or the folder of its figures, is a link.
    """
    folder = out / "analysis"
    for path in (folder, folder / "figures"):
        if path.is_symlink():
            raise InputError(f"{path}: must be a folder of its own, is a link to {path.readlink()}; remove the link")
    return folder


def _remove_stale(figures: Path, fresh: set[str]) -> None:
    """Removes earlier figures of ours: a factor may be gone from the study. Files of others stay."""
    for path in figures.iterdir():
        if FIGURE_NAME.fullmatch(path.name) and path.name not in fresh and not path.is_symlink():
            path.unlink()
