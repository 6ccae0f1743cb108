import base64
import gzip
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench.processes import process, wait_for
from bench.traces import command_line, find_in_folder, find_secrets, listening

KEY = "Zm9vYmFyYmF6cXV4"
SECRETS = {"KEY": KEY, "OTHER": "not there at all"}
LISTEN = "import socket, sys; s = socket.create_server((sys.argv[1], 0)); sys.stdin.read()"


@pytest.mark.parametrize("start", [b"", b"a", b"ab", b"api:"])
def test_a_secret_is_found_as_it_is_and_encoded(start: bytes) -> None:
    content = start + KEY.encode() + b"end"
    for encoded in (content, content.hex().encode(), base64.b64encode(content), b"x" * 1000 + content):
        assert find_secrets(encoded, SECRETS) == {"KEY"}
    assert find_secrets(start + KEY[:-1].encode() + b"end", SECRETS) == set()


def test_files_archives_and_names_are_searched(tmp_path: Path) -> None:
    (tmp_path / "log.gz").write_bytes(gzip.compress(KEY.encode()))
    with zipfile.ZipFile(tmp_path / "package.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside", 100 * KEY)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "plain").write_text(f"a {KEY} b")
    (tmp_path / "clean").write_text("nothing")
    (tmp_path / KEY).mkdir()
    os.mkfifo(tmp_path / "pipe")  # neither read nor waited for, as sockets are
    names = ["package.zip", "log.gz", KEY, "below/plain"]
    assert sorted(find_in_folder(tmp_path, SECRETS)) == sorted(f"{tmp_path}/{name}: KEY" for name in names)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_socket_that_listens_is_seen_with_its_program(address: str) -> None:
    if ":" in address and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    code = LISTEN.replace("0))", "0), family=socket.AF_INET6)") if ":" in address else LISTEN
    with subprocess.Popen([sys.executable, "-c", code, address], stdin=subprocess.PIPE) as popen:
        found = process(popen.pid)
        assert found
        wait_for(lambda: bool(listening([found])), 10, "a socket")
        assert [*listening([found])] == [address]
        assert command_line(found)[-1] == address
        popen.communicate()
    assert listening([found]) == {}
    assert command_line(found) == []
