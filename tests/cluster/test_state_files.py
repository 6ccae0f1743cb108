"""Every file that a study keeps, cut short or changed: the next run names it, mends it, and finds the same results."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from cluster.preparation import find_agenda, prepare
from cluster.tuner import Outcome, run_study
from study.ledger import open_ledger, read_ledger
from study.spec import StudySpec, load_study
from trainable.sealed import read_sealed
from trainable.trial_files import read_result

pytestmark = pytest.mark.cluster

Damage = Callable[[bytes], bytes]
MakeSpec = Callable[..., StudySpec]

CONFIRMED: dict[str, Any] = {"search": {"method": "grid", "seeds": [0, 1]}, "confirm": {"seeds": [7]}}  # six trials
SEARCHED: dict[str, Any] = {
    "parameters": {
        "points_per_image": {"role": "scientific", "values": [2, 20]},
        "learning_rate": {"role": "nuisance", "min": 1e-4, "max": 1e-2, "scale": "log"},
    },
    "search": {"method": "optuna", "trials_per_level": 4, "seeds": [0]},
}


def keep(percent: int) -> Damage:
    return lambda content: content[: len(content) * percent // 100]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Damage] = {f"{percent}% left": keep(percent) for percent in (0, 25, 50, 75, 99)} | {"flipped": flip}


def every_damage(*names: str) -> pytest.MarkDecorator:
    """Each of them to each of these files."""
    cases = [pytest.param(name, how, id=f"{name} {kind}") for name in names for kind, how in DAMAGES.items()]
    return pytest.mark.parametrize(("name", "how"), cases)


def copy_storage(template: Path, target: Path) -> Path:
    """A copy in which large files are links: they are replaced, and never written into."""

    def copy(source: str, copied: str) -> None:
        (os.link if Path(source).stat().st_size > 10**6 else shutil.copy2)(source, copied)

    return Path(shutil.copytree(template, target, copy_function=copy))


def damage(path: Path, how: Damage) -> bytes:
    """Damages a file, and not what is linked to it; returns what it holds now."""
    content = how(path.read_bytes())
    path.unlink()
    path.write_bytes(content)
    return content


class Copy:
    """A copy of a finished study, to be damaged and run again."""

    def __init__(self, spec: StudySpec, template: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.spec, self.folder, self.storage = spec, spec.folder, Path(spec.storage)
        self.template, self.caplog = template, caplog
        self.said: list[str] = []

    def run(self) -> Outcome:
        outcome = run_study(self.spec, self.said.append)
        assert outcome.complete
        assert outcome.num_trials == 6
        assert hashes(self.storage) == hashes(self.template)
        return outcome

    def run_without_training(self) -> None:
        """A silent fresh start of a trial would write its rows at another time."""
        assert self.run().num_trained == 0
        assert not [line for line in self.said if "Ray" in line]
        assert rows_written(self.storage) == rows_written(self.template)

    def names(self, text: str) -> bool:
        """Whether a warning does."""
        return any(text in message for message in self.caplog.messages)

    def original(self, path: Path) -> Path:
        """The undamaged file."""
        return self.template / path.relative_to(self.storage)

    def damage_each_trial(self, name: str) -> dict[Path, bytes]:
        """A file of each trial, every trial in another way."""
        trials = zip(sorted(self.folder.glob("trials/*")), DAMAGES.values(), strict=True)
        return {path: damage(path, how) for trial, how in trials for path in trial.glob(name)}


def hashes(storage: Path) -> dict[str, str]:
    results = {path.name: read_result(path) for path in storage.glob("tiny/trials/*")}
    return {name: result["result_sha256"] for name, result in results.items() if result}


def rows_written(storage: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in storage.glob("tiny/trials/*/metrics.jsonl")}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, make_spec: MakeSpec) -> Path:
    """The storage of a finished and confirmed study."""
    storage = tmp_path_factory.mktemp("template")
    assert run_study(make_spec(storage, **CONFIRMED), lambda line: None).complete
    return storage


@pytest.fixture
def copy(template: Path, tmp_path: Path, make_spec: MakeSpec, caplog: pytest.LogCaptureFixture) -> Copy:
    storage = copy_storage(template, tmp_path / "storage")
    return Copy(make_spec(storage, **CONFIRMED), template, caplog)


# Files of the study


@every_damage("ledger.jsonl")
def test_a_damaged_ledger_is_named_and_completed_from_the_trials(copy: Copy, name: str, how: Damage) -> None:
    content = damage(copy.folder / name, how)
    copy.run_without_training()
    assert copy.names(name)
    events = read_ledger(copy.folder)
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert any(event["event"] == "repaired" for event in events)
    assert {event["trial_id"] for event in events if event["event"] == "trial_ended"} == hashes(copy.template).keys()
    if how is flip:  # the others are torn tails, of which nothing is left to look at
        assert (copy.folder / "ledger.damaged-1.jsonl").read_bytes() == content


@every_damage("data.json")
def test_a_damaged_description_is_set_aside_and_written_anew(copy: Copy, name: str, how: Damage) -> None:
    path = copy.folder / name
    content = damage(path, how)
    copy.run_without_training()
    assert copy.names(f"{name} is damaged")
    assert path.with_name(f"{name}.damaged").read_bytes() == content
    before, after = (read_sealed(each) or {} for each in (copy.original(path), path))
    assert {**after, "source": ""} == {**before, "source": ""}  # which says where the study lies


@every_damage("trials.json", "study.yaml", ".lock")
def test_what_every_run_writes_anew_is_whole_again(copy: Copy, name: str, how: Damage) -> None:
    """Nothing is lost with them: the study file is the one that the run was given, and the trials follow from it."""
    damage(copy.folder / name, how)
    copy.run_without_training()
    assert read_sealed(copy.folder / "trials.json") == read_sealed(copy.template / "tiny" / "trials.json")
    assert load_study(str(copy.folder / "study.yaml"), []) == copy.spec


@every_damage("optuna.journal")
def test_a_damaged_journal_is_set_aside_and_written_anew(copy: Copy, name: str, how: Damage) -> None:
    path = copy.folder / name
    content = damage(path, how)
    copy.run_without_training()
    assert journal_trials(path) == journal_trials(copy.original(path))
    if content:  # there is nothing in an empty one to be set aside
        assert copy.names(f"{name} is damaged")
        assert path.with_name(f"{name}.damaged").read_bytes() == content


def journal_trials(path: Path) -> dict[str, list[tuple[Any, Any]]]:
    """Optuna study -> settings and values, as optuna-dashboard reads them."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    return {
        study.study_name: [(trial.params, trial.values) for trial in storage.get_all_trials(study._study_id)]
        for study in storage.get_all_studies()
    }


