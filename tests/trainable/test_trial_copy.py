"""Trials and packed images in an object store, by its real protocol: moto's S3 server on loopback."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.s3_server import S3Server, s3_server
from trainable import checkpoint
from trainable.atomic import sole_user
from trainable.config import InputError, TrainConfig
from trainable.object_store import ObjectStore
from trainable.sealed import DamagedError, write_sealed
from trainable.store import Store, open_store
from trainable.trial import run_trial
from trainable.trial_copy import TrialCopy, fetch_store, push_store
from trainable.trial_files import RESULT, ROWS, read_result, read_rows
from trainable.tune_trainable import Trainable

SameResult = Callable[[Path, Path], None]


class Cut(BaseException):
    """Stands for the end of a process."""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as started:
        yield started


@pytest.fixture(autouse=True)
def cache(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where this node keeps its copies."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CANOPOINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))
    yield tmp_path / "cache"
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    server.clear()


@pytest.fixture
def url(server: S3Server) -> str:
    return f"s3://{server.bucket}/p/study/trials/0123456789ab"


def set_out(folder: Path, copy: TrialCopy) -> None:
    """Brings the scratch folder to where another stands, as training would have."""
    for path in copy.folder.glob("[!.]*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(folder, copy.folder, dirs_exist_ok=True)


def push_state(folder: Path, url: str) -> None:
    with TrialCopy(url) as copy:
        copy.pull()
        set_out(folder, copy)
        copy.push()


def finish(config: TrainConfig, store: Store, url: str, folder: Path) -> None:
    """Goes on as a worker does, and keeps what it has in the end."""
    with TrialCopy(url) as copy:
        copy.pull()
        for _ in run_trial(config, store, copy.folder):
            copy.push()
        copy.push()
    with TrialCopy(url) as copy:
        copy.pull()
        shutil.copytree(copy.folder, folder)


def names_of(server: S3Server) -> list[str]:
    return [key.rpartition("0123456789ab/")[2] for key in server.names("p/study/trials/")]


def test_a_trial_comes_back_as_it_was_pushed_and_its_scratch_folder_goes(
    server: S3Server, url: str, stopped: dict[int, Path], cache: Path
) -> None:
    push_state(stopped[2], url)
    assert not [*(cache / "running").iterdir()]
    expected = {path.relative_to(stopped[2]).as_posix(): path.read_bytes() for path in files(stopped[2])}
    assert names_of(server) == sorted(expected)
    with TrialCopy(url) as copy:
        (copy.folder / "stale.json").write_text("of another attempt")
        copy.pull()
        assert {path.relative_to(copy.folder).as_posix(): path.read_bytes() for path in files(copy.folder)} == expected
        started = len(server.requests)
        copy.push()
        assert len(server.requests) == started  # nothing has changed


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]


def test_only_one_checkpoint_stays_and_the_result_comes_last(
    server: S3Server, url: str, stopped: dict[int, Path]
) -> None:
    for epoch in (1, 2, 3):
        push_state(stopped[epoch], url)
    assert len([name for name in names_of(server) if name.startswith("checkpoint/")]) == 1
    written = [path.rpartition("0123456789ab/")[2] for method, path in server.requests if method == "PUT"]
    assert written[-1] == RESULT
    kinds = [name.partition("/")[0] for name in written[-5:-1]]
    assert kinds == ["metrics.jsonl", "counts.npz", "checkpoint", "attempts.jsonl"]


def test_a_worker_given_up_for_lost_takes_nothing_newer_away(
    server: S3Server, url: str, stopped: dict[int, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_state(stopped[1], url)
    with TrialCopy(url) as lost:
        lost.pull()
        set_out(stopped[2], lost)
        monkeypatch.setenv("CANOPOINT_CACHE", str(cache / "another-node"))
        push_state(stopped[3], url)
        lost.push()
    with TrialCopy(url) as copy:
        copy.pull()
        found = checkpoint.load_latest(copy.folder / "checkpoint")
    assert found is not None
    assert found[0] == 3


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_push_cut_between_any_two_objects_leaves_a_trial_that_is_repaired(
    server: S3Server,
    url: str,
    config: TrainConfig,
    store: Store,
    stopped: dict[int, Path],
    folder: Path,
    assert_same_result: SameResult,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
) -> None:
    for num_done in range(20):
        server.clear()
        if epoch > 1:
            push_state(stopped[epoch - 1], url)
        cut_after(monkeypatch, num_done)
        try:
            push_state(stopped[epoch], url)
            break
        except Cut:
            monkeypatch.undo()
            _environment(server, monkeypatch, folder.parent / "cache")
        finish(config, store, url, folder)
        assert_same_result(folder, stopped[3])
        shutil.rmtree(folder)
    assert num_done >= 5 if epoch == 1 else 6


def _environment(server: S3Server, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    for name, value in {**server.environment, "CANOPOINT_CACHE": str(cache)}.items():
        monkeypatch.setenv(name, value)


def cut_after(monkeypatch: pytest.MonkeyPatch, num_done: int) -> None:
    """Ends the next push after so many objects were written or removed."""
    left = [num_done]

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def changed(self: ObjectStore, *arguments: Any) -> Any:
            if not left[0]:
                raise Cut
            left[0] -= 1
            return method(self, *arguments)

        return changed

    for name in ("upload", "write", "delete"):
        monkeypatch.setattr(ObjectStore, name, counted(getattr(ObjectStore, name)))


@pytest.mark.slow
def test_a_result_whose_files_are_damaged_is_gone_before_they_are_mended(
    server: S3Server, url: str, config: TrainConfig, store: Store, stopped: dict[int, Path], folder: Path,
    assert_same_result: SameResult,
) -> None:  # fmt: skip
    push_state(stopped[3], url)
    (state,) = (name for name in names_of(server) if name.startswith("checkpoint/"))
    key = f"p/study/trials/0123456789ab/{state}"
    server.put(key, server.get(key)[:-1] + b"x")
    server.put(f"p/study/trials/0123456789ab/{ROWS}", b"damaged")
    started = len(server.requests)
    finish(config, store, url, folder)
    changes = [
        (method, path.rpartition("/")[2]) for method, path in server.requests[started:] if method in ("PUT", "DELETE")
    ]
    assert changes[0] == ("DELETE", RESULT)
    assert changes[-1] == ("PUT", RESULT)
    assert not any(name == state for name in names_of(server))
    shutil.rmtree(folder / "checkpoint" / f"{Path(state).name}.damaged", ignore_errors=True)
    assert_same_result(folder, stopped[3])


def test_two_processes_of_a_node_do_not_train_the_same_trial(url: str) -> None:
    with TrialCopy(url), pytest.raises(InputError, match="is working here"):
        TrialCopy(url)


def test_what_killed_workers_left_goes_when_the_next_trial_starts(url: str, cache: Path) -> None:
    left, young, held = (cache / "running" / name for name in ("left", "young", "held"))
    for path in (left, young, held):
        path.mkdir(parents=True)
        (path / ROWS).write_text("{}")
    with sole_user(held):
        for path in (left, held):
            set_age(path, 100.0)
        with TrialCopy(url) as copy:
            assert {*(cache / "running").iterdir()} == {young, held, copy.folder}


def set_age(path: Path, age_s: float) -> None:
    os.utime(path, (time.time() - age_s,) * 2)


def test_a_name_that_leads_out_is_never_written(server: S3Server, url: str, cache: Path) -> None:
    server.put("p/study/trials/0123456789ab/../../../../evil", b"evil")
    with TrialCopy(url) as copy, pytest.raises(InputError, match="could lead out of a folder"):
        copy.pull()
    assert not [*cache.parent.rglob("*evil*")]


def test_a_packed_store_is_put_once_and_fetched_once(server: S3Server, store_folder: Path, cache: Path) -> None:
    url = f"s3://{server.bucket}/p/.cache/{store_folder.name}"
    said: list[str] = []
    with pytest.raises(DamagedError, match="holds no whole store"):
        fetch_store(url)
    push_store(store_folder, url, said.append)
    assert [key.rpartition("/")[2] for key in server.names("p/.cache")] == [
        "checksums.json", "images.npy", "masks.npy", "store.json",
    ]  # fmt: skip
    puts = [path.rpartition("/")[2] for method, path in server.requests if method == "PUT" and "/.cache/" in path]
    assert puts[-1] == "checksums.json"
    push_store(store_folder, url, said.append)
    assert len([1 for method, path in server.requests if method == "PUT" and "/.cache/" in path]) == len(puts)
    assert said == [f"putting the packed images into {url}"]
    fetched = fetch_store(url)
    started = len(server.requests)
    assert fetch_store(url) == fetched
    fetch_store.cache_clear()
    assert fetch_store(url) == fetched  # another worker of the node
    assert len(server.requests) == started
    assert fetched.is_relative_to(cache)
    assert {path.name: path.read_bytes() for path in files(fetched)} == {
        path.name: path.read_bytes() for path in files(store_folder)
    }
    assert (open_store(fetched).images == open_store(store_folder).images).all()


def test_a_damaged_or_hostile_store_is_refused(
    server: S3Server, store_folder: Path, cache: Path, tmp_path: Path
) -> None:
    url = f"s3://{server.bucket}/p/.cache/{store_folder.name}"
    fetch_store.cache_clear()
    push_store(store_folder, url, print)
    key = f"p/.cache/{store_folder.name}/masks.npy"
    server.put(key, server.get(key)[:-1] + b"x")
    with pytest.raises(DamagedError, match=r"masks\.npy: another checksum"):
        fetch_store(url)
    write_sealed(tmp_path / "checksums.json", {"files": {"../../../evil": "0"}})
    server.put(f"p/.cache/{store_folder.name}/checksums.json", (tmp_path / "checksums.json").read_bytes())
    with pytest.raises(InputError, match="no name that an object of ours can have"):
        fetch_store(url)
    assert not [*cache.glob("*/.cache/*")]


@pytest.mark.slow
def test_an_actor_trains_trials_of_an_object_store_one_after_the_other(
    server: S3Server, url: str, config: TrainConfig, store_folder: Path, stopped: dict[int, Path], cache: Path,
    folder: Path, assert_same_result: SameResult,
) -> None:  # fmt: skip
    fetch_store.cache_clear()
    store_url = f"s3://{server.bucket}/p/.cache/{store_folder.name}"
    push_store(store_folder, store_url, print)

    def as_trial(settings: TrainConfig, place: str) -> dict[str, Any]:
        return {"trial": {"training": settings.to_mapping(), "store": store_url, "folder": place}}

    other_url = f"s3://{server.bucket}/p/study/trials/another"
    actor: Any = Trainable(config=as_trial(config, url))
    assert actor.train()["done"] is False
    assert {"config.json", "metrics.jsonl", "counts.npz", "attempts.jsonl"} < {*names_of(server)}
    assert actor.reset(as_trial(replace(config, seed=1, epochs=1), other_url))
    assert [
        path.name.startswith(f"{server.bucket}-p-study-trials-another") for path in (cache / "running").iterdir()
    ] == [True]
    assert actor.train()["done"] is True
    assert not [*(cache / "running").iterdir()]
    assert actor.reset(as_trial(config, url))
    assert [actor.train()["done"] for _ in range(2)] == [False, True]
    actor.stop()
    assert not [*(cache / "running").iterdir()]
    with TrialCopy(url) as copy:
        copy.pull()
        shutil.copytree(copy.folder, folder)
    assert_same_result(folder, stopped[3])
    assert len(read_rows(folder)) == 3
    assert read_result(folder)
