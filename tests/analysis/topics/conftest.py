"""A made study of any factors, for the tests of the topics."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from analysis.reading.runs import StudyRuns
from analysis.reading.scene_counts import FILES, pooled_metric
from trainable.sealed import write_sealed

Make = Callable[..., StudyRuns]


@pytest.fixture
def make_runs() -> Make:
    """A function that makes a study of any factors."""
    return _make_runs


@pytest.fixture
def make_scenes(tmp_path: Path) -> Make:
    """A function that makes a study of points per image with counts of every scene in its folder."""
    return lambda counts, **changes: _make_scenes(tmp_path, counts, **changes)


def _make_runs(
    roles: Mapping[str, str],
    cells: Mapping[tuple[Any, ...], list[float | None]],
    confirm: Mapping[tuple[Any, ...], list[float | None]] | None = None,
    *,
    gap: float = 0.05,
    curve: Callable[[float], list[float]] = lambda value: [value / 2, value],
    more: Callable[[dict[str, Any], float], dict[str, float]] = lambda levels, value: {},
    ended: Mapping[tuple[Any, ...], list[str]] | None = None,
    training: Mapping[str, Any] | None = None,
    **changes: Any,
) -> StudyRuns:
    """One run for every cell and value.

    Args:
        roles: name -> role.
        cells: levels -> readings of exploration at seeds 0, 1, ...; None where there is no run.
        confirm: levels -> readings on the test split at seeds 100, 101, ...; on validation each reads `gap` more.
        gap: see there.
        curve: from a reading to the objective at every epoch.
        more: from levels and reading to further metrics of every epoch.
        ended: levels -> how further runs ended, at seeds 0, 1, ...
        training: further settings of every run.
        changes: attributes of the study.
    """
    trials: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    settings: dict[str, dict[str, Any]] = {}
    for phase, first, table in (("explore", 0, cells), ("confirm", 100, confirm or {})):
        for levels, values in table.items():
            named = dict(zip(roles, levels, strict=True))
            for seed, value in enumerate(values, first):
                if value is None:
                    continue
                trial_id = f"{len(trials):012x}"
                key = {"run_id": f"demo-{trial_id}", "trial_id": trial_id, "seed": seed, "phase": phase, **named}
                read = value + gap if phase == "confirm" else value
                test = value if phase == "confirm" else math.nan
                trials.append({**key, "objective": read, "test": test, "time_s": 5.0})
                epochs += [
                    {**key, "epoch": epoch, "val/miou": each, **more(named, value)}
                    for epoch, each in enumerate(curve(read), 1)
                ]
                settings[trial_id] = {**named, "seed": seed, **(training or {})}
    early = [
        {
            "run_id": f"demo-e{number}-{seed}",
            "trial_id": f"e{number:010x}{seed}",
            "seed": seed,
            "phase": "explore",
            **dict(zip(roles, levels, strict=True)),
            "state": state,
            "time_s": 1.0,
        }
        for number, (levels, states) in enumerate((ended or {}).items())
        for seed, state in enumerate(states)
    ]
    attributes: dict[str, Any] = {
        "study": "demo",
        "parameters": dict(roles),
        "objective": {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
        "data": {"source": "/data", "splits": {"train": {"num_images": 100}}, "floors": {}},
        "data_config": {"root": "/data"},
        "epochs": pd.DataFrame(epochs),
        "trials": pd.DataFrame(trials),
        "training": settings,
        "excluded": [],
        "ended_early": pd.DataFrame(early),
    }
    return StudyRuns(**{**attributes, **changes})


def _make_scenes(
    folder: Path, counts: Mapping[int, NDArray[np.float64]], *, split: str = "val", shift: float = 0.0, **changes: Any
) -> StudyRuns:
    """Readings are those of the counts, plus `shift`.

    Args:
        folder: the study's.
        counts: points -> (num_seeds, num_scenes, 2, 2), one image a scene.
        split: test for readings of confirmation.
        shift: see there.
        changes: of the study.
    """
    readings = {
        (points,): (pooled_metric(each.sum(axis=1), "miou") + shift).tolist() for points, each in counts.items()
    }
    roles = {"points_per_image": "scientific"}
    names = [f"{scene}.png" for scene in range(next(iter(counts.values())).shape[1])]
    confirm = readings if split == "test" else {}
    runs = _make_runs(roles, readings, confirm, study_dir=folder, **changes)
    write_sealed(folder / "scenes.json", {split: {name: f"scene{name[:-4]}" for name in names}})
    read = runs.trials[runs.trials["phase"] == ("confirm" if split == "test" else "explore")]
    for trial_id, each in zip(read["trial_id"], np.concatenate(list(counts.values())), strict=True):
        (folder / "trials" / trial_id).mkdir(parents=True)
        np.savez_compressed(folder / "trials" / trial_id / FILES[split], names=np.array(names), confusion=each)
    return runs
