"""Findings -> what to be careful about. Every text begins with the words that matter and fits on one line."""

from collections.abc import Iterator

from analysis.findings import SCIENTIFIC, Arm, Caveat, FactorFinding, Findings
from analysis.runs import StudyRuns
from analysis.wording import level_text, words

MIN_SEEDS = 3
"""Below this many seed blocks a caveat says that intervals are wide or missing."""


def _caveats(runs: StudyRuns, findings: Findings) -> Iterator[Caveat]:
    if runs.excluded:
        yield Caveat("excluded_runs", f"Left out: {len(runs.excluded)} runs; the report lists each with its reason.")
    if len(findings.seeds) < MIN_SEEDS:
        few = "one seed gives no interval" if len(findings.seeds) == 1 else "two seeds give very wide intervals"
        yield Caveat("few_seeds", f"Exploratory: {few}; run at least {MIN_SEEDS} seeds.")
    for name in sorted(runs.parameters.keys() - {factor.name for factor in findings.factors}):
        yield Caveat("not_comparable", f"{words(name)}: its levels share no setting of the others; complete the study.")
    for factor in findings.factors:
        yield from _edge(factor, findings.recommended)
        yield from _rivals(runs, factor)
    yield from _flat_or_rising(runs, findings)
    if runs.training[findings.cell(findings.recommended.parameters).trial_ids[0]].get("weights") == "none":
        yield Caveat(
            "random_weights", "The networks started from random weights; pretrained ones may need other settings."
        )
    if runs.data.get("source") == "synthetic":
        yield Caveat("made_data", "The images are made (synthetic): nothing here is a statement about real forest.")
    if not findings.floors:
        metric = runs.objective["metric"]
        yield Caveat("no_floor", f"No floor is known for {metric}: whether a network is worth its cost is not checked.")
    yield Caveat(
        "unconfirmed",
        "Settings were chosen and measured on the same validation images, with no fresh seeds to confirm them.",
    )
    yield Caveat(
        "seeds_not_scenes", "Intervals cover redrawn points, starting weights and image order, not other scenes."
    )


def _edge(factor: FactorFinding, recommended: Arm) -> Iterator[Caveat]:
    numbers = [level.level for level in factor.levels if isinstance(level.level, int | float)]
    if len(numbers) < 2 or len(numbers) < len(factor.levels):
        return
    level, name = recommended.parameters[factor.name], words(factor.name)
    if factor.role == SCIENTIFIC:
        if factor.best_level == max(numbers):
            yield Caveat(
                "edge", f"The best {name}, {level_text(max(numbers))}, is the largest tried: more may do better."
            )
        if level == min(numbers):
            yield Caveat("edge", f"{level_text(level)} {name} is the smallest tried: fewer may do as well.")
    elif level == max(numbers):
        yield Caveat(
            "edge", f"The chosen {name}, {level_text(level)}, is the largest tried: a larger one may do better."
        )
    elif level == min(numbers) and level != 0:  # 0 is the end of the scale, as with gamma, not of the search.
        yield Caveat(
            "edge", f"The chosen {name}, {level_text(level)}, is the smallest tried: a smaller one may do better."
        )


def _rivals(runs: StudyRuns, factor: FactorFinding) -> Iterator[Caveat]:
    """Levels that may yet beat an `enough` by more than the margin: the best mean need not be the truly best level."""
    levels = [level.level for level in factor.levels]
    if factor.role != SCIENTIFIC or factor.recommended_level == factor.best_level:
        return
    family = paired_family([level.readings for level in factor.levels])
    mode, margin = runs.objective["mode"], runs.objective["margin"]
    recommended = levels.index(factor.recommended_level)
    rivals = [
        level_text(levels[j]) for i, j in family if i == recommended and judge(family[i, j], margin, mode) != "within"
    ]
    if rivals:
        which = f"{words(factor.name).capitalize()} {listed(rivals)}"
        yield Caveat(
            "rival", f"{which} may yet prove better than {level_text(levels[recommended])} by more than the margin."
        )


def _flat_or_rising(runs: StudyRuns, findings: Findings) -> Iterator[Caveat]:
    readings = findings.recommended.readings
    if len(readings) > 1 and len(set(readings)) == 1:
        yield Caveat("no_spread", "All seeds gave the very same value: an interval without width is no certainty.")
    metric, sign = runs.objective["metric"], 1 if runs.objective["mode"] == "max" else -1
    cell = findings.cell(findings.recommended.parameters)
    epochs = runs.epochs[runs.epochs["run_id"].isin(cell.run_ids)]
    means = epochs.groupby("epoch")[metric].mean().sort_index().tolist()
    if len(means) > 1 and sign * (means[-1] - means[-2]) > runs.objective["margin"]:
        change = abs(means[-1] - means[-2])
        yield Caveat(
            "rising", f"{metric} still improved by {change:.3f} in the last epoch: train longer before relying on it."
        )
