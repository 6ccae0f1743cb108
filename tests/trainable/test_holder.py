import json
import os
import sys
import time
from dataclasses import asdict, replace

import pytest

from trainable.holder import Holder

RECORD = {"host": "node7", "pid": 123, "start": 4567, "user": "anna", "command": "canopoint run", "since": 1e9}


def test_a_record_reads_back_as_it_was_written() -> None:
    holder = Holder.of_this_process()
    assert Holder.parse(holder.to_bytes()) == holder
    assert (holder.pid, holder.is_here, holder.seems_dead, holder.is_suspended) == (os.getpid(), True, False, False)
    assert abs(holder.since - time.time()) < 5


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/canopoint", "run", "study.yaml", "--set", "x=1"], "canopoint run"),
        (["canopoint.py", "train"], "canopoint train"),
        (["canopoint", "--token=secret"], "canopoint"),
        (["canopoint", "/home/anna/secret.yaml"], "canopoint"),
        ([""], "python"),
        (["-"], "python"),
        (["-c", "status"], "python status"),
    ],
)
def test_a_record_names_program_and_sub_command_alone(monkeypatch: pytest.MonkeyPatch, argv, command: str) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert Holder.of_this_process().command == command


def test_another_process_of_the_same_number_is_not_the_holder() -> None:
    holder = Holder.of_this_process()
    assert replace(holder, start=holder.start - 1).seems_dead
    assert replace(holder, pid=2**30).seems_dead
    assert not replace(holder, start=None).seems_dead  # where the system does not say, nobody is called dead
    assert not replace(holder, pid=2**30, host="node7").seems_dead


@pytest.mark.parametrize(
    "change",
    [
        {"pid": 0}, {"pid": -1}, {"pid": True}, {"pid": "123"}, {"pid": 1.0}, {"start": "x"}, {"host": None},
        {"command": 3}, {"user": []}, {"since": "now"}, {"since": float("nan")}, {"since": 1e300}, {"more": 1},
    ],
)  # fmt: skip
def test_a_record_that_makes_no_sense_is_none(change) -> None:
    assert Holder.parse(json.dumps(RECORD).encode()) == Holder(**RECORD)
    assert Holder.parse(json.dumps({**RECORD, **change}).encode()) is None


def test_every_torn_record_is_none() -> None:
    whole = json.dumps(asdict(Holder.of_this_process())).encode()
    assert all(Holder.parse(whole[:size]) is None for size in range(len(whole)))


def test_today_s_time_stands_without_its_date(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = replace(Holder.of_this_process(), host="h", pid=5, command="canopoint run", since=time.time())
    assert str(holder) == f"canopoint run (pid 5 on host h, since {time.strftime('%T', time.localtime(holder.since))})"
    assert ", since 2001-09-" in str(replace(holder, since=1e9))
    assert " of anna on " in str(replace(holder, user="anna"))
