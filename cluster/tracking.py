"""The W&B mirror: one run per trial, written by the driver from the trial's own `metrics.jsonl`.

A mirror never disturbs training. It works in a thread of its own, and everything it shows can be shown again later:
`update` brings one trial's run to where its directory stands, whether called after each epoch or days afterwards.
"""

import netrc
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from wandb.errors import CommError

from cluster.preparation import Work, trial_record
from cluster.session import STUCK
from cluster.tracking_address import note_address
from cluster.tracking_record import SETTLE_S, WrittenRun, is_mirrored, read_end, settle
from study.design import Trial
from study.lean_wandb import LEAN
from study.spec import StudySpec
from trainable.config import InputError
from trainable.trial_files import read_rows

SUMMARY = ("state", "reason", "result_sha256", "time_s", "environment")
SERVICE = "W&B's service"
ANSWER_S = 30.0  # that a run may take to begin, and to be sent at its end
REST_S = 60.0


@dataclass
class OpenRun:
    """A W&B run that is being written.

    Attributes:
        num_rows: how many rows it holds.
        leftovers: folders of the trial's earlier runs, which an interrupted driver left, or which are not as they were.
    """

    trial: Trial
    run: wandb.Run
    num_rows: int
    leftovers: list[Path]


@dataclass
class Mirror:
    """Writes the trials of a study to W&B.

    Attributes:
        replaces: whether runs that W&B's service has are set aside, and written anew under another id: it takes further
            rows, but neither forgets nor changes any.
        problems: trial -> why it is not whole in W&B; training goes on, and the next `canopoint run` catches up.
    """

    work: Work
    replaces: bool = False
    problems: dict[str, str] = field(default_factory=dict)
    _open: dict[str, OpenRun] = field(default_factory=dict)
    _written: list[WrittenRun] = field(default_factory=list)
    _ended: set[str] = field(default_factory=set)
    _not_before: float = 0.0
    _trouble: str = ""
    _queue: "queue.SimpleQueue[tuple[Trial, bool] | None]" = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        _configure_wandb(self.work.folder)
        self._thread = threading.Thread(target=self._serve, name="wandb-mirror", daemon=True)
        self._thread.start()

    def update(self, trial: Trial, *, was_stopped: bool = False) -> None:
        """Asks for the trial's new rows, and its end, to be shown; returns at once.

        `was_stopped`: a scheduler ended it, which its directory does not say.
        """
        self._queue.put((trial, was_stopped))

    def close(self, within_s: float | None = None) -> None:
        """Shows what is still waiting, closes the runs of unfinished trials and ends W&B's service.

        Args:
            within_s: seconds after which it gives up; the next run catches up.
        """
        self._queue.put(None)
        self._thread.join(within_s)
        if self._thread.is_alive():
            self.problems[STUCK] = "had not taken everything when the run ended"
            return
        for trial_id in list(self._open):
            with self._reporting(self._open[trial_id].trial.name):
                self._finish(self._open.pop(trial_id), None)
        self._settle_all()
        with self._reporting(SERVICE):  # an interrupt may have reached it, too, and before us
            wandb.teardown()

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            trial, was_stopped = item
            with self._reporting(trial.name):
                self._catch_up(trial, was_stopped)
                self.problems.pop(trial.name, None)
            self._record_settled()
        self._settle_all()

    @contextmanager
    def _reporting(self, name: str) -> Iterator[None]:
        """Keeps W&B's troubles for the end of the run, where they are named and lead to exit code 3."""
        try:
            yield
        except Exception as error:
            self.problems[name] = f"{type(error).__name__}: {error}".splitlines()[0]

    def _catch_up(self, trial: Trial, was_stopped: bool) -> None:
        end = read_end(self.work, trial, was_stopped)
        if trial.trial_id in self._ended or is_mirrored(self.work, trial, end):
            return
        if trial.trial_id not in self._open:
            self._open[trial.trial_id] = self._start(trial)
        opened = self._open[trial.trial_id]
        for row in read_rows(self.work.trial_folder(trial))[opened.num_rows :]:
            opened.run.log(row, step=int(row["epoch"]))
            opened.num_rows += 1
        if end and opened.num_rows == end["epochs"]:
            self._finish(self._open.pop(trial.trial_id), end)
            self._ended.add(trial.trial_id)

    def _start(self, trial: Trial) -> OpenRun:
        """Opens the trial's run. Offline, what an interrupted driver left of it is replaced as a whole, in the end.

        A service that is away takes ANSWER_S to be told as such; it is not asked again at once.
        """
        if time.monotonic() < self._not_before:
            raise OSError(self._trouble)
        try:
            return self._opened(trial)
        except CommError as error:
            self._not_before, self._trouble = time.monotonic() + REST_S, str(error)
            raise

    def _opened(self, trial: Trial) -> OpenRun:
        spec, run_id = self.work.spec, f"{self.work.spec.study}-{trial.trial_id}"
        is_online = spec.tracking.mode == "online"
        if is_online and self.replaces:
            another_id = f"{run_id}-{time.time_ns() // 10**9}"
            self._begin(trial, run_id, group=f"{spec.study}-replaced", config={"replaced_by": another_id}).finish(1)
            run_id = another_id
        # W&B appends a counter to the names of folders of one second.
        leftovers = [] if is_online else list(self.work.folder.glob(f"wandb/offline-run-*-{run_id}*"))
        run = self._begin(trial, run_id, group=spec.study, config=trial_record(self.work, trial))
        if is_online:
            note_address(self.work.folder, run.project_url)
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        num_rows = max(0, run.starting_step - 1)  # a step is an epoch, from 1
        return OpenRun(trial, run, num_rows, leftovers)

    def _begin(self, trial: Trial, run_id: str, group: str, config: dict[str, Any]) -> wandb.Run:
        """A run, gone on with where W&B's service has one of this id."""
        mode = self.work.spec.tracking.mode
        return wandb.init(
            project=self.work.spec.tracking.project,
            id=run_id,
            name=trial.name,
            group=group,
            config=config,
            dir=str(self.work.folder),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=_lean_settings(),
        )

    def _finish(self, opened: OpenRun, end: dict[str, Any] | None) -> None:
        """Closes a run: as one that ended so, or as one that goes on another time. One in trouble replaces nothing."""
        if end:
            opened.run.summary.update({name: end[name] for name in SUMMARY if name in end})
        path = Path(opened.run.settings.sync_file)
        opened.run.finish(exit_code=0 if end else 1)
        if end or (opened.leftovers and opened.trial.name not in self.problems):
            self._written.append(WrittenRun(opened.trial, end, path, opened.leftovers))

    def _settle_all(self) -> None:
        while self._written:
            time.sleep(SETTLE_S / 2)
            self._record_settled()

    def _record_settled(self) -> None:
        """Notes, in their trials' directories, the run files that W&B's service has finished writing."""
        waiting = []
        for written in self._written:
            with self._reporting(written.trial.name):
                if written.has_settled():
                    settle(self.work, written)
                else:
                    waiting.append(written)
        self._written = waiting


def check_login(spec: StudySpec) -> None:
    """Refuses online tracking without a key: W&B would ask for one, and wait, in the middle of the run.

    Raises:
        InputError: neither WANDB_API_KEY nor a netrc entry for the W&B host is there.
    """
    if spec.tracking.mode == "offline" or os.environ.get("WANDB_API_KEY"):
        return
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    if not path.is_file() or not netrc.netrc(path).authenticators(host):
        raise InputError(
            f"tracking.mode: online needs a W&B key for {host}; set WANDB_API_KEY or run wandb login,"
            f" or use tracking.mode: offline"
        )


def _configure_wandb(folder: Path) -> None:
    """Keeps W&B's own files inside the study, and its error reports at home."""
    os.environ.setdefault("WANDB_SILENT", "true")  # what it has to say comes as an error, and is reported
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb" / ".data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "wandb" / ".cache"))


def _lean_settings() -> wandb.Settings:
    return wandb.Settings(**LEAN, x_transaction_log_flush_interval=1.0, init_timeout=ANSWER_S, finish_timeout=ANSWER_S)
