"""Every file that a study keeps, cut short or changed: the next run names it, mends it, and finds the same results."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.tuner import Outcome, run_study
from study.ledger import read_ledger
from study.spec import StudySpec, load_study
from trainable.sealed import read_sealed
from trainable.trial_files import read_result

pytestmark = pytest.mark.cluster

Damage = Callable[[bytes], bytes]
CHANGES: dict[str, Any] = {"search": {"method": "grid", "seeds": [0, 1]}, "confirm": {"seeds": [7]}}  # six trials


def keep(percent: int) -> Damage:
    return lambda content: content[: len(content) * percent // 100]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Damage] = {f"{percent} % left": keep(percent) for percent in (0, 25, 50, 75, 99)} | {"flipped": flip}


@dataclass(frozen=True)
class Again:
    """What a further run did."""

    outcome: Outcome
    said: list[str]
    storage: Path

    @property
    def folder(self) -> Path:
        return self.outcome.folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, make_spec: Callable[..., StudySpec]) -> Path:
    """The storage of a finished and confirmed study."""
    storage = tmp_path_factory.mktemp("template")
    assert run_study(make_spec(storage, **CHANGES), lambda line: None).complete
    return storage


@pytest.fixture
def storage(template: Path, tmp_path: Path) -> Path:
    """A copy of it. Large files are links: they are replaced, and never written into."""

    def copy(source: str, target: str) -> None:
        is_large = Path(source).stat().st_size > 10**6
        (os.link if is_large else shutil.copy2)(source, target)

    return Path(shutil.copytree(template, tmp_path / "storage", copy_function=copy))


@pytest.fixture
def run_again(storage: Path, make_spec: Callable[..., StudySpec]) -> Callable[[], Again]:
    def run() -> Again:
        said: list[str] = []
        return Again(run_study(make_spec(storage, **CHANGES), said.append), said, storage)

    return run


def damage(path: Path, how: Damage) -> bytes:
    """Damages a file and not what is linked to it; returns what it holds now."""
    content = how(path.read_bytes())
    path.unlink()
    path.write_bytes(content)
    return content


def hashes(storage: Path) -> dict[str, str]:
    results = {path.name: read_result(path) for path in storage.glob("tiny/trials/*")}
    return {name: result["result_sha256"] for name, result in results.items() if result}


def rows_written(storage: Path) -> dict[str, int]:
    """When each trial last had an epoch: another time would be a silent fresh start."""
    return {path.parent.name: path.stat().st_mtime_ns for path in storage.glob("tiny/trials/*/metrics.jsonl")}


def check_nothing_was_trained(again: Again, template: Path) -> None:
    assert (again.outcome.complete, again.outcome.num_trained, again.outcome.num_trials) == (True, 0, 6)
    assert not [line for line in again.said if "Ray" in line]
    assert hashes(again.storage) == hashes(template)
    assert rows_written(again.storage) == rows_written(template)


def cases(*names: str) -> pytest.MarkDecorator:
    """Every damage of each file."""
    found = [pytest.param(name, how, id=f"{name} {kind}") for name in names for kind, how in DAMAGES.items()]
    return pytest.mark.parametrize(("name", "how"), found)


@cases("ledger.jsonl")
def test_a_damaged_ledger_is_named_and_completed_from_the_trials(
    storage: Path,
    template: Path,
    run_again: Callable[[], Again],
    caplog: pytest.LogCaptureFixture,
    name: str,
    how: Damage,
) -> None:
    damage(storage / "tiny" / name, how)
    again = run_again()
    check_nothing_was_trained(again, template)
    assert any(name in message for message in caplog.messages)
    events = read_ledger(again.folder)
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert any(event["event"] == "repaired" for event in events)
    assert {e["trial_id"] for e in events if e["event"] == "trial_ended"} == hashes(template).keys()
    assert how is not flip or (again.folder / "ledger.damaged-1.jsonl").is_file()


@cases("data.json")
def test_a_damaged_description_is_set_aside_and_written_anew(
    storage: Path,
    template: Path,
    run_again: Callable[[], Again],
    caplog: pytest.LogCaptureFixture,
    name: str,
    how: Damage,
) -> None:
    content = damage(storage / "tiny" / name, how)
    check_nothing_was_trained(run_again(), template)
    assert any(f"{name} is damaged" in message for message in caplog.messages)
    assert (storage / "tiny" / f"{name}.damaged").read_bytes() == content
    before, after = (read_sealed(each / "tiny" / name) for each in (template, storage))
    assert {**after, "source": ""} == {**before, "source": ""}  # which says where the study lies


@cases("trials.json", "study.yaml", ".lock")
def test_what_every_run_writes_anew_is_whole_again(
    storage: Path, template: Path, run_again: Callable[[], Again], name: str, how: Damage
) -> None:
    """Nothing is lost with them: the study file is the one that the run was given, and the trials follow from it."""
    damage(storage / "tiny" / name, how)
    again = run_again()
    check_nothing_was_trained(again, template)
    assert read_sealed(again.folder / "trials.json") == read_sealed(template / "tiny" / "trials.json")
    assert load_study(str(again.folder / "study.yaml"), []).folder == again.folder


@cases("optuna.journal")
def test_a_damaged_journal_is_written_anew(
    storage: Path,
    template: Path,
    run_again: Callable[[], Again],
    caplog: pytest.LogCaptureFixture,
    name: str,
    how: Damage,
) -> None:
    content = damage(storage / "tiny" / name, how)
    again = run_again()
    check_nothing_was_trained(again, template)
    assert journal_trials(again.folder) == journal_trials(template / "tiny")
    if content:
        assert any(f"{name} is damaged" in message for message in caplog.messages)
        assert (again.folder / f"{name}.damaged").read_bytes() == content


def journal_trials(folder: Path) -> dict[str, list[tuple[Any, Any]]]:
    """Optuna study -> settings and values, as optuna-dashboard reads them."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
    return {
        study.study_name: [(trial.params, trial.values) for trial in storage.get_all_trials(study._study_id)]
        for study in storage.get_all_studies()
    }


