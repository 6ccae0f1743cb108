"""Ray clusters of our own: a head and a second node that can be lost, and the start-up time of a bare Ray.

A cluster asks for a token that no other knows, as Ray listens on all interfaces. Nobody else's Ray is touched: own
ports, own folders, and only processes that were started here are ended.
"""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.hosts import LOOPBACK, Host
from bench.processes import Process, descendants, kill_trees, process, wait_for

ROOT = Path(__file__).resolve().parent.parent
UP_WITHIN_S = 120.0
UP = "Ray runtime started."
STORE_BYTES = 128 * 2**20
ASK = """
import sys, urllib.request, urllib.error
try:
    urllib.request.urlopen(sys.argv[1], timeout=10)
except urllib.error.HTTPError:
    pass  # it asks for a token: an answer, too
"""


class TwoNodes:
    """A head with one core, and a second node with another.

    Attributes:
        environment: what a driver needs to be let in.
        jobs_url: of the Jobs API, where there is one.
        address: where a driver finds the head.
        folder: Ray's own.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        has_jobs_api: bool = False,
        num_cpus: int = 1,
        num_gpus: int = 0,
        hosts: tuple[Host, Host] = LOOPBACK,
    ) -> None:
        """Starts nothing yet.

        Args:
            folder: Ray's own, new; its path is short, as those of sockets must be.
            environment: of Ray's processes and of drivers; a token is added where it says nothing of one.
            has_jobs_api: whether the head has a dashboard, and with it the Jobs API. Jobs start with this Python.
            num_cpus: that each node has.
            num_gpus: that each node claims to have; Ray believes it.
            hosts: of the head and of the second node.
        """
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment = {**token, **environment, "RAY_USAGE_STATS_ENABLED": "0"}
        self.jobs_url = f"http://{hosts[0].address}:{_free_port()}" if has_jobs_api else ""
        self.folder = folder
        self._num_cpus, self._num_gpus = num_cpus, num_gpus
        self._hosts = hosts
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """Host and port of the head, which Ray writes down when it is up."""
        return (self.folder / "ray_current_cluster").read_text().strip()

    @property
    def processes(self) -> list[Process]:
        """All that runs on both nodes."""
        return [each for node in self._nodes() for each in (node, *descendants(node))]

    @property
    def workers(self) -> list[Process]:
        """Processes of the second node."""
        node = process(self._started[-1].pid)
        return descendants(node) if node else []

    def start(self) -> None:
        """Starts the head, then the second node."""
        self.start_head()
        self.add_node()
        self._wait_until_up()

    def start_head(self) -> None:
        """Starts the head alone."""
        self.folder.mkdir()
        ports = ("--port=0", f"--ray-client-server-port={_free_port()}")  # its default is every other Ray's, too
        address = self._hosts[0].address
        dashboard = [f"--include-dashboard={'true' if self.jobs_url else 'false'}", f"--dashboard-host={address}"]
        if self.jobs_url:
            dashboard.append(f"--dashboard-port={self.jobs_url.rpartition(':')[2]}")
        arguments = ("--head", f"--node-ip-address={address}", f"--temp-dir={self.folder}")
        self._ray_start(self._hosts[0], *arguments, *ports, *dashboard)
        self._wait_until_up()
        if self.jobs_url:  # it takes connections before it can answer
            wait_for(self._jobs_api_answers, UP_WITHIN_S, f"the Jobs API; see {self._log}")

    def add_node(self) -> None:
        """Starts a second node, in the place of a lost one; Ray takes it in when it is up."""
        host, folder = self._hosts[1], self.folder.with_name(f"{self.folder.name}-{len(self._started)}")
        folder.mkdir()  # of its own, as on another machine: in a shared one it unpacks a job's files over the head's
        arguments = (f"--address={self.address}", f"--node-ip-address={host.address}", f"--temp-dir={folder}")
        self._ray_start(host, *arguments)

    def lose_node(self) -> None:
        """Kills the second node and every worker on it at one stroke, as when a machine goes dark."""
        self._kill(self._started[-1:])

    def close(self) -> None:
        """Ends both nodes and all on them."""
        self._kill(self._started)

    @property
    def _log(self) -> Path:
        return self.folder.with_suffix(".log")

    def _wait_until_up(self) -> None:
        """Waits until as many nodes as were started have said that they are up."""
        wait_for(lambda: self._log.read_text().count(UP) == len(self._started), UP_WITHIN_S, f"Ray; see {self._log}")

    def _jobs_api_answers(self) -> bool:
        command = [*self._hosts[0].prefix, sys.executable, "-c", ASK, f"{self.jobs_url}/api/version"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _nodes(self) -> list[Process]:
        return [found for each in self._started if (found := process(each.pid))]

    def _ray_start(self, host: Host, *arguments: str) -> "subprocess.Popen[bytes]":
        own = Path(sys.executable).parent
        command = [*host.prefix, str(own / "ray"), "start", "--block", *arguments, f"--num-gpus={self._num_gpus}"]
        command += [f"--num-cpus={self._num_cpus}", f"--object-store-memory={STORE_BYTES}"]
        command.append(f"--dashboard-agent-listen-port={_free_port()}")
        environment = {**os.environ, "PATH": f"{own}{os.pathsep}{os.environ['PATH']}", **self.environment}
        with self._log.open("a") as log:
            started = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._started.append(started)
        return started

    def _kill(self, started: list["subprocess.Popen[bytes]"]) -> None:
        kill_trees(found for each in started if (found := process(each.pid)))
        for each in started:
            each.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def two_nodes(folder: Path, environment: Mapping[str, str], **options: Any) -> Iterator[TwoNodes]:
    """A cluster of two raylets, gone at the end of the block; options are those of `TwoNodes`."""
    cluster = TwoNodes(folder, environment, **options)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@contextmanager
def one_node(folder: Path, environment: Mapping[str, str], **options: Any) -> Iterator[TwoNodes]:
    """The same with the head alone."""
    cluster = TwoNodes(folder, environment, **options)
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.close()


def ray_startup_s(folder: Path, environment: Mapping[str, str]) -> float:
    """Seconds of a bare Ray here and now, from `ray.init` to the answer of the first actor."""
    command = [sys.executable, "-m", "bench.bare_ray", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE) as popen:
        try:
            return float(popen.communicate(timeout=UP_WITHIN_S)[0])
        finally:
            if found := process(popen.pid):
                kill_trees([found])
