"""Findings -> what to be careful about. Every text begins with the words that matter and fits on one line."""

from collections.abc import Iterator

import numpy as np

from analysis.curves import read_curves
from analysis.findings import SCIENTIFIC, Arm, Caveat, FactorFinding, Findings, LevelFinding
from analysis.grid import level_order
from analysis.reading.completeness import DIVERGED
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import Range, is_number
from analysis.statistics import ROUNDING, direction, number_text
from analysis.topics.readings import RATE
from analysis.wording import counted, first_of, level_text, listed, settings_text, words
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
    yield from _floors_not_beaten(runs, findings)
    yield from _diverged(runs)
    yield from _interactions(findings)
    yield from _gaps(runs)
    yield from _looks(runs)
    yield from _scope(runs, findings)


def _edge(factor: FactorFinding, recommended: Arm) -> Iterator[Caveat]:
    """The best or chosen level at an end of the range, where a better one may lie beyond."""
    numbers = [level.level for level in factor.levels if is_number(level.level)]
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
    same = [words(factor.name) for factor in findings.scientific if any(map(_is_same_at_all_seeds, factor.levels))]
    if same:
        yield Caveat(
            "no_spread",
            f"Differences in {listed(same)} are the very same at every seed: nothing is known of their noise, and"
            f" their verdicts are no certainty.",
        )


def _is_same_at_all_seeds(level: LevelFinding) -> bool:
    """Whether its difference to the best has an interval that has no width but for rounding."""
    apart = level.difference
    if apart is None or apart.low is None or apart.high is None:
        return False
    return apart.high - apart.low <= ROUNDING * max(map(abs, level.readings))


def _still_improving(runs: StudyRuns, findings: Findings) -> Iterator[Caveat]:
    metric, sign = runs.objective["metric"], direction(runs.objective["mode"])
    curves = read_curves(runs, metric, findings.recommended.run_ids)
    gain = sign * float(np.mean(curves.last_steps)) if curves and curves.last_steps.size else 0.0
    if gain > runs.objective["margin"]:
        yield Caveat(
            "rising",
            f"Still improving: {metric} by {number_text(gain)} in the last epoch; train longer before relying on it.",
        )


def _floors_not_beaten(runs: StudyRuns, findings: Findings) -> Iterator[Caveat]:
    """Rules without any network that may be as good; a known result that is not reached is no floor."""
    known = runs.objective.get("references", {})
    names = [words(floor.name) for floor in findings.floors_not_beaten() if floor.name not in known]
    if names:
        yield Caveat("floor_not_beaten", f"Not beaten for sure: {first_of(names, 3)}; no network is needed for that.")


def _diverged(runs: StudyRuns) -> Iterator[Caveat]:
    """Runs that diverged, and at which learning rates."""
    if runs.ended_early.empty:
        return
    rows = runs.ended_early[runs.ended_early["state"] == DIVERGED]
    if rows.empty:
        return
    rates = sorted(rows[RATE].unique().tolist(), key=level_order) if RATE in runs.parameters else []
    where = f", at learning rate {first_of([level_text(rate) for rate in rates])}" if rates else ""
    total = counted(len(runs.trials) + len(runs.ended_early), "run")
    yield Caveat("diverged", f"Diverged: {len(rows)} of {total}{where}.")


def _interactions(findings: Findings) -> Iterator[Caveat]:
    """What gamma does depends on another factor, over whose levels its own comparison takes the mean."""
    topic = next((topic for topic in findings.topics if topic.name == "interactions"), None)
    found = [claim.values["with"] for claim in topic.claims if claim.verdict == "interact"] if topic else []
    if factors := [name for name in dict.fromkeys(found) if name != "class"]:
        yield Caveat("interaction", f"Interaction: what gamma does depends on {listed(factors)}; no mean says it all.")


def _gaps(runs: StudyRuns) -> Iterator[Caveat]:
    """What W&B lacks of the trials that are at hand."""
    if runs.gaps:
        verb = "differs" if len(runs.gaps) == 1 else "differ"
        yield Caveat(
            "gaps", f"W&B: {counted(len(runs.gaps), 'trial')} {verb} from their own files; run `canopoint sync`."
        )


def _looks(runs: StudyRuns) -> Iterator[Caveat]:
    """Older runs do not say which of their seeds were added after a look at the others."""
    if not runs.search.are_looks_known:
        text = (
            "Unknown looks: the runs do not say which seeds were planned; each beyond two counts as a look of its own."
        )
        yield Caveat("unknown_looks", text)


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
    if any(topic.population == "scenes" for topic in findings.topics):
        yield Caveat("seeds_not_scenes", "Other scenes: the verdicts do not speak of them; the topic on scenes does.")
    else:
        yield Caveat("seeds_not_scenes", "Other scenes: no interval speaks of them; all stand on these images alone.")
