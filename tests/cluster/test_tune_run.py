"""What the reporter makes of Tune's events, without Ray: of a study that is real, and trials that are only named."""

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.interrupts import Interrupts
from cluster.limits import Limits
from cluster.optuna_journal import OptunaJournal
from cluster.preemption import NodeWatch
from cluster.preparation import prepare
from cluster.progress import Progress
from cluster.retries import Retries
from cluster.session import Session
from cluster.tune_run import Reporter
from cluster.tuner import _Driver
from study.design import Trial
from study.ledger import open_ledger, read_ledger
from study.spec import StudySpec
from trainable.object_store import StoreError

LEFT = f"NodeDrainingError: node {'0' * 56} is being taken away"


class Nowhere:
    def update(self, trial: Trial, *, was_stopped: bool = False) -> None:
        """Shows nothing."""


class Ledger:
    """Keeps events in memory, or says that the disk is full."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.is_full = False

    def append(self, *events: dict[str, Any]) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device", "ledger.jsonl")
        self.events += events


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def session(tmp_path: Path, make_spec: Callable[..., StudySpec], ledger: Ledger) -> Session:
    spec = make_spec(tmp_path / "storage", resources={"gpus_per_trial": 1.0}, failures={"retries": 1})
    work = prepare(spec)
    work.folder.mkdir(parents=True)
    progress = Progress(2, 4, spec.objective, print)
    journal = OptunaJournal(tmp_path / "optuna.journal", spec)
    return Session(work, ledger.append, Limits(spec), progress, Nowhere(), Interrupts(), 2, journal)


@pytest.fixture
def reporter(session: Session) -> Reporter:
    nodes = NodeWatch(session.work.spec.resources, print, {"0" * 56}, _next_look=float("inf"))
    return Reporter(session, Retries(1, nodes, print), nodes)


def given(session: Session, tmp_path: Path, error: str = "") -> Any:
    """Tune's trial of the next one that the session hands out, which failed with that error."""
    trial = session.next_trial()
    assert trial
    (tmp_path / "error.txt").write_text(error)
    config = {"trial": {"trial_id": trial.trial_id}}
    return SimpleNamespace(config=config, last_result={}, error_file=str(tmp_path / "error.txt"))


def test_gpu_hours_are_used_while_a_trial_has_a_node(session: Session, reporter: Reporter, tmp_path: Path) -> None:
    limits, trial = session.limits, given(session, tmp_path, LEFT)
    assert (limits.trained, limits.gpu_hours) == ({trial.config["trial"]["trial_id"]}, 0)
    reporter.on_trial_start(0, [], trial)
    first = limits.gpu_hours
    assert limits.gpu_hours > first
    reporter.on_trial_error(0, [], trial)
    waiting = limits.gpu_hours
    assert limits.gpu_hours == waiting > 0
    reporter.on_trial_start(0, [], trial)
    assert limits.gpu_hours > waiting


def test_a_full_disk_ends_the_run_at_the_end_of_the_step(
    session: Session, reporter: Reporter, ledger: Ledger, tmp_path: Path
) -> None:
    trial = given(session, tmp_path)
    reporter.on_step_end(0, [])
    ledger.is_full = True
    reporter.on_trial_complete(0, [], trial)  # Tune would wrap what is raised here
    with pytest.raises(OSError, match="No space left on device"):
        reporter.on_step_end(0, [])


def test_a_store_that_is_away_ends_the_run_and_no_trial(
    session: Session, reporter: Reporter, ledger: Ledger, tmp_path: Path
) -> None:
    trial = given(session, tmp_path, "trainable.object_store.StoreError: [Errno 5] s3://b/p: no good answer\n")
    reporter.on_trial_error(0, [], trial)
    with pytest.raises(StoreError, match="s3://b/p: no good answer"):
        reporter.on_step_end(0, [])
    assert [event["event"] for event in ledger.events] == ["trial_started"]
    assert session.failures == []


@pytest.mark.parametrize(
    ("stopped_by", "num_missing", "reason"),
    [
        ("budget.hours: 1 used up", 1, "budget"),
        ("s3://b/p: another driver has taken over", 1, "incomplete"),
        ("s3://b/p: another driver has taken over", 0, "incomplete"),
        ("", 1, "incomplete"),
        ("", 0, "complete"),
    ],
)
def test_the_ledger_says_why_a_session_ended(session: Session, stopped_by: str, num_missing: int, reason: str) -> None:
    with open_ledger(session.work.folder) as ledger:
        driver = _Driver(session.work, {}, ledger, session.interrupts, print, None)
        driver._end(session.limits, stopped_by, num_missing, [])
    (event,) = read_ledger(session.work.folder)
    assert (event["reason"], event["detail"]) == (reason, stopped_by)
