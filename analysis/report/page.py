"""The document as one HTML page that needs nothing else, loads nothing, and runs one script of its own: sorting.

Its Content-Security-Policy names style and script by their hashes: nothing that a name from a run file smuggled in
would be applied or run, even if escaping failed.
"""

import base64
import hashlib
import re
from importlib import resources

import jinja2
from markupsafe import Markup

from analysis.report.document import Block, Document
from analysis.report.drawing import COLOURS, GREY, GRID, RUST, Plot
from analysis.report.panels import Panel

INKS = {
    **dict(zip(COLOURS, ("blue", "vermilion", "green", "pink", "orange", "sky", "ink"), strict=True)),
    GREY: "grey",
    GRID: "grid",
    RUST: "rust",
    "#ffffff": "paper",
}
"""Colour of a figure -> its name on the page, which gives it another value where the page is dark."""


def render_page(document: Document) -> str:
    """The whole page."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(kind=_kind, inline=_inline, data_url=_data_url, unbroken=_unbroken)
    style, script = _part("report.css"), _part("report.js")
    return environment.from_string(_part("report.html.j2")).render(
        document=document,
        style=Markup(style),  # ours, both of them: safe as they stand
        script=Markup(script),
        policy=(
            f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:;"
            " base-uri 'none'; form-action 'none'"
        ),
    )


def _kind(block: Block) -> str:
    return type(block).__name__


def _unbroken(text: str) -> str:
    """No line ends inside an interval."""
    return re.sub(r"\[[^\]]*\]", lambda interval: interval[0].replace(" ", "\xa0"), text)


def _part(name: str) -> str:
    return resources.files("analysis.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a policy names it; the browser hashes what stands between the tags, to the letter."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _inline(plot: Plot) -> Markup:
    """The figure as an element: as wide as there is room, in the page's colours, ids its own, naming no address."""
    view_box = re.search(r'viewBox="[0-9. -]+"', plot.svg)
    assert view_box, "matplotlib gives every figure a viewBox"
    inner = plot.svg[plot.svg.index("</desc>") + len("</desc>") :].replace("xlink:href", "href")
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', inner))
    names = {name for pair in used for name in pair if name}
    inner = re.sub(r' id="([^"]*)"', lambda found: f' id="{plot.name}-{found[1]}"' if found[1] in names else "", inner)
    inner = re.sub(r'href="#|url\(#', lambda start: f"{start[0]}{plot.name}-", inner)
    inner = re.sub(r'(fill|stroke)="(#[0-9a-f]{6})"', _ink, inner)
    labels = f'aria-labelledby="{plot.name}-title {plot.name}-text"'
    # Inside HTML the namespaces are implied. Our own drawing, without a letter of text: safe as it stands.
    return Markup(f'<svg {view_box[0]} role="img" {labels} stroke-linejoin="round">{inner}')


def _ink(paint: re.Match[str]) -> str:
    names = {colour.lower(): name for colour, name in INKS.items()}
    return f'{paint[1]}="var(--{names[paint[2]]}, {paint[2]})"' if paint[2] in names else paint[0]


def _data_url(panel: Panel) -> str:
    return f"data:image/png;base64,{base64.b64encode(panel.png).decode()}"
