"""Spec -> cells x seeds -> trials, each with an identity; and the plan: what would run, and what it costs."""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study.spec import StudySpec, Value, find_study, load_study
from trainable.config import TRAINER_VERSION, InputError, TrainConfig, check_compatible, from_mapping

MAX_TRIALS = 100_000

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
class Trial:
    """Cell x seed: one training run.

    Attributes:
        trial_id: 12 hex digits; same id, same result.
        parameters: the cell: the level of each factor.
    """

    trial_id: str
    parameters: dict[str, Value]
    config: TrainConfig

    @property
    def name(self) -> str:
        """What a person calls the trial."""
        return " ".join([*(f"{name}={value}" for name, value in self.parameters.items()), f"seed={self.config.seed}"])


@dataclass(frozen=True)
class Plan:
    """What a study asks for, what is there already, and what the rest will cost.

    Attributes:
        expected_s: wall-clock seconds of the trials still to run.
        basis: what the expectation rests on.
    """

    study: str
    num_cells: int
    seeds: list[int]
    num_trials: int
    num_done: int
    num_concurrent: int
    expected_s: float
    gpu_hours: float
    basis: str

    @property
    def num_missing(self) -> int:
        """Trials still to run."""
        return self.num_trials - self.num_done


def open_study(name: str, overrides: list[str]) -> StudySpec:
    """Reads a study file, or one of the catalog by its name, and checks that a run can have every cell of it.

    Raises:
        InputError: one line with the file, the field, the rule and the remedy.
    """
    spec = load_study(name, overrides)
    try:
        list_configs(spec)
    except InputError as error:
        raise InputError(f"{find_study(name)}: {error}") from error
    return spec


def list_cells(spec: StudySpec) -> list[dict[str, Value]]:
    """Every combination of levels, in the order of the file.

    Raises:
        InputError: more trials than anybody means to run.
    """
    num_trials = math.prod(len(parameter.values) for parameter in spec.parameters.values()) * len(spec.search.seeds)
    if num_trials > MAX_TRIALS:
        raise InputError(
            f"parameters: the grid has {num_trials} trials; at most {MAX_TRIALS}; give fewer levels or seeds"
        )
    levels = itertools.product(*(parameter.values for parameter in spec.parameters.values()))
    return [dict(zip(spec.parameters, combination, strict=True)) for combination in levels]


def list_configs(spec: StudySpec) -> list[tuple[dict[str, Value], TrainConfig]]:
    """(cell, config) of every trial, seed block by seed block: a study stopped early still holds whole blocks.

    Raises:
        InputError: a combination of levels that no run can have.
    """
    device = "cuda" if spec.resources.gpus_per_trial else "cpu"
    placed = {"device": device, "num_threads": spec.resources.cpus_per_trial}
    cells = list_cells(spec)
    configs = [
        (cell, from_mapping(TrainConfig, {**spec.training, **cell, **placed, "seed": seed}, "training"))
        for seed in spec.search.seeds
        for cell in cells
    ]
    for _, config in configs:
        check_compatible(config, spec.data)
    return configs


def list_trials(spec: StudySpec, fingerprint: str) -> list[Trial]:
    """Every trial of the study on the data of that fingerprint."""
    return [Trial(trial_id(config, fingerprint), cell, config) for cell, config in list_configs(spec)]


def trial_id(config: TrainConfig, fingerprint: str) -> str:
    """The trial's content address: a hash of all settings, the data and the trainer's version."""
    identity = {"training": config.to_mapping(), "data": fingerprint, "trainer_version": TRAINER_VERSION}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def make_plan(
    spec: StudySpec,
    trials: list[Trial],
    num_images: Mapping[str, int],
    measured_s: Mapping[str, float],
    num_concurrent: int,
) -> Plan:
    """Counts and prices what is still to run.

    Args:
        spec: the study.
        trials: all its trials.
        num_images: images per split.
        measured_s: trial id -> seconds, for the trials that are done.
        num_concurrent: trials that run at the same time.
    """
    missing = [trial for trial in trials if trial.trial_id not in measured_s]
    done = [trial for trial in trials if trial.trial_id in measured_s]
    estimated = {trial.trial_id: estimate_s(trial.config, num_images) for trial in trials}
    # Measured trials correct the estimate by their common factor; their own settings may differ from the missing ones'.
    factor, basis = 1.0, "a rough estimate from FLOP counts"
    if done:
        factor = sum(measured_s[t.trial_id] for t in done) / sum(estimated[t.trial_id] for t in done)
        basis = f"measured on {len(done)} finished trials"
    compute_s = factor * sum(estimated[trial.trial_id] for trial in missing)
    return Plan(
        study=spec.study,
        num_cells=len(list_cells(spec)),
        seeds=list(spec.search.seeds),
        num_trials=len(trials),
        num_done=len(done),
        num_concurrent=num_concurrent,
        expected_s=compute_s / max(1, min(num_concurrent, len(missing))),
        gpu_hours=compute_s * spec.resources.gpus_per_trial / 3600,
        basis=basis,
    )


def estimate_s(config: TrainConfig, num_images: Mapping[str, int]) -> float:
    """Seconds of one trial by its FLOP count: three forward passes per training image, one per validation image."""
    forward = FORWARD_GFLOP[config.encoder][config.decoder_stride] * (config.image_size / 256) ** 2
    per_epoch = forward * (3 * num_images["train"] + num_images["val"])
    rate = GPU_GFLOP_PER_S if config.device == "cuda" else CPU_GFLOP_PER_S * config.num_threads
    return config.epochs * per_epoch / rate


def describe_plan(plan: Plan) -> dict[str, Any]:
    """The plan as plain values, for `--format json`."""
    return {**plan.__dict__, "num_missing": plan.num_missing}
