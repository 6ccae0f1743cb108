"""A study's folder -> findings, report and the configuration to train with: all of the analysis in one call."""

from dataclasses import dataclass
from pathlib import Path

from analysis.export.best import export_best
from analysis.find import find
from analysis.findings import Findings
from analysis.reading.runs import load_study
from analysis.report.write import write_report
from analysis.wording import findings_text


@dataclass(frozen=True)
class Analysis:
    """What the analysis found and where it is written.

    Attributes:
        findings: everything that the study shows.
        text: the findings for a terminal.
        findings_path: findings.json, for programs.
        report_path: report.html, one self-contained page.
        markdown_path: report.md, with its figures beside it.
        best_path: best.yaml, which `canopoint train` reads.
    """

    findings: Findings
    text: str
    findings_path: Path
    report_path: Path
    markdown_path: Path
    best_path: Path


def analyze_study(study_dir: Path) -> Analysis:
    """Reads a study's runs, draws the findings, writes the report and exports the recommended configuration.

    Raises:
        InputError: the study has no complete run, or its runs do not go together.
    """
    runs = load_study(study_dir)
    findings = find(runs)
    written = write_report(study_dir, runs, findings)
    return Analysis(
        findings=findings,
        text=findings_text(findings),
        findings_path=written["findings.json"],
        report_path=written["report.html"],
        markdown_path=written["report.md"],
        best_path=export_best(study_dir, runs, findings),
    )
