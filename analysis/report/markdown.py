"""The document as Markdown, which shows every name as it is: none can become a heading, a link or a cell's end."""

from collections.abc import Iterable, Sequence

from analysis.markdown_text import markdown_text as _md
from analysis.report.document import Block, Bullets, Cell, Document, Section, Table, Text
from analysis.report.drawing import Plot
from analysis.report.panels import Panel


def render_markdown(document: Document) -> str:
    """The whole report; figures and panels by their paths beside it."""
    parts = [f"# {_md(document.title)}", f"**{_md(document.headline)}**"]
    parts += [f"**{_md(warning)}**" for warning in document.warnings]
    for section in document.sections:
        parts += _section(section, "##")
    return "\n\n".join(parts) + "\n"


def _section(section: Section, marks: str) -> Iterable[str]:
    yield f"{marks} {_md(section.title)}"
    for block in section.blocks:
        yield _block(block)
    for part in section.parts:
        yield from _section(part, f"{marks}#")


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return _md(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {_md(text)}" for text in block.texts)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Plot):
        return f"![{_md(block.title)}](figures/{block.name}.svg)\n\n{_md(block.text)}"
    assert isinstance(block, Panel)
    return f"![{_md(block.title)}]({block.path})\n\n{_md(block.text)}"


def _table(table: Table) -> str:
    head = table.head or ("", "")
    lines = [_line(map(_md, head)), _line("---" for _ in head), *(_line(map(_cell, row)) for row in table.rows)]
    runs = f"\n\nRuns behind every row: {_md(table.runs.text)}" if table.runs else ""
    return f"{_md(table.caption)}:\n\n" + "\n".join(lines) + runs


def _line(cells: Iterable[str] | Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    if cell.runs:
        return _md(cell.runs.text)
    return _md("; ".join(text for text in (cell.text, cell.note) if text))
