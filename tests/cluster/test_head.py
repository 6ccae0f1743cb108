"""Every way in which an address can be wrong, against small real servers; tokens against a real head: test_jobs.py."""

import http.server
import json
import socket
import threading
import time
from concurrent import futures
from contextlib import contextmanager
from importlib.metadata import version

import grpc
import pytest
from ray.core.generated import gcs_service_pb2 as gcs

import cluster.head
from bench.commands import run
from cluster.head import check_head, check_jobs_api, driver_address
from cluster.local_ray import connected_ray
from trainable.config import InputError

OURS = version("ray")
ELSEWHERE = "192.0.2.254"  # of a block that nobody has
MISSING = (401, "Unauthorized: Missing authentication token")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def web_server(status: int, text: str, **headers: str):
    """Answers every question alike; yields its port, and the headers that it was sent."""
    asked: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(dict(self.headers))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()


@contextmanager
def gcs_server(ray_version: str = OURS, node: str = "127.0.0.1", code: grpc.StatusCode | None = None):
    """A head that speaks Ray's own protocol; yields its port."""

    def answer(reply):
        def handle(request, context):
            if code:
                context.abort(code, "InvalidAuthToken: Authentication token is missing or incorrect")
            return reply

        return handle

    replies = {
        "CheckAlive": (gcs.CheckAliveRequest, gcs.CheckAliveReply(ray_version=ray_version)),
        "GetAllNodeInfo": (gcs.GetAllNodeInfoRequest, gcs.GetAllNodeInfoReply()),
    }
    replies["GetAllNodeInfo"][1].node_info_list.add(node_manager_address=node)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            answer(reply), request_deserializer=request.FromString, response_serializer=type(reply).SerializeToString
        )
        for name, (request, reply) in replies.items()
    }
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


def is_refused(check, address, *words: str) -> str:
    """The one line of a refusal, which comes in time."""
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        check(address)
    assert time.monotonic() - started < 15
    line = str(caught.value)
    assert "\n" not in line
    assert [word for word in words if word not in line] == [], line
    return line


def said(ray_version: str = OURS) -> str:
    return json.dumps({"version": "4", "ray_version": ray_version, "session_name": "s"})


def test_a_head_on_loopback_needs_no_token():
    with web_server(200, said()) as (port, _):
        assert check_jobs_api(f"http://127.0.0.1:{port}/").ray_version == OURS
    with gcs_server() as port:
        assert check_head(f"127.0.0.1:{port}").address == f"127.0.0.1:{port}"


def test_an_open_head_that_others_can_reach_is_refused():
    """0.0.0.0 leads to this machine, and is no loopback address."""
    with web_server(200, said()) as (port, _):
        is_refused(check_jobs_api, f"http://0.0.0.0:{port}", "without a token", "CVE-2023-48022", "RAY_AUTH_MODE=token")
    with gcs_server() as port:
        is_refused(check_head, f"0.0.0.0:{port}", "without a token", "CVE-2023-48022", "RAY_AUTH_MODE=token")


def test_another_version_of_ray_is_refused_and_both_are_named():
    with web_server(200, said("2.9.3")) as (port, _):
        is_refused(check_jobs_api, f"http://127.0.0.1:{port}", "Ray 2.9.3", f"Ray {OURS}", "install ray==2.9.3")
    with gcs_server("2.9.3") as port:
        is_refused(check_head, f"127.0.0.1:{port}", "Ray 2.9.3", f"Ray {OURS}", "install ray==2.9.3")


def test_a_head_that_asks_for_a_token_is_refused_with_the_variables_that_hold_one():
    with web_server(*MISSING) as (port, asked):
        is_refused(check_jobs_api, f"http://127.0.0.1:{port}", "asks for a token", "RAY_AUTH_TOKEN_PATH")
        assert len(asked) == 1
    with gcs_server(code=grpc.StatusCode.UNAUTHENTICATED) as port:
        is_refused(check_head, f"127.0.0.1:{port}", "asks for a token", "RAY_AUTH_TOKEN_PATH")


def test_our_token_is_sent_to_what_asks_for_it_as_ray_does_and_to_nobody_else(monkeypatch):
    monkeypatch.setattr(cluster.head, "token_headers", lambda place: {"authorization": "Bearer canary"})
    with web_server(200, said()) as (port, asked):
        check_jobs_api(f"http://127.0.0.1:{port}")
        assert "canary" not in str(asked)
    for answer in ((401, "please log in"), (302, ""), (404, MISSING[1])):
        with web_server(*answer, Location="http://127.0.0.1:1/api/version") as (port, asked):
            is_refused(check_jobs_api, f"http://127.0.0.1:{port}", "not the expected part of Ray", str(answer[0]))
            assert "canary" not in str(asked)
    with web_server(*MISSING) as (port, asked):
        line = is_refused(check_jobs_api, f"http://127.0.0.1:{port}", "does not accept our token")
        assert "canary" not in line
        assert [each.get("Authorization") for each in asked] == [None, "Bearer canary"]


