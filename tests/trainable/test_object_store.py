"""Object stores by their real protocol: moto's S3 server on loopback."""

import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.s3_server import S3Server, s3_server
from trainable import object_store
from trainable.config import InputError
from trainable.object_store import ObjectStore, StoreError, as_bad_input
from trainable.storage_url import check_storage, working_copy

ANSWER_S = 15.0


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as started:
        yield started


@pytest.fixture(autouse=True)
def _environment(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CANOPOINT_CACHE", str(tmp_path / "cache"))


def forget_clients() -> None:
    """Clients are kept for the process, and keep what the environment said when they were made."""
    object_store._file_system.cache_clear()


@pytest.fixture
def store(server: S3Server, request: pytest.FixtureRequest) -> ObjectStore:
    return ObjectStore(f"s3://{server.bucket}/{abs(hash(request.node.name))}/studies", 0.0)


def test_objects_are_written_read_listed_and_removed(store: ObjectStore, tmp_path: Path) -> None:
    assert store.list() == {}
    assert store.read("none.json") is None
    store.write("a/result.json", b"one")
    (tmp_path / "large").write_bytes(os.urandom(2**20))
    store.upload(tmp_path / "large", "a/large.npz")
    assert {name: entry.size for name, entry in store.list().items()} == {"a/result.json": 3, "a/large.npz": 2**20}
    assert store.list("a").keys() == store.list().keys()
    assert store.read_many(["a/result.json", "none"]) == {"a/result.json": b"one"}
    assert store.download("a/large.npz", tmp_path / "new" / "large")
    assert (tmp_path / "new" / "large").read_bytes() == (tmp_path / "large").read_bytes()
    assert not store.download("none", tmp_path / "new" / "none")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["large"]
    before = store.tag("a/result.json")
    store.write("a/result.json", b"two")
    assert store.tag("a/result.json") != before != store.tag("none") == ""
    store.delete("a/result.json")
    store.delete("a/result.json")
    assert [*store.list()] == ["a/large.npz"]


def test_an_object_is_made_once_and_changed_by_who_knows_it(store: ObjectStore) -> None:
    assert store.create("lease", b"mine")
    assert not store.create("lease", b"yours")
    tag = store.tag("lease")
    assert store.swap("lease", b"mine still", tag)
    assert not store.swap("lease", b"yours", tag)
    assert not store.swap("gone", b"yours", tag)
    assert store.read("lease") == b"mine still"


def test_the_clock_is_the_servers_and_leaves_nothing(store: ObjectStore) -> None:
    assert store.clock() == pytest.approx(time.time(), abs=2)
    store.write("a", b"")
    assert store.modified("a") == pytest.approx(time.time(), abs=2)
    assert store.modified("none") == 0
    assert [*store.list()] == ["a"]


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "a//evil", "./evil", "a/", "a\nb", "a\\b", "n" * 256]
)
def test_a_name_that_leads_out_is_refused_whoever_gives_it(server: S3Server, store: ObjectStore, name: str) -> None:
    prefix = store.url.partition(f"{server.bucket}/")[2]
    with pytest.raises(InputError, match="no name"):
        store.write(name, b"")
    with pytest.raises(InputError, match="no name"):
        store.read(name)
    store.write("good", b"")
    server.put(f"{prefix}/{name}", b"evil")
    if name == "a/":  # what consoles leave where they make a folder
        assert [*store.list()] == ["good"]
        return
    with pytest.raises(InputError, match="could lead out of a folder") as refused:
        store.list()
    assert "\n" not in str(refused.value)


def test_nothing_outside_the_prefix_is_touched_or_seen(server: S3Server, store: ObjectStore, tmp_path: Path) -> None:
    prefix = store.url.partition(f"{server.bucket}/")[2]
    server.put(f"{prefix}-other/x", b"a neighbour")
    server.put("x", b"at the top")
    started = len(server.requests)
    store.write("x", b"1")
    store.create("y", b"1")
    store.swap("y", b"2", store.tag("y"))
    store.clock()
    assert store.list().keys() == {"x", "y"}
    store.download("x", tmp_path / "x")
    store.delete("x")
    asked = server.requests[started:]
    assert len(asked) > 8
    for method, path in asked:
        assert path.startswith(f"/{server.bucket}"), (method, path)
        assert f"&prefix={prefix}/&" in path or path.startswith(f"/{server.bucket}/{prefix}/"), path
    assert server.get(f"{prefix}-other/x") == b"a neighbour"
    assert server.get("x") == b"at the top"


