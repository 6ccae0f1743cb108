"""Killed workers, drivers and nodes, signals and failing trials, through the command that a user types."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.chaos import Chaos
from bench.chaos_driver import Driver, run_undisturbed
from bench.chaos_study import Scale, StudyCopy
from bench.processes import wait_for
from cluster.preparation import Work, prepare
from study.ledger import read_ledger
from study.spec import load_study
from trainable.sealed import write_sealed
from trainable.trial_files import read_result, read_rows

pytestmark = pytest.mark.cluster
WAIT_S = 180
ANSWER_S = 10.0
SCALE = Scale(num_seeds=1, epochs=10)
SEARCH = {
    "training": {"encoder": "resnet18", "weights": "none", "image_size": 32, "epochs": 1, "batch_size": 4},
    "parameters": {
        "points_per_image": {"role": "scientific", "values": [20]},
        "learning_rate": {"role": "nuisance", "min": 1e-4, "max": 1e-2, "scale": "log"},
        "focal_gamma": {"role": "nuisance", "min": 0.0, "max": 5.0},
    },
    "search": {"method": "optuna", "trials_per_level": 13, "seeds": [0]},  # the first 10 are drawn at random
    "resources": {"max_concurrent": 1},
}


@pytest.fixture(scope="module")
def chaos(scratch: Path) -> Chaos:
    return Chaos.begin(scratch, seed=1, scale=SCALE)


@pytest.fixture(scope="module")
def environment(scratch: Path) -> dict[str, str]:
    """What a killed driver leaves of Ray goes with the scratch folder."""
    return {"TMPDIR": str(scratch)}


@pytest.fixture
def make_copy(scratch: Path) -> Iterator[Callable[..., StudyCopy]]:
    """The study of two trials, with other sections; gone at the end of the test."""
    copies: list[StudyCopy] = []

    def make(name: str, **sections: Any) -> StudyCopy:
        copies.append(StudyCopy.make(scratch / name, {**SCALE.study(), **sections}))
        return copies[-1]

    yield make
    for copy in copies:
        shutil.rmtree(copy.folder)


@pytest.mark.parametrize(("kind", "count"), [("workers", 2), ("drivers", 2), ("terms", 2), ("nodes", 1)])
def test_a_killed_study_comes_out_as_the_undisturbed_one(chaos: Chaos, kind: str, count: int) -> None:
    tally = chaos.disturb(kind, count)
    found = tally.describe()
    assert tally.is_clean, found
    assert found["kills"] == count
    assert found["live_trials_hit"] >= 1
    assert found["recoveries"] >= 1


def test_the_same_study_gives_the_same_results_again_and_with_one_trial_at_a_time(
    chaos: Chaos, make_copy: Callable[..., StudyCopy]
) -> None:
    """Twice as it is, two at once on two cores; the others of this module are further runs of the same study."""
    assert run_undisturbed(make_copy("again"), chaos.environment) == chaos.undisturbed
    one_by_one = make_copy("one-by-one", resources={"max_concurrent": 1})
    assert run_undisturbed(one_by_one, chaos.environment) == chaos.undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_driver_in_time_and_it_says_how_to_go_on(
    make_copy: Callable[..., StudyCopy], environment: dict[str, str], number: signal.Signals
) -> None:
    copy = make_copy(number.name, **Scale(num_seeds=1, epochs=1000).study())
    with Driver(copy, environment) as driver:
        wait_for(lambda: any(each.rows >= 2 for each in copy.unfinished()) or driver.has_ended, WAIT_S, "two epochs")
        ending = driver.end(number, 2 * ANSWER_S)
    said = copy.log.read_text()
    assert ending.exit_code == 3, said
    assert ending.took_s < ANSWER_S
    assert ending.left_behind == 0
    assert "the same command continues" in said
    assert read_ledger(copy.study_folder)[-1]["reason"] == "interrupted"


def test_a_search_makes_the_same_proposals_again_and_also_where_it_was_killed(
    make_copy: Callable[..., StudyCopy], environment: dict[str, str]
) -> None:
    first, second, killed = (make_copy(name, **SEARCH) for name in ("search", "search-again", "search-killed"))
    for copy in (first, second):
        run_undisturbed(copy, environment)
    with Driver(killed, environment) as driver:
        wait_for(lambda: len(killed.hashes()) >= 8 or driver.has_ended, WAIT_S, "eight trials")
        driver.kill()
    assert 8 <= len(killed.hashes()) < 13
    run_undisturbed(killed, environment)
    assert len(_proposals(first)) == 13
    assert _proposals(first) == _proposals(second) == _proposals(killed)


def _proposals(copy: StudyCopy) -> list[tuple[dict[str, Any], list[str]]]:
    """Each setting in the order of the proposals, with the results of its trials."""
    hashes = copy.hashes()
    proposed = [event for event in read_ledger(copy.study_folder) if event["event"] == "proposed"]
    return [(event["setting"], [hashes[each] for each in event["trials"]]) for event in proposed]


def test_a_failing_trial_is_counted_and_named_and_the_others_end(
    make_copy: Callable[..., StudyCopy], environment: dict[str, str]
) -> None:
    """A trial whose folder holds another trial's config refuses to train, however often it is tried."""
    copy = make_copy("failing", failures={"retries": 2})
    work = _work(copy)
    good, bad = work.agenda.trials
    work.trial_folder(bad).mkdir(parents=True)
    write_sealed(work.trial_folder(bad) / "config.json", {"training": {}})
    with Driver(copy, environment) as driver:
        driver.wait(WAIT_S)
    said = copy.log.read_text()
    assert driver.popen.returncode == 3, said
    assert f"failed: {bad.name}: " in said
    assert "holds a trial with other settings" in said
    assert "still to run: 1" in said
    assert read_result(work.trial_folder(good))
    assert not read_rows(work.trial_folder(bad))


def _work(copy: StudyCopy) -> Work:
    return prepare(load_study(str(copy.folder / "study.yaml"), [f"storage={copy.folder / 'studies'}"]))
