"""Which settings matter: planted truths found, noise called noise, and what may be ranked at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.find import find
from analysis.findings import Claim, Topic
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import Range, SearchTerms
from analysis.topics.importance import find_importance
from analysis.topics.ranked_settings import MAX_SETTINGS

Setting = dict[str, Any]

RANGES = {"learning_rate": Range(1e-5, 1e-1, is_log=True), "weight_decay": Range(1e-6, 1e-2, is_log=True)}
ROLES = {
    "points_per_image": "scientific", "learning_rate": "nuisance", "weight_decay": "nuisance",
    "focal_gamma": "nuisance", "augmentation": "nuisance",
}  # fmt: skip
LEVELS = {"focal_gamma": [0.0, 1.0, 2.0, 5.0], "augmentation": ["off", "light", "full"]}


def draw(stream: np.random.Generator, points: Any) -> Setting:
    """One proposal of a random search."""
    return {
        "points_per_image": points,
        "learning_rate": float(10 ** stream.uniform(-5, -1)),
        "weight_decay": float(10 ** stream.uniform(-6, -2)),
        **{name: levels[int(stream.integers(len(levels)))] for name, levels in LEVELS.items()},
    }


def by_rate(setting: Setting) -> float:
    """A peak of the learning rate at 1e-3, .5 high."""
    return 0.5 - 0.125 * abs(np.log10(setting["learning_rate"]) + 3) ** 2


def study(
    effect: Callable[[Setting], float],
    seed: int = 1,
    num_settings: int = 48,
    noise: float = 0.1,
    num_seeds: int = 1,
    levels: tuple[Any, ...] = (10,),
    ended: Callable[[Setting], str] = lambda setting: "",
    **changes: Any,
) -> StudyRuns:
    """A random search with planted effects.

    Args:
        effect: what a setting is worth.
        seed: of the settings and of the noise.
        num_settings: at each scientific level.
        noise: standard deviation of a run.
        num_seeds: of each setting.
        levels: of points per image.
        ended: how runs of a setting end early, or nothing.
        changes: attributes of the study.
    """
    stream = np.random.default_rng(seed)
    settings = [draw(stream, points) for points in levels for _ in range(num_settings)]
    rows: dict[str, list[dict[str, Any]]] = {"": [], "stopped early": [], "diverged": []}
    for i, setting in enumerate(settings):
        for each in range(num_seeds):
            key = {"run_id": f"demo-{i}-{each}", "trial_id": f"{i}-{each}", "seed": each, "phase": "explore", **setting}
            state = ended(setting)
            value = effect(setting) + float(stream.normal(0, noise))
            rest = {"state": state} if state else {"objective": value, "test": float("nan")}
            rows[state].append({**key, **rest, "time_s": 1.0})
    trials = pd.DataFrame(rows[""])
    attributes: dict[str, Any] = {
        "study": "demo",
        "parameters": ROLES,
        "objective": {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
        "data": {},
        "data_config": {},
        "epochs": trials.assign(**{"epoch": 1, "val/miou": trials["objective"]}),
        "trials": trials,
        "training": {row["trial_id"]: {"epochs": 1} for row in rows[""]},
        "excluded": [],
        "search": SearchTerms(is_grid=False, ranges=RANGES),
        "ended_early": pd.DataFrame(rows["stopped early"] + rows["diverged"]),
    }
    return StudyRuns(**{**attributes, **changes})


def importance_of(runs: StudyRuns) -> Topic:
    (topic,) = (topic for topic in find(runs).topics if topic.name == "importance")
    return topic


def verdicts(topic: Topic) -> dict[str, str]:
    return {claim.subject: claim.verdict for claim in topic.claims}


def row(topic: Topic, subject: str) -> Claim:
    (claim,) = (claim for claim in topic.claims if claim.subject == subject)
    return claim


def test_what_matters_is_told_from_noise() -> None:
    topic = importance_of(study(by_rate))
    assert verdicts(topic) == {
        "learning rate": "matters",
        "weight decay": "noise",
        "focal gamma": "noise",
        "augmentation": "noise",
    }
    assert topic.text.startswith(
        "Beyond chance matters learning rate; weight decay, focal gamma and augmentation cannot be told from noise."
    )


def test_every_importance_stands_beside_what_chance_reaches() -> None:
    for claim in importance_of(study(by_rate)).claims:
        assert claim.estimate is not None
        assert (claim.estimate.value > claim.values["null"]) == (claim.verdict == "matters")
        assert (claim.values["p"] <= 0.05) == (claim.verdict == "matters")
        assert claim.values["settings"] == 48
        assert len(claim.run_ids) == 48
    assert row(importance_of(study(by_rate)), "learning rate").values["p"] == 1 / 200  # none of 199 permutations


def test_what_tpe_proposed_is_ranked_and_not_judged(tmp_path: Path) -> None:
    search = SearchTerms(is_grid=False, is_adaptive=True, ranges=RANGES)
    topic = importance_of(study(by_rate, search=search, cache_dir=tmp_path))
    judged = importance_of(study(by_rate))
    assert set(verdicts(topic).values()) == {"not judged"}
    assert topic.text.startswith("Which settings matter is not judged: 48 settings were proposed by TPE")
    assert [claim.estimate for claim in topic.claims] == [claim.estimate for claim in judged.claims]
    assert {*topic.claims[0].values} == {"settings"}
    assert [*topic.columns] == ["subject", "settings"]
    assert topic.population == ""


def test_the_same_runs_say_the_same_again() -> None:
    assert importance_of(study(by_rate)) == importance_of(study(by_rate))


def test_levels_matter_as_ranges_do() -> None:
    worth = {"off": 0.0, "light": 0.2, "full": 0.4}
    topic = importance_of(study(lambda setting: worth[setting["augmentation"]]))
    assert [name for name, verdict in verdicts(topic).items() if verdict == "matters"] == ["augmentation"]


def test_two_that_matter_are_both_found() -> None:
    topic = importance_of(study(lambda setting: by_rate(setting) + 0.15 * min(setting["focal_gamma"], 2.0), noise=0.05))
    assert [name for name, verdict in verdicts(topic).items() if verdict == "matters"] == [
        "learning rate",
        "focal gamma",
    ]


def test_where_less_is_better_the_better_half_is_the_lower() -> None:
    objective = {"metric": "val/miou", "mode": "min", "at": "last", "margin": 0.01}
    runs = study(lambda setting: -by_rate(setting), noise=0.0, objective=objective)
    assert importance_of(runs).claims == importance_of(study(by_rate, noise=0.0)).claims


def test_each_scientific_level_is_ranked_by_itself() -> None:
    # The learning rate matters at 10 points alone; points matter overall.
    def effect(setting: Setting) -> float:
        return by_rate(setting) if setting["points_per_image"] == 10 else 1.0

    found = verdicts(importance_of(study(effect, levels=(10, "dense"))))
    assert found["points per image"] == "matters"
    assert found["learning rate (points per image 10)"] == "matters"
    assert found["learning rate (points per image dense)"] == "noise"
    assert list(found)[:5] == ["points per image", "learning rate", "weight decay", "focal gamma", "augmentation"]
    assert len(found) == 5 + 2 * 4


def test_what_diverged_ranks_last() -> None:
    # Half of the learning rates diverge and the others are all alike: without the diverged, there would be no effect.
    def ended(setting: Setting) -> str:
        return "diverged" if setting["learning_rate"] > 1e-3 else ""

    runs = study(lambda setting: 0.5, ended=ended)
    topic = importance_of(runs)
    assert row(topic, "learning rate").verdict == "matters"
    assert row(topic, "learning rate").values["settings"] == 48
    assert f"{len(runs.ended_early)} settings that diverged rank last." in topic.text


def test_what_was_stopped_early_is_left_out() -> None:
    def ended(setting: Setting) -> str:
        return "stopped early" if setting["learning_rate"] > 1e-3 else ""

    topic = importance_of(study(lambda setting: 0.5, ended=ended))
    num_left = int((study(by_rate).trials["learning_rate"] <= 1e-3).sum())
    assert {claim.values["settings"] for claim in topic.claims} == {num_left}
    assert topic.text.endswith("Settings that were stopped early are left out.")


def test_settings_are_ranked_by_their_means_over_the_same_seeds() -> None:
    runs = study(by_rate, num_seeds=2)
    without = runs.trials.drop(index=1)  # the second seed of the first setting
    topic = importance_of(study(by_rate, num_seeds=2, trials=without))
    assert topic.claims[0].values["settings"] == 47
    assert topic.claims[0].estimate is not None
    assert topic.claims[0].estimate.num_seeds == 2
    assert len(topic.claims[0].run_ids) == 94


def test_too_few_settings_tell_nothing() -> None:
    runs = study(by_rate, num_settings=15)
    assert find_importance(runs, find(runs)) is None


def test_equal_results_tell_nothing() -> None:
    runs = study(lambda setting: 0.5, noise=0.0)
    assert find_importance(runs, find(runs)) is None


def test_without_a_study_file_many_numbers_are_a_range() -> None:
    assert importance_of(study(by_rate, search=SearchTerms(is_grid=False))).claims[0].verdict == "matters"


def test_settings_outside_of_the_range_as_it_stands_still_count() -> None:
    narrower = {**RANGES, "learning_rate": Range(1e-4, 1e-2, is_log=True)}
    topic = importance_of(study(by_rate, search=SearchTerms(is_grid=False, ranges=narrower)))
    assert row(topic, "learning rate").values["settings"] == 48


def test_very_many_settings_are_sampled() -> None:
    runs = study(by_rate, num_settings=MAX_SETTINGS + 100)
    topic = importance_of(runs)
    assert row(topic, "learning rate").verdict == "matters"
    assert len(row(topic, "learning rate").run_ids) == MAX_SETTINGS


def test_what_was_found_is_kept_until_the_runs_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = importance_of(study(by_rate, cache_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["importance.json"]
    with monkeypatch.context() as patch:
        patch.setattr("analysis.topics.importance.optuna_importances", None)  # whoever asks it fails
        assert importance_of(study(by_rate, cache_dir=tmp_path)) == first
        with pytest.raises(TypeError):
            importance_of(study(by_rate, seed=2, cache_dir=tmp_path))
    assert importance_of(study(by_rate, seed=2, cache_dir=tmp_path)) == importance_of(study(by_rate, seed=2))
    assert importance_of(study(by_rate, cache_dir=tmp_path)) == first == importance_of(study(by_rate))


@pytest.mark.slow
@pytest.mark.parametrize("levels", [(10,), (10, 50, 200)])
def test_of_studies_without_any_effect_5_percent_at_most_call_something_important(levels: tuple[Any, ...]) -> None:
    """300 studies: up to 8 % are within two standard errors (1.3 %) of 5 %."""
    called = 0
    for seed in range(300):
        runs = study(lambda setting: 0.5, seed=seed, num_settings=24, levels=levels)
        called += "matters" in verdicts(importance_of(runs)).values()
    assert called / 300 < 0.08


@pytest.mark.slow
def test_an_effect_as_large_as_the_noise_is_found_as_a_rule() -> None:
    """A linear effect of the learning rate of once the noise's standard deviation (n = 48)."""

    def effect(setting: Setting) -> float:
        return 0.1 * 3**0.5 * (np.log10(setting["learning_rate"]) + 3) / 2

    found = [verdicts(importance_of(study(effect, seed=seed))) for seed in range(60)]
    assert sum(each["learning rate"] == "matters" for each in found) / 60 > 0.8
    assert sum("matters" in (each["weight decay"], each["focal gamma"]) for each in found) / 60 < 0.15
