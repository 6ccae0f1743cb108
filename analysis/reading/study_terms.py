"""The terms that the analysis goes by: the study's name, its objective and its parameters, as they stand now.

They come from `study.yaml`, as the driver wrote it last, and not from the runs: whoever edits the margin, or makes a
parameter of what was a fixed setting, analyses the same runs anew without training them again. Where only W&B's files
were copied there is no `study.yaml`; then the runs' own configs count, and must agree. What they say of search and
confirmation grows from session to session, so that all of it counts (`search_plan.py`).
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import log
from pathlib import Path
from typing import Any, TypeGuard

from analysis.reading.search_plan import SearchPlan, fits, merged_plan
from analysis.reading.wandb_runs import WandbRun
from study.effort import PUBLISHED
from study.ledger import read_ledger
from study.sections import MAX_TRIALS, Effort, Parameter
from study.spec import StudySpec, load_study
from trainable.config import InputError

OWN_FOLDER = "give each study its own folder"
EXPLORE, CONFIRM = "explore", "confirm"
"""The phases. Exploration chooses settings; confirmation runs them again, on fresh seeds, and opens the test split."""

OWN_COLUMNS = ("run_id", "trial_id", "seed", "phase", "state", "epoch", "objective", "test", "time_s")
"""Columns of the tables of runs that no parameter and no metric may be named after (but for the metric `epoch`)."""

TOO_LARGE = 1e100
"""What is measured stays below it, on either side of 0: squares and sums of such numbers are finite."""


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high` that a parameter was searched in."""

    low: float
    high: float
    is_log: bool

    def place(self, value: float) -> float:
        """Where a value lies on the range's own scale: 0 at `low`, 1 at `high`."""
        if self.is_log:
            return log(value / self.low) / log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class SearchTerms:
    """How settings are searched and confirmed, as the study file says it or, where there is none, the runs.

    Attributes:
        is_grid: every setting is tried at every scientific level, so that cells that are missing are a gap.
        is_adaptive: settings were proposed in the light of what others had read, as Optuna's TPE does.
        ranges: parameter -> range, of those that have one in place of levels.
        levels: every scientific level, as name -> level.
        confirm_seeds: the seeds of confirmation; none where none is declared.
        extensions: the seeds of each addition to them (`canopoint extend`), which followed a look at the data.
        are_looks_known: nothing is missing of that; else all seeds but the first two may have followed a look.
    """

    is_grid: bool = True
    is_adaptive: bool = False
    ranges: dict[str, Range] = field(default_factory=dict)
    levels: list[dict[str, Any]] = field(default_factory=list)
    confirm_seeds: list[int] = field(default_factory=list)
    extensions: list[list[int]] = field(default_factory=list)
    are_looks_known: bool = True


@dataclass(frozen=True)
class StudyTerms:
    """What the analysis goes by.

    Attributes:
        study: the study's name.
        objective: metric, mode (max or min), at (last or best), margin, references (name -> known result).
        parameters: name -> role.
        search: how settings are searched and confirmed.
        effort: what labelling costs; as published, where neither a study file nor a run says.
        from_runs: there is no `study.yaml`, so that every run's own terms count.
    """

    study: str
    objective: dict[str, Any]
    parameters: dict[str, str]
    search: SearchTerms = field(default_factory=SearchTerms)
    effort: Effort = PUBLISHED
    from_runs: bool = False


def read_terms(study_dir: Path | None, runs: list[WandbRun], name: str = "", remedy: str = OWN_FOLDER) -> StudyTerms:
    """The terms of `study_dir/study.yaml`, or of its runs where there is none.

    Args:
        study_dir: the study's folder; None where there is none.
        runs: of one study or of several.
        name: what the study is likely to be called; the folder's name unless given.
        remedy: what to do where the runs are of several, and none is called so.

    Raises:
        InputError: `study.yaml` is no study, or the runs do not agree.
    """
    path = study_dir / "study.yaml" if study_dir else None
    if not study_dir or not path or not path.is_file():
        name = name or (study_dir.resolve().name if study_dir else "")
        return _terms_of_runs(_study_name(name, runs, remedy), runs)
    spec = load_study(str(path), [])
    roles: dict[str, str] = {name: parameter.role for name, parameter in spec.parameters.items()}
    return StudyTerms(spec.study, spec.objective.model_dump(), roles, _search_terms(spec, study_dir, runs), spec.effort)


