"""The driver: runs what is missing of a study, and nothing else.

The ledger and the trial directories are the truth, so a study is continued by running it again.
"""

import os
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster.cluster_check import refuse_unfit
from cluster.interrupts import Interrupts
from cluster.limits import Limits, limits_so_far
from cluster.local_ray import connected_ray
from cluster.optuna_journal import OptunaJournal
from cluster.preflight import check_nodes
from cluster.preparation import (
    Say,
    Work,
    check_free_disk,
    find_agenda,
    name_changed_study,
    pack_stores,
    prepare,
    study_sha256,
    trained_s,
    write_study,
    write_trial_list,
)
from cluster.progress import Progress, duration
from cluster.remote_study import RemoteStudy
from cluster.resources import check_cluster_fits, cluster_nodes, num_concurrent
from cluster.session import STUCK, Session, Shown, StopRunError, ended_event, journal_entries
from cluster.tracking_record import is_mirrored, read_end
from study.agenda import Event, proposed_event
from study.design import Cell, Trial, initial_weights, longest_training
from study.ledger import Ledger, open_ledger
from study.spec import StudySpec
from trainable.atomic import sole_user
from trainable.config import TRAINER_VERSION, InputError
from trainable.trial_files import read_result, read_rows

MIRROR_WITHIN_S = 4.0  # after an interrupt; the next run catches up


