"""A folder's runs are read once: from then on only what is new or has grown."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.reading import run_folder
from analysis.reading.run_cache import RunCache
from analysis.reading.run_folder import read_runs
from analysis.reading.runs import load_study
from trainable.config import InputError

MakeConfig = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def base(
    write_run: Callable[..., Path],
    make_config: MakeConfig,
    make_rows: Callable[..., list[dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    study = tmp_path_factory.mktemp("folder") / "demo"
    study.mkdir()
    for number in range(3):
        trial = f"{number:012x}"
        write_run(study, f"demo-{trial}", make_rows(0.1, 0.2, 0.5 + number / 10), config=make_config(trial, number))
    return study


@pytest.fixture
def study_dir(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "demo", symlinks=True))


@pytest.fixture
def was_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read, rather than taken from the cache."""
    found: list[str] = []
    read_files = run_folder.read_files

    def noting(folder: Path, files: Any) -> Any:
        found.extend(key for key, _ in files)
        return read_files(folder, files)

    monkeypatch.setattr(run_folder, "read_files", noting)
    return found


def last_scores(study_dir: Path) -> list[float]:
    cache = RunCache(study_dir / "cache")
    return [float(run.history.values("val/miou")[-1]) for run in read_runs(study_dir / "wandb", cache)]


def test_only_what_is_new_or_has_changed_is_read_again(study_dir: Path, was_read: list[str]) -> None:
    paths = sorted((study_dir / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.name)
    away = study_dir / "away"
    paths[2].parent.rename(away)
    assert last_scores(study_dir) == [0.5, 0.6]
    assert len(was_read) == 2
    was_read.clear()
    assert last_scores(study_dir) == [0.5, 0.6]
    assert was_read == []
    away.rename(paths[2].parent)
    torn = paths[0].read_bytes()[:-5]
    paths[0].write_bytes(torn)
    assert last_scores(study_dir) == [0.5, 0.6, 0.7]
    assert [Path(key).name for key in was_read] == [paths[0].name, paths[2].name]
    shutil.rmtree(paths[1].parent)
    assert last_scores(study_dir) == [0.5, 0.7]


def test_what_changed_behind_an_old_time_and_what_another_reader_read_is_read_again(
    study_dir: Path, was_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    last_scores(study_dir)
    path = sorted((study_dir / "wandb").glob("offline-run-*/*.wandb"))[0]
    status = path.stat()
    was_read.clear()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    last_scores(study_dir)
    assert [Path(key).name for key in was_read] == [path.name]
    was_read.clear()
    monkeypatch.setattr(run_folder, "READER", "another")
    last_scores(study_dir)
    assert len(was_read) == 3


def test_several_processes_read_the_same(study_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = [(run.run_id, run.path, run.history.rows()) for run in read_runs(study_dir / "wandb")]
    monkeypatch.setattr(run_folder, "WORTH_PROCESSES", 2)
    monkeypatch.setattr(run_folder, "CHUNK", 1)
    assert [(run.run_id, run.path, run.history.rows()) for run in read_runs(study_dir / "wandb")] == one


def test_what_a_process_refuses_is_said_by_this_one(study_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next((study_dir / "wandb").glob("offline-run-*/*.wandb"))
    path.write_bytes(b"no run file")
    monkeypatch.setattr(run_folder, "WORTH_PROCESSES", 2)
    with pytest.raises(InputError, match=rf"{path.name}: not a W&B run file"):
        read_runs(study_dir / "wandb")


def test_damage_that_shows_late_does_not_end_the_analysis(study_dir: Path, was_read: list[str]) -> None:
    before = load_study(study_dir).trials["objective"].tolist()
    (path,) = (study_dir / "analysis" / ".cache").glob("*.parquet")
    content = bytearray(path.read_bytes())
    content[-len(content) // 2] ^= 1
    path.write_bytes(content)
    was_read.clear()
    study = load_study(study_dir)
    assert study.trials["objective"].tolist() == before
    assert len(study.epochs) == 9


def test_curves_are_the_epochs_of_some_runs_and_metrics(study_dir: Path) -> None:
    lazy = load_study(study_dir)
    ids = lazy.trials["run_id"].tolist()
    found = lazy.curves(["val/miou", "nowhere"], ids[1:])
    assert list(found) == ["run_id", "epoch", "val/miou"]
    assert found["run_id"].tolist() == [ids[1]] * 3 + [ids[2]] * 3
    assert found["val/miou"].tolist() == [0.1, 0.2, 0.6, 0.1, 0.2, 0.7]
    whole = lazy.epochs  # from now on a table, as in studies that are made by hand
    assert len(whole) == 9
    again = lazy.curves(["val/miou", "nowhere"], ids[1:])
    assert again.reset_index(drop=True).to_dict("list") == found.to_dict("list")


def test_a_name_that_is_no_text_is_refused(study_dir: Path) -> None:
    odd = study_dir / "wandb" / "offline-run-x-\udcff"
    odd.mkdir()
    (odd / "run-x.wandb").write_bytes(b"")
    with pytest.raises(InputError, match=r"a name must be UTF-8; rename it"):
        read_runs(study_dir / "wandb")