# Made data and packed stores


@every_damage("images.npy", "masks.npy", "store.json", "checksums.json")
def test_a_damaged_store_is_set_aside_and_packed_anew(copy: Copy, name: str, how: Damage) -> None:
    (store,) = (path.parent for path in copy.storage.glob(".cache/*/store.json"))
    content = damage(store / name, how)
    copy.run_without_training()
    assert copy.names(f"{store.name} is damaged")
    assert (store.with_name(f"{store.name}.damaged") / name).read_bytes() == content
    assert (store / name).read_bytes() == copy.original(store / name).read_bytes()


@every_damage("an image", "checksums.json")
def test_damaged_made_images_are_set_aside_and_made_again(copy: Copy, name: str, how: Damage) -> None:
    (made,) = copy.storage.glob(".cache/synthetic-*")
    path = min(made.rglob("*.png")) if name == "an image" else made / name
    content = damage(path, how)
    copy.run_without_training()
    assert copy.names(f"{made.name} is damaged")
    assert (made.with_name(f"{made.name}.damaged") / path.relative_to(made)).read_bytes() == content
    assert path.read_bytes() == copy.original(path).read_bytes()


# Files of the trials


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "counts.npz", "counts_test.npz", "result.json"])
def test_damaged_files_of_trials_are_set_aside_and_mended_without_training(copy: Copy, name: str) -> None:
    damaged = copy.damage_each_trial(name)
    copy.run()
    for path, content in damaged.items():
        assert copy.names(f"{path.parent.name}/{name}: damaged")
        assert path.with_name(f"{name}.damaged").read_bytes() == content
        attempts = path.with_name("attempts.jsonl")
        assert attempts.read_bytes() == copy.original(attempts).read_bytes()  # no further one
        if name != "result.json":  # which says when it was written
            assert path.read_bytes() == copy.original(path).read_bytes()


