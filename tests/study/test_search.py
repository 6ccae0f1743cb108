"""The contract that each searcher must keep, and what the searches promise beyond it."""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

import optuna
import pytest
from optuna.samplers._tpe.sampler import _split_trials

from study.effort import PUBLISHED
from study.search import Outcome, Searcher, Setting, make_searcher
from study.search_memory import Memory, derive_seed
from study.search_optuna import OptunaSearcher, against_effort
from study.sections import Effort
from study.space import Space
from study.spec import StudySpec, Value, parse_study

Event = tuple[Setting, Outcome | None]
"""(setting, None): it was asked for; (setting, outcome): it was told."""

METHODS = ("grid", "random", "quasi_random", "optuna", "optuna_pareto")
SEEDED = METHODS[1:]
LEVEL: dict[str, Value] = {"encoder": "resnet18"}
VALUES: dict[str, Any] = {
    "points_per_image": {"role": "nuisance", "values": [5, 50, 500, "dense"]},
    "learning_rate": {"role": "nuisance", "values": [1e-4, 1e-3, 1e-2]},
    "focal_gamma": {"role": "nuisance", "values": [0, 2]},
}  # 24 settings
RANGES: dict[str, Any] = {
    "points_per_image": {"role": "nuisance", "min": 5, "max": 500, "scale": "log"},
    "learning_rate": {"role": "nuisance", "min": 1e-5, "max": 1e-1, "scale": "log"},
    "focal_gamma": {"role": "nuisance", "values": [0, 1, 2]},
    "label_flip_rate": {"role": "nuisance", "min": 0, "max": 0.5},
}
CASES = [("grid", VALUES), *((method, space) for method in SEEDED for space in (VALUES, RANGES))]
every_case = pytest.mark.parametrize(
    ("method", "space"), CASES, ids=[f"{method}-{'values' if space is VALUES else 'ranges'}" for method, space in CASES]
)
every_method = pytest.mark.parametrize("method", METHODS)


def make_spec(method: str, space: dict[str, Any], num_settings: int = 20, seed: int = 0) -> StudySpec:
    limit = {} if method == "grid" else {"trials_per_level": num_settings}
    scientific = {"encoder": {"role": "scientific", "values": ["resnet18", "resnet50"]}}
    sections = {"parameters": scientific | space, "search": {"method": method, "seed": seed, **limit}}
    return parse_study({"study": "s", "data": {"root": "forest"}, **sections}, "study.yaml")


def make(method: str, space: dict[str, Any], num_settings: int = 20, seed: int = 0) -> Searcher:
    return make_searcher(make_spec(method, space, num_settings, seed), LEVEL)


def judge(setting: Setting) -> Outcome:
    """An outcome that is the same whenever the setting is judged; all four kinds occur."""
    drawn = derive_seed(setting) % 100
    if drawn < 70:
        return Outcome("completed", drawn / 100)
    if drawn < 80:
        return Outcome("stopped", steps=((1, drawn / 200), (2, drawn / 150)))
    return Outcome("infeasible" if drawn < 90 else "failed")


def drive(searcher: Searcher, at_once: int, events: list[Event] | None = None) -> Iterator[Event]:
    """What happens when `at_once` settings are open at a time and the oldest always ends first, after some events."""
    waiting: deque[Setting] = deque()
    for setting, outcome in events or []:
        waiting.append(setting) if outcome is None else waiting.remove(setting)
    more = True
    for _ in range(1000):
        while more and len(waiting) < at_once:
            setting = searcher.ask()
            more = setting is not None
            if setting is not None:
                waiting.append(setting)
                yield setting, None
        if not waiting:
            return
        setting = waiting.popleft()
        searcher.tell(setting, judge(setting))
        yield setting, judge(setting)
    raise AssertionError("the search does not end")


def feed(searcher: Searcher, events: list[Event]) -> None:
    """Tells a new searcher what the ledger knows, as it stands in the file."""
    for setting, outcome in events:
        setting = json.loads(json.dumps(setting))
        if outcome is None:
            searcher.replay(setting)
        else:
            searcher.tell(setting, outcome)


def proposals(searcher: Searcher, at_once: int = 1) -> list[Setting]:
    return [setting for setting, outcome in drive(searcher, at_once) if outcome is None]


