"""Where the analysis takes its terms from: the study as it stands, or its runs where only W&B's files were copied."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.reading.study_terms import Range, SearchTerms, StudyTerms, metric_read, read_terms, terms_problem
from analysis.reading.wandb_runs import WandbRun
from study.effort import PUBLISHED
from study.ledger import open_ledger
from study.sections import MAX_TRIALS, Effort
from study.spec import parse_study
from trainable.config import InputError

OBJECTIVE = {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01}
ROLES = {"points_per_image": "scientific", "learning_rate": "nuisance"}


@pytest.fixture
def study_dir(tmp_path: Path) -> Path:
    (tmp_path / "demo").mkdir()
    return tmp_path / "demo"


@pytest.fixture
def two_runs(make_run: Callable[..., WandbRun], make_config: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """A function that makes two runs; the second one's config is changed by what is given."""

    def make(**changes: Any) -> list[WandbRun]:
        return [make_run(), make_run(run_id="demo-b", config=make_config("0000000000bb", 1) | changes)]

    return make


PARETO = {"points_per_image": {"role": "nuisance", "values": [10, 50]}}


def write_study_file(study_dir: Path, **sections: Any) -> None:
    """As the driver writes it: every default written out."""
    mapping = {
        "study": "point-budget",
        "data": {"root": "/data"},
        "parameters": {"encoder": {"role": "nuisance", "values": ["resnet18", "resnet50"]}},
    }
    written = parse_study(mapping | sections, "study").to_mapping()
    (study_dir / "study.yaml").write_text(yaml.safe_dump(written, sort_keys=False))


def test_the_study_file_counts_whatever_the_runs_say(study_dir: Path, two_runs: Callable[..., Any]) -> None:
    objective = {"metric": "val/dice", "mode": "max", "at": "last", "margin": 0.02, "references": {"boosting": 0.6}}
    write_study_file(study_dir, objective=objective)
    runs = two_runs(objective={"metric": 7}, roles=None)
    search = SearchTerms(levels=[{}])  # without a scientific factor there is one level, which has no name
    assert read_terms(study_dir, runs) == StudyTerms("point-budget", objective, {"encoder": "nuisance"}, search)


def test_the_study_file_says_how_settings_are_searched_and_confirmed(
    study_dir: Path, two_runs: Callable[..., Any]
) -> None:
    write_study_file(
        study_dir,
        parameters={
            "learning_rate": {"role": "nuisance", "min": 1e-5, "max": 1e-2, "scale": "log"},
            "points_per_image": {"role": "scientific", "values": [10, 50]},
        },
        search={"method": "random", "trials_per_level": 4, "seeds": [0]},
        confirm={"seeds": [100, 101]},
    )
    assert read_terms(study_dir, two_runs()).search == SearchTerms(
        is_grid=False,
        ranges={"learning_rate": Range(1e-5, 1e-2, is_log=True)},
        levels=[{"points_per_image": 10}, {"points_per_image": 50}],
        confirm_seeds=[100, 101],
    )


def test_a_place_in_a_range_is_on_its_own_scale() -> None:
    assert Range(1e-5, 1e-1, is_log=True).place(1e-3) == pytest.approx(0.5)
    assert Range(0, 8, is_log=False).place(2) == 0.25


def test_without_a_study_file_the_runs_say_whether_settings_were_searched(
    study_dir: Path, two_runs: Callable[..., Any]
) -> None:
    assert read_terms(study_dir, two_runs()).search == SearchTerms(is_grid=True)
    runs = [replace(run, config=run.config | {"search_method": "optuna"}) for run in two_runs()]
    assert read_terms(study_dir, runs).search == SearchTerms(is_grid=False, is_adaptive=True)


def test_settings_that_optuna_proposed_stay_so_whatever_the_study_file_says_now(
    study_dir: Path, two_runs: Callable[..., Any]
) -> None:
    write_study_file(study_dir)
    assert not read_terms(study_dir, two_runs()).search.is_adaptive
    assert read_terms(study_dir, two_runs(search_method="optuna")).search.is_adaptive
    write_study_file(study_dir, search={"method": "optuna_pareto", "trials_per_level": 4}, parameters=PARETO)
    assert read_terms(study_dir, two_runs()).search.is_adaptive


