import signal
from pathlib import Path

import pytest

from bench.commands import Command, run
from bench.processes import TimeUpError

WAIT_S = 60


def test_a_command_is_run_and_what_it_said_is_kept(tmp_path: Path) -> None:
    code, said = run(tmp_path, {}, "plan", "no-such.yaml")
    assert (code, said) == (2, "canopoint: no-such.yaml: no such file\n")
    code, said = run(tmp_path, {}, "--help")
    assert code == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["said-0.txt", "said-1.txt"]


def test_one_that_says_something_else_or_runs_on_is_noticed_and_ended(tmp_path: Path) -> None:
    with Command(tmp_path, {}, "--help") as command, pytest.raises(RuntimeError, match="it ended without 'a miracle'"):
        command.wait_until_it_says("a miracle", WAIT_S)
    with Command(tmp_path, {}, "logs", "demo", "--address", "http://192.0.2.1:9") as command:
        (process,) = command.processes()
        with pytest.raises(TimeUpError):
            command.wait(0.01)
        command.send(signal.SIGSTOP)
    assert not process.lives
