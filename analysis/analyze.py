"""W&B runs -> findings, report and the configuration to train with: all of the analysis in one call."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from analysis.export.best import export_best
from analysis.find import find
from analysis.findings import Findings
from analysis.reading.runs import StudyRuns, load_study
from analysis.reading.source import Source, find_source
from analysis.report.write import write_report
from analysis.wording import findings_text
from trainable.atomic import check_parent

Draw = Callable[[StudyRuns, Findings, Path], None]
"""Draws the prediction panels that the report shows, into the folder of the results; not our business, as it needs the
network."""


@dataclass(frozen=True)
class Analysis:
    """What the analysis found and where it is written.

    Attributes:
        runs: what was read.
        findings: everything that it shows.
        text: the findings for a terminal.
        findings_path: findings.json, for programs.
        report_path: report.html, one self-contained page.
        markdown_path: report.md, with its figures beside it.
        best_path: best.yaml, which `canopoint train` reads; None of runs that are not ours.
    """

    runs: StudyRuns
    findings: Findings
    text: str
    findings_path: Path
    report_path: Path
    markdown_path: Path
    best_path: Path | None


def analyze_study(place: Source | Path, draw: Draw | None = None) -> Analysis:
    """Reads runs, draws the findings, writes the report and exports the recommended configuration.

    Args:
        place: a study's folder, or another source of runs.
        draw: called once the findings are known and before the report is written.

    Raises:
        InputError: there is no complete run, the runs do not go together, or the results cannot be written.
    """
    source = place if isinstance(place, Source) else find_source(place)
    check_parent(source.out / "analysis", "--out")
    runs = load_study(source)
    findings = find(runs)
    if draw:
        draw(runs, findings, source.out)
    written = write_report(source.out, runs, findings)
    return Analysis(
        runs=runs,
        findings=findings,
        text=findings_text(findings),
        findings_path=written["findings.json"],
        report_path=written["report.html"],
        markdown_path=written["report.md"],
        best_path=None if source.mapping else export_best(source.out, runs, findings),
    )
