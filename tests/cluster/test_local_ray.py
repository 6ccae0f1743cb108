"""A Ray of our own: in a folder of its own user alone, with a token of its own."""

import os
import stat
from pathlib import Path

import pytest

from cluster.local_ray import AUTH_VARIABLES, MAX_TEMP_CHARACTERS, _private_folder, connected_ray

LONGEST = "/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store"  # of Ray's own paths to sockets
SOCKET_CHARACTERS = 107


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("num_characters", [MAX_TEMP_CHARACTERS, MAX_TEMP_CHARACTERS + 1, 100])
def test_sockets_fit_into_the_folder_wherever_temporary_files_are(
    monkeypatch: pytest.MonkeyPatch, num_characters: int
) -> None:
    top = Path(f"/tmp/{os.getpid()}".ljust(num_characters, "x"))
    top.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(top))
    try:
        with _private_folder() as folder:
            assert (top in folder.parents) is (num_characters == MAX_TEMP_CHARACTERS)
            assert len(f"{folder}{LONGEST}") <= SOCKET_CHARACTERS
    finally:
        top.rmdir()


@pytest.mark.cluster
def test_nobody_else_enters_its_folder_or_knows_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of a cluster's tokens the user has exported, as docs/CLUSTER.md says."""
    import ray

    exported = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "of-a-cluster", "RAY_AUTH_TOKEN_PATH": "/nowhere"}
    assert exported.keys() == set(AUTH_VARIABLES)
    for name, value in exported.items():
        monkeypatch.setenv(name, value)
    with connected_ray():
        [raylet] = ray.nodes()
        folder = Path(raylet["RayletSocketName"]).parent.parent.parent
        assert mode(folder) == 0o777  # Ray's own doing
        assert mode(folder.parent) == 0o700
        seen = ray.get(ray.remote(lambda: {name: os.environ.get(name) for name in AUTH_VARIABLES}).remote())
        assert (seen["RAY_AUTH_MODE"], seen["RAY_AUTH_TOKEN_PATH"]) == ("token", None)
        assert len(seen["RAY_AUTH_TOKEN"] or "") == 64
    assert {name: os.environ[name] for name in AUTH_VARIABLES} == exported
    assert not folder.parent.exists()
