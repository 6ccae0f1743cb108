"""Runs and findings -> the report's document: what is said, in which order, with which figure beside it."""

from collections.abc import Sequence

from analysis.findings import SCIENTIFIC, Findings
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import on_test_split
from analysis.report.document import Block, Bullets, Cell, Document, Section, Table, Text
from analysis.report.drawing import file_name
from analysis.report.level_plots import curse_plot, curve_plot, level_plot
from analysis.report.map_plot import map_plot
from analysis.report.panels import Panel
from analysis.report.protocol import data_rows, method_text, protocol_rows, split_rows
from analysis.report.tables import (
    cell_table,
    confirmation_table,
    excluded_table,
    floor_table,
    level_table,
    pairs_table,
    topic_table,
)
from analysis.report.topic_plots import topic_plot
from analysis.wording import confirmation_text, counted, intervals_mean, words

MAX_GAPS = 40
"""Differences between trial directories and W&B that are listed one by one."""
FLOORS_ARE = (
    "A floor is what a rule without any network reaches on the same {split} images, or a known result that the study"
    " names under objective.references."
)
GAPS_ARE = "Where the trial directories and W&B differ: `canopoint sync` closes what can be closed."


def build_document(runs: StudyRuns, findings: Findings, panels: Sequence[Panel]) -> Document:
    """The whole report."""
    warnings = [floor.text for floor in findings.floors_not_beaten()]
    return Document(
        title=f"Study {findings.study}",
        headline=findings.headline,
        warnings=warnings,
        doubtful=findings.provisional or bool(warnings),
        sections=[
            section
            for section in (
                _findings(findings),
                _floors(findings),
                _confirmation(findings),
                Section("care", "Read with care", [Bullets([caveat.text for caveat in findings.caveats])]),
                _topics(findings),
                Section("predictions", "Predictions", panels),
                Section("figures", "Training", [p for p in (curve_plot(runs, findings), map_plot(findings)) if p]),
                _data(runs),
                _protocol(runs, findings),
                _runs(runs, findings),
            )
            if section.blocks or section.parts
        ],
    )


def _findings(findings: Findings) -> Section:
    parts = []
    for number, factor in enumerate(findings.factors):
        blocks: list[Block] = [Text(factor.text), level_table(factor, number)]
        if factor.role == SCIENTIFIC:
            blocks.append(level_plot(findings, factor))
        parts.append(Section(file_name(f"factor-{number}"), words(factor.name).capitalize(), blocks))
    return Section("findings", "Findings", [Text(intervals_mean(findings), "soft")], parts)


def _floors(findings: Findings) -> Section:
    if not findings.floors:
        return Section("floors", "")
    split = "test" if findings.is_confirmed else "validation"
    texts = [Text(floor.text) for floor in findings.floors]
    explained = Text(FLOORS_ARE.format(split=split), "soft")
    return Section("floors", "Worth a network?", [*texts, floor_table(findings), explained])


def _confirmation(findings: Findings) -> Section:
    blocks: list[Block] = []
    if findings.is_confirmed:
        blocks += [Text(confirmation_text(findings)), confirmation_table(findings)]
        blocks += [plot for plot in (curse_plot(findings),) if plot]
    if findings.confirmed:
        caption, metric = "Every confirmed cell on the test split", on_test_split(findings.objective["metric"])
        blocks.append(cell_table(caption, metric, findings.confirmed, "confirmed"))
    return Section("confirmation", "Confirmation", blocks)


def _topics(findings: Findings) -> Section:
    parts = []
    for number, topic in enumerate(findings.topics):
        blocks: list[Block] = [Text(topic.text)]
        blocks += [topic_table(topic, number)] if topic.claims else []
        blocks += [plot for plot in (topic_plot(topic),) if plot]
        parts.append(Section(f"topic-{file_name(topic.name)}", topic.title, blocks))
    return Section("topics", "What else the study shows", (), parts)


def _data(runs: StudyRuns) -> Section:
    splits = [
        (Cell(name), Cell(images, order=_number(images)), Cell(share), Cell(scenes))
        for name, images, share, scenes in split_rows(runs)
    ]
    head = ("split", "images", "forest share", "scenes")
    tables = [Table("Splits and their scenes", head, splits)] if splits else []
    notes = [Bullets(runs.notes)] if runs.notes else []
    return Section("data", "Data", [pairs_table("The images", data_rows(runs)), *tables, *notes])


def _protocol(runs: StudyRuns, findings: Findings) -> Section:
    table = pairs_table("How the runs were made and read", protocol_rows(runs, findings))
    return Section("protocol", "Protocol", [table, Text(method_text(runs, findings), "soft")])


def _runs(runs: StudyRuns, findings: Findings) -> Section:
    blocks: list[Block] = []
    if findings.excluded:
        left_out = f"{counted(len(findings.excluded), 'run')} left out, each for a stated reason."
        blocks += [Text(left_out), excluded_table(findings.excluded)]
    else:
        blocks.append(Text("No run was left out."))
    if runs.gaps:
        rest = [f"and {len(runs.gaps) - MAX_GAPS} more"] if len(runs.gaps) > MAX_GAPS else []
        blocks += [Text(GAPS_ARE), Bullets([*runs.gaps[:MAX_GAPS], *rest])]
    if findings.cells:
        caption = "Every explored cell: mean and 95 % interval"
        blocks.append(cell_table(caption, findings.objective["metric"], findings.cells, "cells"))
    return Section("runs", "Runs", blocks)


def _number(text: str) -> float | None:
    return float(text) if text.isdecimal() else None