@cases("images.npy", "masks.npy", "store.json", "checksums.json")
def test_a_damaged_store_is_set_aside_and_packed_anew(
    storage: Path,
    template: Path,
    run_again: Callable[[], Again],
    caplog: pytest.LogCaptureFixture,
    name: str,
    how: Damage,
) -> None:
    (path,) = (each for each in storage.glob(f".cache/*/{name}") if (each.parent / "store.json").is_file())
    content = damage(path, how)
    check_nothing_was_trained(run_again(), template)
    assert any(f"{path.parent.name} is damaged" in message for message in caplog.messages)
    assert (path.parent.with_name(f"{path.parent.name}.damaged") / name).read_bytes() == content
    assert path.read_bytes() == (template / path.relative_to(storage)).read_bytes()


@cases("an image", "checksums.json")
def test_made_images_that_are_damaged_are_set_aside_and_made_again(
    storage: Path,
    template: Path,
    run_again: Callable[[], Again],
    caplog: pytest.LogCaptureFixture,
    name: str,
    how: Damage,
) -> None:
    (made,) = storage.glob(".cache/synthetic-*")
    path = next(made.rglob("*.png")) if name == "an image" else made / name
    content = damage(path, how)
    check_nothing_was_trained(run_again(), template)
    assert any(f"{made.name} is damaged" in message for message in caplog.messages)
    assert (made.with_name(f"{made.name}.damaged") / path.relative_to(made)).read_bytes() == content
    assert path.read_bytes() == (template / path.relative_to(storage)).read_bytes()


def damage_each_trial(storage: Path, name: str) -> dict[Path, bytes]:
    """A file of each trial, every trial in another way."""
    trials = sorted(storage.glob("tiny/trials/*"))
    found = {path: how for trial, how in zip(trials, DAMAGES.values(), strict=True) for path in trial.glob(name)}
    return {path: damage(path, how) for path, how in found.items()}


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "counts.npz", "counts_test.npz", "result.json"])
def test_damaged_files_of_trials_are_set_aside_and_mended_without_training(
    storage: Path, template: Path, run_again: Callable[[], Again], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    damaged = damage_each_trial(storage, name)
    again = run_again()
    assert again.outcome.complete
    assert hashes(storage) == hashes(template)
    for path, content in damaged.items():
        assert any(f"{path.parent.name}/{name}: damaged" in message for message in caplog.messages), path
        assert path.with_name(f"{name}.damaged").read_bytes() == content
        attempts = path.with_name("attempts.jsonl")
        assert attempts.read_bytes() == (template / attempts.relative_to(storage)).read_bytes()  # no further one
        if name != "result.json":  # it says when it was written
            assert path.read_bytes() == (template / path.relative_to(storage)).read_bytes()


def test_a_damaged_note_of_the_mirror_is_set_aside_and_the_run_shown_again(
    storage: Path, template: Path, run_again: Callable[[], Again], caplog: pytest.LogCaptureFixture
) -> None:
    damaged = damage_each_trial(storage, "mirror.json")
    again = run_again()
    check_nothing_was_trained(again, template)
    assert "catching up W&B on 6 finished trials" in again.said
    for path, content in damaged.items():
        assert any(f"{path.parent.name}/mirror.json is damaged" in message for message in caplog.messages)
        assert path.with_name("mirror.json.damaged").read_bytes() == content
        assert read_sealed(path)["state"] == "completed"


def test_a_damaged_run_file_is_written_again(
    storage: Path, template: Path, run_again: Callable[[], Again], public_history: Callable[[Path], list[Any]]
) -> None:
    """As many as there are; each with the history that it had."""
    paths = sorted(storage.glob("tiny/wandb/offline-run-*/run-*.wandb"))
    for path, how in zip(paths, DAMAGES.values(), strict=True):
        damage(path, how)
    again = run_again()
    check_nothing_was_trained(again, template)
    assert "catching up W&B on 6 finished trials" in again.said
    for path in template.glob("tiny/wandb/offline-run-*/run-*.wandb"):
        (mended,) = storage.glob(f"tiny/wandb/offline-run-*/{path.name}")
        assert public_history(mended) == public_history(path)


@pytest.mark.parametrize("name", ["attempts.jsonl", "checkpoint/*.npz"])
def test_what_a_finished_study_no_longer_needs_leaves_its_results_valid(
    storage: Path, template: Path, run_again: Callable[[], Again], name: str
) -> None:
    """Attempts are history. Weights are read, and their checksum with them, by who predicts: not at every run."""
    damage_each_trial(storage, name)
    check_nothing_was_trained(run_again(), template)