@pytest.mark.slow
@pytest.mark.parametrize("token", ["can\nary", "can\x1bary", "canäry"])
def test_a_token_that_no_header_can_hold_is_neither_sent_nor_shown(tmp_path, token):
    """In a process of its own: Ray reads the environment once. A head that asks for no token is sent one by Ray."""
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    with web_server(*MISSING) as (closed, _), web_server(200, said()) as (opened, _), gcs_server() as gcs_port:
        for command, address in (
            ("logs", f"http://127.0.0.1:{closed}"),
            ("logs", f"http://127.0.0.1:{opened}"),
            ("run", f"127.0.0.1:{gcs_port}"),
        ):
            code, text = run(tmp_path, environment, command, "demo", "--address", address)
            assert (code, len(text.splitlines())) == (2, 1), text
            assert "our token is not one line of letters, digits and signs" in text
            assert "ary" not in text


@pytest.mark.parametrize("text", ["", "<html>hello</html>", "[]", '{"version": "4"}'])
def test_another_service_is_told_apart(text):
    with web_server(200, text) as (port, _):
        is_refused(check_jobs_api, f"http://127.0.0.1:{port}", "not the expected part of Ray", "http://HOST:8265")
        is_refused(check_head, f"127.0.0.1:{port}", "not the expected part of Ray", "HOST:6379")
    with gcs_server() as port:
        is_refused(check_jobs_api, f"http://127.0.0.1:{port}", "not the expected part of Ray", "http://HOST:8265")


def test_an_address_without_an_answer_is_refused_in_time(monkeypatch):
    monkeypatch.setattr("cluster.head.ANSWER_S", 0.5)
    monkeypatch.setattr("cluster.head_grpc.ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        is_refused(check_jobs_api, f"http://127.0.0.1:{port}", "nothing answers there", "timed out")
        is_refused(check_head, f"127.0.0.1:{port}", "not the expected part of Ray")
    is_refused(check_jobs_api, f"http://127.0.0.1:{port}", "nothing answers there", "refused")
    is_refused(check_head, f"127.0.0.1:{port}", "nothing answers there", "refused")


@pytest.mark.parametrize("address", ["h.invalid:6379", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", ":1", "[::1]:1"])
def test_what_is_no_address_is_refused(address):
    is_refused(check_head, address, f"--address {address}", "nothing answers there")
    is_refused(check_jobs_api, f"http://{address.replace('127.0.0.1', 'h.invalid')}", "--address")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:6379", "auto", "ray://127.0.0.1:10001", "http://", "localhost", "http://[::1"]
)
def test_what_is_no_address_of_the_jobs_api_is_refused(address):
    is_refused(check_jobs_api, address, f"--address {address}", "http://HOST:8265")


def test_credentials_in_an_address_are_refused_and_not_repeated():
    assert "canary" not in is_refused(check_jobs_api, "http://user:canary@127.0.0.1:8265", "RAY_AUTH_TOKEN_PATH")
    assert "canary" not in is_refused(check_jobs_api, "http://user:canary@[::1", "RAY_AUTH_TOKEN_PATH")


def test_the_jobs_api_is_looked_up_as_ray_does_and_a_flag_goes_first(monkeypatch):
    is_refused(check_jobs_api, None, "--address: is missing", "RAY_ADDRESS")
    with web_server(200, said()) as (port, _):
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("RAY_ADDRESS", url)
        assert check_jobs_api(None).address == url
        monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
        assert check_jobs_api(url).address == url
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", url)
        assert check_jobs_api(None).address == url


def test_a_driver_joins_what_the_flag_or_the_environment_names_and_never_whatever_runs_here(monkeypatch):
    assert driver_address(None) is None
    assert driver_address("10.0.0.1:6379") == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert driver_address(None) == "10.0.0.2:6379"
    assert driver_address("local") is None
    for address in ("auto", "ray://10.0.0.1:10001", "http://10.0.0.1:8265"):
        is_refused(driver_address, address, f"--address {address}", "HOST:PORT", "canopoint submit")


def test_a_machine_that_is_no_node_is_told_to_submit():
    with gcs_server(node=ELSEWHERE) as port:
        is_refused(check_head, f"127.0.0.1:{port}", ELSEWHERE, "canopoint submit --address http://127.0.0.1:8265")


def test_what_ray_says_when_it_does_not_join_becomes_one_line():
    line = r"^--address nowhere: Ray does not join that cluster \(.*\); "
    with pytest.raises(InputError, match=line), connected_ray("nowhere"):
        pass
