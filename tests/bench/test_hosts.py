import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.hosts import Host, NoHostsError, two_hosts

OWN_ADDRESS = "import socket; s = socket.socket(2, 2); s.connect(('{}', 9)); print(s.getsockname()[0])"
SERVE = "import socket; s = socket.create_server(('{}', 5000)); print('up', flush=True); s.accept()"


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    try:
        with two_hosts() as found:
            yield found
    except NoHostsError as error:
        pytest.skip(str(error))


def names() -> str:
    return subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout


def python(host: Host, code: str) -> str:
    command = [*host.prefix, sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()


def test_each_has_its_address_and_reaches_the_other(hosts: tuple[Host, Host]) -> None:
    first, second = hosts
    assert python(first, OWN_ADDRESS.format(second.address)) == first.address
    assert python(second, OWN_ADDRESS.format("192.0.2.1")) == second.address  # as Ray asks for its own
    serve = [*first.prefix, sys.executable, "-c", SERVE.format(first.address)]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "up\n"
            connect = f"import socket; print(socket.create_connection(('{first.address}', 5000), 5).getpeername())"
            assert first.address in python(second, connect)
        finally:
            server.kill()


def test_a_folder_that_is_not_shared_is_empty_there_and_untouched_here(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("here")
    look = f"import os; print(os.listdir({str(tmp_path)!r})); open({str(tmp_path / 'other')!r}, 'w')"
    assert python(hosts[1].without(tmp_path), look) == "[]"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_they_are_gone_afterwards_whatever_happens() -> None:
    before = names()
    try:
        with two_hosts() as (first, _):
            assert first.prefix[-1] in names()
            with pytest.raises(NoHostsError, match="netns add"), two_hosts():
                pass  # their names are this process's, and taken
            assert first.prefix[-1] in names()
            raise ZeroDivisionError
    except NoHostsError as error:
        pytest.skip(str(error))
    except ZeroDivisionError:
        assert names() == before
