"""Who proposes the next setting of the nuisance factors: one searcher for each scientific level, behind one contract.

A proposal depends on the search's seed, the level, how many were made before, and what was asked and told until then;
on no clock and no state of its own. A search that is told again what the ledger knows therefore goes on as if it had
never been interrupted.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from study.search_memory import Memory, derive_seed
from study.space import Setting, Space
from study.spec import StudySpec, Value

__all__ = ["Outcome", "Searcher", "Setting", "make_searcher"]


@dataclass(frozen=True)
class Outcome:
    """What became of a setting.

    Attributes:
        state: `stopped` by a scheduler before its last epoch; `infeasible`: it diverged.
        value: the objective, mean over the seeds; None unless completed.
        steps: (epoch, objective) of a stopped setting; never compared with the value of one that reached its end.
    """

    state: Literal["completed", "stopped", "infeasible", "failed"]
    value: float | None = None
    steps: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        if (self.state == "completed") != (self.value is not None and math.isfinite(self.value)):
            raise ValueError(f"a completed setting has a finite value and no other has one, got {self}")


class Searcher(Protocol):
    """What every search can do. Settings that are not of the space as it stands are no concern of it."""

    def ask(self) -> Setting | None:
        """The next setting to try, never a known one; None once the space or `trials_per_level` is exhausted."""

    def replay(self, setting: Setting) -> None:
        """Takes up a setting that an earlier session asked for, or another method; in the order of the proposals."""

    def tell(self, setting: Setting, outcome: Outcome) -> None:
        """Takes up what became of a known setting; the last outcome counts.

        Raises:
            ValueError: it was neither asked for nor replayed.
        """


def make_searcher(spec: StudySpec, level: dict[str, Value]) -> Searcher:
    """The search at one combination of scientific levels (`{}` where no factor is scientific)."""
    # Imported when needed: a mistyped study file is refused before SciPy and Optuna are loaded.
    from study.search_planned import PlannedSearcher

    search, space = spec.search, Space(spec.parameters)
    memory = Memory(space, search.trials_per_level)
    if search.method == "grid":
        settings = space.settings()
        return PlannedSearcher(memory, lambda number: settings)
    if search.method == "random":
        from study.search_random import draw_settings

        return PlannedSearcher(memory, lambda number: draw_settings(space, derive_seed(search.seed, level, number)))
    if search.method == "quasi_random":
        from study.search_quasi import follow_sequence

        # Of the search's seed alone: the same settings at every level, so that levels are paired.
        sequence = follow_sequence(space, derive_seed(search.seed), search.trials_per_level or 1)
        return PlannedSearcher(memory, lambda number: sequence)
    from study.search_optuna import OptunaSearcher, against_effort, metric_alone

    goal = against_effort(spec.effort) if search.method == "optuna_pareto" else metric_alone
    return OptunaSearcher(memory, goal, lambda *purpose: derive_seed(search.seed, level, *purpose))
