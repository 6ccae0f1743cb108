"""Searches that learn nothing from outcomes: grid, random and quasi-random are lists of candidates."""

from collections.abc import Callable, Iterable

from study.search import Outcome
from study.search_memory import Memory
from study.space import Setting


class PlannedSearcher:
    """Proposes the first candidate that is new.

    Args:
        memory: of the search.
        candidates: number of a proposal -> settings to choose from, in this order. It may be one iterator for all
            numbers: what that has passed is known.
    """

    def __init__(self, memory: Memory, candidates: Callable[[int], Iterable[Setting]]) -> None:
        self._memory, self._candidates = memory, candidates

    def ask(self) -> Setting | None:
        """See `Searcher`."""
        return self._memory.choose(self._candidates(self._memory.number))

    def replay(self, setting: Setting) -> None:
        """See `Searcher`."""
        self._memory.add(setting)

    def tell(self, setting: Setting, outcome: Outcome) -> None:
        """See `Searcher`."""
        self._memory.require(setting)
