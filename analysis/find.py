"""StudyRuns -> Findings: what holds, by how much, how surely, and what to be careful about.

Protocol: docs/SCIENCE.md, comparison. No fresh seeds confirm what is chosen yet, and a caveat says so.
"""

from dataclasses import replace

from analysis.caveats import find_caveats
from analysis.findings import Arm, CellFinding, FactorFinding, Findings, FloorFinding
from analysis.grid import Grid, balance
from analysis.levels import find_arms, nuisance_factors, scientific_factors
from analysis.runs import StudyRuns
from analysis.statistics import against_floor, best_index, mean_interval
from analysis.wording import floor_text, headline


def find(runs: StudyRuns) -> Findings:
    """Draws every finding from a study's runs.

    Raises:
        InputError: no run is complete, or two runs claim the same cell and seed.
    """
    grid = balance(runs)
    arms = find_arms(runs, grid)
    scientific = scientific_factors(runs, arms)
    recommended = _recommended_arm(runs, arms, scientific)
    factors = scientific + nuisance_factors(runs, grid, recommended)
    unsettled = [factor.name for factor in scientific or factors if factor.provisional]
    provisional = bool(unsettled) or len(grid.seeds) == 1
    findings = Findings(
        study=runs.study,
        objective=dict(runs.objective),
        seeds=grid.seeds,
        headline=headline(runs.objective["metric"], recommended, provisional, unsettled),
        provisional=provisional,
        recommended=recommended,
        factors=factors,
        floors=_floors(runs, recommended),
        arms=arms,
        cells=_cells(grid),
        caveats=grid.caveats,
        excluded=[list(item) for item in runs.excluded],
    )
    return replace(findings, caveats=[*grid.caveats, *find_caveats(runs, findings)])


def _cells(grid: Grid) -> list[CellFinding]:
    return [
        CellFinding(grid.named(cell), mean_interval(grid.values[i]), grid.trial_ids[i], grid.run_ids[i])
        for i, cell in enumerate(grid.cells)
    ]


def _recommended_arm(runs: StudyRuns, arms: list[Arm], factors: list[FactorFinding]) -> Arm:
    """The best mean among the arms at the recommended levels of all factors that compare; of all, where none is."""
    wanted = {factor.name: factor.recommended_level for factor in factors}
    matching = [arm for arm in arms if arm.scientific.items() >= wanted.items()] or arms
    return matching[best_index([arm.value.value for arm in matching], runs.objective["mode"])]


def _floors(runs: StudyRuns, arm: Arm) -> list[FloorFinding]:
    """The recommended arm against every floor that knows the objective's metric, and against the known results."""
    metric, mode = runs.objective["metric"], runs.objective["mode"]
    floors = {name: float(scores[metric]) for name, scores in runs.data.get("floors", {}).items() if metric in scores}
    floors |= {name: float(value) for name, value in runs.objective.get("references", {}).items()}
    verdicts = {name: against_floor(arm.value, floor, mode) for name, floor in floors.items()}
    return [
        FloorFinding(
            name, floor, arm.value, verdicts[name], arm.run_ids, floor_text(name, floor, metric, arm, verdicts[name])
        )
        for name, floor in floors.items()
    ]
