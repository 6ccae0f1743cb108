"""The plan: what would run, what is there already, and what the rest will cost."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from study.agenda import Agenda
from study.design import Cell, Phase, Trial, list_levels, make_config, nuisance_factors
from study.space import Space
from study.spec import StudySpec
from trainable.config import TrainConfig

PHASES: tuple[Phase, ...] = ("explore", "confirm")

# Forward GFLOP per image at 256 x 256, 2 FLOP a multiply-add; a training step costs three forward passes.
# Of the last feature map at decoder strides 1, 2 and 4; at the points alone the head costs nothing.
FORWARD_GFLOP = {
    "resnet18": {1: 10.8, 2: 9.9, 4: 8.4},
    "resnet34": {1: 15.6, 2: 14.7, 4: 13.2},
    "resnet50": {1: 21.2, 2: 20.3, 4: 18.8},
    "resnet101": {1: 30.9, 2: 30.0, 4: 28.5},
    "mobilenet_v2": {1: 5.5, 2: 4.6, 4: 3.5},
    "mobilenet_v3_large": {1: 5.1, 2: 4.2, 4: 3.2},
    "efficientnet_b0": {1: 5.7, 2: 4.8, 4: 3.8},
    "convnext_tiny": {1: 17.8, 2: 16.9, 4: 16.0},
}
NUM_PARAMETERS = {
    "resnet18": 14.3e6, "resnet34": 24.4e6, "resnet50": 32.5e6, "resnet101": 51.5e6,
    "mobilenet_v2": 4.0e6, "mobilenet_v3_large": 4.7e6, "efficientnet_b0": 5.8e6, "convnext_tiny": 31.9e6,
}  # fmt: skip
# Sustained float32 rates that a plan assumes until a trial of the study has been timed.
CPU_GFLOP_PER_S = 50.0  # per thread
GPU_GFLOP_PER_S = 10_000.0


@dataclass(frozen=True)
class PhasePlan:
    """One phase of a study.

    Attributes:
        num_trials: all of them, those included that are yet to be proposed or to be chosen as winners.
        num_missing: trials still to run; the others are reused.
    """

    name: Phase
    seeds: list[int]
    num_trials: int
    num_missing: int

    @property
    def num_done(self) -> int:
        """Trials that are reused as they are."""
        return self.num_trials - self.num_missing


@dataclass(frozen=True)
class Plan:
    """What a study asks for, what is there already, and what the rest will cost.

    Attributes:
        num_levels: scientific levels.
        num_epochs: of the trials still to run.
        expected_s: wall-clock seconds of the trials still to run; at most, where a scheduler stops some.
        basis: what the expectation rests on.
    """

    study: str
    method: str
    num_levels: int
    phases: list[PhasePlan]
    num_epochs: int
    num_concurrent: int
    expected_s: float
    gpu_hours: float
    basis: str

    @property
    def num_trials(self) -> int:
        """Trials of all phases."""
        return sum(phase.num_trials for phase in self.phases)

    @property
    def num_done(self) -> int:
        """Trials that are reused."""
        return sum(phase.num_done for phase in self.phases)

    @property
    def num_missing(self) -> int:
        """Trials still to run."""
        return sum(phase.num_missing for phase in self.phases)


def make_plan(
    agenda: Agenda, num_images: Mapping[str, int], measured_s: Mapping[str, float], num_concurrent: int
) -> Plan:
    """Counts and prices what is still to run.

    Args:
        agenda: the study's trials.
        num_images: images per split.
        measured_s: trial id -> seconds, for the trials that ran to their end.
        num_concurrent: trials that run at the same time.
    """
    spec = agenda.spec
    known = {phase: [trial for trial in agenda.trials if trial.phase == phase] for phase in PHASES}
    to_come = {"explore": _to_propose(agenda), "confirm": _to_confirm(agenda)}
    seeds = {"explore": list(spec.search.seeds), "confirm": list(spec.confirm.seeds) if spec.confirm else []}
    factor, basis = _correction(agenda.trials, num_images, measured_s)
    missing = agenda.missing
    configs = {phase: [t.config for t in missing if t.phase == phase] + to_come[phase] for phase in PHASES}
    times = [factor * estimate_s(config, num_images) for phase in PHASES for config in configs[phase]]
    return Plan(
        study=spec.study,
        method=spec.search.method,
        num_levels=len(list_levels(spec)),
        phases=[
            PhasePlan(phase, seeds[phase], len(known[phase]) + len(to_come[phase]), len(configs[phase]))
            for phase in PHASES
        ],
        num_epochs=sum(config.epochs for phase in PHASES for config in configs[phase]),
        num_concurrent=num_concurrent,
        expected_s=sum(times) / max(1, min(num_concurrent, len(times))),
        gpu_hours=sum(times) * spec.resources.gpus_per_trial / 3600,
        basis=basis,
    )


def _to_propose(agenda: Agenda) -> list[TrainConfig]:
    """Stand-ins for the trials that the searches are yet to propose: each space's middle, level by level in turn."""
    if not agenda.explores:
        return []
    middles = [make_config(agenda.spec, cell, seed=0) for cell in _middles(agenda.spec)]
    num_trials = agenda.exploration.num_to_propose * len(agenda.spec.search.seeds)
    return [middles[i % len(middles)] for i in range(num_trials)]


def _to_confirm(agenda: Agenda) -> list[TrainConfig]:
    """Stand-ins for the confirmation of winners that are not known yet: one at each scientific level."""
    if not agenda.spec.confirm or not agenda.are_winners_to_come:
        return []
    cells = _middles(agenda.spec)
    return [
        make_config(agenda.spec, cell, seed, evaluate_test=True) for cell in cells for seed in agenda.spec.confirm.seeds
    ]


def _middles(spec: StudySpec) -> list[Cell]:
    factors = nuisance_factors(spec)
    middle = Space(factors).from_unit([0.5] * len(factors))
    return [{**level, **middle} for level in list_levels(spec)]


def _correction(
    trials: list[Trial], num_images: Mapping[str, int], measured_s: Mapping[str, float]
) -> tuple[float, str]:
    """By what factor the measured trials miss their estimate: the settings of others may differ from theirs."""
    done = [trial for trial in trials if trial.trial_id in measured_s]
    if not done:
        return 1.0, "a rough estimate from FLOP counts"
    estimated = sum(estimate_s(trial.config, num_images) for trial in done)
    return sum(measured_s[trial.trial_id] for trial in done) / estimated, f"measured on {len(done)} finished trials"


def estimate_s(config: TrainConfig, num_images: Mapping[str, int]) -> float:
    """Seconds of one trial by its FLOP count: three forward passes per training image, one per evaluated image."""
    forward = FORWARD_GFLOP[config.encoder][config.decoder_stride] * (config.image_size / 256) ** 2
    num_training = min(config.train_images or num_images["train"], num_images["train"])
    per_epoch = forward * (3 * num_training + num_images["val"])
    rate = GPU_GFLOP_PER_S if config.device == "cuda" else CPU_GFLOP_PER_S * config.num_threads
    return config.epochs * per_epoch / rate


def describe_plan(plan: Plan) -> dict[str, Any]:
    """The plan as plain values, for `--format json`."""
    totals = {"num_trials": plan.num_trials, "num_done": plan.num_done, "num_missing": plan.num_missing}
    phases = [{**asdict(phase), "num_done": phase.num_done} for phase in plan.phases]
    return {**asdict(plan), "phases": phases, **totals}
