"""Names for Markdown files: they come out of run files and data folders, which may be anyone's."""

import re
from html import escape

JOINER = "&#8288;"
"""A character of no width. After it, nothing is taken for the rest of an address or for somebody's name."""


def markdown_text(text: str) -> str:
    """Text on one line as it is: no heading, list, cell, picture, formula, link or mention comes of it."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    marked = re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", escape(line, quote=False))
    marked = re.sub(r"^([-+=](?=[-+=\s])|\d+(?=[.)]\s))", rf"{JOINER}\1", marked)  # would begin a list, or underline
    return re.sub(r":(?=//)|@|\bwww(?=\.)", rf"\g<0>{JOINER}", marked, flags=re.IGNORECASE)
