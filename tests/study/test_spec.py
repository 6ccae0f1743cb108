import copy
from pathlib import Path
from typing import Any

import pytest

from study.design import open_study
from study.effort import PUBLISHED
from study.spec import METRICS, StudySpec, find_study, load_study, parse_study
from study.yaml_file import parse_yaml, to_yaml
from trainable.config import InputError

# The example of DESIGN.md, as a grid.
EXAMPLE = """\
# How many points per image are enough, each at its own best learning rate and gamma?
study: point-budget
data:   {root: data/forest, group: scene, split: {train: 0.6, val: 0.2, test: 0.2, seed: 0}}
training: {encoder: resnet50, weights: imagenet, image_size: 256, epochs: 10, batch_size: 16,
           optimizer: adam, weight_decay: 1e-3}
parameters:
  points_per_image: {role: scientific, values: [10, 50, 100, 200]}
  learning_rate:    {role: nuisance, values: [1e-5, 1e-4, 1e-3, 1e-2]}
  focal_gamma:      {role: nuisance, values: [0, 1, 2, 5]}
search:   {method: grid, seeds: [0, 1, 2]}
objective: {metric: val/miou, mode: max, at: last, margin: 0.01}
resources: {gpus_per_trial: 0.5, cpus_per_trial: 4}
tracking: {project: canopoint, mode: online}
storage:  /mnt/shared/studies
"""
# The same with what is searched, confirmed and spent.
SEARCHED = """\
study: point-budget
data: {root: data/forest}
training: {encoder: resnet18, epochs: 9}
parameters:
  points_per_image: {role: scientific, values: [10, 50, 100, 200]}
  learning_rate:    {role: nuisance, min: 1e-5, max: 1e-2, scale: log}
  focal_gamma:      {role: nuisance, values: [0, 1, 2, 5]}
  label_flip_rate:  {role: nuisance, min: 0, max: 0.5}
search:   {method: optuna, trials_per_level: 24, seeds: [0], seed: 7, scheduler: asha, grace_epochs: 2}
confirm:  {seeds: [100, 101, 102]}
budget:   {trials: 500, hours: 12, gpu_hours: 30.5}
failures: {retries: 1, stop_after: 5}
"""
RUN_SETTINGS = {"seed": "search.seeds", "device": "resources", "num_threads": "resources", "evaluate_test": "confirm"}


@pytest.fixture
def example(tmp_path: Path) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(EXAMPLE)
    return str(path)


@pytest.fixture
def searched(tmp_path: Path) -> str:
    path = tmp_path / "searched.yaml"
    path.write_text(SEARCHED)
    return str(path)


def refusal(path: str, *overrides: str) -> str:
    """The one line that a study with these changes is refused with, its file's name apart."""
    with pytest.raises(InputError) as caught:
        load_study(path, list(overrides))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_the_example_of_the_design_is_accepted(example: str) -> None:
    spec = load_study(example, [])
    assert spec.study == "point-budget"
    assert spec.folder == Path("/mnt/shared/studies/point-budget")
    assert spec.data.root == "data/forest"
    assert spec.data.split.train == 0.6
    assert spec.training["weight_decay"] == 1e-3
    assert list(spec.parameters) == ["points_per_image", "learning_rate", "focal_gamma"]
    assert spec.parameters["points_per_image"].role == "scientific"
    assert spec.parameters["learning_rate"].values == [1e-5, 1e-4, 1e-3, 1e-2]
    assert spec.search.seeds == [0, 1, 2]
    assert spec.resources.gpus_per_trial == 0.5