def unique(settings: list[Setting]) -> set[tuple[Value, ...]]:
    return {tuple(setting.values()) for setting in settings}


@every_case
def test_proposals_lie_inside_the_space_and_are_plain(method: str, space: dict[str, Any]) -> None:
    spec = make_spec(method, space)
    for setting in proposals(make_searcher(spec, LEVEL)):
        assert Space(spec.parameters).contains(setting)
        assert list(setting) == list(space)  # in the order of the file
        assert json.loads(json.dumps(setting)) == setting
        assert Space(spec.parameters).rounded(setting) == setting


@every_case
@pytest.mark.parametrize("at_once", [1, 3])
def test_no_setting_is_proposed_twice(method: str, space: dict[str, Any], at_once: int) -> None:
    settings = proposals(make(method, space), at_once)
    assert len(unique(settings)) == len(settings)


@every_case
def test_the_same_seed_proposes_the_same(method: str, space: dict[str, Any]) -> None:
    assert proposals(make(method, space)) == proposals(make(method, space))


@pytest.mark.parametrize("method", SEEDED)
@pytest.mark.parametrize("space", [VALUES, RANGES], ids=["values", "ranges"])
def test_another_seed_proposes_something_else(method: str, space: dict[str, Any]) -> None:
    assert proposals(make(method, space, 12)) != proposals(make(method, space, 12, seed=1))


@every_method
def test_a_finite_space_is_exhausted_exactly(method: str) -> None:
    searcher = make(method, VALUES, num_settings=1000)
    settings = proposals(searcher)
    assert len(settings) == 24
    assert unique(settings) == unique(list(Space(make_spec(method, VALUES).parameters).settings()))
    assert [searcher.ask(), searcher.ask()] == [None, None]


@pytest.mark.parametrize("method", SEEDED)
def test_a_range_that_holds_few_numbers_is_exhausted_too(method: str) -> None:
    few = {
        "points_per_image": {"role": "nuisance", "min": 3, "max": 5},
        "learning_rate": {"role": "nuisance", "min": 1.0e-3, "max": 1.01e-3},
    }
    assert len(proposals(make(method, few, num_settings=1000))) == 3 * 2


@pytest.mark.parametrize("method", SEEDED)
@pytest.mark.parametrize("space", [VALUES, RANGES], ids=["values", "ranges"])
def test_it_ends_with_trials_per_level(method: str, space: dict[str, Any]) -> None:
    searcher = make(method, space, num_settings=7)
    assert len(proposals(searcher, at_once=2)) == 7
    assert searcher.ask() is None


@pytest.mark.parametrize("method", ["grid", "random", "quasi_random", "optuna"])
def test_a_space_without_factors_has_one_setting(method: str) -> None:
    searcher = make(method, {})
    assert searcher.ask() == {}
    searcher.tell({}, Outcome("completed", 0.5))
    assert searcher.ask() is None


@every_case
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_search_cut_anywhere_goes_on_as_if_it_had_not_been(method: str, space: dict[str, Any], at_once: int) -> None:
    events = list(drive(make(method, space, num_settings=17), at_once))
    for cut in range(len(events) + 1):
        searcher = make(method, space, num_settings=17)
        feed(searcher, events[:cut])
        going_on = drive(searcher, at_once, events[:cut])
        assert [event for event, _ in zip(going_on, range(4), strict=False)] == events[cut : cut + 4]


@every_method
def test_what_another_search_proposed_is_known_and_counts(method: str) -> None:
    others = proposals(make("random", VALUES, num_settings=9, seed=5))
    searcher = make(method, VALUES, num_settings=20)
    feed(searcher, [(setting, None) for setting in others])
    feed(searcher, [(setting, judge(setting)) for setting in others])
    feed(searcher, [(setting, None) for setting in others])  # a second time changes nothing
    settings = proposals(searcher)
    assert len(settings) == (24 if method == "grid" else 20) - 9
    assert unique(settings) & unique(others) == set()


@every_method
def test_what_is_no_longer_in_the_space_is_passed_over(method: str) -> None:
    searcher, untouched = make(method, VALUES), make(method, VALUES)
    for setting in ({"learning_rate": 1e-3}, {"points_per_image": 5, "learning_rate": 1e-3, "focal_gamma": 7}):
        searcher.replay(setting)
        searcher.tell(setting, Outcome("completed", 0.9))
    assert proposals(searcher) == proposals(untouched)


