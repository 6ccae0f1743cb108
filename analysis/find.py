"""StudyRuns -> Findings: what holds, by how much, how surely, and what to be careful about.

Protocol: SCIENCE.md, "Statistics"; the confirmation phase that it asks for is not there yet, and a caveat says so.
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
    grid = _balance(runs)
    arms = _arms(runs, grid)
    scientific = _scientific_factors(runs, arms)
    recommended = _recommended_arm(runs, arms, scientific)
    factors = scientific + _nuisance_factors(runs, grid, recommended)
    deciding = scientific or factors
    provisional = any(factor.provisional for factor in deciding) or len(grid.seeds) == 1
    floors = _floors(runs, recommended)
    cells = [
        CellFinding(grid.named(cell), mean_interval(grid.values[i]), grid.trial_ids[i], grid.run_ids[i])
        for i, cell in enumerate(grid.cells)
    ]
    findings = Findings(
        study=runs.study,
        objective=dict(runs.objective),
        seeds=grid.seeds,
        headline=_headline(runs, recommended, provisional),
        provisional=provisional,
        recommended=recommended,
        factors=factors,
        floors=floors,
        arms=arms,
        cells=cells,
        caveats=[],
        excluded=[list(item) for item in runs.excluded],
    )
    findings.caveats.extend([*grid.caveats, *_caveats(runs, findings)])
    return findings


def _recommended_arm(runs: StudyRuns, arms: list[Arm], factors: list[FactorFinding]) -> Arm:
    wanted = {factor.name: factor.recommended_level for factor in factors}
    best = arms[best_index([arm.value.value for arm in arms], runs.objective["mode"])]
    return next((arm for arm in arms if arm.scientific == wanted), best)


def _floors(runs: StudyRuns, arm: Arm) -> list[FloorFinding]:
    """The recommended arm against every floor that knows the objective's metric."""
    metric, mode = runs.objective["metric"], runs.objective["mode"]
    floors = {name: float(scores[metric]) for name, scores in runs.data.get("floors", {}).items() if metric in scores}
    findings = []
    for name, floor in floors.items():
        verdict = against_floor(arm.value, floor, mode)
        verb = "cannot be told from one seed to beat" if arm.value.low is None else FLOOR_VERDICTS[verdict]
        text = f"The networks {verb} {FLOORS.get(name, words(name))} ({metric} {floor:.3f})."
        findings.append(FloorFinding(name, floor, arm.value, verdict, arm.run_ids, text))
    return findings
