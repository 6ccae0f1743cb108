import json
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

from cluster.schedulers import CONTINUE, STOP, GroupScheduler, make_scheduler
from study.sections import Objective, Search

METRIC = "val/miou"
NUM_EPOCHS = 9
RULES = ("asha", "median")


def scheduler(rule: str) -> GroupScheduler:
    made = make_scheduler(Search(scheduler=rule), Objective(metric=METRIC), NUM_EPOCHS)
    assert made is not None
    return made


def trial(trial_id: str, group: str = "g", session: int = 0):
    """A trial as Tune makes it, whose own id is another one in each session."""
    return SimpleNamespace(
        trial_id=f"tune-{session}-{trial_id}", config={"trial": {"trial_id": trial_id, "group": group}}
    )


def row(epoch: int, value: float | None = None) -> dict[str, float]:
    return {"epoch": epoch, "loss": 1.0, **({} if value is None else {METRIC: value})}


@dataclass(frozen=True)
class Event:
    """A result as it reached the driver, and what was decided; None for a trial's last one, on which nothing is."""

    group: str
    trial_id: str
    row: dict[str, float]
    decision: str | None = None


def report(to: GroupScheduler, event: Event, session: int = 0) -> str | None:
    """One result, as Tune hands it on: the last one of a trial, and what a stop leaves behind, as complete."""
    ours = trial(event.trial_id, event.group, session)
    if event.row.get("epoch") == NUM_EPOCHS or event.row.get("done"):
        return to.on_trial_complete(None, ours, event.row)
    decision = to.on_trial_result(None, ours, event.row)
    if decision == STOP:
        to.on_trial_complete(None, ours, event.row)
    return decision


def play(to: GroupScheduler, seed: int, groups: tuple[str, ...] = ("g",), num_trials: int = 40) -> list[Event]:
    """Random trials, four at a time, some of which diverge; ends when all have ended."""
    numbers = random.Random(seed)
    waiting = [(numbers.choice(groups), f"{seed}-{i}") for i in range(num_trials)]
    quality = {name: numbers.random() for _, name in waiting}
    epochs: dict[str, int] = defaultdict(int)
    live, events = waiting[:4], []
    waiting = waiting[4:]
    for each in live:
        to.on_trial_add(None, trial(each[1], each[0]))
    while live:
        group, name = each = numbers.choice(live)
        epochs[name] += 1
        diverges = numbers.random() < 0.03
        value = quality[name] * epochs[name] / NUM_EPOCHS + 0.1 * numbers.random()
        content = {"done": True} if diverges else row(epochs[name], value)
        decision = report(to, Event(group, name, content))
        events.append(Event(group, name, content, decision))
        if diverges or decision == STOP or epochs[name] == NUM_EPOCHS:
            live.remove(each)
            live += waiting[:1]
            waiting = waiting[1:]
    return events


def decisions(events: list[Event]) -> list[str | None]:
    return [event.decision for event in events]


def bare(rule: str):
    if rule == "asha":
        return AsyncHyperBandScheduler("epoch", METRIC, "max", max_t=NUM_EPOCHS, grace_period=1, reduction_factor=3)
    return MedianStoppingRule("epoch", METRIC, "max", grace_period=1, min_samples_required=3)


def test_none_is_no_scheduler_so_nothing_is_stopped():
    assert make_scheduler(Search(scheduler="none"), Objective(), NUM_EPOCHS) is None


def test_asha_by_hand():
    """Rungs at epochs 1, 3 and 9. The bar is the 2/3 quantile of who came before: .3, then (.3, .6) -> .5."""
    asha = scheduler("asha")
    assert asha.on_trial_result(None, trial("a"), row(1, 0.3)) == CONTINUE
    assert asha.on_trial_result(None, trial("b"), row(1, 0.6)) == CONTINUE
    assert asha.on_trial_result(None, trial("c"), row(1, 0.499)) == STOP
    assert asha.on_trial_result(None, trial("d"), row(1, 0.55)) == CONTINUE  # (.3, .499, .6) -> .5327
    assert asha.on_trial_result(None, trial("a"), row(2, 0.0)) == CONTINUE  # no rung
    assert asha.on_trial_result(None, trial("b"), row(2, 0.0)) == CONTINUE
    assert asha.on_trial_result(None, trial("b"), row(3, 0.4)) == CONTINUE
    assert asha.on_trial_result(None, trial("a"), row(3, 0.3)) == STOP