@every_method
def test_a_setting_that_nobody_asked_for_cannot_be_told(method: str) -> None:
    with pytest.raises(ValueError, match="never asked for"):
        make(method, VALUES).tell({"points_per_image": 5, "learning_rate": 1e-3, "focal_gamma": 0}, Outcome("failed"))


@every_case
def test_the_last_outcome_counts(method: str, space: dict[str, Any]) -> None:
    """A failed trial is run again in a later session, a stopped one goes on once there is no scheduler."""
    asked = [setting for setting, outcome in drive(make(method, space, 13), 1) if outcome is None]
    first, second = make(method, space, 18), make(method, space, 18)
    feed(first, [(setting, None) for setting in asked] + [(setting, judge(setting)) for setting in asked])
    feed(second, [(setting, None) for setting in asked])
    for i, setting in enumerate(reversed(asked)):
        first.tell(setting, Outcome("completed", i / 100))
        second.tell(setting, Outcome("completed", i / 100))
        second.tell(setting, Outcome("completed", i / 100))  # the same once more is no news
    assert proposals(first) == proposals(second)


@pytest.mark.parametrize(
    ("method", "same"), [("random", False), ("quasi_random", True), ("optuna", False), ("optuna_pareto", False)]
)
def test_only_quasi_random_settings_are_the_same_at_every_level(method: str, same: bool) -> None:
    spec = make_spec(method, RANGES, num_settings=5)
    settings = [proposals(make_searcher(spec, {"encoder": name})) for name in ("resnet18", "resnet50")]
    assert (settings[0] == settings[1]) is same


def test_a_grid_stands_in_the_order_of_the_file() -> None:
    settings = proposals(make("grid", VALUES))
    assert settings[0] == {"points_per_image": 5, "learning_rate": 1e-4, "focal_gamma": 0}
    assert settings[1] == {"points_per_image": 5, "learning_rate": 1e-4, "focal_gamma": 2}
    assert settings == list(Space(make_spec("grid", VALUES).parameters).settings())


def test_what_no_candidate_offers_is_taken_in_the_order_of_the_file() -> None:
    space = Space(make_spec("grid", VALUES).parameters)
    first, second, third, *_ = space.settings()
    memory = Memory(space, 3)
    assert memory.choose([third, first]) == third
    assert memory.choose([third]) == first
    assert memory.choose([third, first]) == second
    assert memory.choose(space.settings()) is None  # the limit


def test_quasi_random_settings_fill_the_space_evenly() -> None:
    def emptiest(method: str, seed: int) -> int:
        """The least settings in one of eight equal parts of the exponents of the learning rate, of 32 settings."""
        only_rates = {"learning_rate": RANGES["learning_rate"]}
        rates = [each["learning_rate"] for each in proposals(make(method, only_rates, num_settings=32, seed=seed))]
        parts = [sum(1e-5 * 10 ** (i / 2) <= rate < 1e-5 * 10 ** ((i + 1) / 2) for rate in rates) for i in range(8)]
        return min(parts)

    assert min(emptiest("quasi_random", seed) for seed in range(10)) >= 3
    assert fmean(emptiest("random", seed) for seed in range(10)) < 2


def bowl(setting: Setting) -> float:
    """Best at a learning rate of 3e-3 and gamma 1; the label flips do little harm."""
    rate, gamma, flips = (float(setting[name]) for name in ("learning_rate", "focal_gamma", "label_flip_rate"))
    return 0.8 - abs(rate - 3e-3) ** 0.5 - 0.02 * abs(gamma - 1) - 0.05 * flips


def search(method: str, num_settings: int, outcome: Callable[[Setting], Outcome], seed: int = 0) -> list[Setting]:
    """The settings tried, one at a time, when these are their outcomes."""
    searcher = make(method, RANGES, num_settings, seed)
    asked = []
    for _ in range(num_settings):
        setting = searcher.ask()
        assert setting is not None
        searcher.tell(setting, outcome(setting))
        asked.append(setting)
    return asked


def finish(setting: Setting) -> Outcome:
    return Outcome("completed", bowl(setting))


