"""The sections of a study file, each with the rules that it can check by itself."""

from collections import Counter
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from trainable.config import METRIC_NAMES, InputError, known_or_nearest

METRICS = tuple(f"val/{prefix}{name}" for prefix in ("", "image_") for name in METRIC_NAMES)
MAX_TRIALS = 100_000
Value = bool | int | float | str
Number = int | float
Item = TypeVar("Item", bound=Value)
Method = Literal["grid", "random", "quasi_random", "optuna", "optuna_pareto"]


def _each_once(values: list[Item]) -> list[Item]:
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"each value stands once, got {value!r} {count} times")
    return values


Levels = Annotated[list[Value], Field(min_length=1, max_length=1000), AfterValidator(_each_once)]
Seed = Annotated[int, Field(ge=0)]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=1000), AfterValidator(_each_once)]
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class Section(BaseModel):
    """A mapping of known keys, strictly typed: `1` is no text and `true` no number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Parameter(Section):
    """What varies: a factor with its role and either its levels (`values`) or a range (`min`, `max`, `scale`)."""

    role: Literal["scientific", "nuisance"]
    values: Levels | None = None
    min: Number | None = Field(default=None, allow_inf_nan=False)
    max: Number | None = Field(default=None, allow_inf_nan=False)
    scale: Literal["linear", "log"] = "linear"

    @property
    def is_range(self) -> bool:
        """Whether every number from `min` to `max` may be tried."""
        return self.values is None

    @model_validator(mode="after")
    def _is_either_values_or_a_range(self) -> "Parameter":
        given = [key for key in ("min", "max", "scale") if key in self.model_fields_set]
        if self.values is not None and given:
            raise ValueError(f"has values and {given[0]}; keep one: values, or a range (min, max and scale)")
        if self.values is None and (self.min is None or self.max is None):
            missing = "values, or min and max" if self.min is self.max else "both ends of the range, min and max"
            raise ValueError(f"must have {missing}")
        return self

    @model_validator(mode="after")
    def _range_is_one(self) -> "Parameter":
        if self.min is None or self.max is None:
            return self
        if self.role == "scientific":
            raise ValueError("a scientific factor is compared level by level; give values in place of min and max")
        if self.min >= self.max:
            raise ValueError(f"min must be less than max, got min {self.min} and max {self.max}")
        if self.scale == "log" and self.min <= 0:
            raise ValueError(f"min must be greater than 0 on a log scale, got {self.min}; raise it, or scale: linear")
        return self


class Search(Section):
    """How settings are proposed at each scientific level, and the seed blocks in which each of them is run.

    `trials_per_level` is the number of settings tried at each level, each run once per seed; `seed` that of the search
    itself. A scheduler stops unpromising trials after `grace_epochs` or later, keeping one in `reduction_factor`.
    """

    method: Method = "grid"
    trials_per_level: int | None = Field(default=None, ge=1, le=MAX_TRIALS)
    seeds: Seeds = [0, 1, 2]
    seed: Seed = 0
    scheduler: Literal["none", "asha", "median"] = "none"
    grace_epochs: int = Field(default=1, ge=1, le=10_000)
    reduction_factor: int = Field(default=3, ge=2, le=100)

    @model_validator(mode="after")
    def _has_an_end(self) -> "Search":
        if self.method == "grid" and self.trials_per_level is not None:
            raise InputError(
                f"search.trials_per_level: a grid tries every setting, got {self.trials_per_level}; remove it, or"
                f" choose another search.method"
            )
        if self.method != "grid" and self.trials_per_level is None:
            raise InputError(
                f"search.trials_per_level: is missing; say how many settings {self.method} tries at each level"
            )
        return self

    @model_validator(mode="after")
    def _scheduler_knows_what_is_better(self) -> "Search":
        if self.method == "optuna_pareto" and self.scheduler != "none":
            raise InputError(
                f"search.scheduler: {self.scheduler} stops by the metric alone, and optuna_pareto weighs it against"
                f" annotation effort; set it to none"
            )
        return self


class Confirm(Section):
    """The fresh seeds at which the winner of each scientific level is run once more, with the test split opened."""

    seeds: Seeds


class Budget(Section):
    """What a study may use in all, over every session of it; reaching one ends the run cleanly."""

    trials: int | None = Field(default=None, ge=1)
    hours: Limit | None = None
    gpu_hours: Limit | None = None


class Failures(Section):
    """How often a trial is tried again, and after how many failed trials in a row the study stops."""

    retries: int = Field(default=3, ge=0, le=100)
    stop_after: int = Field(default=3, ge=1, le=MAX_TRIALS)


class Objective(Section):
    """The one metric that search, table, findings and export use, and the epoch it is read at.

    `margin` is the difference that the user calls negligible, in units of the metric. `references` are known results of
    others on these data, name -> value: the report says whether the networks beat them, as it does of the floors.
    """

    metric: str = "val/miou"
    mode: Literal["max"] = "max"  # every metric here is better when larger
    at: Literal["last"] = "last"  # the epoch whose weights are kept
    margin: float = Field(default=0.01, ge=0, le=1)
    references: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")], Annotated[float, Field(ge=0, le=1)]] = {}

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"no such metric, got {metric}{known_or_nearest(metric, METRICS)}")
        return metric


class Effort(Section):
    """What an annotator's time costs, in seconds per training image, and in money where a rate is given.

    `look_s` goes to seeing which classes an image holds, `point_s` to each point and `first_point_s` more to the first,
    `dense_s` to a mask of the whole image, the look included. `hourly_rate` is in `currency`, three capital letters. No
    trial's identity depends on any of it.

    Sources of the defaults: PointSup (Cheng et al. 2022) for the points; Bearman et al. 2016 for everything else.
    """

    look_s: Seconds = 20.0
    first_point_s: Seconds = 2.4
    point_s: Seconds = 0.9
    dense_s: Seconds = 239.7
    hourly_rate: Limit | None = None
    currency: str | None = Field(default=None, pattern=r"^[A-Z]{3}$")

    @model_validator(mode="after")
    def _rate_has_a_currency(self) -> "Effort":
        if (self.hourly_rate is None) != (self.currency is None):
            given, missing = ("hourly_rate", "currency") if self.currency is None else ("currency", "hourly_rate")
            raise InputError(f"effort.{missing}: is missing beside effort.{given}; give both, or neither")
        return self


class Resources(Section):
    """What one trial gets, all on one node. Threads of torch are pinned to `cpus_per_trial`.

    `memory_gib_per_trial` is what is counted when trials are placed side by side; it is not enforced.
    """

    cpus_per_trial: int = Field(default=1, ge=1, le=1024)
    gpus_per_trial: float = Field(default=0.0, ge=0, le=64)
    memory_gib_per_trial: Limit | None = None
    max_concurrent: int | None = Field(default=None, ge=1)

    @field_validator("gpus_per_trial")
    @classmethod
    def _gpus_are_schedulable(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"a share of one GPU or whole GPUs, got {gpus:g}")
        return gpus


class Tracking(Section):
    """The W&B mirror: `offline` writes run files, `online` also sends them."""

    project: str = Field(default="canopoint", pattern=r"^[A-Za-z0-9._-]{1,128}$")
    mode: Literal["offline", "online"] = "offline"