def test_median_by_hand():
    """Running means at epoch 2 of three others: .5, .2 and .7; a trial whose best is below .5 goes."""
    median = scheduler("median")
    for name, values in {"a": (0.4, 0.6), "b": (0.2, 0.2), "c": (0.6, 0.8)}.items():
        for epoch, value in enumerate(values, 1):
            assert median.on_trial_result(None, trial(name), row(epoch, value)) == CONTINUE
    assert median.on_trial_result(None, trial("d"), row(1, 0.45)) == CONTINUE  # median of .4, .2 and .6
    assert median.on_trial_result(None, trial("d"), row(2, 0.49)) == STOP
    assert median.on_trial_result(None, trial("e"), row(1, 0.5)) == CONTINUE
    assert median.on_trial_result(None, trial("e"), row(2, 0.1)) == CONTINUE  # its best counts


@pytest.mark.parametrize("rule", RULES)
def test_it_stops_where_rays_own_class_does(rule):
    """Ray's class, told each number once and nothing of diverged trials' results without a metric."""
    rays, controller = bare(rule), SimpleNamespace(get_live_trials=list)
    stopped = 0
    for event in play(scheduler(rule), seed=1, num_trials=80):
        if "done" in event.row:
            continue
        tunes = _Named(event.trial_id)
        if event.row["epoch"] == 1:
            rays.on_trial_add(controller, tunes)
        if event.decision is None:
            rays.on_trial_complete(controller, tunes, event.row)
        else:
            assert rays.on_trial_result(controller, tunes, event.row) == event.decision
        stopped += event.decision == STOP
    assert 10 < stopped < 80


@dataclass(frozen=True)
class _Named:
    trial_id: str


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_after_a_replay_all_later_decisions_are_those_of_the_uninterrupted_scheduler(rule, seed):
    events = play(scheduler(rule), seed, groups=("g", "h"))
    assert STOP in decisions(events)
    for cut in (0, 1, 5, len(events) // 4, len(events) // 2, len(events) - 5, len(events)):
        resumed = scheduler(rule)
        rows = defaultdict(list)
        for event in events[:cut]:
            if "done" not in event.row:  # a row that diverged is not on disk
                rows[event.group, event.trial_id].append(event.row)
        names = list(rows)
        random.Random(cut).shuffle(names)
        for group, name in names:
            resumed.replay(group, name, rows[group, name])
        assert [report(resumed, event, session=1) for event in events[cut:]] == decisions(events[cut:])


@pytest.mark.parametrize("rule", RULES)
def test_retries_and_epochs_reported_again_change_nothing(rule):
    """After each result the trial's worker dies: Tune requeues it, and it may redo the epoch it was in."""
    events = play(scheduler(rule), seed=5)
    disturbed = scheduler(rule)
    numbers = random.Random(0)
    for event in events:
        assert report(disturbed, event) == event.decision
        if event.decision == CONTINUE:
            disturbed.on_trial_error(None, trial(event.trial_id))
            disturbed.on_trial_add(None, trial(event.trial_id))
            for _ in range(numbers.randrange(3)):
                assert report(disturbed, event) == CONTINUE


@pytest.mark.parametrize("rule", RULES)
def test_groups_never_mix(rule):
    """Each group alone decides as it did among the others, whose numbers lie elsewhere."""
    events = play(scheduler(rule), seed=7, groups=("g", "h", "i"), num_trials=90)
    for group in ("g", "h", "i"):
        own = [event for event in events if event.group == group]
        alone = scheduler(rule)
        assert [report(alone, event) for event in own] == decisions(own)
    best, worst = scheduler(rule), [row(epoch, 0.01) for epoch in (1, 2, 3)]
    for name in "abcdef":
        best.replay("good", name, [row(epoch, 0.9) for epoch in range(1, 10)])
    assert [best.on_trial_result(None, trial("z", "bad"), each) for each in worst] == [CONTINUE] * 3
    assert best.on_trial_result(None, trial("y", "good"), worst[0]) == STOP


@pytest.mark.parametrize("rule", RULES)
def test_a_trial_without_a_group_is_never_stopped_nor_compared(rule):
    made = scheduler(rule)
    for name in "abcdef":
        made.replay("g", name, [row(1, 0.9)])
        made.replay("", name, [row(1, 0.9)])
    results = [row(epoch, 0.001) for epoch in range(1, 9)]
    assert [made.on_trial_result(None, trial("confirm", ""), each) for each in results] == [CONTINUE] * 8
    made.on_trial_complete(None, trial("confirm", ""), row(9, 0.001))
    assert made.on_trial_result(None, trial("z"), row(1, 0.89)) == STOP


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_a_diverged_trial_or_a_value_that_is_none_does_not_count(rule, value):
    events = play(scheduler(rule), seed=11)
    disturbed = scheduler(rule)
    for number, event in enumerate(events):
        other = trial(f"diverged-{number}")
        assert disturbed.on_trial_result(None, other, row(1, value)) == CONTINUE
        disturbed.on_trial_complete(None, other, {"done": True})
        assert report(disturbed, event) == event.decision


def test_median_stopping_never_pauses_a_trial_for_those_that_wait():
    """Ray's own class would: as long as there are too few samples, every trial yields to the pending ones."""
    waiting = SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])
    assert bare("median").on_trial_result(waiting, _Named("a"), row(1, 0.5)) == "PAUSE"
    assert scheduler("median").on_trial_result(waiting, trial("a"), row(1, 0.5)) == CONTINUE


