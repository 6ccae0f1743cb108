"""Cutting a log into lines; a connection that really breaks: test_jobs.py."""

import asyncio
import time

import pytest

import cluster.job_logs
from cluster.job_logs import Lines, _read, follow_log
from cluster.jobs_api import Job


@pytest.fixture
def said() -> list[str]:
    return []


async def stream(*texts: str, silence_s: float = 0.0):
    for text in texts:
        yield text
    await asyncio.sleep(silence_s)


@pytest.mark.parametrize("texts", [["a\nbc\n\nd"], ["a", "\nb", "c\n", "", "\n", "d"], list("a\nbc\n\nd")])
def test_lines_are_said_whole_however_they_come(said, texts):
    lines = Lines(said.append)
    asyncio.run(_read(stream(*texts), lines))
    assert said == ["a", "bc", ""]
    lines.end()
    lines.end()
    assert said == ["a", "bc", "", "d"]


@pytest.mark.parametrize("cut", range(9))
def test_a_new_connection_begins_anew_and_what_was_said_is_not_said_again(said, cut):
    text = "ab\nc\nd\n\n"
    lines = Lines(said.append)
    asyncio.run(_read(stream(text[:cut]), lines))
    asyncio.run(_read(stream(text[:1], text[1:4], text[4:]), lines))
    assert said == ["ab", "c", "d", ""]
    assert lines.num_seen == len(text)


def test_a_silent_connection_is_given_up(said, monkeypatch):
    monkeypatch.setattr(cluster.job_logs, "QUIET_S", 0.05)
    asyncio.run(_read(stream("a\n", silence_s=30.0), Lines(said.append)))
    assert said == ["a"]


class EagerHead:
    """Ends each connection well and at once; its job ends later."""

    def __init__(self, num_looks: int) -> None:
        self._states = ["RUNNING"] * num_looks + ["SUCCEEDED"]

    def tail(self, submission_id: str):
        return stream("a\n")

    def logs(self, submission_id: str) -> str:
        return "a\n"

    def find(self, name: str) -> Job:
        return Job(name, "tiny", "/shared/tiny", "", self._states.pop(0), "", None, 1e9, None)


def test_a_connection_that_ends_while_the_job_goes_on_is_not_made_again_at_once(said, monkeypatch):
    monkeypatch.setattr(cluster.job_logs, "PAUSE_S", 0.1)
    started = time.monotonic()
    ended = follow_log(EagerHead(5), "j", said.append)
    assert (ended.state, said) == ("SUCCEEDED", ["a"])
    assert time.monotonic() - started >= 0.5
