"""Confirmation: the winner of each scientific level once more, on fresh seeds and with the test split opened.

The best of many noisy trials reads too well, because it was chosen for it. Fresh seeds do not know that it was chosen.
"""

from collections.abc import Iterator
from statistics import fmean

from study.design import Cell, Trial, level_name, level_of, make_trial
from study.effort import setting_seconds
from study.exploration import Exploration, Proposal
from study.sections import Effort
from study.spec import StudySpec


def find_winners(spec: StudySpec, exploration: Exploration) -> list[Cell]:
    """The best setting of each scientific level by its mean over all exploration seeds, of those that ran to their end.

    Of a search against annotation effort: every setting that no other one beats in both.
    """
    winners = []
    for proposals in _by_level(exploration).values():
        finished = [(mean, each) for each in proposals if (mean := mean_value(each)) is not None]
        if spec.search.method == "optuna_pareto":
            winners += [each.cell for each in _pareto_front(finished, spec.effort)]
        elif finished:
            winners.append(max(finished, key=lambda pair: round(pair[0], 12))[1].cell)  # the first of equals
    return winners


def levels_without_winner(exploration: Exploration) -> list[str]:
    """Scientific levels at which no setting ran to its end at every seed."""
    return [
        level_name(proposals[0].level) or "the study"
        for proposals in _by_level(exploration).values()
        if all(mean_value(each) is None for each in proposals)
    ]


def mean_value(proposal: Proposal) -> float | None:
    """The objective over all seeds of a setting; None unless every one ran to its end."""
    ended = [proposal.outcomes.get(trial.trial_id) for trial in proposal.trials]
    values = [each.value for each in ended if each is not None and each.state == "completed" and each.value is not None]
    return fmean(values) if len(values) == len(proposal.trials) else None


def confirmation_trials(
    spec: StudySpec, fingerprint: str, cells: list[Cell], extra_seeds: list[tuple[Cell, list[int]]]
) -> list[Trial]:
    """The trials that confirm these cells, seed block by seed block.

    Args:
        spec: the study; without a `confirm` section there are none.
        fingerprint: of the data.
        cells: what to confirm.
        extra_seeds: scientific level -> further seeds, as `extend` added them.
    """
    if not spec.confirm:
        return []
    seeds = spec.confirm.seeds
    wanted = [(cell, [*seeds, *_further(spec, cell, extra_seeds)]) for cell in cells]
    longest = max((len(each) for _, each in wanted), default=0)
    return [
        make_trial(spec, fingerprint, cell, each[block], "confirm")
        for block in range(longest)
        for cell, each in wanted
        if block < len(each)
    ]


def _further(spec: StudySpec, cell: Cell, extra_seeds: list[tuple[Cell, list[int]]]) -> Iterator[int]:
    level = level_of(spec, cell)
    yield from (seed for each, seeds in extra_seeds if each == level for seed in seeds)


def _by_level(exploration: Exploration) -> dict[tuple[tuple[str, object], ...], list[Proposal]]:
    levels: dict[tuple[tuple[str, object], ...], list[Proposal]] = {}
    for proposal in exploration.proposals:
        levels.setdefault(tuple(proposal.level.items()), []).append(proposal)
    return levels


def _pareto_front(finished: list[tuple[float, Proposal]], effort: Effort) -> list[Proposal]:
    """The settings that no other one beats in the objective without more effort; the least effort first."""
    front: list[Proposal] = []
    best = float("-inf")
    rated = [(setting_seconds(each.cell, effort), -mean, each) for mean, each in finished]
    for _, negative_mean, each in sorted(rated, key=lambda item: item[:2]):
        if -negative_mean > best:
            best = -negative_mean
            front.append(each)
    return front