@pytest.mark.parametrize("rule", RULES)
def test_what_was_stopped_stays_stopped_within_a_session(rule):
    made = scheduler(rule)
    for name in "abcd":
        made.replay("g", name, [row(1, 0.9)])
    results = [row(1, 0.1), row(1, 0.1), row(2, 0.95)]
    assert [made.on_trial_result(None, trial("z"), each) for each in results] == [STOP] * 3


def test_a_session_that_finds_a_trial_further_on_decides_at_its_next_rung():
    """Its rows were replayed to epoch 2; it goes on at epoch 3 and is compared there."""
    asha = scheduler("asha")
    for name in "abc":
        asha.replay("g", name, [row(epoch, 0.5 + epoch / 100) for epoch in (1, 2, 3)])
    asha.replay("g", "z", [row(1, 0.1), row(2, 0.1)])
    assert asha.on_trial_result(None, trial("z", session=2), row(3, 0.1)) == STOP


class Steps(tune.Trainable):
    """A trial of given values that continues in its folder, as ours do; it may die once or diverge."""

    def setup(self, config):
        self.settings = config["trial"]
        self.path = Path(self.settings["folder"]) / f"{self.settings['trial_id']}.jsonl"

    def reset_config(self, new_config):
        self.setup(new_config)
        return True

    def step(self):
        epoch = len(self.path.read_text().splitlines()) + 1 if self.path.exists() else 1
        if epoch == self.settings["diverges_at"]:
            return {"done": True}
        died = self.path.with_suffix(".died")
        if epoch == self.settings["dies_at"] and not died.exists():
            died.touch()
            raise RuntimeError("killed")
        found = {"epoch": epoch, METRIC: self.settings["value"] + epoch / 1000}
        with self.path.open("a") as file:
            file.write(json.dumps(found) + "\n")
        return {**found, "done": epoch == NUM_EPOCHS}

    def save_checkpoint(self, checkpoint_dir):
        pass

    def load_checkpoint(self, checkpoint):
        pass


@pytest.mark.cluster
def test_in_tune_the_bad_are_stopped_and_the_rest_runs_to_its_end(tmp_path):
    from cluster.local_ray import connected_ray

    def settings(name, value, group="g", diverges_at=0, dies_at=0):
        return {
            "trial_id": name, "value": value, "group": group, "diverges_at": diverges_at, "dies_at": dies_at,
            "folder": str(tmp_path),
        }  # fmt: skip

    asha = scheduler("asha")
    asha.replay("g", "earlier", [row(epoch, 0.5) for epoch in range(1, 4)])  # an unfinished trial of another session
    trials = [
        settings("good", 0.6, dies_at=4),
        settings("bad", 0.1),
        settings("diverged", 0.7, diverges_at=2),
        settings("diverged-at-once", 0.7, diverges_at=1),
        settings("confirm", 0.1, group=""),
        settings("other-level", 0.1, group="h", dies_at=1),
        settings("also-bad", 0.2, group="g"),
    ]
    with connected_ray():
        results = tune.Tuner(
            tune.with_resources(Steps, {"cpu": 1}),
            param_space={"trial": tune.grid_search(trials)},
            tune_config=tune.TuneConfig(reuse_actors=True, scheduler=asha, max_concurrent_trials=1),
            run_config=tune.RunConfig(
                storage_path=str(tmp_path / "tune"), failure_config=tune.FailureConfig(max_failures=2), verbose=0
            ),
        ).fit()
    assert not results.errors
    rows = {each["trial_id"]: tmp_path / f"{each['trial_id']}.jsonl" for each in trials}
    epochs = {name: len(path.read_text().splitlines()) if path.exists() else 0 for name, path in rows.items()}
    assert epochs == {
        "good": 9, "bad": 1, "diverged": 1, "diverged-at-once": 0, "confirm": 9, "other-level": 9, "also-bad": 1,
    }  # fmt: skip