def test_tpe_finds_the_best_better_than_random_search_does() -> None:
    learned = [max(map(bowl, search("optuna", 40, finish, seed))) for seed in range(8)]
    random = [max(map(bowl, search("random", 40, finish, seed))) for seed in range(8)]
    assert fmean(learned) > fmean(random) + 0.005
    assert sum(a > b for a, b in zip(learned, random, strict=True)) >= 7


def test_tpe_does_not_take_a_stopped_setting_s_value_for_a_final_one() -> None:
    # High rates look excellent after two epochs, are stopped, and must not draw the search to them.
    def is_high(setting: Setting) -> bool:
        return float(setting["learning_rate"]) > 1e-3

    def num_high(high: Outcome) -> int:
        asked = search("optuna", 50, lambda setting: high if is_high(setting) else Outcome("completed", 0.5))
        return sum(map(is_high, asked[-25:]))

    assert num_high(Outcome("completed", 0.9)) >= 20
    assert num_high(Outcome("stopped", steps=((1, 0.9), (2, 0.95)))) <= 8


def test_effort_is_weighed_against_the_metric() -> None:
    # Where points bring nothing, a search against effort asks for few of them; one by the metric alone does not care.
    def mean_points(method: str) -> float:
        return fmean(float(setting["points_per_image"]) for setting in search(method, 50, finish)[-25:])

    assert mean_points("optuna_pareto") < mean_points("optuna") / 2


def test_effort_is_weighed_at_the_rates_of_the_study() -> None:
    setting = {"points_per_image": 50}
    assert against_effort(PUBLISHED).values(setting, 0.7) == pytest.approx([0.7, 67.4])
    assert against_effort(Effort(look_s=0, first_point_s=0, point_s=3)).values(setting, 0.7) == [0.7, 150]
    # The number of images is searched too: what the setting costs in all.
    assert against_effort(PUBLISHED).values(setting | {"train_images": 10}, 0.7) == pytest.approx([0.7, 674])


@pytest.mark.parametrize("method", ["optuna", "optuna_pareto"])
def test_optuna_ranks_the_diverged_last_and_passes_over_the_failed(method: str) -> None:
    outcomes = [
        Outcome("infeasible", steps=((1, 0.95), (2, 0.99), (3, 0.99))),
        Outcome("stopped", steps=((1, 0.1), (2, 0.2))),
        Outcome("completed", 0.3),
        Outcome("failed"),
        Outcome("stopped", steps=((1, 0.9),)),
        Outcome("completed", 0.4),
    ]
    searcher = make(method, RANGES)
    assert isinstance(searcher, OptunaSearcher)
    asked = [searcher.ask() for _ in range(7)]  # the last stays open
    assert all(setting is not None for setting in asked)
    for setting, outcome in zip(asked, outcomes, strict=False):
        searcher.tell(setting or {}, outcome)
    study = searcher._study
    seen = study.get_trials(states=[optuna.trial.TrialState[name] for name in ("COMPLETE", "PRUNED", "RUNNING")])
    places = {tuple(trial.params.values()): asked.index(trial.params) for trial in seen}
    assert 3 not in places.values()

    def good(num_good: int) -> list[int]:
        below, _ = _split_trials(study, list(seen), num_good)
        return sorted(places[tuple(trial.params.values())] for trial in below)

    # Complete ones first; of the stopped the one that came further; the diverged after all; the open one is never good.
    assert good(2) == [2, 5]
    if method == "optuna":
        assert good(1) == [5]
        assert good(3) == [1, 2, 5]
        assert good(4) == [1, 2, 4, 5]
    assert good(5) == [0, 1, 2, 4, 5] == good(6)


@pytest.mark.parametrize("method", ["optuna", "optuna_pareto"])
def test_optuna_keeps_quiet(method: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        proposals(make(method, RANGES, num_settings=12))
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize(("state", "value"), [("completed", None), ("completed", float("inf")), ("stopped", 0.5)])
def test_only_a_completed_setting_has_a_value_and_it_is_a_number(state: Any, value: float | None) -> None:
    with pytest.raises(ValueError, match="finite value"):
        Outcome(state, value)


def test_seeds_are_32_bits_and_unrelated() -> None:
    seeds = [derive_seed(seed, level, number) for seed in (0, 1) for level in ({}, LEVEL) for number in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert derive_seed(0, {"a": 1, "b": 2}) == derive_seed(0, {"b": 2, "a": 1})
