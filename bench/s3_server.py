"""A real S3 server on loopback, with a bucket and keys that open nothing else. In memory: gone with this process."""

import json
import logging
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from moto.server import ThreadedMotoServer

from trainable import object_store

_REQUEST = re.compile(r'"(?:\x1b\[[0-9;]*m)*([A-Z]+) (\S+) HTTP')


class _Requests(logging.Handler):
    """Keeps what the server was asked, from its own log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if match := _REQUEST.search(record.getMessage()):
            self.found.append((match[1], match[2]))


@dataclass(frozen=True)
class S3Server:
    """The server.

    Attributes:
        endpoint: its address.
        bucket: an empty bucket.
        environment: what a client needs to find it and to be let in.
        requests: (method, path and query) of all that it was asked so far.
    """

    endpoint: str
    bucket: str
    environment: dict[str, str]
    requests: list[tuple[str, str]] = field(repr=False)
    _running: list[ThreadedMotoServer] = field(repr=False)

    def put(self, key: str, content: bytes) -> None:
        """Makes an object of any name, as no client of S3 would."""
        _backend().put_object(self.bucket, key, content)

    def clear(self) -> None:
        """Removes all objects, and forgets what was asked."""
        for key in self.names():
            _backend().delete_object(self.bucket, key)
        self.requests.clear()

    def names(self, prefix: str = "") -> list[str]:
        """The names of the objects there are, sorted."""
        return sorted(key for key in _backend().buckets[self.bucket].keys if key.startswith(prefix))

    def get(self, key: str) -> bytes:
        """What an object holds."""
        content: bytes = _backend().get_object(self.bucket, key).value
        return content

    def age(self, key: str, by_s: float) -> None:
        """Has an object been written so many seconds earlier."""
        found = _backend().get_object(self.bucket, key)
        found.last_modified -= timedelta(seconds=by_s)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Does not listen for the time of the block; what it keeps stays."""
        self._running.pop().stop()
        try:
            yield
        finally:
            self._running.append(_started(int(self.endpoint.rpartition(":")[2])))

    @contextmanager
    def asking_for_keys(self, allowed: str) -> Iterator[dict[str, str]]:
        """Lets in nobody but who has these keys, for these actions; without any, the keys are wrong ones."""
        from moto import settings
        from moto.iam.models import iam_backends

        keys = {"AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong"}
        iam = iam_backends["123456789012"]["aws"]
        if allowed:
            iam.create_user("us-east-1", "someone")
            statement = {"Effect": "Allow", "Action": allowed.split(), "Resource": "*"}
            iam.put_user_policy("someone", "some", json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
            made = iam.create_access_key("someone")
            keys = {"AWS_ACCESS_KEY_ID": made.access_key_id, "AWS_SECRET_ACCESS_KEY": made.secret_access_key}
        before, settings.INITIAL_NO_AUTH_ACTION_COUNT = settings.INITIAL_NO_AUTH_ACTION_COUNT, 0.0
        try:
            yield keys
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = before
            iam.reset()


def client_environment(endpoint: str) -> dict[str, str]:
    """Keys that are none, and no other place to look for some."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "canary-key-of-tests-4c1d",  # whoever finds these in a file has found a leak
        "AWS_SECRET_ACCESS_KEY": "canary-secret-of-tests-9e27",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1,localhost",
    }


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """The server, in a thread of this process, gone at the end of the block.

    Our clients are kept for the process, with what the environment said when they were made: none outlives its server.
    """
    object_store._file_system.cache_clear()
    log, requests = logging.getLogger("werkzeug"), _Requests()
    level, propagates = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(requests)
    running = [_started(0)]
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    _backend().create_bucket(bucket, "us-east-1")
    host, port = running[0].get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        yield S3Server(endpoint, bucket, client_environment(endpoint), requests.found, running)
    finally:
        object_store._file_system.cache_clear()
        _backend().buckets.pop(bucket)
        running.pop().stop()
        log.removeHandler(requests)
        log.propagate = propagates
        log.setLevel(level)


def _started(port: int) -> ThreadedMotoServer:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    server.get_host_and_port()  # waits until it listens
    return server


def _backend():  # type: ignore[no-untyped-def]
    """What the server keeps, for the account that it takes every key for."""
    from moto.s3.models import s3_backends

    return s3_backends["123456789012"]["aws"]