def test_the_study_file_says_what_labelling_costs(study_dir: Path, two_runs: Callable[..., Any]) -> None:
    write_study_file(study_dir, effort={"point_s": 2.0, "hourly_rate": 30.0, "currency": "EUR"})
    wanted = Effort(point_s=2.0, hourly_rate=30.0, currency="EUR")
    assert read_terms(study_dir, two_runs(effort={"point_s": 7.0})).effort == wanted


def test_without_a_study_file_the_runs_say_what_labelling_costs(study_dir: Path, two_runs: Callable[..., Any]) -> None:
    assert read_terms(study_dir, two_runs()).effort == PUBLISHED  # of runs that say nothing
    assert read_terms(study_dir, two_runs(effort={"point_s": 2.0})).effort == Effort(point_s=2.0)
    problem = terms_problem(two_runs(effort={"point_s": "2"})[1].config)
    assert problem == "config.effort: must be as in a study file"


def test_each_phase_reads_its_own_metric() -> None:
    assert metric_read("val/image_miou", "explore") == "val/image_miou"
    assert metric_read("val/image_miou", "confirm") == "test/image_miou"


def test_a_broken_study_file_is_refused_by_name(study_dir: Path, two_runs: Callable[..., Any]) -> None:
    (study_dir / "study.yaml").write_text("study: demo\nobjektive: {}\n")
    with pytest.raises(InputError, match=r"demo/study\.yaml: objektive: no such key; did you mean objective\?"):
        read_terms(study_dir, two_runs())


def test_without_a_study_file_the_runs_count(study_dir: Path, two_runs: Callable[..., Any]) -> None:
    expected = StudyTerms("demo", OBJECTIVE, ROLES, from_runs=True)
    assert read_terms(study_dir, two_runs()) == expected
    assert read_terms(study_dir.parent, two_runs()) == expected  # a renamed copy


def test_a_parameter_that_only_later_runs_name_is_one(study_dir: Path, two_runs: Callable[..., Any]) -> None:
    runs = two_runs(roles={**ROLES, "encoder": "nuisance"}, parameters={**ROLES, "encoder": "resnet50"})
    assert read_terms(study_dir, runs).parameters == {**ROLES, "encoder": "nuisance"}


DISAGREEMENTS = [
    (
        {"objective": {**OBJECTIVE, "margin": 0.02}},
        r"objective, got .*0\.01.* and .*0\.02.*; copy the study's study.yaml",
    ),
    ({"roles": {**ROLES, "points_per_image": "nuisance"}}, "role of points_per_image, got 'scientific' and 'nuisance'"),
]


@pytest.mark.parametrize(("changes", "message"), DISAGREEMENTS)
def test_runs_that_disagree_are_refused(
    changes: dict[str, Any], message: str, study_dir: Path, two_runs: Callable[..., Any]
) -> None:
    with pytest.raises(InputError, match=f"runs demo-0000000000aa and demo-b: must have the same {message}"):
        read_terms(study_dir, two_runs(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": {"metric": "val/dice"}},
        {"objective": {**OBJECTIVE, "margin": 0.5}, "roles": {}},
        {"objective": {**OBJECTIVE, "margin": 0.5}, "study": "other"},
    ],
)
def test_a_run_that_will_be_left_out_has_no_say(
    changes: dict[str, Any], study_dir: Path, two_runs: Callable[..., Any]
) -> None:
    assert read_terms(study_dir, two_runs(**changes)).objective == OBJECTIVE
    assert read_terms(study_dir, two_runs(**changes)).parameters == ROLES


def test_runs_of_several_other_studies_are_refused(study_dir: Path, two_runs: Callable[..., Any]) -> None:
    assert read_terms(study_dir, two_runs(study="other")).study == "demo"  # the folder's name decides
    with pytest.raises(InputError, match="holds runs of the studies demo, other, none of them named like it"):
        read_terms(study_dir.parent, two_runs(study="other"))


def test_the_ledger_says_which_seeds_came_together_after_a_look(study_dir: Path, two_runs: Callable[..., Any]) -> None:
    write_study_file(study_dir, confirm={"seeds": [100, 101]})
    level = {"points_per_image": 10}
    with open_ledger(study_dir) as ledger:
        for seeds, levels in (([102, 103], [level, {"points_per_image": 50}]), ([104], [level])):
            ledger.append(
                *({"event": "extended", "phase": "confirm", "level": each, "seeds": seeds} for each in levels)
            )
        ledger.append({"event": "extended", "seeds": "damaged"})
    planned, extended = two_runs(), two_runs(seed=104)
    assert read_terms(study_dir, planned).search.extensions == []  # no run has a further seed: nothing to read
    assert read_terms(study_dir, extended).search.extensions == [[102, 103], [104]]
    write_study_file(study_dir)
    assert read_terms(study_dir, extended).search.extensions == []  # without confirmation, nothing can be extended


