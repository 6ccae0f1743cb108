"""What preflight found: a table of nodes and checks for people, and one line of problems for a run that is refused."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from trainable.config import InputError

CHECKS = ("answer", "versions", "storage", "data", "weights", "disk", "memory", "GPU", "clock", "W&B")
OK, PROBLEM, UNKNOWN = "ok", "PROBLEM", "-"
MAX_NAMED = 3


@dataclass(frozen=True)
class Problem:
    """A check that failed.

    Attributes:
        node: host name and address.
        check: which of `CHECKS`.
        what: was found.
        remedy: what to do about it.
    """

    node: str
    check: str
    what: str
    remedy: str


@dataclass
class Report:
    """What every node said to every check.

    Attributes:
        cells: (node, check) -> `ok`, or the word that says why it was passed over, as in `offline`. Problems stand for
            themselves, and what is in neither is not known.
        problems: in the order in which they were found.
        notes: what does no harm and is worth knowing, one line each.
    """

    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def judge(self, node: str, check: str, what: str, remedy: str, *, otherwise: str = OK) -> None:
        """Keeps how a check of a node went: a problem where `what` says something, or else as said."""
        if what:
            self.problems.append(Problem(node, check, what, remedy))
        self.cells[node, check] = PROBLEM if what else otherwise

    def failed(self, node: str) -> bool:
        """Whether a node has a problem."""
        return any(problem.node == node for problem in self.problems)

    def table(self) -> str:
        """A row for each node and a column for each check; below it the problems with their remedies, and the notes."""
        nodes = dict.fromkeys(node for node, _ in self.cells)
        rows = [["node", *CHECKS]]
        rows += [[node, *(self.cells.get((node, check), UNKNOWN) for check in CHECKS)] for node in nodes]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(
            [*lines, *(f"problem: {text}" for text in self._texts()), *(f"note: {text}" for text in self.notes)]
        )

    def refuse(self) -> None:
        """Nothing where all is well.

        Raises:
            InputError: one line that names nodes, checks and remedies.
        """
        if self.problems:
            raise InputError(f"cluster: {' | '.join(self._texts())}")

    def _texts(self) -> list[str]:
        """The problems, each with all nodes that have it."""
        nodes: dict[tuple[str, str, str], list[str]] = {}
        for each in self.problems:
            nodes.setdefault((each.check, each.what, each.remedy), []).append(each.node)
        return [f"{_some(names)}: {check}: {what}; {remedy}" for (check, what, remedy), names in nodes.items()]


def _some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
