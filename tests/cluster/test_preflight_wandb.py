"""Whether W&B's server answers, before a run counts on it."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cluster.preflight import unreachable_wandb


class Refusing(BaseHTTPRequestHandler):
    """Knows nobody, and says so."""

    def do_HEAD(self) -> None:
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_any_answer_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        assert unreachable_wandb() == ""
        server.shutdown()


def test_no_answer_is_named_with_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert unreachable_wandb().startswith(f"{address} does not answer ([Errno 111]")
    monkeypatch.setenv("WANDB_BASE_URL", "no address")
    assert unreachable_wandb().startswith("no address does not answer (unknown url type")
