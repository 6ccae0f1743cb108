"""The W&B mirror: one run per trial, written by the driver from the trial's own `metrics.jsonl`.

A mirror never disturbs training. It works in a thread of its own, and everything it shows can be shown again later:
`catch_up` brings one trial's run to where its directory stands, whether called after each epoch or days afterwards.
"""

import json
import os
import queue
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb

from cluster.preparation import Work, trial_record
from study.design import Trial
from trainable.atomic import write_atomically
from trainable.trial_files import read_result, read_rows, to_json

MIRROR_FILE = "mirror.json"


@dataclass
class OpenRun:
    """A W&B run that is being written, and how many rows it holds."""

    run: Any
    num_rows: int = 0


@dataclass
class Mirror:
    """Writes the trials of a study to W&B.

    Attributes:
        problems: what could not be mirrored; training goes on, and the next `canopoint run` catches up.
    """

    work: Work
    problems: list[str] = field(default_factory=list)
    _open: dict[str, OpenRun] = field(default_factory=dict)
    _queue: "queue.SimpleQueue[Trial | None]" = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        _configure_wandb(self.work.folder)
        self._thread = threading.Thread(target=self._serve, name="wandb-mirror", daemon=True)
        self._thread.start()

    def update(self, trial: Trial) -> None:
        """Asks for the trial's new rows to be shown; returns at once."""
        self._queue.put(trial)

    def close(self) -> None:
        """Shows what is still waiting, closes the runs of unfinished trials and ends W&B's service."""
        self._queue.put(None)
        self._thread.join()
        for opened in self._open.values():
            opened.run.finish(exit_code=1)
        wandb.teardown()

    def _serve(self) -> None:
        while (trial := self._queue.get()) is not None:
            try:
                self._catch_up(trial)
            except Exception as error:  # reported at the end, with exit code 3: training must not notice
                self._open.pop(trial.trial_id, None)
                self.problems.append(f"{trial.name}: {type(error).__name__}: {error}")

    def _catch_up(self, trial: Trial) -> None:
        folder = self.work.trial_folder(trial)
        if is_mirrored(self.work, trial):
            return
        if trial.trial_id not in self._open:
            self._open[trial.trial_id] = self._start(trial)
        opened = self._open[trial.trial_id]
        for row in read_rows(folder)[opened.num_rows :]:
            opened.run.log(row, step=int(row["epoch"]))
            opened.num_rows += 1
        result = read_result(folder)
        if result and opened.num_rows == result["epochs"]:
            self._finish(trial, result)

    def _start(self, trial: Trial) -> OpenRun:
        """Opens the trial's run. Offline, what an interrupted driver left of it is replaced as a whole."""
        online = self.work.spec.tracking.mode == "online"
        run_id = f"{self.work.spec.study}-{trial.trial_id}"
        for leftover in [] if online else self.work.folder.glob(f"wandb/offline-run-*-{run_id}"):
            shutil.rmtree(leftover)
        run = wandb.init(
            project=self.work.spec.tracking.project,
            id=run_id,
            name=trial.name,
            group=self.work.spec.study,
            config=trial_record(self.work, trial),
            dir=str(self.work.folder),
            mode="online" if online else "offline",
            resume="allow" if online else None,
            reinit="create_new",
            settings=_lean_settings(),
        )
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        return OpenRun(run, num_rows=max(0, run.step - 1) if online else 0)

    def _finish(self, trial: Trial, result: dict[str, Any]) -> None:
        run = self._open.pop(trial.trial_id).run
        run.summary.update({name: result[name] for name in ("state", "result_sha256", "time_s")})
        folder = Path(run.dir).parent
        run.finish(exit_code=0)
        record = {"run": run.id, "folder": folder.name, "result_sha256": result["result_sha256"]}
        write_atomically(self.work.trial_folder(trial) / MIRROR_FILE, to_json(record))


def is_mirrored(work: Work, trial: Trial) -> bool:
    """Whether the trial's finished run lies whole in the study's W&B folder."""
    path = work.trial_folder(trial) / MIRROR_FILE
    if not path.is_file():
        return False
    record = json.loads(path.read_text())
    result = read_result(work.trial_folder(trial))
    same = bool(result) and result["result_sha256"] == record["result_sha256"]  # type: ignore[index]
    return same and (work.folder / "wandb" / record["folder"]).is_dir()


def _configure_wandb(folder: Path) -> None:
    """Keeps W&B's own files inside the study, and its error reports at home."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb" / ".data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "wandb" / ".cache"))


def _lean_settings() -> wandb.Settings:
    """No console capture, machine statistics or code: the rows and the settings are what a study needs."""
    return wandb.Settings(
        silent=True,
        console="off",
        x_disable_stats=True,
        x_disable_machine_info=True,
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_transaction_log_flush_interval=1.0,
        init_timeout=30,
        finish_timeout=120,
    )
