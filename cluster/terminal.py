"""What commands have in common: how they end, how a program or path is typed here, what is safe to print."""

import shlex
import shutil
import sys
from pathlib import Path

COMPLETE, DEFECT, BAD_INPUT, INCOMPLETE = 0, 1, 2, 3
"""Exit codes: every trial reached its end; a defect of ours; bad input, nothing written; the same command continues."""


def inert(line: str) -> str:
    """A line that moves no cursor and sets no colour, whoever wrote what it quotes."""
    return "".join(each if each.isprintable() else " " for each in line)


def program(name: str) -> str:
    """How a program of our environment is typed here: by its name where the shell finds it, else by its path."""
    own = Path(sys.executable).parent / name
    found = shutil.which(name)
    is_found = found is not None and Path(found).resolve() == own.resolve()
    return name if is_found or not own.exists() else shlex.quote(shown(own))


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
