"""StudyRuns -> Findings: what holds, by how much, how surely, and what to be careful about.

Protocol: docs/SCIENCE.md, comparison. They are those of confirmation where every level is confirmed.
"""

from dataclasses import replace

from analysis.arms import Confirmation, confirm, confirmed_arms, confirmed_cells, explored_arms, unconfirmed_levels
from analysis.caveats import find_caveats
from analysis.collapses import find_collapses
from analysis.findings import NUISANCE, POINTS_SEED, Arm, FactorFinding, Findings, FloorFinding
from analysis.grid import Exploration, explore
from analysis.levels import nuisance_factors, scientific_factors
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import CONFIRM, EXPLORE, metric_read
from analysis.repeats import knows_seeds, repeat_noise, single_run_caveats
from analysis.shortfalls import find_shortfalls
from analysis.statistics import against_floor, best_index
from analysis.survivors import lost_seeds
from analysis.topics.topics import find_topics
from analysis.tried import too_many_tried
from analysis.wording import floor_text, headline
from trainable.config import InputError


def find(runs: StudyRuns, *, with_topics: bool = True) -> Findings:
    """Draws every finding from a study's runs.

    Args:
        runs: the study's.
        with_topics: also what else the study shows, which takes most of the time and which no verdict depends on.

    Raises:
        InputError: no setting is complete, or two runs claim the same cell and seed.
    """
    exploration, confirmation = explore(runs), confirm(runs)
    phase, arms = _arms(runs, exploration, confirmation)
    metric = metric_read(runs.objective["metric"], phase)
    grids, are_blocks = {EXPLORE: exploration.explored, CONFIRM: confirmation.test}, knows_seeds(runs)
    repeats = {name: repeat_noise(grid, are_blocks=are_blocks) for name, grid in grids.items()}
    scientific = scientific_factors(runs, arms, phase, repeats[phase])
    recommended = _recommended_arm(runs, arms, scientific)
    factors = scientific + nuisance_factors(runs, exploration, recommended, repeats[EXPLORE])
    unsettled = [factor.name for factor in scientific or factors if factor.provisional]
    flattered = too_many_tried(runs, exploration, phase, scientific)
    is_lucky = any(lost_seeds(runs, arms)) or runs.parameters.get(POINTS_SEED) == NUISANCE
    provisional = bool(unsettled or flattered) or is_lucky or recommended.value.low is None
    findings = Findings(
        study=runs.study,
        objective=dict(runs.objective),
        phase=phase,
        metric=metric,
        seeds=sorted({seed for arm in arms for seed in arm.seeds}),
        headline=headline(metric, phase, recommended, provisional, unsettled, flattered),
        provisional=provisional,
        recommended=recommended,
        factors=factors,
        floors=find_floors(runs, metric, recommended),
        arms=arms,
        cells=[exploration.explored.finding(row) for row in range(len(exploration.explored.cells))],
        confirmed=confirmed_cells(runs, confirmation, arms),
        caveats=[],
        excluded=[list(item) for item in runs.excluded],
    )
    if with_topics:
        findings = replace(findings, topics=find_topics(runs, findings))  # first: caveats read them, too
    caveats = [
        *find_shortfalls(runs, findings, exploration, confirmation),
        *single_run_caveats(factors, repeats[phase]),
        *find_collapses(findings),
        *find_caveats(runs, findings),
    ]
    return replace(findings, caveats=caveats)


def _arms(runs: StudyRuns, exploration: Exploration, confirmation: Confirmation) -> tuple[str, list[Arm]]:
    """The phase that carries the findings, and its arms."""
    if confirmation.test.cells and not unconfirmed_levels(runs, exploration, confirmation):
        return CONFIRM, confirmed_arms(runs, exploration, confirmation)
    arms = explored_arms(runs, exploration)
    if not arms:
        raise InputError(
            f"study {runs.study}: no setting has a complete run at every seed; run the study again to complete it, or"
            f" give it settings that neither diverge nor are stopped"
        )
    return EXPLORE, arms


def _recommended_arm(runs: StudyRuns, arms: list[Arm], factors: list[FactorFinding]) -> Arm:
    """The best mean among the arms at the recommended levels of all factors that compare; of all, where none is.

    Of several draws of points it is the first: the best of them would be the luckiest.
    """
    wanted = {factor.name: factor.recommended_level for factor in factors}
    matching = [arm for arm in arms if arm.scientific.items() >= wanted.items()] or arms
    matching = [arm for arm in matching if arm.scientific.get(POINTS_SEED) == matching[0].scientific.get(POINTS_SEED)]
    return matching[best_index([arm.value.value for arm in matching], runs.objective["mode"])]


def find_floors(runs: StudyRuns, metric: str, arm: Arm) -> list[FloorFinding]:
    """An arm against every floor that knows the metric that was read, and against the known results."""
    mode, known = runs.objective["mode"], runs.objective.get("references", {})
    floors = {name: float(scores[metric]) for name, scores in runs.data.get("floors", {}).items() if metric in scores}
    floors |= {name: float(value) for name, value in known.items()}
    verdicts = {name: against_floor(arm.value, floor, mode) for name, floor in floors.items()}
    measured = {name: "known result" if name in known else metric for name in floors}
    return [
        FloorFinding(
            name,
            floor,
            arm.value,
            verdicts[name],
            arm.run_ids,
            floor_text(name, floor, measured[name], arm, verdicts[name]),
        )
        for name, floor in floors.items()
    ]
