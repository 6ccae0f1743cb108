"""Which settings matter, and which cannot be told from noise: PED-ANOVA beside its permutation null.

Permutations say what chance reaches only where outcomes could as well have been dealt to other settings. A search that
learns, as Optuna's TPE, tries what went well again, and so makes a crowd of good settings about any early luck: in
simulated searches without any effect, 12 to 24 % would be said to have one. Such settings are ranked and not judged.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.findings import Claim, Findings, Topic
from analysis.kept_numbers import Rows, kept_numbers
from analysis.ped_anova import (
    importances,
    judge,
    optuna_importances,
)
from analysis.reading.completeness import STOPPED
from analysis.reading.runs import StudyRuns
from analysis.statistics import CONFIDENCE, Estimate
from analysis.topics.ranked_settings import Group, ranked_groups, ranked_settings
from analysis.wording import counted, listed, settings_text, words

NUM_PERMUTATIONS = 199
MATTERS, NOISE, NOT_JUDGED = "matters", "noise", "not judged"
COLUMNS = {
    "subject": "setting",
    "null": "what chance alone reaches",
    "p": "p value, corrected over all rows",
    "settings": "settings ranked",
}


def find_importance(runs: StudyRuns, findings: Findings) -> Topic | None:
    """Every parameter's importance; None where too few settings were tried to tell any from noise."""
    settings, num_seeds = ranked_settings(runs, findings)
    groups = list(ranked_groups(runs, settings))
    if not groups:
        return None
    if runs.search.is_adaptive:
        return _topic("", _adaptive_text(runs, groups[0]), _unjudged_claims(groups, num_seeds))
    claims = _judged_claims(groups, num_seeds, runs.cache_dir)
    return _topic("permutations", _text(runs, groups[0], claims), claims)


def _topic(population: str, text: str, claims: list[Claim]) -> Topic:
    return Topic(
        name="importance",
        title="Which settings matter",
        unit="importance (PED-ANOVA)",
        population=population,
        text=text,
        columns={key: heading for key, heading in COLUMNS.items() if key == "subject" or key in claims[0].values},
        claims=claims,
    )


def _judged_claims(groups: list[Group], num_seeds: int, cache_dir: Path | None) -> list[Claim]:
    """Every importance beside what chance reaches."""
    names = [(group, name) for group in groups for name in group.axes]
    return [
        _claim(group, name, value, num_seeds, MATTERS if value > threshold else NOISE, null=threshold, p=p_value)
        for (group, name), value, threshold, p_value in zip(names, *_judged(groups, cache_dir), strict=True)
    ]


def _unjudged_claims(groups: list[Group], num_seeds: int) -> list[Claim]:
    """Every importance by itself."""
    found = [optuna_importances(list(group.axes.values()), group.ranks, group.share).tolist() for group in groups]
    return [
        _claim(group, name, value, num_seeds, NOT_JUDGED)
        for group, values in zip(groups, found, strict=True)
        for name, value in zip(group.axes, values, strict=True)
    ]


def _claim(group: Group, name: str, value: float, num_seeds: int, verdict: str, **chance: float) -> Claim:
    return Claim(
        subject=_subject(group, name),
        estimate=Estimate(value, None, None, num_seeds, CONFIDENCE),
        values={**chance, "settings": len(group.settings)},
        verdict=verdict,
        run_ids=[run_id for setting in group.settings for run_id in setting.run_ids],
    )


def _judged(groups: list[Group], cache_dir: Path | None) -> Rows:
    """Every importance, what it must exceed and its p value: (3, number of claims). Kept until the settings change."""
    digest = hashlib.sha256(f"{NUM_PERMUTATIONS} {np.__version__}".encode())
    for group in groups:
        digest.update(repr([(name, axis.size, axis.bounds, axis.is_log) for name, axis in group.axes.items()]).encode())
        for column in (*(axis.values for axis in group.axes.values()), group.ranks):
            digest.update(column.tobytes())
    path = cache_dir / "importance.json" if cache_dir else None
    shape = (3, sum(len(group.axes) for group in groups))
    return kept_numbers(path, digest.hexdigest(), shape, lambda: _judge(groups))


def _judge(groups: list[Group]) -> Rows:
    stream = np.random.default_rng(0)
    observed = [optuna_importances(list(group.axes.values()), group.ranks, group.share) for group in groups]
    null = [_null(group, stream) for group in groups]
    needed, p_values = judge(np.concatenate(observed), np.concatenate(null, axis=1))
    return [np.concatenate(observed).tolist(), needed.tolist(), p_values.tolist()]


def _null(group: Group, stream: np.random.Generator) -> NDArray[np.float64]:
    """(NUM_PERMUTATIONS, num_parameters) importances where outcomes are dealt to settings by chance."""
    dealt = stream.permuted(np.tile(group.ranks, (NUM_PERMUTATIONS, 1)), axis=1)
    return importances(list(group.axes.values()), dealt, group.share)


def _subject(group: Group, name: str) -> str:
    return words(name) + (f" ({settings_text(group.level)})" if group.level else "")


def _text(runs: StudyRuns, largest: Group, claims: list[Claim]) -> str:
    """What matters, what cannot be told from noise, and what the method does not see."""
    real = [claim.subject for claim in claims if claim.verdict == MATTERS]
    noise = [claim.subject for claim in claims[: len(largest.axes)] if claim.verdict == NOISE]
    matters = f"beyond chance {'matters' if len(real) == 1 else 'matter'} {listed(real)}"
    first = matters if real else "nothing matters beyond chance"
    first += f"; {listed(noise)} cannot be told from noise" if noise else ""
    texts = [f"{first[0].upper()}{first[1:]}."]
    texts.append(
        f"Held against {NUM_PERMUTATIONS} permutations of the outcomes of {counted(len(largest.settings), 'setting')},"
        f" corrected over all rows. What matters only in combination with another setting is not seen."
    )
    return " ".join([*texts, *_ended_texts(runs, largest)])


def _adaptive_text(runs: StudyRuns, largest: Group) -> str:
    """That nothing is judged, and why."""
    first = (
        f"Which settings matter is not judged: {counted(len(largest.settings), 'setting')} were proposed by TPE, which"
        " tries what went well again, so that what chance alone reaches is not known."
    )
    remedy = "The importances show where the search went; search.method: random or quasi_random would tell."
    return " ".join([first, remedy, *_ended_texts(runs, largest)])


def _ended_texts(runs: StudyRuns, largest: Group) -> Iterator[str]:
    """What became of settings that did not run to their end."""
    if number := sum(np.isinf(setting.loss) for setting in largest.settings):
        yield f"{counted(number, 'setting')} that diverged rank last."
    if not runs.ended_early.empty and (runs.ended_early["state"] == STOPPED).any():
        yield "Settings that were stopped early are left out."
