"""What a report consists of, before it is a page or Markdown: both are the same document.

Everything here is text as people read it; what writes it into a format escapes it there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from analysis.report.drawing import Plot
from analysis.report.panels import Panel


@dataclass(frozen=True)
class Runs:
    """The runs behind a row. A page of 10,000 runs stays light: a long list is named, and lies in `where` whole.

    Attributes:
        run_ids: all of them.
        where: which part of findings.json lists them.
    """

    run_ids: Sequence[str]
    where: str

    MAX_LISTED = 60
    NUM_FIRST = 12

    @property
    def text(self) -> str:
        """All ids, or the first few and where the others are."""
        if len(self.run_ids) <= self.MAX_LISTED:
            return ", ".join(self.run_ids)
        rest = len(self.run_ids) - self.NUM_FIRST
        return f"{', '.join(self.run_ids[: self.NUM_FIRST])} and {rest} more: findings.json, {self.where}"


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what it says.
        note: what is to be added, less loudly.
        tone: good, bad or nothing.
        order: the number that it sorts by; None where it sorts by its text.
        runs: in place of a text.
    """

    text: str
    note: str = ""
    tone: str = ""
    order: float | None = None
    runs: Runs | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading.

    Attributes:
        caption: what it shows.
        head: headings of the columns; empty where rows are names and values.
        rows: as many cells as there are headings; two where there are none.
        folded: whether a page shows it on demand alone.
        runs: behind every row alike; None where rows name their own.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    runs: Runs | None = None


@dataclass(frozen=True)
class Text:
    """A paragraph; `soft` is for what explains."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list."""

    texts: Sequence[str]


Block = Text | Bullets | Table | Plot | Panel


@dataclass(frozen=True)
class Section:
    """A heading and what follows it.

    Attributes:
        anchor: letters, digits, hyphens and underscores.
        title: the heading.
        blocks: in reading order.
        parts: sections below it.
    """

    anchor: str
    title: str
    blocks: Sequence[Block] = ()
    parts: Sequence["Section"] = field(default_factory=tuple)


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: of the page.
        headline: the answer.
        warnings: what must be known before it is used.
        doubtful: whether the answer is provisional, or there are warnings.
        sections: in reading order.
    """

    title: str
    headline: str
    warnings: Sequence[str]
    doubtful: bool
    sections: Sequence[Section]

    @property
    def plots(self) -> list[Plot]:
        """Every figure, in reading order."""
        every = [section for top in self.sections for section in (top, *top.parts)]
        return [block for section in every for block in section.blocks if isinstance(block, Plot)]
