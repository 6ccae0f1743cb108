"""A study in an object store and its local copy: moto's S3 server on loopback."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.processes import wait_for
from bench.s3_server import S3Server, s3_server
from cluster import remote_study
from cluster.lease import LEASE_FILE, Lease, LeaseLostError
from cluster.remote_study import RemoteStudy, find_remote
from trainable.atomic import sole_user
from trainable.config import InputError
from trainable.object_store import ObjectStore, StoreError

STUDY = {
    "study.yaml": b"study: tiny\n",
    "ledger.jsonl": b"one\n",
    "trials.json": b"{}",
    "trials/abc/config.json": b"{}",
    "trials/abc/metrics.jsonl": b"1\n",
    "trials/abc/mirror.json": b"{}",
    "wandb/offline-run-20261123_043027-tiny-abc/run-tiny-abc.wandb": b":W&B",
    "analysis/figures/a.png": b"png",
}
LEFT_THERE = {"trials/abc/checkpoint/state-000001-0.npz": b"large", "notes/mine.txt": b"of somebody else"}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as started:
        yield started


@pytest.fixture(autouse=True)
def cache(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CANOPOINT_CACHE", str(tmp_path / "cache"))
    server.clear()
    for name, content in {**STUDY, **LEFT_THERE}.items():
        server.put(f"p/tiny/{name}", content)
    return tmp_path / "cache"


@pytest.fixture
def url(server: S3Server) -> str:
    return f"s3://{server.bucket}/p/tiny"


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def gets(server: S3Server) -> list[str]:
    """Names of the objects that were fetched."""
    return [path.partition("/p/tiny/")[2] for method, path in server.requests if method == "GET" and "?" not in path]


def puts(server: S3Server) -> list[str]:
    names = [path.partition("/p/tiny/")[2] for method, path in server.requests if method == "PUT"]
    return [name for name in names if name[0] != "." and name != LEASE_FILE]


def test_all_but_checkpoints_is_pulled_and_once(server: S3Server, url: str, cache: Path) -> None:
    study = RemoteStudy(url)
    study.pull()
    assert study.folder.is_relative_to(cache)
    assert contents(study.folder) == STUDY
    server.requests.clear()
    RemoteStudy(url).pull()
    assert gets(server) == []
    server.put("p/tiny/ledger.jsonl", b"one\ntwo\n")
    (study.folder / "trials.json").write_bytes(b"changed by hand")
    (study.folder / "trials/abc/config.json").unlink()
    RemoteStudy(url).pull()
    assert sorted(gets(server)) == ["ledger.jsonl", "trials.json", "trials/abc/config.json"]
    assert contents(study.folder) == {**STUDY, "ledger.jsonl": b"one\ntwo\n"}


def test_what_is_gone_in_the_store_goes_here(server: S3Server, url: str) -> None:
    study = RemoteStudy(url)
    study.pull()
    (study.folder / "trials/abc/result.json").write_bytes(b"of nobody")
    (study.folder / ".pulled.json").write_text("damaged")
    shutil.rmtree(study.folder / "analysis")
    study.pull()
    assert contents(study.folder) == STUDY


def test_a_name_that_leads_out_is_refused_and_nothing_is_written(server: S3Server, url: str, cache: Path) -> None:
    server.put("p/tiny/analysis/../../../../../evil", b"evil")
    with pytest.raises(InputError, match="could lead out of a folder"):
        RemoteStudy(url).pull()
    assert contents(cache) == {}
    assert not [*cache.parent.rglob("*evil*")]


def test_a_driver_pushes_what_is_its_own_and_what_has_changed(server: S3Server, url: str) -> None:
    study = RemoteStudy(url)
    study.folder.mkdir(parents=True)
    with sole_user(study.folder), study.held(print):
        server.requests.clear()
        (study.folder / "ledger.jsonl").write_bytes(b"one\ntwo\nhal")
        wait_for(lambda: server.get("p/tiny/ledger.jsonl") == b"one\ntwo\n", 5, "the ledger, up to its last whole line")
        (study.folder / "data.json").write_bytes(b"new")
        (study.folder / "trials/abc/result.json").write_bytes(b"as the worker pushed it")
        (study.folder / "wandb/offline-run-2").mkdir()
        shutil.rmtree(study.folder / "wandb/offline-run-20261123_043027-tiny-abc")
        (study.folder / "wandb/latest-run").symlink_to("offline-run-2")
        (study.folder / "wandb/offline-run-2/run-x.wandb").write_bytes(b"rows")
        (study.folder / "wandb/offline-run-2/debug.log").write_bytes(b"not needed")
        assert f"p/tiny/{LEASE_FILE}" in server.names()
    assert sorted(puts(server)) == ["data.json", "ledger.jsonl", "wandb/offline-run-2/run-x.wandb"]
    expected = {*STUDY, *LEFT_THERE, "data.json", "wandb/offline-run-2/run-x.wandb"}
    gone = {"wandb/offline-run-20261123_043027-tiny-abc/run-tiny-abc.wandb"}
    assert set(server.names()) == {f"p/tiny/{name}" for name in expected - gone}
    server.requests.clear()
    RemoteStudy(url).pull()
    assert gets(server) == []  # what was pushed here is known


def test_trials_come_when_they_are_asked_for(server: S3Server, url: str) -> None:
    study = RemoteStudy(url)
    study.pull()
    server.put("p/tiny/trials/abc/metrics.jsonl", b"1\n2\n")
    server.put("p/tiny/trials/abc/result.json", b"{}")
    server.put("p/tiny/trials/abc/mirror.json", b"older than ours")
    study.pull_rows("abc")
    study.pull_rows("none")
    expected = {**STUDY, "trials/abc/metrics.jsonl": b"1\n2\n"}
    assert contents(study.folder) == expected
    study.pull_trial("abc")
    assert contents(study.folder) == {**expected, "trials/abc/result.json": b"{}"}
    server.put("p/tiny/trials/abc/../../../evil", b"evil")
    with pytest.raises(InputError, match="could lead out of a folder"):
        study.pull_trial("abc")


def test_a_reader_leaves_the_copy_of_a_driver_alone(server: S3Server, url: str) -> None:
    study = RemoteStudy(url)
    study.pull()
    with sole_user(study.folder):
        (study.folder / "ledger.jsonl").write_bytes(b"ahead of the store\n")
        assert found(url) == study.folder
    assert (study.folder / "ledger.jsonl").read_bytes() == b"ahead of the store\n"
    find_remote(url)
    assert (study.folder / "ledger.jsonl").read_bytes() == b"one\n"


def test_a_driver_that_has_lost_its_lease_knows_and_pushes_no_more(server: S3Server, url: str) -> None:
    study = RemoteStudy(url)
    study.folder.mkdir(parents=True)
    with pytest.raises(LeaseLostError), sole_user(study.folder), study.held(print):  # noqa: PT012
        server.age(f"p/tiny/{LEASE_FILE}", 61)
        other = Lease(ObjectStore(url))
        other.take(print)
        study._lease._renewed -= 60  # as after a sleep of the machine
        (study.folder / "data.json").write_bytes(b"too late")
        wait_for(lambda: bool(study.trouble), 10, "the loss to be noticed")
        assert "another driver has taken over" in study.trouble
    assert "p/tiny/data.json" not in server.names()
    other.renew()


@pytest.mark.slow
def test_a_driver_outlasts_a_store_that_is_away(server: S3Server, url: str) -> None:
    study = RemoteStudy(url)
    study.folder.mkdir(parents=True)
    with sole_user(study.folder), study.held(print):
        with server.away():
            study._lease._renewed -= 20  # due
            (study.folder / "ledger.jsonl").write_bytes(b"one\ntwo\n")
            time.sleep(3)
        wait_for(lambda: server.get("p/tiny/ledger.jsonl") == b"one\ntwo\n", 30, "the ledger")
        assert study.trouble == ""
        study._store = ObjectStore(url, 1.0)
        with server.away(), pytest.raises(StoreError, match="no good answer from"):
            study.pull_trial("abc")


def test_an_interrupted_driver_pushes_and_gives_the_lease_back(server: S3Server, url: str) -> None:
    study = RemoteStudy(url)
    study.folder.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt), sole_user(study.folder), study.held(print):  # noqa: PT012
        (study.folder / "data.json").write_bytes(b"in time")
        raise KeyboardInterrupt
    assert server.get("p/tiny/data.json") == b"in time"
    assert f"p/tiny/{LEASE_FILE}" not in server.names()


def test_a_driver_that_the_store_ended_pushes_what_it_can(server: S3Server, url: str) -> None:
    study = RemoteStudy(url)
    study.folder.mkdir(parents=True)
    with pytest.raises(StoreError, match="of a worker"), sole_user(study.folder), study.held(print):  # noqa: PT012
        (study.folder / "ledger.jsonl").write_bytes(b"one\nended\n")
        raise StoreError("of a worker")
    assert server.get("p/tiny/ledger.jsonl") == b"one\nended\n"
    assert f"p/tiny/{LEASE_FILE}" not in server.names()


def renewals(server: S3Server) -> int:
    return server.requests.count(("PUT", f"/{server.bucket}/p/tiny/{LEASE_FILE}"))


def test_the_lease_is_renewed_during_the_first_pull(
    server: S3Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_study, "RENEW_AFTER_S", 0.1)
    study = RemoteStudy(url)
    study.folder.mkdir(parents=True)

    def work() -> None:
        with sole_user(study.folder), study.held(print):
            pass

    driver = threading.Thread(target=work)
    with RemoteStudy(url)._pulling():  # the driver has to wait for it, as for a store of many trials
        driver.start()
        wait_for(lambda: renewals(server) >= 3, 10, "two renewals")
        assert not (study.folder / "study.yaml").exists()
    driver.join()
    assert contents(study.folder) == STUDY


def test_the_lease_is_renewed_between_the_files_of_the_last_push(
    server: S3Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = RemoteStudy(url)
    study.folder.mkdir(parents=True)
    with sole_user(study.folder), study.held(print):
        for name in ("a.json", "b.json", "c.json"):
            (study.folder / name).write_bytes(b"{}")
        monkeypatch.setattr(remote_study, "RENEW_AFTER_S", 0.0)
        server.requests.clear()
    put = [path.rpartition("/")[2] for method, path in server.requests if method == "PUT"]
    told = [name for name, after in zip(put, [*put[1:], ""], strict=True) if name != after]  # renewals in a row as one
    assert told[:6] == [LEASE_FILE, "a.json", LEASE_FILE, "b.json", LEASE_FILE, "c.json"]


def test_who_is_at_work_is_known_to_readers(url: str) -> None:
    study, reader = RemoteStudy(url), RemoteStudy(url)
    assert reader.find_driver() == (False, None)
    study.folder.mkdir(parents=True)
    with sole_user(study.folder), study.held(print):
        assert reader.find_driver()[0]
        with pytest.raises(InputError, match="is working here"):
            reader.check(print)
    reader.check(print)


def found(url: str) -> Path:
    remote = find_remote(url)
    assert remote
    return remote.folder


def test_an_analysis_is_pushed(server: S3Server, url: str) -> None:
    folder = found(url)
    (folder / "analysis/report.md").write_bytes(b"found")
    (folder / "trials.json").write_bytes(b"not of the analysis")
    RemoteStudy(url).push_analysis()
    assert server.get("p/tiny/analysis/report.md") == b"found"
    assert server.get("p/tiny/trials.json") == b"{}"


def test_a_url_without_a_study_is_refused(server: S3Server, url: str) -> None:
    with pytest.raises(InputError, match=r"s3://.*/none: holds no study"):
        find_remote(f"{url}/none")
    with pytest.raises(InputError, match="names a bucket alone"):
        find_remote("s3://bucket/")
    assert find_remote("studies/demo") is None


def test_nothing_outside_the_study_is_asked_for(server: S3Server, url: str) -> None:
    study = RemoteStudy(url)
    study.check(print)
    study.pull()
    with sole_user(study.folder), study.held(print):
        pass
    outside = [path for _, path in server.requests if "/p/tiny/" not in path and "prefix=p/tiny/" not in path]
    assert outside == []