@dataclass(frozen=True)
class Wishes:
    """What a command wants beside running what is missing.

    Attributes:
        address: of a running Ray cluster to join; None for one of our own.
        accept_changes: whether to go on with other data or another trainer than the study was made with.
        confirm_alone: cells to confirm without exploring; empty for the winners; None to explore first, as usual.
        extend_levels: scientific levels to give further confirmation seeds.
        extend_seeds: those seeds.
    """

    address: str | None = None
    accept_changes: bool = False
    confirm_alone: list[Cell] | None = None
    extend_levels: list[Cell] = field(default_factory=list)
    extend_seeds: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: the study's folder.
        num_trials: known trials of the study.
        num_trained: trials that reached their end in this run.
        failures: trial name and reason, for those that failed for good.
        diverged: trial name and reason, for those that ended as infeasible in this run.
        num_missing: trials of the study that are still to run, those included that are yet to be proposed.
        stopped_by: the signal or limit that ended the run early, or nothing.
        problems: what no further run would mend.
        mirror_problems: what W&B does not show yet.
        is_mirror_stuck: whether W&B was still being waited for when the run was interrupted.
    """

    folder: Path
    num_trials: int
    num_trained: int
    failures: list[str]
    diverged: list[str]
    num_missing: int
    stopped_by: str
    problems: list[str]
    mirror_problems: list[str]
    is_mirror_stuck: bool

    @property
    def complete(self) -> bool:
        """Whether every trial reached its end and W&B shows it."""
        return not (self.num_missing or self.mirror_problems)


def run_study(spec: StudySpec, say: Say, wishes: Wishes = Wishes(), trainable: type | None = None) -> Outcome:
    """Runs what is missing of a study, and nothing else.

    Args:
        spec: the study.
        say: takes what is said meanwhile, line by line.
        wishes: what is wanted beside that.
        trainable: the Tune class that runs a trial, where it is not ours; for benchmarks of everything around it.

    Raises:
        InputError: bad input; nothing was written.
    """
    refuse_unfit(spec, wishes.address)
    if spec.url:
        RemoteStudy(spec.url).check(say)
    _check_login(spec)
    with Interrupts().installed() as interrupts:
        return _run(spec, say, wishes, trainable, interrupts)


def _run(spec: StudySpec, say: Say, wishes: Wishes, trainable: type | None, interrupts: Interrupts) -> Outcome:
    say(f"study {spec.study}: reading and checking the images")
    work = prepare(spec, accept_changes=wishes.accept_changes)
    if wishes.confirm_alone == [] and not work.agenda.exploration_is_complete:
        explore = work.plan().phases[0]
        raise InputError(
            f"{spec.study}: {explore.num_missing} trials of exploration are still to run, so there are no winners;"
            f" run the study, or name what to confirm with --cell"
        )
    if work.plan().num_missing or wishes.confirm_alone or wishes.extend_levels:
        _fetch_weights(spec)
        check_free_disk(work)
    stores = pack_stores(work, say)
    held = work.remote.held(say) if work.remote else nullcontext()
    with sole_user(work.folder), held, open_ledger(work.folder, _begun(work.folder)) as ledger:
        work = replace(work, agenda=find_agenda(spec, work.folder, work.index.fingerprint, ledger.events))
        name_changed_study(work.folder, ledger.events)
        write_study(work, stores)
        if work.remote:
            work.remote.push_stores(stores.values(), say)
        return _Driver(work, stores, ledger, interrupts, say, trainable).run(wishes)


@dataclass
class _Driver:
    """One session, from the lock to the outcome."""

    work: Work
    stores: dict[int, Path]
    ledger: Ledger
    interrupts: Interrupts
    say: Say
    trainable: type | None

    def run(self, wishes: Wishes) -> Outcome:
        """Runs what is missing and says how it ended."""
        agenda = self.work.agenda
        done_before = {trial.trial_id for trial in agenda.trials if agenda.is_done(trial)}
        limits = limits_so_far(self.work.spec, self.ledger.events, trained_s(self.work.folder))
        damaged_before = set(_damaged(self.work.folder))
        self._begin(wishes, limits)
        try:
            failures, stopped_by, problems = self._run_phases(limits, wishes.address)
        except KeyboardInterrupt:
            self._end(limits, self.interrupts.received, self.work.plan().num_missing, [])
            raise
        except (InputError, OSError) as error:  # a node is not as it must be; the study's disk or store fails
            with suppress(OSError):  # then the ledger cannot say it
                self._end(limits, str(error), self.work.plan().num_missing, [])
            raise
        for path in sorted(set(_damaged(self.work.folder)) - damaged_before):
            self.say(f"was damaged and is repaired; the old one is set aside: {path}")
        write_trial_list(self.work)
        num_missing = self.work.plan().num_missing
        self._end(limits, stopped_by, num_missing, failures)
        new = [trial for trial in agenda.trials if agenda.is_done(trial) and trial.trial_id not in done_before]
        return Outcome(
            folder=self.work.folder,
            num_trials=len(agenda.trials),
            num_trained=len(new),
            failures=failures,
            diverged=[f"{t.name}: {self._reason(t)}" for t in new if agenda.outcomes[t.trial_id].state == "infeasible"],
            num_missing=num_missing,
            stopped_by=stopped_by,
            problems=agenda.problems,
            mirror_problems=[f"{name}: {problem}" for name, problem in problems.items()],
            is_mirror_stuck=STUCK in problems,
        )

    def _begin(self, wishes: Wishes, limits: Limits) -> None:
        """Says in the ledger who works here now, what was found on disk without an event, and what was wished for."""
        agenda, known = self.work.agenda, _known(self.ledger.events)
        found: list[Event] = [{"event": "session_started", **_description(self.work)}]
        found += [
            proposed_event(proposal)
            for proposal in agenda.exploration.proposals
            if self.work.spec.search.method != "grid" and proposal.trials[0].trial_id not in known["proposed"]
        ]
        unsaid = [
            ended_event(trial, agenda.outcomes[trial.trial_id], read_rows(self.work.trial_folder(trial)))
            for trial in agenda.trials
            if agenda.is_done(trial) and trial.trial_id not in known["ended"]
        ]
        limits.trained |= {event["trial_id"] for event in unsaid}
        self.ledger.append(*found, *unsaid)
        agenda.record = self.ledger.append
        if wishes.extend_levels:
            agenda.extend(wishes.extend_levels, wishes.extend_seeds)
        if wishes.confirm_alone is not None:
            agenda.confirm_alone(wishes.confirm_alone)
        write_trial_list(self.work)

    def _run_phases(self, limits: Limits, address: str | None) -> tuple[list[str], str, dict[str, str]]:
        """Trains what is missing and shows all; returns (failures, what stopped it, what is not shown, by trial)."""
        journal = OptunaJournal(self.work.folder / "optuna.journal", self.work.spec)
        try:
            journal.sync(journal_entries(self.work))
            self._show_proposals(journal)
            failures, stopped_by, problems = self._train_and_mirror(limits, journal, address)
        finally:
            journal.close()
        return failures, stopped_by, problems | ({"Optuna's journal": journal.problem} if journal.problem else {})

    def _train_and_mirror(
        self, limits: Limits, journal: OptunaJournal, address: str | None
    ) -> tuple[list[str], str, dict[str, str]]:
        from cluster.tracking import Mirror  # imports wandb, which takes a second

        agenda = self.work.agenda
        done = [(t, agenda.outcomes[t.trial_id].state == "stopped") for t in agenda.trials if agenda.is_done(t)]
        behind = [(t, stopped) for t, stopped in done if not is_mirrored(self.work, t, read_end(self.work, t, stopped))]
        num_missing = self.work.plan().num_missing
        if not num_missing:
            self.say(f"all {len(agenda.trials)} trials are done: nothing to train")
            if not behind:
                return [], "", {}
        if behind:
            self.say(f"catching up W&B on {len(behind)} finished trials")
        mirror = Mirror(self.work)
        failures: list[str] = []
        stopped_by = ""
        try:
            for trial, was_stopped in behind:
                mirror.update(trial, was_stopped=was_stopped)
            if num_missing:
                failures, stopped_by = self._train(limits, mirror, journal, address)
        finally:
            mirror.close(MIRROR_WITHIN_S if self.interrupts.received else None)
        return failures, stopped_by, mirror.problems

    def _show_proposals(self, journal: OptunaJournal) -> None:
        """Shows in the journal, too, what the agenda has the ledger keep."""

        def record(event: Event) -> None:
            self.ledger.append(event)
            if event["event"] == "proposed":
                journal.proposed(event["level"], event["number"], event["setting"], event["trials"])
            write_trial_list(self.work)  # whoever reads a study that was killed goes by it

        self.work.agenda.record = record

    def _train(
        self, limits: Limits, mirror: Shown, journal: OptunaJournal, address: str | None
    ) -> tuple[list[str], str]:
        """Returns (failures, what stopped it)."""
        from cluster.schedulers import make_scheduler  # these import Ray, which takes seconds
        from cluster.tune_run import tune_trials

        spec = self.work.spec
        if reason := limits.exhausted():
            return [], reason
        self.say("starting Ray (10 to 20 s)" if address is None else f"joining Ray at {address}")
        with connected_ray(address):
            self.interrupts.install()
            nodes = cluster_nodes()
            check_cluster_fits(spec.resources, nodes)
            if self.trainable is None:
                check_nodes(self.work, self.stores, self.say, is_own=address is None).refuse()
            num_at_once = num_concurrent(spec.resources, nodes)
            plan = self.work.plan(num_at_once)
            self.say(
                f"{plan.num_missing} of {plan.num_trials} trials to train, {num_at_once} at a time;"
                f" about {duration(plan.expected_s)} by {plan.basis}"
            )
            if any(config.weights == "none" for config in initial_weights(spec)):
                self.say("training starts from random initial weights (training.weights: none)")
            progress = Progress(plan.num_missing, plan.num_epochs, spec.objective, self.say)
            session = Session(
                self.work, self.ledger.append, limits, progress, mirror, self.interrupts, num_at_once, journal
            )
            scheduler = make_scheduler(spec.search, spec.objective, longest_training(spec))
            if scheduler:
                for trial in self.work.agenda.exploration.trials:
                    scheduler.replay(trial.group, trial.trial_id, read_rows(self.work.trial_folder(trial)))
            try:
                with self.interrupts.deferred():
                    tune_trials(session, self.stores, scheduler, self.trainable)
            except StopRunError as stop:
                return session.failures, str(stop)
            finally:
                progress.close()
        return session.failures, limits.exhausted() if self.work.plan().num_missing else ""

    def _end(self, limits: Limits, stopped_by: str, num_missing: int, failures: list[str]) -> None:
        """Says in the ledger how the session ended."""
        if self.interrupts.received:
            reason = "interrupted"
        elif limits.failed_in_a_row:
            reason = "failures"
        elif stopped_by.startswith("budget."):
            reason = "budget"
        else:
            reason = "incomplete" if num_missing or stopped_by else "complete"
        detail = stopped_by or "; ".join(failures[:1])
        used = {"wall_s": limits.used_s, "gpu_hours": limits.gpu_hours}
        self.ledger.append({"event": "session_ended", "reason": reason, "detail": detail, **used})

    def _reason(self, trial: Trial) -> str:
        result = read_result(self.work.trial_folder(trial))
        return str(result["reason"]) if result else ""


def _begun(folder: Path) -> list[str]:
    """Ids of the trials that have a directory."""
    return [path.name for path in folder.glob("trials/*") if path.is_dir()]


def _damaged(folder: Path) -> Iterator[Path]:
    """Files of trials that were set aside, as workers do without a word that could be heard here."""
    yield from (
        path for pattern in ("*/*.damaged*", "*/checkpoint/*.damaged*") for path in folder.glob(f"trials/{pattern}")
    )


def _known(events: list[Event]) -> dict[str, set[str]]:
    """Trial ids that the ledger has as proposed, and as ended for good."""
    proposed = {name for event in events if event["event"] == "proposed" for name in event["trials"]}
    ended = {e["trial_id"] for e in events if e["event"] == "trial_ended" and e["state"] != "failed"}
    return {"proposed": proposed, "ended": ended}


def _description(work: Work) -> Event:
    """Who works here, on what."""
    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "trainer_version": TRAINER_VERSION,
        "fingerprint": work.index.fingerprint,
        "study_sha256": study_sha256(work.folder),
    }


def _check_login(spec: StudySpec) -> None:
    if spec.tracking.mode == "online":
        from cluster.tracking import check_login  # imports wandb, which takes a second

        check_login(spec)


def _fetch_weights(spec: StudySpec) -> None:
    for config in initial_weights(spec):
        if config.weights != "none":
            from trainable.encoders import fetch_weights  # imports torch, which takes seconds

            fetch_weights(config)
