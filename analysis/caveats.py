"""Findings -> what to be careful about. Every text begins with the words that matter and fits on one line."""

from collections.abc import Iterator

from analysis.findings import SCIENTIFIC, Arm, Caveat, FactorFinding, Findings
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import Range, is_number
from analysis.wording import first_of, level_text, settings_text, words
from trainable.config import DENSE

NEAR_END = 0.05
"""A value within this share of its range's length from an end lies at the edge."""


def find_caveats(runs: StudyRuns, findings: Findings) -> Iterator[Caveat]:
    """Every reason to read the findings with care, but for what they lack (`shortfalls.py`)."""
    for factor in findings.factors:
        yield from _edge(factor, findings.recommended)
    for name, searched in runs.search.ranges.items():
        yield from _end_of_range(name, searched, findings.arms)
    yield from _no_spread(findings)
    yield from _still_improving(runs, findings)
    yield from _scope(runs, findings)


def _edge(factor: FactorFinding, recommended: Arm) -> Iterator[Caveat]:
    """The best or chosen level at an end of the range, where a better one may lie beyond."""
    numbers = [level.level for level in factor.levels if isinstance(level.level, int | float)]
    if len(numbers) < 2 or len(numbers) + (factor.levels[-1].level == DENSE) < len(factor.levels):
        return
    name, chosen = words(factor.name), recommended.parameters[factor.name]
    is_scientific = factor.role == SCIENTIFIC
    if is_scientific and factor.best_level == max(numbers):
        best = f"{name} {level_text(factor.best_level)} leads"
        yield Caveat("edge", f"Largest tried: {best}; a larger one may do better.")
    if is_scientific and chosen == min(numbers):
        yield Caveat(
            "edge", f"Smallest tried: {name} {level_text(chosen)} is recommended; a smaller one may do as well."
        )
    if not is_scientific and chosen == max(numbers):
        yield Caveat("edge", f"Largest tried: {name} {level_text(chosen)} is chosen; a larger one may do better.")
    if not is_scientific and chosen == min(numbers) and chosen != 0:  # 0 ends the scale, as with gamma, not the search
        yield Caveat("edge", f"Smallest tried: {name} {level_text(chosen)} is chosen; a smaller one may do better.")


def _end_of_range(name: str, searched: Range, arms: list[Arm]) -> Iterator[Caveat]:
    """Levels whose chosen value lies so near an end of the range that a better one may lie beyond."""
    values = [(arm, arm.parameters[name]) for arm in arms]
    inside = [(arm, value) for arm, value in values if is_number(value) and searched.low <= value <= searched.high]
    near = {
        # 0 ends the scale of every setting, not the search.
        "Smallest": [each for each in inside if searched.place(each[1]) < NEAR_END and searched.low != 0],
        "Largest": [each for each in inside if searched.place(each[1]) > 1 - NEAR_END],
    }
    for end, found in near.items():
        if found:
            texts = [f"{level_text(value)} at {settings_text(arm.scientific)}" for arm, value in found]
            yield Caveat("edge", f"{end} searched: {words(name)} {first_of(texts, 1)} is chosen; widen the range.")


def _no_spread(findings: Findings) -> Iterator[Caveat]:
    readings = findings.recommended.readings
    if len(readings) > 1 and len(set(readings)) == 1:
        yield Caveat("no_spread", "All seeds gave the very same value: an interval without width is no certainty.")


def _still_improving(runs: StudyRuns, findings: Findings) -> Iterator[Caveat]:
    metric, sign = runs.objective["metric"], 1 if runs.objective["mode"] == "max" else -1
    epochs = runs.epochs[runs.epochs["run_id"].isin(findings.recommended.run_ids)]
    means = epochs.groupby("epoch")[metric].mean().sort_index().tolist()
    gain = sign * (means[-1] - means[-2]) if len(means) > 1 else 0.0
    if gain > runs.objective["margin"]:
        yield Caveat(
            "rising", f"Still improving: {metric} by {gain:.3f} in the last epoch; train longer before relying on it."
        )


def _scope(runs: StudyRuns, findings: Findings) -> Iterator[Caveat]:
    """What the findings speak of, and what they do not."""
    if runs.training[findings.recommended.trial_ids[0]].get("weights") == "none":
        yield Caveat("random_weights", "Random starting weights: pretrained ones may need other settings.")
    if runs.data.get("annotations") == "points":
        if (runs.data_config.get("annotations") or {}).get("negatives") == "sampled":
            yield Caveat("sampled_negatives", "Sampled background: half of the truth was never looked at by anyone.")
        yield Caveat("judged_at_points", "Judged at labelled points alone: there are no masks to judge the rest by.")
    if runs.data.get("source") == "synthetic":
        yield Caveat("made_data", "Made images (synthetic): nothing here is a statement about real forest.")
    if not findings.floors:
        yield Caveat("no_floor", f"No floor for {findings.metric}: whether a network is worth its cost is not checked.")
    yield Caveat("seeds_not_scenes", "Other scenes: no interval speaks of them; all stand on these images alone.")
