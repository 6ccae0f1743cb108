"""What the stand-in for W&B does not know, it refuses and keeps; and it lets in nobody without the key."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from bench.wandb_server import ENTITY, KEY, WandbServer, wandb_server


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with wandb_server() as started:
        yield started


def ask(server: WandbServer, path: str, content: Any, key: str = KEY) -> Any:
    let_in = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Authorization": f"Basic {let_in}", "Content-Type": "application/json"}
    request = urllib.request.Request(server.url + path, json.dumps(content).encode(), headers)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # urlopen keeps the proxies of its first use
    with direct.open(request, timeout=10) as answer:
        return json.loads(answer.read())


def status(server: WandbServer, path: str, content: Any, key: str = KEY) -> int:
    """Of a request that is refused."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(server, path, content, key)
    caught.value.close()
    return caught.value.code


def test_it_answers_what_it_knows(server: WandbServer) -> None:
    answer = ask(server, "/graphql", {"query": "query Viewer { viewer { entity } }"})
    assert answer["data"]["viewer"]["entity"] == ENTITY
    assert (server.asked, server.unknown) == (["Viewer"], [])


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/graphql", {"query": "mutation DeleteRun($id: ID!) { deleteRun(input: {id: $id}) { x } }"}),
        (
            "/graphql",
            {
                "query": "query Runs { project { runs } }",
                "variables": {"entity": ENTITY, "project": "p", "perPage": 1, "filters": '{"config.x": 1}'},
            },
        ),
        ("/files/someone/p/r/other", {}),
        (f"/files/{ENTITY}/p/none/file_stream", {}),
        ("/telemetry", {}),
    ],
)
def test_what_it_does_not_know_is_refused_and_kept(server: WandbServer, path: str, content: Any) -> None:
    server.add_run("p", "r", [])
    assert status(server, path, content) == 400
    assert len(server.unknown) == 1


def test_without_the_key_nobody_is_let_in(server: WandbServer) -> None:
    assert status(server, "/graphql", {"query": "query Viewer { viewer { entity } }"}, key="f" * 40) == 401
    assert server.asked == []


def test_it_goes_away_and_comes_back_with_all_that_it_keeps(server: WandbServer) -> None:
    server.add_run("p", "r", [{"epoch": 1}])
    with server.away(), pytest.raises(urllib.error.URLError):
        ask(server, "/graphql", {"query": "query Viewer { viewer { entity } }"})
    assert server.runs["r"].rows() == [{"epoch": 1, "_step": 1}]
    assert ask(server, "/graphql", {"query": "query Viewer { viewer { entity } }"})