def on_test_split(metric: str) -> str:
    """The objective's counterpart on the test split: val/miou -> test/miou."""
    return f"test/{metric.removeprefix('val/')}"


def metric_read(metric: str, phase: str) -> str:
    """What a phase reads of its runs: exploration the objective, confirmation its counterpart on the test split."""
    return on_test_split(metric) if phase == CONFIRM else metric


def _search_terms(spec: StudySpec, study_dir: Path, runs: list[WandbRun]) -> SearchTerms:
    return SearchTerms(
        is_grid=spec.search.method == "grid",
        is_adaptive=_is_adaptive([spec.search.method, *(run.config.get("search_method") for run in runs)]),
        ranges=_ranges(spec.parameters),
        levels=_levels(spec.parameters),
        confirm_seeds=list(spec.confirm.seeds) if spec.confirm else [],
        extensions=_extensions(spec, study_dir, runs) if spec.confirm else [],
    )


def _ranges(parameters: Mapping[str, Parameter]) -> dict[str, Range]:
    return {
        name: Range(each.min, each.max, each.scale == "log")
        for name, each in parameters.items()
        if each.min is not None and each.max is not None
    }


def _levels(parameters: Mapping[str, Parameter]) -> list[dict[str, Any]]:
    """Every scientific level; no study has more than MAX_TRIALS, whatever hostile runs say."""
    values = {name: each.values or [] for name, each in parameters.items() if each.role == "scientific"}
    levels = itertools.islice(itertools.product(*values.values()), MAX_TRIALS)
    return [dict(zip(values, level, strict=True)) for level in levels]


def _extensions(spec: StudySpec, study_dir: Path, runs: list[WandbRun]) -> list[list[int]]:
    """What the ledger says of seeds that were added; it is read where runs have some, as it may be long."""
    planned = [*spec.search.seeds, *(spec.confirm.seeds if spec.confirm else [])]
    if all(run.config.get("seed") in planned for run in runs):
        return []
    said = [event.get("seeds") for event in read_ledger(study_dir) if event["event"] == "extended"]
    batches = [tuple(seed for seed in seeds if isinstance(seed, int)) for seeds in said if isinstance(seeds, list)]
    return [list(batch) for batch in dict.fromkeys(batches)]  # one addition to several levels is one look


def _is_adaptive(methods: Iterable[object]) -> bool:
    """Whether any of the methods learns from what it was told: those of Optuna do."""
    return any(isinstance(method, str) and method.startswith("optuna") for method in methods)


def terms_problem(config: dict[str, Any]) -> str:
    """What is wrong with a run's own terms; empty where nothing is."""
    for key in ("parameters", "roles", "objective"):
        if not isinstance(config.get(key), dict):
            return f"config.{key}: must be dict, got {config.get(key)!r:.80}"
    return next((rule for rule, holds in _rules(config) if not holds), "")


