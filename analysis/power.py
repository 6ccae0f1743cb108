"""Power: what a study as noisy as this pilot would show with more seeds, and what that costs.

Power is that of the very intervals that findings stand on (simultaneous over all pairs, each with its own variance),
were all pairs of levels as noisy as the pilot's are together (`spread.py`). A level is enough where it is within the
margin of every other one of its factor, so that the seeds for the margin make all of them clear together with 80 %.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from analysis.family import pair_confidence
from analysis.findings import Findings
from analysis.reading.runs import StudyRuns
from analysis.sample_size import MAX_SEEDS, POWER, detectable, joint_power, seeds_to_detect
from analysis.spread import Spread, find_spread
from analysis.statistics import CONFIDENCE
from analysis.wording import counted, level_text, percent, settings_text
from trainable.config import InputError

SEEDS = tuple(range(2, 21))
MARGIN = "margin"
DEVICES = {"cuda": "GPU-hours, at one GPU a trial", "cpu": "hours of training, on the pilot's device (cpu)"}


@dataclass(frozen=True)
class PowerRow:
    """A number of seeds at each level: the smallest true difference that is found with 80 %, and what it costs."""

    num_seeds: int
    detectable: float
    num_trials: int
    hours: float | None


@dataclass(frozen=True)
class PowerTarget:
    """A difference, and the seeds at each level; None where `MAX_SEEDS` do not do.

    Of the margin, seeds that call a level enough, with 80 %, that is as good as all others of its factor. Of any other
    difference, seeds that tell it from none with 80 %.
    """

    subject: str
    difference: float
    num_seeds: int | None
    num_trials: int | None
    hours: float | None


@dataclass(frozen=True)
class Power:
    """What more seeds would show.

    Attributes:
        num_levels: that are run, at least 2: of several scientific factors, the combinations of their levels.
        num_compared: levels of the largest factor; the intervals of all their pairs hold jointly.
        seed_hours: training of one seed at every level, on the device of the pilot. None where the runs do not say.
        device: that the pilot's trials ran on, cpu or cuda; None where they do not agree or do not say.
        margin: the difference that is negligible.
        rows: by number of seeds.
        targets: the margin first, then the observed differences to the leading levels.
        run_ids: the pilot's.
    """

    study: str
    metric: str
    margin: float
    num_levels: int
    num_compared: int
    confidence: float
    power: float
    spread: Spread
    seed_hours: float | None
    device: str | None
    rows: list[PowerRow]
    targets: list[PowerTarget]
    run_ids: list[str]

    @property
    def hours_unit(self) -> str:
        """What `hours` are."""
        return DEVICES.get(self.device or "", "hours of training")


def plan_power(runs: StudyRuns, findings: Findings, seeds: Sequence[int] = SEEDS, margin: float | None = None) -> Power:
    """What a study of these levels would show with other numbers of seeds, judged from this one as a pilot.

    Args:
        runs: the pilot.
        findings: what `find` makes of it.
        seeds: numbers of seeds, each 2 to `MAX_SEEDS`; each counts once.
        margin: in place of the study's own; above 0.

    Raises:
        InputError: there is nothing to compare, nothing is known of noise, or a number is out of its range.
    """
    for number in seeds:
        if not 2 <= number <= MAX_SEEDS:
            raise InputError(f"--seeds: must be 2 to {MAX_SEEDS}, got {number}")
    if margin is not None and not (isfinite(margin) and margin > 0):
        raise InputError(f"--margin: must be a number above 0, got {margin:g}")
    if len(findings.arms) < 2:
        raise InputError(
            f"study {runs.study}: power compares scientific levels, and {_levels_text(findings)}; run two, as in"
            f" parameters: {{points_per_image: {{role: scientific, values: [10, 50]}}}}"
        )
    spread = find_spread(runs, findings)
    if spread is None:
        raise InputError(
            f"study {runs.study}: power needs a pilot that shows noise, and no cell ran at two seeds that differ; run"
            f" it with more, as in search: {{seeds: [0, 1, 2]}}"
        )
    num_levels, hours = len(findings.arms), _seed_hours(runs, findings)
    num_compared = max((len(factor.levels) for factor in findings.scientific), default=num_levels)
    # A study that declares confirmation may be extended, so that its first look has less than all of the error.
    each = pair_confidence(max(num_compared, 2), 1 if runs.search.confirm_seeds else None)
    differences = _targets(findings, runs.objective["margin"] if margin is None else margin)
    return Power(
        study=runs.study,
        metric=findings.metric,
        margin=float(runs.objective["margin"] if margin is None else margin),
        num_levels=num_levels,
        num_compared=num_compared,
        confidence=CONFIDENCE,
        power=POWER,
        spread=spread,
        seed_hours=hours,
        device=_device(runs, findings),
        rows=[_row(number, spread.value * detectable(number, each), num_levels, hours) for number in sorted({*seeds})],
        targets=[
            _target(name, size, seeds_to_detect(size / spread.value, each, power=power), num_levels, hours)
            for name, size in differences
            for power in [joint_power(max(num_compared - 1, 1)) if name == MARGIN else POWER]
        ],
        run_ids=[run_id for arm in findings.arms for run_id in arm.run_ids],
    )


def _seed_hours(runs: StudyRuns, findings: Findings) -> float | None:
    times = runs.trials.set_index("run_id")["time_s"]
    hours = sum(float(times.loc[arm.run_ids].mean()) for arm in findings.arms) / 3600
    return hours if isfinite(hours) and hours > 0 else None


def _device(runs: StudyRuns, findings: Findings) -> str | None:
    said = [runs.training.get(trial_id, {}).get("device") for arm in findings.arms for trial_id in arm.trial_ids]
    return str(said[0]) if said[0] in DEVICES and all(device == said[0] for device in said) else None


def _levels_text(findings: Findings) -> str:
    """Why there are no two levels."""
    levels = findings.arms[0].scientific
    return f"this one has {settings_text(levels)} alone" if levels else "this one has no scientific parameter"


def _targets(findings: Findings, margin: float) -> Iterator[tuple[str, float]]:
    """(what it is, difference): the margin, unless it is 0, and what the levels were seen to differ by."""
    if margin > 0:
        yield MARGIN, float(margin)
    for factor in findings.scientific:
        for level in factor.levels:
            if level.difference is not None and level.difference.value != 0:
                yield f"{level_text(level.level)} against {level_text(factor.best_level)}", abs(level.difference.value)


def _row(num_seeds: int, difference: float, num_levels: int, hours: float | None) -> PowerRow:
    return PowerRow(num_seeds, difference, num_seeds * num_levels, None if hours is None else num_seeds * hours)


def _target(subject: str, difference: float, number: int | None, num_levels: int, hours: float | None) -> PowerTarget:
    if number is None:
        return PowerTarget(subject, difference, None, None, None)
    row = _row(number, difference, num_levels, hours)
    return PowerTarget(subject, difference, number, row.num_trials, row.hours)


def describe_power(power: Power) -> dict[str, Any]:
    """Plain JSON values."""
    return asdict(power)


def power_text(power: Power) -> str:
    """The answer, then a table, for a terminal."""
    spread, hours = power.spread, power.hours_unit if power.seed_hours else ""
    kind = "of paired differences" if spread.paired else "of a difference of two independent runs"
    lines = [
        *target_sentences(power),
        f"Spread between seeds {kind}: {size_text(spread.value)} (95 %: {size_text(spread.low)} to"
        f" {size_text(spread.high)},"
        f" {counted(spread.degrees_of_freedom, 'degree')} of freedom).",
        "",
        f"{'seeds':>7}{'finds a difference of':>25}{'trials':>10}{hours:>49}".rstrip(),
    ]
    for row in power.rows:
        spent = f"{size_text(row.hours, 2):>49}" if row.hours is not None else ""
        lines.append(f"{row.num_seeds:>7}{size_text(row.detectable):>25}{row.num_trials:>10}{spent}")
    return "\n".join(lines)


def target_sentences(power: Power) -> list[str]:
    """What each difference takes, the margin first."""
    return [f"{_aim(target)}: {_cost(power, target)}." for target in power.targets]


def _aim(target: PowerTarget) -> str:
    if target.subject == MARGIN:
        return f"To call a level enough that is as good (margin {size_text(target.difference)})"
    return f"To find a difference such as {target.subject} showed ({size_text(target.difference)})"


def _cost(power: Power, target: PowerTarget) -> str:
    if target.num_seeds is None:
        return f"more than {MAX_SEEDS} seeds at each level"
    hours = f", {size_text(target.hours, 2)} {power.hours_unit}" if target.hours is not None else ""
    levels = counted(power.num_levels, "level")
    return (
        f"some {target.num_seeds} seeds at each of {levels}{_against(power, target)}, {target.num_trials} trials{hours}"
    )


def _against(power: Power, target: PowerTarget) -> str:
    """What the chance speaks of, where a level has several others that it must be within the margin of."""
    if target.subject != MARGIN or power.num_compared < 3:
        return ""
    return f" ({percent(power.power)} against all {power.num_compared - 1} others together)"


def size_text(size: float, decimals: int = 4) -> str:
    """A number from 0 at some decimals; a small one at two digits instead, where these would not show it."""
    return f"{size:.2g}" if 0 < size < 10 ** (1 - decimals) else f"{size:.{decimals}f}"
