"""What a search remembers: the settings it knows, so that none is proposed twice, and how many it may propose."""

import hashlib
import itertools
import json
from collections.abc import Iterable

from study.space import Setting, Space


class Memory:
    """The known settings of one search.

    Attributes:
        space: what may be proposed.
        limit: how many settings may be known before the search ends; None: all.
    """

    def __init__(self, space: Space, limit: int | None) -> None:
        self.space, self.limit = space, limit
        self._known: set[tuple[object, ...]] = set()
        self._is_exhausted = False

    @property
    def number(self) -> int:
        """Settings known so far: the number that the next one gets."""
        return len(self._known)

    def key(self, setting: Setting) -> tuple[object, ...]:
        """What tells settings of the space apart."""
        return tuple(setting[name] for name in self.space.axes)

    def add(self, setting: Setting) -> bool:
        """Remembers a setting; returns whether it is one of the space and was not known."""
        if not self.space.contains(setting) or self.key(setting) in self._known:
            return False
        self._known.add(self.key(setting))
        return True

    def require(self, setting: Setting) -> None:
        """Refuses to hear of a setting of the space that nobody asked for.

        Raises:
            ValueError: it is not known.
        """
        if self.space.contains(setting) and self.key(setting) not in self._known:
            raise ValueError(f"never asked for: {setting}")

    def choose(self, candidates: Iterable[Setting]) -> Setting | None:
        """The first new candidate, where all are known the first new setting in the order of the file; remembers it.

        Returns:
            The setting; None once the limit is reached or nothing new is left.
        """
        if self._is_exhausted or (self.limit is not None and self.number >= self.limit):
            return None
        everything = self.space.settings() if self.space.size is not None else ()
        found = next((each for each in itertools.chain(candidates, everything) if self.add(each)), None)
        self._is_exhausted = found is None
        return found


def derive_seed(*purpose: object) -> int:
    """A seed of 32 bits for a purpose made of plain values; unrelated purposes get unrelated seeds."""
    return int.from_bytes(hashlib.sha256(json.dumps(purpose, sort_keys=True).encode()).digest()[:4], "big")
