"""What a finding is: a claim with its estimate, interval, number of seeds and run ids. `find.find` makes them.

Plain data, so that findings.json holds all of it; every `text` is the same claim in words (`wording.py`).
"""

from dataclasses import asdict, dataclass
from typing import Any

from analysis.statistics import Estimate

SCHEMA_VERSION = "2"
"""Of findings.json. Raise it with every change that a reader of the file would notice."""

SCIENTIFIC, NUISANCE = "scientific", "nuisance"
"""Roles. A scientific factor is the question itself; a nuisance factor is tuned anew at each of its levels."""


@dataclass(frozen=True)
class CellFinding:
    """One cell, over the seed blocks used; `trial_ids` and `run_ids` in the order of `Findings.seeds`."""

    parameters: dict[str, Any]
    value: Estimate
    trial_ids: list[str]
    run_ids: list[str]


@dataclass(frozen=True)
class Arm:
    """One combination of scientific levels at its nuisance setting of the best mean over all seeds: one cell.

    Attributes:
        scientific: the scientific levels.
        parameters: those and the nuisance setting; of the recommended arm, this is what is exported.
        value: the cell's mean over seeds, a little flattered: the same seeds chose the setting.
        readings: (num_seeds,) the cell's values, in the order of `Findings.seeds`.
        run_ids: (num_seeds,) the runs they were read from.
    """

    scientific: dict[str, Any]
    parameters: dict[str, Any]
    value: Estimate
    readings: list[float]
    run_ids: list[str]


@dataclass(frozen=True)
class LevelFinding:
    """One level of a factor against the others.

    Attributes:
        level: the level itself.
        value: mean over seeds.
        readings: (num_seeds,) in the order of `Findings.seeds`.
        difference: to the level with the best mean; None for that level.
        verdict: best; enough, not enough or undecided; as good, worse or undecided where the factor is nuisance.
        rivals: levels that may yet be better by more than the margin.
        run_ids: the runs behind it.
        text: all of it in words.
    """

    level: Any
    value: Estimate
    readings: list[float]
    difference: Estimate | None
    verdict: str
    rivals: list[Any]
    run_ids: list[str]
    text: str


@dataclass(frozen=True)
class FactorFinding:
    """All levels of one factor. `provisional`: no level but the best got a verdict, so nothing is settled."""

    name: str
    role: str
    best_level: Any
    recommended_level: Any
    provisional: bool
    levels: list[LevelFinding]
    text: str


@dataclass(frozen=True)
class FloorFinding:
    """The recommended configuration against a rule that needs no network."""

    name: str
    floor: float
    value: Estimate
    verdict: str
    run_ids: list[str]
    text: str


@dataclass(frozen=True)
class Caveat:
    """A reason to read the findings with care; `kind` is stable, `text` is for people."""

    kind: str
    text: str


@dataclass(frozen=True)
class Findings:
    """Everything that the study shows; seeds ascending."""

    study: str
    objective: dict[str, Any]
    seeds: list[int]
    headline: str
    provisional: bool
    recommended: Arm
    factors: list[FactorFinding]
    floors: list[FloorFinding]
    arms: list[Arm]
    cells: list[CellFinding]
    caveats: list[Caveat]
    excluded: list[list[str]]

    def cell(self, parameters: dict[str, Any]) -> CellFinding:
        """The cell with exactly these levels."""
        (cell,) = (cell for cell in self.cells if cell.parameters == parameters)
        return cell

    def floors_not_beaten(self) -> list[FloorFinding]:
        """Floors that the recommended configuration does not beat for sure: the first thing that a reader must know."""
        return [floor for floor in self.floors if floor.verdict != "beats"]

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values, with the version of their layout."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}