def test_a_damaged_note_of_the_mirror_is_set_aside_and_the_run_shown_again(copy: Copy) -> None:
    damaged = copy.damage_each_trial("mirror.json")
    copy.run_without_training()
    assert "catching up W&B on 6 finished trials" in copy.said
    for path, content in damaged.items():
        assert copy.names(f"{path.parent.name}/mirror.json is damaged")
        assert path.with_name("mirror.json.damaged").read_bytes() == content
        assert (read_sealed(path) or {})["state"] == "completed"


def test_a_damaged_run_file_is_written_again_with_the_history_that_it_had(
    copy: Copy, public_history: Callable[[Path], list[Any]]
) -> None:
    paths = sorted(copy.folder.glob("wandb/offline-run-*/run-*.wandb"))
    for path, how in zip(paths, DAMAGES.values(), strict=True):
        damage(path, how)
    copy.run_without_training()
    assert "catching up W&B on 6 finished trials" in copy.said
    for path in paths:
        (mended,) = copy.folder.glob(f"wandb/offline-run-*/{path.name}")
        assert public_history(mended) == public_history(copy.original(path))


@pytest.mark.parametrize("name", ["attempts.jsonl", "checkpoint/*.npz"])
def test_what_a_finished_study_no_longer_needs_leaves_its_results_valid(copy: Copy, name: str) -> None:
    """Attempts are history. Weights are read by who predicts, and their checksum with them: not at every run."""
    copy.damage_each_trial(name)
    copy.run_without_training()


# A study that is not finished


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, make_spec: MakeSpec) -> Path:
    """The storage of a searched study after five of its eight trials."""
    storage = tmp_path_factory.mktemp("begun")
    outcome = run_study(make_spec(storage, **SEARCHED, budget={"trials": 5}), lambda line: None)
    assert (outcome.num_trained, outcome.num_missing) == (5, 3)
    return storage


def known_and_next(spec: StudySpec) -> tuple[set[str], set[str]]:
    """Ids of the trials that a run would find, and of those that it would start."""
    work = prepare(spec)
    names = [path.name for path in work.folder.glob("trials/*")]
    with open_ledger(work.folder, names) as ledger:
        agenda = find_agenda(spec, work.folder, work.index.fingerprint, ledger.events)
    known = {trial.trial_id for trial in agenda.trials if agenda.is_done(trial)}
    started = iter(agenda.next_trial, None)
    return known, {trial.trial_id for trial in started if trial}


def test_whatever_is_lost_of_the_ledger_a_search_goes_on_where_it_was(
    begun: Path, tmp_path: Path, make_spec: MakeSpec, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (begun / "tiny" / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    without = [lines[:number] + lines[number + 1 :] for number in range(len(lines))]
    cut = [lines[:number] for number in range(len(lines) + 1)]
    expected = known_and_next(make_spec(copy_storage(begun, tmp_path / "whole"), **SEARCHED))
    assert (len(expected[0]), len(expected[1])) == (5, 3)
    storage = copy_storage(begun, tmp_path / "storage")
    for content in [how(b"".join(lines)) for how in DAMAGES.values()] + [b"".join(each) for each in without + cut]:
        damage(storage / "tiny" / "ledger.jsonl", lambda _, content=content: content)
        assert known_and_next(make_spec(storage, **SEARCHED)) == expected