def is_number(value: object) -> TypeGuard[int | float]:
    """What a column of floats can hold; JSON's integers have no limit."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, float)


def is_finite(value: object) -> TypeGuard[int | float]:
    """A number to reckon with: no NaN, and nothing whose square would be infinite."""
    return is_number(value) and abs(value) < TOO_LARGE


def agreed(what: str, said: Iterable[tuple[str, Any]], remedy: str = "give each its own study") -> Any:
    """What all runs say, given as (run id, value), at least one.

    Raises:
        InputError: two of them differ.
    """
    (first_id, first), *others = said
    for run_id, value in others:
        if value != first:
            raise InputError(
                f"runs {first_id} and {run_id}: must have the same {what}, got {first!r} and {value!r}; {remedy}"
            )
    return first


def _rules(config: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Each rule, and whether it holds."""
    objective, roles = config["objective"], config["roles"]
    yield "config.objective.metric: must be text", isinstance(objective.get("metric"), str)
    yield "config.objective.mode: must be max or min", objective.get("mode") in ("max", "min")
    yield "config.objective.at: must be last or best", objective.get("at") in ("last", "best")
    yield "config.objective.margin: must be a number", is_finite(objective.get("margin"))
    references = objective.get("references", {})
    is_table = isinstance(references, dict) and all(map(is_finite, references.values()))
    yield "config.objective.references: must be numbers by name", is_table
    yield "config.effort: must be as in a study file", "effort" not in config or fits(config["effort"], Effort)
    yield "config.search_method: must be text", isinstance(config.get("search_method", ""), str)
    yield (
        "config.plan: must say parameters, confirm_seeds and extensions",
        "plan" not in config or fits(config["plan"], SearchPlan),
    )
    yield "config.roles: must name the parameters", roles.keys() == config["parameters"].keys()
    yield "config.roles: must be text", all(isinstance(role, str) for role in roles.values())
    yield "config.roles: must not be named like a column", roles.keys().isdisjoint(OWN_COLUMNS)


def _terms_of_runs(study: str, runs: list[WandbRun]) -> StudyTerms:
    """What the runs of the study agree on; a run whose own terms are malformed will be left out, and has no say."""
    configs = {
        run.run_id: run.config
        for run in runs
        if study == run.group == run.config.get("study") and not terms_problem(run.config)
    }
    if not configs:
        return StudyTerms(study, {}, {}, from_runs=True)
    remedy = "copy the study's study.yaml beside its wandb folder, or give each its own study"
    objective = agreed("objective", [(run_id, config["objective"]) for run_id, config in configs.items()], remedy)
    roles: dict[str, list[tuple[str, str]]] = {}
    for run_id, config in configs.items():
        for name, role in config["roles"].items():
            roles.setdefault(name, []).append((run_id, role))
    parameters = {name: agreed(f"role of {name}", said, remedy) for name, said in roles.items()}
    methods = {config.get("search_method", "grid") for config in configs.values()}
    rates = [(run_id, config["effort"]) for run_id, config in configs.items() if "effort" in config]
    effort = Effort.model_validate(agreed("effort", rates, remedy)) if rates else PUBLISHED
    return StudyTerms(
        study,
        objective,
        parameters,
        replace(
            _search_of_runs(parameters, configs.values()),
            is_grid=methods == {"grid"},
            is_adaptive=_is_adaptive(methods),
        ),
        effort,
        from_runs=True,
    )


def _search_of_runs(roles: Mapping[str, str], configs: Collection[dict[str, Any]]) -> SearchTerms:
    """What the runs know of the study file and its additions; older runs know nothing.

    Nobody can tell by then which seeds were there at the first look: no more than two count, which a paired difference
    needs, and each further one as an addition of its own.
    """
    plan = merged_plan(configs) or SearchPlan()
    confirmed = {config.get("seed") for config in configs if config.get("phase") == CONFIRM}
    seeds = sorted(seed for seed in confirmed if is_number(seed))
    factors = {name: each for name, each in plan.parameters.items() if each.role == roles.get(name)}
    scientific = {name for name, role in roles.items() if role == "scientific"}
    are_known = bool(plan.confirm_seeds) or len(seeds) <= 2
    return SearchTerms(
        ranges=_ranges(factors),
        levels=_levels(factors) if factors and scientific <= factors.keys() else [],
        confirm_seeds=plan.confirm_seeds if are_known else [int(seed) for seed in seeds[:2]],
        extensions=plan.extensions,
        are_looks_known=are_known,
    )


def _study_name(name: str, runs: list[WandbRun], remedy: str) -> str:
    """The name where a run has it as its study; in a renamed copy, the one study that all runs name."""
    names = {run.config["study"] for run in runs if isinstance(run.config.get("study"), str)}
    if name in names or not names:
        return name
    if len(names) > 1:
        studies = ", ".join(sorted(names))
        raise InputError(f"{name}: holds runs of the studies {studies}, none of them named like it; {remedy}")
    return str(names.pop())
