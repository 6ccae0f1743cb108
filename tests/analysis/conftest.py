"""Real W&B runs for the tests of the readers: written offline, with the settings that the mirror uses."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.wandb_runs import read_run

WriteRun = Callable[..., Path]


@pytest.fixture(scope="module")
def write_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WriteRun]:
    """A function that writes one offline run below `folder/wandb` and returns its run file."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("wandb-home")
        for name in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"WANDB_{name}_DIR", str(home / name.lower()))
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("WANDB_SILENT", "true")
        import wandb  # after the environment: wandb reads it

        yield _write_run
        wandb.teardown()  # ends the service process


def _write_run(
    folder: Path,
    run_id: str,
    rows: Iterable[dict[str, Any]],
    *,
    config: dict[str, Any] | None = None,
    summary: dict[str, Any] | None = None,
    group: str = "demo",
    exit_code: int = 0,
    alter: Callable[[Any], None] | None = None,
) -> Path:
    import wandb

    settings = wandb.Settings(
        console="off",
        x_disable_stats=True,
        x_disable_machine_info=True,
        disable_git=True,
        save_code=False,
        x_transaction_log_flush_interval=1.0,
        init_timeout=30,
        finish_timeout=120,
    )
    run = wandb.init(
        project="canopoint",
        mode="offline",
        reinit="create_new",
        dir=folder,
        id=run_id,
        group=group,
        name=f"name of {run_id}",
        config=config,
        settings=settings,
    )
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    for row in rows:
        run.log(row)
    if alter:
        alter(run)
    run.summary.update(summary or {})
    written = Path(run.settings.sync_file)
    run.finish(exit_code=exit_code)
    # wandb returns from finish() up to some milliseconds before its service has written the file.
    deadline = time.monotonic() + 30
    while read_run(written).exit_code is None and time.monotonic() < deadline:
        time.sleep(0.001)
    return written
