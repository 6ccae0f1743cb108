"""Real W&B runs for the tests of the readers, written offline, and a made study for the tests of the findings."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.find import find
from analysis.findings import Findings
from analysis.reading.history import History
from analysis.reading.run_records import read_run
from analysis.reading.runs import StudyRuns
from analysis.reading.wandb_runs import WandbRun
from trainable.config import TrainConfig

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


@pytest.fixture(scope="session")
def make_config() -> Callable[..., dict[str, Any]]:
    """A function that makes the config of a complete run of three epochs in the study `demo`."""
    return _make_config


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[dict[str, Any]]]:
    """A function that makes a row for each value of val/miou; an epoch takes 2.5 s."""
    return _make_rows


@pytest.fixture(scope="session")
def make_run() -> Callable[..., WandbRun]:
    """A function that makes a complete run as the reader returns it, but for what is given."""
    return _make_run


def _make_config(trial_id: str = "0000000000aa", seed: int = 0, points: int = 10, **changes: Any) -> dict[str, Any]:
    levels = {"points_per_image": points, "learning_rate": 0.001}
    config = {
        "study": "demo",
        "trial_id": trial_id,
        "seed": seed,
        "parameters": levels,
        "roles": {"points_per_image": "scientific", "learning_rate": "nuisance"},
        "training": {**levels, "epochs": 3, "seed": seed, "encoder": "resnet18"},
        "data_config": {"root": "/data"},
        "data": {"fingerprint": "f00d", "num_images": 30},
        "objective": {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
        "trainer_version": "1",
    }
    return config | changes


def _make_rows(*scores: float) -> list[dict[str, Any]]:
    return [
        {"epoch": n, "val/miou": score, "val/loss": 1.0 / n, "time/total_s": 2.5 * n}
        for n, score in enumerate(scores, 1)
    ]


def _make_run(history: Iterable[dict[str, Any]] | None = None, **changes: Any) -> WandbRun:
    run = WandbRun(
        run_id="demo-0000000000aa",
        group="demo",
        name="points_per_image=10 learning_rate=0.001 seed=0",
        config=_make_config(),
        history=History.from_rows(_make_rows(0.1, 0.2, 0.3)),
        summary={"state": "completed"},
        exit_code=0,
        path=Path("run-demo-0000000000aa.wandb"),
        problems=(),
    )
    if history is not None:
        changes["history"] = History.from_rows(history)
    return replace(run, **changes)


Cell = tuple[int, float, float]

# (points, learning rate, gamma) -> val/miou at seeds 0, 1, 2
CELLS: dict[Cell, list[float]] = {
    (10, 0.001, 0.0): [0.60, 0.62, 0.50],
    (10, 0.001, 2.0): [0.58, 0.58, 0.62],
    (10, 0.01, 0.0): [0.40, 0.40, 0.40],
    (10, 0.01, 2.0): [0.40, 0.40, 0.40],
    (50, 0.001, 0.0): [0.70, 0.71, 0.72],
    (50, 0.001, 2.0): [0.65, 0.65, 0.65],
    (50, 0.01, 0.0): [0.45, 0.45, 0.45],
    (50, 0.01, 2.0): [0.45, 0.45, 0.45],
}
NAMES = ("points_per_image", "learning_rate", "focal_gamma")
ROLES = dict(zip(NAMES, ("scientific", "nuisance", "nuisance"), strict=True))


@pytest.fixture
def cells() -> dict[Cell, list[float]]:
    """The values behind `make_study`, to be changed freely."""
    return {cell: list(values) for cell, values in CELLS.items()}


@pytest.fixture
def make_study() -> Callable[..., StudyRuns]:
    """A function that makes a study with one run for every cell and seed but those in `without`; two epochs each."""
    return _make_study


@pytest.fixture
def points_study() -> Callable[..., Findings]:
    """A function that finds what a study of point counts alone shows: {count: values by seed}."""
    return lambda rows, **changes: find(_make_study({(n, 0.001, 0.0): row for n, row in rows.items()}, **changes))


def _make_study(
    cells: dict[Cell, list[float]] = CELLS,
    without: Iterable[tuple[Cell, int]] = (),
    roles: dict[str, str] = ROLES,
    last_gain: float = 0.0,
    confirm: dict[Cell, list[float | None]] | None = None,
    ended: Iterable[tuple[Cell, int, str]] = (),
    **changes: Any,
) -> StudyRuns:
    """A study with one run for every cell and seed but those in `without` and `ended`; two epochs each.

    Args:
        cells: cell -> values of exploration at seeds 0, 1, ...
        without: cells and seeds that no run is of.
        roles: of the factors.
        last_gain: by how much each run improves in its last epoch.
        confirm: cell -> values on the test split at seeds 100, 101, ...; None where there is no run. On the validation
            split each is .05 better.
        ended: cells, seeds and kinds of runs that were stopped early or diverged.
        changes: attributes of the study.
    """
    ended_at = {(cell, seed): state for cell, seed, state in ended}
    readings = [
        ("explore", 0, i, cell, [(value, math.nan) for value in values])
        for i, (cell, values) in enumerate(cells.items())
    ]
    readings += [
        ("confirm", 100, 1000 + i, cell, [None if test is None else (test + 0.05, test) for test in values])
        for i, (cell, values) in enumerate((confirm or {}).items())
    ]
    trials: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    ended_early: list[dict[str, Any]] = []
    training: dict[str, Any] = {}
    for phase, first_seed, i, cell, pairs in readings:
        for seed, pair in enumerate(pairs, first_seed):
            if (cell, seed) in without or pair is None:
                continue
            trial_id = f"{100 * i + seed - first_seed:012x}"
            levels = dict(zip(NAMES, cell, strict=True))
            key = {"run_id": f"demo-{trial_id}", "trial_id": trial_id, "seed": seed, "phase": phase, **levels}
            if (cell, seed) in ended_at:
                ended_early.append({**key, "state": ended_at[cell, seed], "time_s": 1.0})
                continue
            value, test = pair
            trials.append({**key, "objective": value, "test": test, "time_s": 5.0})
            epochs += [{**key, "epoch": 2 - back, "val/miou": value - back * last_gain} for back in (1, 0)]
            training[trial_id] = TrainConfig(
                **levels, seed=seed, epochs=2, evaluate_test=phase == "confirm"
            ).to_mapping()
    settings: dict[str, Any] = {
        "study": "demo",
        "parameters": roles,
        "objective": {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
        "data": {"source": "/data/forest", "floors": {"all_forest": {"val/miou": 0.3, "test/miou": 0.28}}},
        "data_config": {"root": "/data/forest"},
        "epochs": pd.DataFrame(epochs),
        "trials": pd.DataFrame(trials),
        "training": training,
        "excluded": [],
        "ended_early": pd.DataFrame(ended_early),
    }
    return StudyRuns(**{**settings, **changes})
