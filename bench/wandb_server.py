"""A small W&B server on loopback, of ours: the real client logs to it and reads from it. In memory.

It proves the client's path and ours behind it, not W&B's own server. What it does not know it refuses and keeps in
`unknown`, which a test asserts to be empty.
"""

import base64
import gzip
import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import wandb

from bench.wandb_answers import Answers, UnknownRequestError
from bench.wandb_stored import StoredRun

KEY = "c4na7y0fte5t" + "0" * 28
"""40 characters, as W&B's keys have; whoever finds it in a file has found a leak."""

ENTITY = "someone"


@dataclass
class WandbServer:
    """The server.

    Attributes:
        delay_s: before every answer, as of a server that is far away.
        url: its address.
        environment: what a client needs to find it and to be let in.
        unknown: requests that it did not know.
        asked: what it was asked: GraphQL operations by name, other requests by method and first part of the path.
    """

    answers: Answers
    delay_s: float = 0.0
    url: str = ""
    unknown: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _running: "_Listener | None" = None
    _leaves_after: tuple[str, int] = ("", 0)

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to find it and to be let in."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ENTITY": ENTITY,
            "WANDB_ERROR_REPORTING": "false",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    @property
    def runs(self) -> dict[str, StoredRun]:
        """Its runs, by run id."""
        return {run.name: run for run in self.answers.runs.values()}

    def add_run(self, project: str, name: str, rows: list[dict[str, Any]], **known: Any) -> StoredRun:
        """Puts a finished run there without a client: `rows` without `_step`; config as users write it."""
        config = {key: {"value": value} for key, value in known.pop("config", {}).items()}
        lines = [json.dumps({**row, "_step": step}) for step, row in enumerate(rows, 1)]
        run = StoredRun(ENTITY, project, name, config=config, lines=lines, **{"state": "finished", **known})
        self.answers.runs[ENTITY, project, name] = run
        return run

    @contextmanager
    def away(self) -> Iterator[None]:
        """Is gone for the time of the block; what it keeps stays."""
        port = int(self.url.rpartition(":")[2])
        self.stop()
        try:
            yield
        finally:
            self.start(port)

    def leave_after(self, operation: str, times: int) -> None:
        """Goes away once it has been asked something so many times; `start` brings it back."""
        self._leaves_after = operation, times

    def start(self, port: int = 0) -> None:
        """Listens, in threads of this process."""
        self._leaves_after = "", 0
        handler = type("Handler", (_Handler,), {"owner": self})
        self._running = _Listener(("127.0.0.1", port), handler)
        self.url = self.answers.url = f"http://127.0.0.1:{self._running.server_address[1]}"
        threading.Thread(target=self._running.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Ends; open connections are cut."""
        running, self._running = self._running, None
        if running:
            running.shutdown()
            running.server_close()
            for connection in list(running.open):
                with suppress(OSError):  # the client was first
                    connection.connection.shutdown(socket.SHUT_RDWR)

    @property
    def has_left(self) -> bool:
        """Whether it is gone, or on its way."""
        operation, times = self._leaves_after
        return self._running is None or (bool(operation) and self.asked.count(operation) > times)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self.open: set[_Handler] = set()
        super().__init__(*arguments)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    owner: WandbServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self)  # type: ignore[attr-defined]

    def finish(self) -> None:
        self.server.open.discard(self)  # type: ignore[attr-defined]
        super().finish()

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        path = unquote(self.path.partition("?")[0])
        time.sleep(self.owner.delay_s)
        if self.owner.has_left:
            self.close_connection = True
            threading.Thread(target=self.owner.stop).start()
            return
        try:
            if path.startswith(("/storage/", "/exports/")) or self._is_let_in():  # presigned, as W&B's are
                with self.owner.lock:
                    self._send(200, *self._content(path, body))
            else:
                self._send(401, json.dumps({"errors": [{"message": "user is not logged in"}]}).encode())
        except UnknownRequestError as error:
            self.owner.unknown.append(str(error))
            self._send(400, json.dumps({"errors": [{"message": f"unknown here: {error}"}]}).encode())

    def _content(self, path: str, body: bytes) -> tuple[bytes, str]:
        if path == "/graphql":
            return json.dumps({"data": self._graphql(json.loads(body))}).encode(), "application/json"
        self.owner.asked.append(f"{self.command} {path.split('/')[1]}")
        place = re.fullmatch(r"/(files|storage|exports)/([^/]+)/([^/]+)/([^/]+)(?:/(.+))?", path)
        run = self.owner.answers.runs.get((place[2], place[3], place[4])) if place else None
        if not place or not run:
            raise UnknownRequestError(f"{self.command} {path}")
        match self.command, place[1], place[5]:
            case "POST", "files", "file_stream":
                run.take_stream(json.loads(body))
                return b"{}", "application/json"
            case "PUT", "storage", str(name):
                run.files[name] = body
                return b"", "text/plain"
            case "GET", "exports", None:
                return _parquet(run), "application/octet-stream"
        raise UnknownRequestError(f"{self.command} {path}")

    def _graphql(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        query = asked["query"]
        found = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
        self.owner.asked.append(found[1] if found else query[:80])
        return self.owner.answers.answer(query, asked.get("variables") or {})

    def _is_let_in(self) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        return base64.b64encode(f"api:{KEY}".encode()).decode() == given

    def _send(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _parquet(run: StoredRun) -> bytes:
    """The history as W&B exports it: a column a metric, NaN and infinities as such."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, file = run.rows(), io.BytesIO()
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), file)
    return file.getvalue()


@contextmanager
def wandb_server(*, exports: bool = False) -> Iterator[WandbServer]:
    """The server, gone at the end of the block.

    W&B's client reads its address once in a process: what it had read is forgotten, before and after.

    Args:
        exports: whether the history of ended runs is to be had as Parquet, or row by row.
    """
    wandb.teardown()
    server = WandbServer(Answers(ENTITY, exports=exports))
    server.start()
    try:
        yield server
    finally:
        wandb.teardown()
        server.stop()
