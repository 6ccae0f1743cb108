"""The findings written back to W&B: a run in the study's group, and a W&B report where `wandb-workspaces` is there."""

import hashlib
import importlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import wandb

from analysis.findings import Findings, LevelFinding
from analysis.markdown_text import markdown_text
from analysis.reading.wandb_api import FINDINGS_JOB
from analysis.reading.wandb_client import ANSWER_S, connected_api
from analysis.statistics import Estimate
from study.lean_wandb import LEAN

ADDRESS, SHA256, VIEW = "findings_url", "findings_sha256", "report_view_id"
"""Keys of the run's summary: where a person finds them; what was written; the W&B report, to be written over."""


def write_back(findings: Findings, report_html: Path, project: str, group: str) -> str:
    """Shows the findings in W&B, beside the runs that they are drawn from; again, in the place of the earlier ones.

    Args:
        findings: what the study shows.
        report_html: the report, one self-contained page; shown by the run.
        project: `ENTITY/PROJECT`.
        group: the runs' group.

    Returns:
        The address of the W&B report, else of the run.

    Raises:
        InputError: there is no key, or W&B does not answer or does not take it.
    """
    content = report_html.read_bytes()
    summary = _summary(findings, hashlib.sha256(content).hexdigest())
    with connected_api(project), _begun(project, group) as run:
        known = dict(run.summary)
        if known.get(SHA256) != summary[SHA256]:
            run.log({"report": wandb.Html(content.decode(), inject=False)})
        run.summary.update(summary)
        address = str(run.url)
        if has_workspaces():
            run.summary[VIEW], address = _write_report(findings, project, group, str(known.get(VIEW) or ""))
        run.summary[ADDRESS] = address
    return address


def _begun(project: str, group: str) -> wandb.Run:
    """The run of the findings; always the same one of a group."""
    entity, _, name = project.partition("/")
    return wandb.init(
        entity=entity,
        project=name,
        id=f"{re.sub(r'[^A-Za-z0-9._-]', '-', group)[:100]}-findings",
        name=f"{group} findings",
        group=group,
        job_type=FINDINGS_JOB,
        resume="allow",
        reinit="create_new",
        settings=_settings(),
    )


def has_workspaces() -> bool:
    """Whether the package that writes W&B reports is installed."""
    return importlib.util.find_spec("wandb_workspaces") is not None


def _summary(findings: Findings, report_sha256: str) -> dict[str, Any]:
    """What W&B's tables show of the findings."""
    recommended = findings.recommended
    content = {
        "headline": findings.headline,
        "provisional": findings.provisional,
        "study": findings.study,
        "phase": findings.phase,
        "metric": findings.metric,
        "recommended": {"settings": recommended.parameters, **_estimate(recommended.value)},
        "verdicts": {
            factor.name: {str(level.level): _verdict(level) for level in factor.levels} for factor in findings.factors
        },
        "floors": {floor.name: floor.verdict for floor in findings.floors},
        "caveats": [caveat.text for caveat in findings.caveats],
    }
    text = json.dumps([content, report_sha256], sort_keys=True)
    return {**content, SHA256: hashlib.sha256(text.encode()).hexdigest()}


def _verdict(level: LevelFinding) -> dict[str, Any]:
    found = {"verdict": level.verdict, **_estimate(level.value)}
    return found if level.difference is None else {**found, "difference": _estimate(level.difference)}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "num_seeds": estimate.num_seeds}


def _write_report(findings: Findings, project: str, group: str, view_id: str) -> tuple[str, str]:
    """A W&B report of the findings over live curves of the runs; returns its id and address."""
    wr: Any = importlib.import_module("wandb_workspaces.reports.v2")  # an extra; untyped from outside
    entity, _, name = project.partition("/")
    told = [
        wr.MarkdownBlock(f"**{markdown_text(findings.headline)}**"),
        wr.H2("Verdicts"),
        wr.MarkdownBlock("\n".join(f"- {markdown_text(factor.text)}" for factor in findings.factors)),
        wr.H2("To be careful about"),
        wr.MarkdownBlock("\n".join(f"- {markdown_text(caveat.text)}" for caveat in findings.caveats) or "- nothing"),
        wr.H2("Runs"),
        wr.PanelGrid(
            runsets=[wr.Runset(entity=entity, project=name, name=group, filters=f"Metric('Group') == {group!r}")],
            panels=[wr.LinePlot(x="epoch", y=[findings.objective["metric"]])],
        ),
    ]
    report = wr.Report(entity=entity, project=name, title=f"{group[:100]} findings", blocks=told)
    report.id = view_id
    report.save()
    return report.id, report.url


def _settings() -> wandb.Settings:
    return wandb.Settings(**LEAN, init_timeout=ANSWER_S * 3, finish_timeout=ANSWER_S * 6)