PARAMETERS = {
    "points_per_image": {"role": "scientific", "values": [10, 50]},
    "learning_rate": {"role": "nuisance", "min": 1e-4, "max": 1e-2, "scale": "log"},
}
PLAN = {"parameters": PARAMETERS, "confirm_seeds": [100, 101], "extensions": [[102]]}


def test_without_a_study_file_the_runs_say_together_what_was_declared_and_added(
    study_dir: Path, two_runs: Callable[..., Any]
) -> None:
    """The later run knows of one more addition, of another level, and of a wider range."""
    wider = {
        "points_per_image": {"role": "scientific", "values": [50, 100]},
        "learning_rate": {"role": "nuisance", "min": 1e-3, "max": 1e-1, "scale": "log"},
    }
    first, second = two_runs(plan={**PLAN, "parameters": wider, "extensions": [[102], [103, 104]]})
    first = replace(first, config=first.config | {"plan": PLAN})
    assert read_terms(study_dir, [first, second]).search == SearchTerms(
        ranges={"learning_rate": Range(1e-4, 1e-1, is_log=True)},
        levels=[{"points_per_image": level} for level in (50, 100, 10)],
        confirm_seeds=[100, 101],
        extensions=[[102], [103, 104]],
    )


def test_levels_and_a_range_of_one_parameter_are_a_range(study_dir: Path, two_runs: Callable[..., Any]) -> None:
    fixed = {**PARAMETERS, "learning_rate": {"role": "nuisance", "values": [1e-3]}}
    first, second = two_runs(plan=PLAN)
    first = replace(first, config=first.config | {"plan": {**PLAN, "parameters": fixed}})
    assert read_terms(study_dir, [first, second]).search.ranges == {"learning_rate": Range(1e-4, 1e-2, is_log=True)}


def test_older_confirmation_runs_leave_the_looks_unknown(study_dir: Path, two_runs: Callable[..., Any]) -> None:
    runs = [
        replace(run, config=run.config | {"phase": "confirm", "seed": seed})
        for run, seed in zip([*two_runs(), *two_runs()], (103, 101, 100, 102), strict=True)
    ]
    runs = [replace(run, run_id=f"demo-{number}") for number, run in enumerate(runs)]
    search = read_terms(study_dir, runs).search
    assert (search.confirm_seeds, search.are_looks_known) == ([100, 101], False)
    runs[0] = replace(runs[0], config=runs[0].config | {"plan": PLAN})  # one that knows is enough
    search = read_terms(study_dir, runs).search
    assert (search.confirm_seeds, search.extensions, search.are_looks_known) == ([100, 101], [[102]], True)


@pytest.mark.parametrize(
    "plan",
    [
        None,
        {**PLAN, "more": 1},
        {**PLAN, "confirm_seeds": [True]},
        {**PLAN, "confirm_seeds": [-1]},
        {**PLAN, "confirm_seeds": [2**63]},
        {**PLAN, "extensions": [list(range(1001))]},
        {**PLAN, "extensions": [[1]] * 1001},
        {**PLAN, "parameters": {"points_per_image": {"role": "scientific", "values": [[]]}}},
    ],
)
def test_a_run_whose_plan_is_none_has_no_say(plan: Any, study_dir: Path, two_runs: Callable[..., Any]) -> None:
    runs = two_runs(plan=plan)
    assert terms_problem(runs[1].config) == "config.plan: must say parameters, confirm_seeds and extensions"
    assert read_terms(study_dir, runs).search == SearchTerms()


def test_levels_without_end_are_not_listed(study_dir: Path, two_runs: Callable[..., Any]) -> None:
    names = ("points_per_image", "image_size", "train_images")
    factors = {name: {"role": "scientific", "values": list(range(1, 1001))} for name in names}
    roles = dict.fromkeys(names, "scientific")
    (_, run) = two_runs(plan={**PLAN, "parameters": factors}, roles=roles, parameters=roles)
    assert len(read_terms(study_dir, [run]).search.levels) == MAX_TRIALS
