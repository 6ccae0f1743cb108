"""One driver at a time on a study in an object store: moto's S3 server on loopback."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from bench.s3_server import S3Server, s3_server
from cluster.lease import LEASE_FILE, Lease, LeaseLostError
from trainable.config import InputError
from trainable.holder import Holder
from trainable.object_store import ObjectStore

KEY = f"p/study/{LEASE_FILE}"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as started:
        yield started


@pytest.fixture
def store(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.clear()
    return ObjectStore(f"s3://{server.bucket}/p/study")


def change(server: S3Server, **fields: object) -> None:
    server.put(KEY, json.dumps({**json.loads(server.get(KEY)), **fields}).encode())


def test_a_living_lease_keeps_others_out_and_names_its_holder(server: S3Server, store: ObjectStore) -> None:
    first, second = Lease(store), Lease(store)
    second.check(print)
    assert second.find_holder() == (False, None)
    first.take(print)
    for refused in (second.check, second.take):
        with pytest.raises(InputError, match=rf"^{store.url}: .* is working here; wait for it or end it on that host"):
            refused(print)
    is_held, holder = second.find_holder()
    assert is_held
    assert holder is not None
    assert holder.pid == Holder.of_this_process().pid
    for _ in range(3):
        first.renew()
    assert first.age_s < 5
    first.release()
    assert server.names() == []
    second.take(print)


def test_a_lease_that_is_not_renewed_for_a_minute_by_the_stores_clock_is_taken(
    server: S3Server, store: ObjectStore
) -> None:
    first, second = Lease(store), Lease(store)
    first.take(print)
    server.age(KEY, 50)
    with pytest.raises(InputError):
        second.take(print)
    server.age(KEY, 15)
    assert second.find_holder() == (False, None)
    second.take(print)
    with pytest.raises(LeaseLostError, match="another driver has taken over"):
        first.renew()
    first.release()  # of what is no longer his
    assert server.names() == [KEY]
    second.renew()


def test_a_holder_that_has_ended_on_this_machine_is_followed_at_once_and_on_another_not(
    server: S3Server, store: ObjectStore
) -> None:
    Lease(store).take(print)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    change(server, pid=ended.pid, start=1)
    Lease(store).take(print)
    change(server, pid=ended.pid, start=1, machine="another of the same name")
    said: list[str] = []
    Lease(store, dead_after_s=2).take(said.append)
    assert len(said) == 1
    assert f"(pid {ended.pid} on host" in said[0]
    assert said[0].endswith("is at work, or was killed; waiting up to 2 s for a sign of it")


@pytest.mark.parametrize("is_given_back", [False, True])
def test_a_driver_on_another_machine_is_waited_for_until_its_next_sign(
    server: S3Server, store: ObjectStore, is_given_back: bool
) -> None:
    first = Lease(store)
    first.take(print)
    change(server, machine="another")

    def meanwhile(said: str) -> None:
        server.clear() if is_given_back else change(server, renewed=0)

    started = time.monotonic()
    if is_given_back:
        Lease(store).take(meanwhile)
    else:
        with pytest.raises(InputError, match=r"is working here; wait for it or end it on that host \(kill -INT"):
            Lease(store).take(meanwhile)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'"x"', b'{"pid": -1, "token": 3}', b"\xff" * 10])
def test_a_lease_that_makes_no_sense_is_anyones_until_it_is_old(
    server: S3Server, store: ObjectStore, content: bytes
) -> None:
    server.put(KEY, content)

    def meanwhile(said: str) -> None:
        assert "another driver (holder.json does not say which) is at work, or was killed" in said
        server.put(KEY, b'{"token": "another"}')

    with pytest.raises(InputError, match="does not say which"):
        Lease(store).take(meanwhile)
    server.put(KEY, content)
    server.age(KEY, 61)
    Lease(store).take(print)


@pytest.mark.parametrize("is_dead", [False, True])
def test_of_several_that_start_at_once_one_gets_it(server: S3Server, store: ObjectStore, is_dead: bool) -> None:
    if is_dead:
        Lease(store).take(print)
        server.age(KEY, 61)
    leases = [Lease(store) for _ in range(6)]
    got: list[Lease] = []

    def take(lease: Lease) -> None:
        try:
            lease.take(print)
            got.append(lease)
        except (InputError, LeaseLostError):
            return

    threads = [threading.Thread(target=take, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    got[0].renew()


def test_a_renewal_whose_answer_was_lost_does_not_lose_the_lease(store: ObjectStore) -> None:
    lease = Lease(store)
    lease.take(print)
    assert store.swap(LEASE_FILE, lease._content(), store.tag(LEASE_FILE))  # as when it came through nevertheless
    lease.renew()
    lease.renew()