def test_what_is_not_named_keeps_its_default() -> None:
    levels = {"points_per_image": {"role": "scientific", "values": [1]}}
    spec = parse_study({"study": "s", "data": {"synthetic": {}}, "parameters": levels}, "study.yaml")
    assert spec.training == {}
    assert spec.search.seeds == [0, 1, 2]
    assert (spec.objective.metric, spec.objective.at, spec.objective.margin) == ("val/miou", "last", 0.01)
    assert (spec.resources.cpus_per_trial, spec.resources.gpus_per_trial, spec.resources.max_concurrent) == (1, 0, None)
    assert (spec.tracking.mode, spec.storage) == ("offline", "studies")


@pytest.mark.parametrize(
    ("override", "place", "nearest"),
    [
        ("serach={seeds: [0]}", "serach", "search"),
        ("data.rot=x", "data.rot", "root"),
        ("data.split.trian=0.6", "data.split.trian", "train"),
        ("data={synthetic: {num_scene: 3}}", "data.synthetic.num_scene", "num_scenes"),
        ("training.foacl_gamma=2", "training.foacl_gamma", "focal_gamma"),
        ("parameters.foacl_gamma={role: nuisance, values: [0]}", "parameters.foacl_gamma", "focal_gamma"),
        ("parameters.focal_gamma.value=[0]", "parameters.focal_gamma.value", "values"),
        ("search.sees=[0]", "search.sees", "seeds"),
        ("confirm={seds: [7]}", "confirm.seds", "seeds"),
        ("budget.hour=1", "budget.hour", "hours"),
        ("failures.retry=1", "failures.retry", "retries"),
        ("parameters.focal_gamma={role: nuisance, mim: 0, max: 1}", "parameters.focal_gamma.mim", "min"),
        ("objective.metrics=val/miou", "objective.metrics", "metric"),
        ("resources.gpu_per_trial=1", "resources.gpu_per_trial", "gpus_per_trial"),
        ("tracking.projct=x", "tracking.projct", "project"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(example: str, override: str, place: str, nearest: str) -> None:
    message = refusal(example, override)
    assert message.startswith(f"{place}: no such ")
    assert message.endswith(f"did you mean {nearest}?")


def test_a_key_like_no_other_is_told_which_there_are(example: str) -> None:
    for override in ("colour=red", "resources.colour=red", "training.colour=red"):
        assert "known: " in refusal(example, override)


@pytest.mark.parametrize(
    ("override", "place", "rule"),
    [
        # What varies.
        ("parameters={}", "parameters", "at least 1"),
        ("parameters.focal_gamma=2", "parameters.focal_gamma", "got 2"),
        ("parameters.focal_gamma.role=fixed", "parameters.focal_gamma.role", "'scientific' or 'nuisance', got 'fixed'"),
        ("parameters.focal_gamma.values=[]", "parameters.focal_gamma.values", "at least 1"),
        ("parameters.focal_gamma.values=[1, 2, 1]", "parameters.focal_gamma.values", "each value stands once, got 1"),
        ("parameters.focal_gamma.values=[1, 1.0]", "parameters.focal_gamma.values", "each value stands once, got 1"),
        ("parameters.focal_gamma.values=[1e-3, .001]", "parameters.focal_gamma.values", "each value stands once"),
        ("parameters.focal_gamma.values=3", "parameters.focal_gamma.values", "must be a list, got 3"),
        ("parameters.focal_gamma.values=[null]", "parameters.focal_gamma.values.0", "got None"),
        ("parameters.focal_gamma.values=[true]", "parameters.focal_gamma", "must be float, got True"),
        ("parameters.focal_gamma.values=[high]", "parameters.focal_gamma", "must be float, got 'high'"),
        ("parameters.focal_gamma.values=[.nan]", "parameters.focal_gamma", "finite"),
        ("parameters.learning_rate.values=[1e-3, -1]", "parameters.learning_rate", "greater than 0, got -1"),
        ("parameters.epochs={role: nuisance, values: [2.5]}", "parameters.epochs", "must be int, got 2.5"),
        ("training.focal_gamma=2", "parameters.focal_gamma", "also fixed under training"),
        # What is fixed. 1e1 is a float, and no number of epochs.
        ("training=none", "training", "mapping"),
        ("training.weight_decay=-1", "training.weight_decay", "at least 0, got -1"),
        ("training.epochs=1e1", "training.epochs", "must be int, got 10.0"),
        ("training.encoder=resnet5", "training.encoder", "got 'resnet5'; did you mean resnet50?"),
        # The data.
        ("data={}", "data", "either root"),
        ("data.synthetic={}", "data", "either root"),
        ('data.root=""', "data.root", "''"),
        ("data.split.train=0.9", "data.split", "must be 1, but they add up to 1.3"),
        # The rest.
        ("study=a/b", "study", "'a/b'"),
        ("study=..", "study", "'..'"),
        ("study=7", "study", "got 7"),
        ("study=" + 300 * "x", "study", "xxx"),
        ("search.method=tpe", "search.method", "'optuna' or 'optuna_pareto', got 'tpe'"),
        ("search.seeds=[]", "search.seeds", "at least 1"),
        ("search.seeds=[0, -1]", "search.seeds.1", "0, got -1"),
        ("search.seeds=[3, 3]", "search.seeds", "each value stands once, got 3 2 times"),
        ("search.seeds=[true]", "search.seeds.0", "got True"),
        ("objective.metric=val/iou", "objective.metric", "did you mean val/miou?"),
        ("objective.margin=small", "objective.margin", "number, got 'small'"),
        ("objective.margin=-0.1", "objective.margin", "0, got -0.1"),
        ("resources.cpus_per_trial=1.5", "resources.cpus_per_trial", "got 1.5"),
        ("resources.max_concurrent=0", "resources.max_concurrent", "got 0"),
        ("tracking.mode=on", "tracking.mode", "'offline' or 'online', got 'on'"),  # a word, as in YAML 1.2
        ("tracking.project=a/b", "tracking.project", "'a/b'"),
        ("storage=5", "storage", "got 5"),
    ],
)
def test_a_bad_value_is_refused_with_its_place_and_rule(example: str, override: str, place: str, rule: str) -> None:
    message = refusal(example, override)
    assert message.startswith(f"{place}: ")
    assert not message.startswith(f"{place}: {place}")
    assert rule in message


def test_the_learning_rate_must_be_positive_under_training_too(example: str) -> None:
    text = EXAMPLE.replace("learning_rate:    {role: nuisance, values: [1e-5, 1e-4, 1e-3, 1e-2]}", "")
    Path(example).write_text(text.replace("epochs: 10", "learning_rate: -1"))
    assert refusal(example) == "training.learning_rate: must be greater than 0, got -1"


@pytest.mark.parametrize(
    "override",
    [
        "study=a/b",
        "study=" + 300 * "x",
        "search=3",
        "search.seeds=[]",
        "parameters=[1]",
        "parameters.focal_gamma=2",
        "parameters.focal_gamma={role: nuisance}",
        "parameters.focal_gamma.values=[]",
        "parameters.focal_gamma.values=[null]",
    ],
)
def test_a_rule_is_told_in_words_of_a_study_file(example: str, override: str) -> None:
    message = refusal(example, override)
    foreign = ("pattern", "dictionary", "instance of", "after validation", "valid integer", "got {")
    assert [word for word in foreign if word in message] == []
    assert len(message) < 200  # a line that can be read


@pytest.mark.parametrize("name", RUN_SETTINGS)
@pytest.mark.parametrize("section", ["training", "parameters"])
def test_what_seeds_and_resources_decide_stands_nowhere_else(example: str, section: str, name: str) -> None:
    value = "1" if section == "training" else "{role: nuisance, values: [1]}"
    message = refusal(example, f"{section}.{name}={value}")
    assert message == f"{section}.{name}: set by {RUN_SETTINGS[name]}; remove it here"


@pytest.mark.parametrize("key", ["study", "data", "parameters"])
def test_a_missing_section_is_named(example: str, key: str) -> None:
    mapping = load_study(example, []).to_mapping()
    del mapping[key]
    with pytest.raises(InputError, match=f"^study.yaml: {key}: ") as caught:
        parse_study(mapping, "study.yaml")
    assert "resnet50" not in str(caught.value)  # not the whole study once more


def test_a_name_with_a_line_break_stays_on_one_line(example: str) -> None:
    for override in ('"a\nb"=1', "training.a\nb=1", 'data={"a\\nb": 1}'):
        assert "no such" in refusal(example, override)


@pytest.mark.parametrize("text", ["", "- study\n", "point-budget\n"])
def test_a_file_without_sections_is_refused(example: str, text: str) -> None:
    Path(example).write_text(text)
    assert "must be a mapping of sections" in refusal(example)


def test_every_metric_of_the_trainer_can_be_the_objective(example: str) -> None:
    assert len(METRICS) == 12
    for metric in METRICS:
        assert load_study(example, [f"objective.metric={metric}"]).objective.metric == metric


def test_overrides_are_typed_as_in_the_file(example: str) -> None:
    overrides = ["training.epochs=2", "training.weight_decay=1e-4", "parameters.focal_gamma.values=[0, .5]"]
    overrides += ["data.max_images=30", "storage=here", "resources={cpus_per_trial: 2}", "study=budget=2", "study=b2"]
    spec = load_study(example, overrides)
    assert spec.training["epochs"] == 2
    assert spec.training["weight_decay"] == 1e-4
    assert spec.training["encoder"] == "resnet50"  # beside the changed ones
    assert spec.parameters["focal_gamma"].values == [0, 0.5]
    assert spec.data.max_images == 30
    assert spec.resources.gpus_per_trial == 0  # the whole section was replaced
    assert (spec.study, spec.storage) == ("b2", "here")  # the last one wins


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("epochs", "must be a.b=value"),
        ("=2", "must be a.b=value"),
        ("training..epochs=2", "must be a.b=value"),
        (".training=2", "must be a.b=value"),
        ("study.epochs=2", "study is a value, not a section"),
        ("training.epochs=[1", "line 1"),
        ("training.epochs=*x", "aliases"),
    ],
)
def test_an_override_that_is_none_is_quoted(example: str, override: str, rule: str) -> None:
    with pytest.raises(InputError, match=r"^--set ") as caught:
        load_study(example, [override])
    assert override.partition("=")[0] in str(caught.value)
    assert rule in str(caught.value)


@pytest.mark.parametrize("overrides", [[], ["data={synthetic: {num_scenes: 3}}", "resources.max_concurrent=2"]])
def test_a_study_written_out_reads_as_the_same_study(example: str, overrides: list[str]) -> None:
    spec = load_study(example, overrides)
    mapping: dict[str, Any] = spec.to_mapping()
    before = copy.deepcopy(mapping)
    again: StudySpec = parse_study(mapping, "study.yaml")
    assert again == spec
    assert mapping == before  # reading changes nothing of what it reads
    assert list(again.parameters) == list(spec.parameters)


def test_reading_and_overriding_leave_the_file_as_it_is(example: str) -> None:
    load_study(example, ["study=other", "training.epochs=1"])
    assert Path(example).read_text() == EXAMPLE


def test_a_study_is_found_by_path_or_by_name_of_the_catalog(example: str) -> None:
    assert find_study(example) == Path(example)
    assert find_study("demo").name == "demo.yaml"
    with pytest.raises(InputError, match=r"^absent.yaml: no such file$"):
        find_study("absent.yaml")
    with pytest.raises(InputError, match=r"^dmo: .*did you mean demo\?$"):
        find_study("dmo")


def test_a_setting_may_be_a_word_that_yaml_1_1_takes_for_false(example: str) -> None:
    assert load_study(example, ["training.augmentation=off"]).training["augmentation"] == "off"


def test_every_pixel_is_a_point_count(example: str) -> None:
    spec = load_study(example, ["parameters.points_per_image.values=[10, dense]"])
    assert spec.parameters["points_per_image"].values == [10, "dense"]


@pytest.mark.parametrize("references", ["{boosting: 0.633}", "{boosting: 1}", "{}"])
def test_known_results_can_be_named(example: str, references: str) -> None:
    assert load_study(example, [f"objective.references={references}"]).objective.references.keys() <= {"boosting"}


@pytest.mark.parametrize("references", ["{boosting: 63.3}", "{boosting: high}", "{Gradient Boosting: 0.6}", "[0.6]"])
def test_a_known_result_is_a_plain_name_and_a_share(example: str, references: str) -> None:
    with pytest.raises(InputError, match=r"objective\.references"):
        load_study(example, [f"objective.references={references}"])


ANNOTATED = ["data={root: x, annotations: {format: csv}}"]


def test_what_needs_masks_is_refused_for_points_of_people(example: str) -> None:
    with pytest.raises(InputError, match=r"objective\.metric: val/boundary_f1 needs masks"):
        load_study(example, [*ANNOTATED, "objective.metric=val/boundary_f1"])
    for setting in ("point_strategy=boundary", "class_weights=prior"):
        with pytest.raises(InputError, match=rf"training\.{setting.split('=')[0]}: .*data\.annotations"):
            open_study(example, [*ANNOTATED, f"training.{setting}"])


def test_a_searched_study_is_accepted(searched: str) -> None:
    spec = load_study(searched, [])
    rate = spec.parameters["learning_rate"]
    assert (rate.is_range, rate.values, rate.min, rate.max, rate.scale) == (True, None, 1e-5, 1e-2, "log")
    assert (spec.parameters["label_flip_rate"].min, spec.parameters["label_flip_rate"].scale) == (0, "linear")
    assert not spec.parameters["focal_gamma"].is_range
    assert (spec.search.method, spec.search.trials_per_level, spec.search.seed) == ("optuna", 24, 7)
    assert (spec.search.scheduler, spec.search.grace_epochs, spec.search.reduction_factor) == ("asha", 2, 3)
    assert spec.confirm is not None
    assert spec.confirm.seeds == [100, 101, 102]
    assert (spec.budget.trials, spec.budget.hours, spec.budget.gpu_hours) == (500, 12, 30.5)
    assert (spec.failures.retries, spec.failures.stop_after) == (1, 5)


def test_a_study_without_the_new_sections_asks_for_nothing_new(example: str) -> None:
    spec = load_study(example, [])
    assert (spec.search.method, spec.search.trials_per_level, spec.search.scheduler) == ("grid", None, "none")
    assert spec.confirm is None
    assert (spec.budget.trials, spec.budget.hours, spec.budget.gpu_hours) == (None, None, None)
    assert (spec.failures.retries, spec.failures.stop_after) == (3, 3)


def test_effort_is_as_published_until_the_study_says_otherwise(example: str) -> None:
    assert load_study(example, []).effort == PUBLISHED
    spec = load_study(example, ["effort.point_s=3", "effort.hourly_rate=25", "effort.currency=EUR"])
    assert (spec.effort.point_s, spec.effort.look_s) == (3, 20.0)
    assert parse_study(spec.to_mapping(), "study.yaml") == spec


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("effort.points_s=1", "effort.points_s: no such key; did you mean point_s?"),
        ("effort.point_s=-1", "effort.point_s: must be greater than or equal to 0, got -1"),
        ("effort.look_s=.inf", "effort.look_s: must be a finite number, got inf"),
        ("effort.dense_s=1 hour", "effort.dense_s: must be a number, got '1 hour'"),
        ("effort.hourly_rate=0", "effort.hourly_rate: must be greater than 0, got 0"),
        ("effort.hourly_rate=20", "effort.currency: is missing beside effort.hourly_rate; give both, or neither"),
        ("effort.currency=EUR", "effort.hourly_rate: is missing beside effort.currency; give both, or neither"),
        ("effort={hourly_rate: 20, currency: euro}", "effort.currency: "),
        ("effort=3", "effort: must be a mapping, got 3"),
    ],
)
def test_an_effort_that_is_none_is_refused_in_one_line(example: str, override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_study(example, [override])
    assert str(caught.value).startswith(f"{example}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("overrides", [[], ["budget={}", "confirm={seeds: [9]}", "search.scheduler=median"]])
def test_a_searched_study_written_out_as_yaml_reads_as_the_same_study(searched: str, overrides: list[str]) -> None:
    spec = load_study(searched, overrides)
    mapping = spec.to_mapping()
    assert mapping["parameters"]["learning_rate"] == {"role": "nuisance", "min": 1e-5, "max": 1e-2, "scale": "log"}
    assert mapping["parameters"]["focal_gamma"] == {"role": "nuisance", "values": [0, 1, 2, 5]}
    assert parse_study(parse_yaml(to_yaml(mapping), "written"), "written") == spec


def in_range(**ends: Any) -> str:
    return to_yaml({"role": "nuisance"} | ends)


@pytest.mark.parametrize(
    ("setting", "parameter", "place", "rule"),
    [
        ("learning_rate", in_range(min=1e-2, max=1e-5), "", "min must be less than max, got min 0.01 and max 1e-05"),
        ("learning_rate", in_range(min=1e-2, max=1e-2), "", "min must be less than max"),
        ("focal_gamma", in_range(min=0, max=5, scale="log"), "", "min must be greater than 0 on a log scale, got 0"),
        ("focal_gamma", in_range(min=-1, max=5, scale="log"), "", "min must be greater than 0 on a log scale, got -1"),
        ("learning_rate", in_range(min=1e-3), "", "both ends of the range, min and max"),
        ("learning_rate", in_range(max=1e-3), "", "both ends of the range, min and max"),
        ("learning_rate", in_range(scale="log"), "", "values, or min and max"),
        ("learning_rate", in_range(values=[1e-3], max=1), "", "has values and max; keep one"),
        ("learning_rate", in_range(values=[1e-3], scale="log"), "", "has values and scale; keep one"),
        ("learning_rate", "{role: scientific, min: 1e-5, max: 1e-2}", "", "level by level; give values"),
        ("learning_rate", in_range(min=1e-3, max=1, scale="ln"), ".scale", "'linear' or 'log', got 'ln'"),
        ("learning_rate", "{role: nuisance, min: low, max: 1}", ".min", "must be a number, got 'low'"),
        ("learning_rate", "{role: nuisance, min: 1e-3, max: true}", ".max", "must be a number, got True"),
        ("learning_rate", "{role: nuisance, min: 1e-3, max: .inf}", ".max", "must be a finite number, got inf"),
        ("learning_rate", "{role: nuisance, min: .nan, max: 1}", ".min", "must be a finite number, got nan"),
        # Both ends keep the setting's own rule.
        ("learning_rate", in_range(min=0, max=1e-2), ".min", "must be greater than 0, got 0"),
        ("learning_rate", in_range(min=1e-5, max=100), ".max", "must be at most 10, got 100"),
        ("batch_size", in_range(min=1, max=8), ".min", "must be at least 2, got 1"),
        ("batch_size", in_range(min=2.5, max=8), ".min", "must be int, got 2.5"),
        ("batch_size", in_range(min=2, max=8.0), ".max", "must be int, got 8.0"),
        # Not every number between is one of the setting's.
        ("optimizer", in_range(min=0, max=1), "", "list values in place of min and max"),
        ("deterministic", in_range(min=0, max=1), "", "list values in place of min and max"),
        ("decoder_stride", in_range(min=1, max=4), "", "list values in place of min and max"),
        ("image_size", in_range(min=32, max=256), "", "list values in place of min and max"),
    ],
)
def test_a_range_that_is_none_is_refused(searched: str, setting: str, parameter: str, place: str, rule: str) -> None:
    message = refusal(searched, f"parameters.{setting}={parameter}")
    assert message.startswith(f"parameters.{setting}{place}: ")
    assert rule in message


@pytest.mark.parametrize(
    ("overrides", "place", "rule"),
    [
        (["search={method: grid}"], "parameters.learning_rate", "a grid needs values"),
        (["search.trials_per_level=null"], "search.trials_per_level", "is missing"),
        (["search.trials_per_level=0"], "search.trials_per_level", "got 0"),
        (["search.method=grid"], "search.trials_per_level", "a grid tries every setting, got 24; remove it"),
        (["search.scheduler=hyperband"], "search.scheduler", "'asha' or 'median', got 'hyperband'"),
        (["search.grace_epochs=9"], "search.grace_epochs", "less than the 9 epochs of a trial, got 9"),
        (["search.grace_epochs=0"], "search.grace_epochs", "got 0"),
        (["search.reduction_factor=1"], "search.reduction_factor", "got 1"),
        (["search.seed=-1"], "search.seed", "got -1"),
        (["search.seed=[0]"], "search.seed", "must be an integer, got [0]"),
        (["search.method=optuna_pareto"], "search.scheduler", "asha stops by the metric alone"),
        (["search.method=optuna_pareto", "search.scheduler=none"], "search.method", "points_per_image"),
        (["confirm={}"], "confirm.seeds", "is missing"),
        (["confirm.seeds=[]"], "confirm.seeds", "at least 1"),
        (["confirm.seeds=[100, 100]"], "confirm.seeds", "each value stands once, got 100"),
        (["confirm.seeds=[100, 0]"], "confirm.seeds", "0 is one of search.seeds too"),
        (["confirm.seeds=[-1]"], "confirm.seeds.0", "got -1"),
        (["budget.trials=0"], "budget.trials", "got 0"),
        (["budget.trials=1.5"], "budget.trials", "must be an integer, got 1.5"),
        (["budget.hours=0"], "budget.hours", "greater than 0, got 0"),
        (["budget.hours=.inf"], "budget.hours", "finite number, got inf"),
        (["budget.gpu_hours=-1"], "budget.gpu_hours", "greater than 0, got -1"),
        (["failures.retries=-1"], "failures.retries", "got -1"),
        (["failures.stop_after=0"], "failures.stop_after", "got 0"),
    ],
)
def test_a_search_that_cannot_be_is_refused(searched: str, overrides: list[str], place: str, rule: str) -> None:
    message = refusal(searched, *overrides)
    assert message.startswith(f"{place}: ")
    assert rule in message


@pytest.mark.parametrize(
    ("role", "values", "rule"),
    [("scientific", [2, 20], "less than the 2 epochs of a trial, got 2"), ("nuisance", [5, 20], "differ in length")],
)
def test_a_scheduler_needs_epochs_to_spare_and_trials_of_one_length(
    searched: str, role: str, values: list[int], rule: str
) -> None:
    text = SEARCHED.replace(", epochs: 9", "")
    Path(searched).write_text(text)
    factor = f"parameters.epochs={{role: {role}, values: {values}}}"
    assert rule in refusal(searched, factor)
    assert load_study(searched, [factor, "search.scheduler=none"]).parameters["epochs"].values == values


def test_annotation_effort_can_be_searched_where_points_are_a_nuisance_factor(searched: str) -> None:
    points = "parameters.points_per_image={role: nuisance, min: 5, max: 500, scale: log}"
    spec = load_study(searched, [points, "search.method=optuna_pareto", "search.scheduler=none"])
    assert spec.parameters["points_per_image"].max == 500
