"""What comes next, what is reused, who wins: driven by hand, with made outcomes in place of training."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from study.agenda import Agenda, Event
from study.design import Trial
from study.exploration import TrialOutcome
from study.spec import StudySpec, parse_study

STUDY: dict[str, Any] = {
    "study": "s",
    "data": {"root": "forest"},
    "training": {"encoder": "resnet18", "weights": "none", "image_size": 64, "epochs": 2},
    "parameters": {
        "points_per_image": {"role": "scientific", "values": [5, 50]},
        "learning_rate": {"role": "nuisance", "min": 1e-5, "max": 1e-1, "scale": "log"},
    },
    "search": {"method": "optuna", "trials_per_level": 6, "seeds": [0]},
    "confirm": {"seeds": [100, 101]},
}
GRID = {
    "parameters": {
        "points_per_image": {"role": "scientific", "values": [5, 50]},
        "learning_rate": {"role": "nuisance", "values": [1e-3, 1e-4]},
    },
    "search": {"method": "grid", "seeds": [0, 1]},
}


def make_study(**changes: Any) -> StudySpec:
    return parse_study(copy.deepcopy(STUDY) | changes, "study.yaml")


def score(trial: Trial) -> TrialOutcome:
    """A made result, best near 1e-3, better with more points, a little different from seed to seed."""
    rate = trial.config.learning_rate
    value = 0.6 + trial.config.points_per_image / 1000 - abs(rate - 1e-3) - trial.config.seed / 1e5  # type: ignore
    return TrialOutcome("completed", value)


class Disk:
    """Trial directories, as far as an agenda asks for them."""

    def __init__(self) -> None:
        self.outcomes: dict[str, TrialOutcome] = {}

    def __call__(self, trial: Trial, was_stopped: bool) -> TrialOutcome | None:
        outcome = self.outcomes.get(trial.trial_id)
        return None if outcome and outcome.state == "stopped" and not was_stopped else outcome


class Driver:
    """Runs an agenda as the real driver does, a number of trials at a time, and keeps its events."""

    def __init__(self, spec: StudySpec, disk: Disk, events: Iterable[Event] = ()) -> None:
        self.disk, self.events = disk, list(events)
        self.agenda = Agenda(spec, "f" * 64, self.events, disk)
        self.agenda.record = self.events.append
        self.ran: list[Trial] = []

    def run(
        self, at_once: int = 1, most: int = 1000, outcome_of: Callable[[Trial], TrialOutcome] = score
    ) -> list[Trial]:
        """Starts up to `most` trials; those live at the end are killed, as by a crash."""
        live: list[Trial] = []
        while len(self.ran) < most:
            while len(live) < at_once and (trial := self.agenda.next_trial()):
                live.append(trial)
            if not live:
                break
            self.finish(live.pop(0), outcome_of)
        return self.ran

    def finish(self, trial: Trial, outcome_of: Callable[[Trial], TrialOutcome] = score) -> None:
        outcome = self.disk.outcomes[trial.trial_id] = outcome_of(trial)
        self.ran.append(trial)
        event = {"event": "trial_ended", "trial_id": trial.trial_id, "phase": trial.phase, "state": outcome.state}
        self.events.append(event)
        self.agenda.ended(trial, outcome)


def names(trials: Iterable[Trial]) -> list[str]:
    return [trial.name for trial in trials]


def test_a_grid_runs_seed_block_by_seed_block_the_levels_in_turn_and_then_confirms() -> None:
    ran = names(Driver(make_study(**GRID), Disk()).run())
    assert ran[:4] == [
        "points_per_image=5 learning_rate=0.001 seed=0",
        "points_per_image=50 learning_rate=0.001 seed=0",
        "points_per_image=5 learning_rate=0.0001 seed=0",
        "points_per_image=50 learning_rate=0.0001 seed=0",
    ]
    assert [name.rpartition(" ")[2] for name in ran[4:8]] == ["seed=1"] * 4
    assert ran[8:] == [
        "points_per_image=5 learning_rate=0.001 seed=100",
        "points_per_image=50 learning_rate=0.001 seed=100",
        "points_per_image=5 learning_rate=0.001 seed=101",
        "points_per_image=50 learning_rate=0.001 seed=101",
    ]


def test_only_confirmation_opens_the_test_split() -> None:
    ran = Driver(make_study(**GRID), Disk()).run()
    assert [trial.config.evaluate_test for trial in ran] == [False] * 8 + [True] * 4


def test_levels_are_searched_in_turn() -> None:
    ran = Driver(make_study(), Disk()).run()
    assert [trial.config.points_per_image for trial in ran[:12]] == [5, 50] * 6
    assert len(ran) == 12 + 4


@pytest.mark.parametrize("method", ["grid", "random", "quasi_random", "optuna"])
def test_a_finished_study_runs_nothing_again(method: str) -> None:
    spec = make_study(**GRID) if method == "grid" else make_study(search={**STUDY["search"], "method": method})
    disk = Disk()
    first = Driver(spec, disk)
    ran = first.run(at_once=3)
    again = Driver(spec, disk, first.events)
    assert sorted(names(again.agenda.trials)) == sorted(names(ran))
    assert again.agenda.missing == []
    assert again.run() == []


@pytest.mark.parametrize("killed_after", range(0, 16, 3))
def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(killed_after: int) -> None:
    whole = names(Driver(make_study(), Disk()).run())
    disk = Disk()
    first = Driver(make_study(), disk)
    first.run(most=killed_after)
    first.agenda.next_trial()  # proposed, written down, started and lost
    rest = Driver(make_study(), disk, first.events)
    assert names(first.ran) + names(rest.run()) == whole


def test_a_result_without_its_event_counts_and_an_event_without_its_result_does_not() -> None:
    disk = Disk()
    first = Driver(make_study(), disk)
    ran = first.run()
    unsaid = [event for event in first.events if event.get("trial_id") != ran[3].trial_id]
    assert Driver(make_study(), disk, unsaid).run() == []
    del disk.outcomes[ran[3].trial_id]
    assert names(Driver(make_study(), disk, first.events).run()) == [ran[3].name]


def test_trials_found_on_disk_are_taken_up_when_the_ledger_is_lost() -> None:
    disk = Disk()
    ran = Driver(make_study(), disk).run()
    explored = [trial for trial in ran if trial.phase == "explore"]
    rebuilt = Driver(make_study(), disk)
    foreign = ("0" * 12, {"points_per_image": 5, "learning_rate": 2e-3})  # its id says that it is of another study
    adopted = rebuilt.agenda.adopt([*((trial.trial_id, trial.parameters) for trial in explored), foreign])
    assert [each.cell for each in adopted] == [trial.parameters for trial in explored]
    assert rebuilt.run() == []


def test_a_grid_s_trials_are_the_start_of_a_search() -> None:
    disk = Disk()
    grid = make_study(**{**GRID, "search": {"method": "grid", "seeds": [0]}})
    ran = [trial for trial in Driver(grid, disk).run() if trial.phase == "explore"]
    search = Driver(make_study(), disk)
    search.agenda.adopt((trial.trial_id, trial.parameters) for trial in ran)
    explored = [trial for trial in search.run() if trial.phase == "explore"]
    assert len(explored) == 12 - 4
    assert not {trial.trial_id for trial in explored} & {trial.trial_id for trial in ran}


def test_editing_the_file_keeps_what_is_unchanged() -> None:
    disk = Disk()
    first = Driver(make_study(), disk)
    first.run()
    search = {**STUDY["search"], "trials_per_level": 8, "seeds": [0, 1]}
    more = Driver(make_study(search=search), disk, first.events)
    ran = [trial for trial in more.run() if trial.phase == "explore"]
    # Six settings at the new seed, two new settings at both; at two levels.
    assert len(ran) == 2 * (6 + 2 * 2)
    other = Driver(make_study(training={**STUDY["training"], "epochs": 3}), Disk(), first.events)
    assert len([trial for trial in other.run() if trial.phase == "explore"]) == 12


def test_a_stopped_setting_spares_its_other_seeds_and_cannot_win() -> None:
    search = {**GRID["search"], "scheduler": "asha"}
    spec = make_study(**{**GRID, "search": search})

    def stop_some(trial: Trial) -> TrialOutcome:
        if trial.phase == "explore" and trial.config.learning_rate == 1e-3:
            return TrialOutcome("stopped", None, ((1, 0.9),))
        return score(trial)

    disk = Disk()
    driver = Driver(spec, disk)
    ran = driver.run(outcome_of=stop_some)
    seeds = [trial.config.seed for trial in ran if trial.config.learning_rate == 1e-3]
    assert seeds == [0, 0]  # one of each level; seed 1 was spared
    assert {trial.config.learning_rate for trial in ran if trial.phase == "confirm"} == {1e-4}
    again = Driver(spec, disk, driver.events)
    assert again.run() == []
    unstopped = Driver(make_study(**GRID), disk, driver.events)  # without a scheduler they are unfinished trials
    assert len([trial for trial in unstopped.run() if trial.phase == "explore"]) == 4


def test_failed_trials_hold_confirmation_back_and_are_tried_again() -> None:
    disk, spec = Disk(), make_study(**GRID)
    driver = Driver(spec, disk)
    ran = driver.run(outcome_of=lambda trial: TrialOutcome("failed") if trial.config.seed == 1 else score(trial))
    assert {trial.phase for trial in ran} == {"explore"}
    assert len(driver.agenda.missing) == 4
    disk.outcomes = {name: each for name, each in disk.outcomes.items() if each.state != "failed"}
    again = Driver(spec, disk, driver.events).run()
    assert [trial.config.seed for trial in again] == [1] * 4 + [100, 100, 101, 101]


def test_a_level_where_all_diverge_has_no_winner_and_says_so() -> None:
    def diverge(trial: Trial) -> TrialOutcome:
        return TrialOutcome("infeasible") if trial.config.points_per_image == 5 else score(trial)

    driver = Driver(make_study(**GRID), Disk())
    ran = driver.run(outcome_of=diverge)
    assert {trial.config.points_per_image for trial in ran if trial.phase == "confirm"} == {50}
    assert driver.agenda.problems == ["points_per_image=5: no setting ran to its end: nothing to confirm"]
    assert driver.agenda.missing == []


def test_given_cells_are_confirmed_without_exploring_and_remembered() -> None:
    disk, spec = Disk(), make_study(**GRID)
    driver = Driver(spec, disk)
    cell = {"points_per_image": 50, "learning_rate": 1e-2}
    driver.agenda.confirm_alone([cell])
    ran = driver.run()
    assert [(trial.parameters, trial.config.seed) for trial in ran] == [(cell, 100), (cell, 101)]
    later = Driver(spec, disk, driver.events)
    assert names(later.run()[-4:]) == names(Driver(spec, Disk()).run()[-4:])  # then exploration, and its winners
    assert set(names(ran)) < set(names(later.agenda.trials))


def test_confirming_alone_the_winners_of_an_unfinished_exploration_runs_nothing() -> None:
    driver = Driver(make_study(**GRID), Disk())
    driver.agenda.confirm_alone([])
    assert driver.run() == []


def test_an_extension_adds_seeds_at_its_levels_alone() -> None:
    disk, spec = Disk(), make_study(**GRID)
    driver = Driver(spec, disk)
    driver.run()
    more = Driver(spec, disk, driver.events)
    more.agenda.extend([{"points_per_image": 50}], [102, 103])
    ran = more.run()
    assert names(ran) == [f"points_per_image=50 learning_rate=0.001 seed={seed}" for seed in (102, 103)]
    assert Driver(spec, disk, more.events).run() == []


def test_a_search_against_effort_confirms_every_setting_that_no_other_beats() -> None:
    parameters = {
        "points_per_image": {"role": "nuisance", "values": [5, 10, 20, 50]},
        "learning_rate": {"role": "nuisance", "values": [1e-3, 1e-4]},
    }
    search = {"method": "optuna_pareto", "trials_per_level": 8, "seeds": [0]}
    values = {5: 0.5, 10: 0.7, 20: 0.6, 50: 0.8}  # 20 points cost more than 10 and give less

    def rate(trial: Trial) -> TrialOutcome:
        return TrialOutcome("completed", values[int(trial.config.points_per_image)] - trial.config.learning_rate)

    ran = Driver(make_study(parameters=parameters, search=search), Disk()).run(outcome_of=rate)
    confirmed = [trial.parameters for trial in ran if trial.config.seed == 100]
    assert confirmed == [{"points_per_image": points, "learning_rate": 1e-4} for points in (5, 10, 50)]


def test_the_front_is_that_of_the_rates_of_the_study() -> None:
    # Where a look at an image is all that costs, each number of points is as dear as any: the best alone is left.
    parameters = {"points_per_image": {"role": "nuisance", "values": [5, 10, 20]}}
    search = {"method": "optuna_pareto", "trials_per_level": 3, "seeds": [0]}

    def rate(trial: Trial) -> TrialOutcome:
        return TrialOutcome("completed", int(trial.config.points_per_image) / 100)

    for effort, front in (({}, [5, 10, 20]), ({"point_s": 0}, [20])):
        ran = Driver(make_study(parameters=parameters, search=search, effort=effort), Disk()).run(outcome_of=rate)
        confirmed = [trial.config.points_per_image for trial in ran if trial.config.seed == 100]
        assert confirmed == front


def test_the_winner_is_the_best_mean_over_seeds_and_not_the_luckiest_trial() -> None:
    values = {(1e-3, 0): 0.9, (1e-3, 1): 0.1, (1e-4, 0): 0.6, (1e-4, 1): 0.6}

    def rate(trial: Trial) -> TrialOutcome:
        return TrialOutcome("completed", values.get((trial.config.learning_rate, trial.config.seed), 0.5))

    ran = Driver(make_study(**GRID), Disk()).run(outcome_of=rate)
    assert {trial.config.learning_rate for trial in ran if trial.phase == "confirm"} == {1e-4}


def test_cells_given_twice_are_run_once() -> None:
    disk, spec = Disk(), make_study(**GRID)
    driver = Driver(spec, disk)
    cell = {"points_per_image": 50, "learning_rate": 1e-2}
    driver.agenda.confirm_alone([cell, cell])
    assert len(driver.run()) == 2
    again = Driver(spec, disk, driver.events)
    again.agenda.confirm_alone([cell])
    assert again.run() == []
    rest = names(Driver(spec, disk, again.events).run())
    assert len(rest) == len(set(rest)) == 8 + 4


def test_an_interrupted_confirmation_of_given_cells_goes_on_by_the_same_command() -> None:
    disk, spec = Disk(), make_study(**GRID)
    first = Driver(spec, disk)
    cell = {"points_per_image": 50, "learning_rate": 1e-3}
    first.agenda.confirm_alone([cell])
    first.run(most=1)
    again = Driver(spec, disk, first.events)
    again.agenda.confirm_alone([cell])
    assert [trial.config.seed for trial in again.run()] == [101]
    assert again.agenda.missing == []  # exploration is none of its business


def test_seeds_added_by_extending_may_be_written_into_the_file_later() -> None:
    disk, spec = Disk(), make_study(**GRID)
    driver = Driver(spec, disk)
    driver.run()
    more = Driver(spec, disk, driver.events)
    more.agenda.extend([{"points_per_image": 50}], [102])
    more.run()
    written = make_study(**GRID, confirm={"seeds": [100, 101, 102]})
    rest = names(Driver(written, disk, more.events).run())
    assert rest == ["points_per_image=5 learning_rate=0.001 seed=102"]


def test_an_extension_holds_for_given_cells_at_once() -> None:
    disk, spec = Disk(), make_study(**GRID)
    driver = Driver(spec, disk)
    driver.agenda.confirm_alone([{"points_per_image": 50, "learning_rate": 1e-2}])
    driver.run()
    Driver(spec, disk, driver.events).run()
    more = Driver(spec, disk, driver.events)
    more.agenda.extend([{"points_per_image": 50}], [102])
    assert len(more.run()) == 2  # the winner's and the given one's
    assert Driver(spec, disk, more.events).run() == []


def test_fewer_trials_per_level_leave_out_what_was_not_begun() -> None:
    disk = Disk()
    first = Driver(make_study(), disk)
    first.run(at_once=6, most=1)
    fewer = Driver(make_study(search={**STUDY["search"], "trials_per_level": 2}), disk, first.events)
    explored = [trial for trial in fewer.run() if trial.phase == "explore"]
    assert len(explored) == 4 - 1


def test_without_a_confirm_section_nothing_opens_the_test_split() -> None:
    disk, spec = Disk(), make_study(**GRID)
    driver = Driver(spec, disk)
    driver.run()
    driver.agenda.extend([{"points_per_image": 50}], [102])
    unconfirmed = Driver(make_study(**GRID, confirm=None), disk, driver.events)
    assert {trial.phase for trial in unconfirmed.agenda.trials} == {"explore"}
    assert unconfirmed.run() == []