@pytest.mark.slow
def test_wrong_places_are_told_in_one_line_and_in_time(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://{server.bucket}/p"
    with told("no such bucket"):
        ObjectStore("s3://no-such-bucket/p").list()
    with told("no such bucket"):
        ObjectStore("s3://no-such-bucket/p").write("a", b"")
    with port_of(listens=False) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        with told("AWS_ENDPOINT_URL"):
            ObjectStore(url).list()
        with told("AWS_ENDPOINT_URL"):
            ObjectStore(url, 0.5).write("a", b"")  # at work, where it is asked again
    with port_of(listens=True) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:hidden@127.0.0.1:{port}")
        with told(f"from 127.0.0.1:{port} "):
            ObjectStore(url).list()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with told("no credentials found; set AWS_ACCESS_KEY_ID"):
        ObjectStore(url).list()


@pytest.mark.slow
def test_a_workers_refusal_travels_to_the_driver() -> None:
    error = StoreError("s3://b/p: no good answer\n from it")
    travelled = pickle.loads(pickle.dumps(error))
    assert type(travelled) is StoreError
    assert (travelled.errno, travelled.strerror) == (error.errno, "s3://b/p: no good answer\\n from it")


def test_at_work_a_store_that_is_away_for_a_moment_is_asked_again(server: S3Server) -> None:
    forget_clients()
    store = ObjectStore(f"s3://{server.bucket}/away", 30.0)
    store.write("before", b"1")
    with ThreadPoolExecutor(1) as thread:
        with server.away():
            writing = thread.submit(store.write, "after", b"2")
            time.sleep(2)
            assert not writing.done()
        writing.result(timeout=30)
    assert store.read("after") == b"2"


@pytest.mark.parametrize("allowed", ["", "s3:ListBucket s3:GetObject"])
def test_keys_that_are_wrong_or_may_not_write_are_told(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    url = f"s3://{server.bucket}/p"
    with server.asking_for_keys(allowed) as keys:
        for name, value in keys.items():
            monkeypatch.setenv(name, value)
        with told("may not write a" if allowed else "may not list"):
            assert ObjectStore(url).list() == {}
            ObjectStore(url).write("a", b"")


def test_a_missing_package_is_named() -> None:
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from trainable.object_store import ObjectStore\n"
        "for url in ('s3://bucket/p', 'gs://bucket/p'):\n"
        "    try: ObjectStore(url).list()\n"
        "    except ValueError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.splitlines() == [
        "storage: s3:// needs another package; pip install 'canopoint[s3]'",
        "storage: gs:// needs another package; pip install 'gcsfs'",
    ]


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("s3://key:secret@bucket/p", "holds no credentials"),
        ("s3://key@bucket", "holds no credentials"),
        ("s3://bucket/p?secret=x", "holds no credentials"),
        ("s3://bucket/../p", "letters, digits"),
        ("s3://bucket//p", "letters, digits"),
        ("s3://bucket/a b", "letters, digits"),
        ("s3://", "letters, digits"),
        ("s3:/bucket/p", "two slashes"),
        ("ftp://host/p", "no such kind of storage"),
        ("file:///tmp/p", "no such kind of storage"),
    ],
)
def test_what_is_no_plain_url_is_refused(url: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule) as refused:
        check_storage(url, "storage")
    assert "secret@" not in str(refused.value)


def test_folders_may_have_any_name() -> None:
    for folder in ("studies", "/mnt/shared/a b", "..", "a:b", "key@host"):
        check_storage(folder, "storage")


def test_a_working_copy_is_beside_no_study_and_told_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = ["s3://bucket/a/b", "s3://bucket/a-b", "gs://bucket/a/b", "s3://bucket/A/b", "s3://bucket"]
    copies = [working_copy(url) for url in urls]
    assert len({*copies}) == len(urls)
    assert {copy.parent for copy in copies} == {tmp_path / "cache"}
    assert copies[0].name.startswith("bucket-a-b-")
    assert working_copy("s3://bucket/a/b/") == copies[0]
    monkeypatch.delenv("CANOPOINT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert working_copy("s3://bucket").parent == tmp_path / ".cache" / "canopoint"
    monkeypatch.setenv("CANOPOINT_CACHE", "here")
    with pytest.raises(InputError, match="CANOPOINT_CACHE: must be an absolute path, got 'here'"):
        working_copy("s3://bucket")


@contextmanager
def told(text: str) -> Iterator[None]:
    """The block ends with a refusal of one line that says this, in time."""
    forget_clients()
    started = time.monotonic()
    with pytest.raises(InputError) as refused, as_bad_input():
        yield
    said = str(refused.value)
    assert time.monotonic() - started < ANSWER_S
    assert said.startswith("storage: s3://")
    assert text in said, said
    assert "\n" not in said
    assert "hidden" not in said
    forget_clients()


@contextmanager
def port_of(*, listens: bool) -> Iterator[int]:
    """A port that takes connections and never says a word, or where nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        if listens:
            found.listen()
        yield found.getsockname()[1]
