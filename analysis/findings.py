"""What a finding is: a claim with its estimate, interval, number of seeds and run ids. `find.find` makes them.

Plain data, so that findings.json holds all of it; every `text` is the same claim in words (`wording.py`).
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from analysis.reading.study_terms import CONFIRM
from analysis.statistics import Estimate

SCHEMA_VERSION = "4"
"""Of findings.json. Raise it with every change that a reader of the file would notice."""

SCIENTIFIC, NUISANCE = "scientific", "nuisance"
"""Roles. A scientific factor is the question itself; a nuisance factor is tuned anew at each of its levels."""


POINTS_SEED = "points_seed"
"""The parameter that draws points anew: none of its levels is better than another but by luck."""


SURELY_WORSE = ("not enough", "worse")
"""Verdicts on levels that are out of the question: of amounts, and of names."""


@dataclass(frozen=True)
class CellFinding:
    """One cell at the seeds that it has.

    Attributes:
        parameters: the cell.
        value: mean over its seeds: of an explored cell by the objective, of a confirmed one on the test split.
        seeds: (num_seeds,) ascending.
        readings: (num_seeds,)
        trial_ids: (num_seeds,)
        run_ids: (num_seeds,)
        difference: of a confirmed cell to the arm of its level; None where it is the arm.
    """

    parameters: dict[str, Any]
    value: Estimate
    seeds: list[int]
    readings: list[float]
    trial_ids: list[str]
    run_ids: list[str]
    difference: Estimate | None = None


@dataclass(frozen=True)
class Arm:
    """One combination of scientific levels at one nuisance setting, of the best mean in exploration: one cell.

    Attributes:
        scientific: the scientific levels.
        parameters: those and the nuisance setting; of the recommended arm, this is what is exported.
        value: the cell's mean over seeds, by the findings' metric; of explored runs, a little flattered, as the same
            seeds chose the setting.
        seeds: (num_seeds,) ascending; those of the runs that are read.
        readings: (num_seeds,) the cell's values.
        trial_ids: (num_seeds,) the trials they were read from.
        run_ids: (num_seeds,) the runs they were read from.
        explored: of a confirmed arm, what exploration had read by the objective; None where the cell was not explored.
        val: of a confirmed arm, what its confirmation runs read by the objective.
    """

    scientific: dict[str, Any]
    parameters: dict[str, Any]
    value: Estimate
    seeds: list[int]
    readings: list[float]
    trial_ids: list[str]
    run_ids: list[str]
    explored: Estimate | None = None
    val: Estimate | None = None


@dataclass(frozen=True)
class LevelFinding:
    """One level of a factor against the others.

    Attributes:
        level: the level itself.
        value: mean over its seeds.
        seeds: (num_seeds,) ascending.
        readings: (num_seeds,)
        difference: to the leading level, on the seeds that both have; None for that level.
        verdict: best; enough, not enough or undecided; as good, worse or undecided where the factor is nuisance, or its
            levels are names.
        rivals: levels that may yet be better by more than the margin.
        run_ids: the runs behind it.
        text: all of it in words.
        seeds_needed: of an undecided level, how many further seeds would decide it; None where it is decided, or where
            the spread is not known.
        withheld: what the level lost, so that it is read on survivors and called undecided at best; else empty.
    """

    level: Any
    value: Estimate
    seeds: list[int]
    readings: list[float]
    difference: Estimate | None
    verdict: str
    rivals: list[Any]
    run_ids: list[str]
    text: str
    seeds_needed: int | None = None
    withheld: str = ""


@dataclass(frozen=True)
class FactorFinding:
    """All levels of one factor, by its metric; provisional where no level but the best got a verdict."""

    name: str
    role: str
    metric: str
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
class Claim:
    """One row of a topic.

    Attributes:
        subject: what it is about, as people say it: `10 to 50`, `learning rate 0.001`.
        estimate: in the topic's unit; None where the claim is no number.
        values: further numbers and names, by the topic's columns; JSON values.
        verdict: a word or two; empty where there is nothing to judge.
        run_ids: the runs behind it.
    """

    subject: str
    estimate: Estimate | None
    values: dict[str, Any]
    verdict: str
    run_ids: list[str]


@dataclass(frozen=True)
class Topic:
    """What a study shows on one further question.

    Attributes:
        name: stable, in snake_case.
        title: a heading.
        unit: of the estimates: `test/miou per doubling`.
        population: what the intervals speak of: seeds, scenes, permutations; empty where there are none. Where claims
            have a value of that name, it is their n, else the estimate's number of seeds.
        text: the answer first, in one to three sentences.
        columns: keys of every claim's `values` that a table shows -> the column's heading; `subject` -> that of the
            first column.
        claims: the rows.
    """

    name: str
    title: str
    unit: str
    population: str
    text: str
    columns: dict[str, str]
    claims: list[Claim]


@dataclass(frozen=True)
class Findings:
    """Everything that the study shows.

    Attributes:
        phase: confirm, where confirmed runs carry the findings; else explore.
        metric: what arms, scientific factors and floors are read by: the objective, or its counterpart on test.
        seeds: ascending; those of the arms. Not every arm needs to have each.
        cells: every explored cell, by the objective.
        confirmed: every confirmed cell, on the test split, also where the findings are still those of exploration.
        excluded: (run id, reason).
        topics: what else the study shows.
    """

    study: str
    objective: dict[str, Any]
    phase: str
    metric: str
    seeds: list[int]
    headline: str
    provisional: bool
    recommended: Arm
    factors: list[FactorFinding]
    floors: list[FloorFinding]
    arms: list[Arm]
    cells: list[CellFinding]
    confirmed: list[CellFinding]
    caveats: list[Caveat]
    excluded: list[list[str]]
    topics: list[Topic] = field(default_factory=list)

    def cell(self, parameters: dict[str, Any]) -> CellFinding:
        """The explored cell with exactly these levels."""
        (cell,) = (cell for cell in self.cells if cell.parameters == parameters)
        return cell

    @property
    def is_confirmed(self) -> bool:
        """Whether fresh seeds and the test split carry the findings."""
        return self.phase == CONFIRM

    @property
    def scientific(self) -> list[FactorFinding]:
        """The factors that the study is about."""
        return [factor for factor in self.factors if factor.role == SCIENTIFIC]

    def floors_not_beaten(self) -> list[FloorFinding]:
        """Floors that the recommended configuration does not beat for sure: the first thing that a reader must know."""
        return [floor for floor in self.floors if floor.verdict != "beats"]

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values, with the version of their layout."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}
