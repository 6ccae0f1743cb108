"""A job's log, line by line as it comes, however often the connection drops."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from cluster.jobs_api import Job, JobsApi
from cluster.preparation import Say
from trainable.config import InputError

QUIET_S = 60.0  # a connection that is dead says nothing either; a driver at work says something every 20 s
GIVE_UP_S = 120.0
PAUSE_S = 2.0


@dataclass
class Lines:
    """Cuts a stream of text into lines, and knows how much of it was there.

    Attributes:
        say: takes each line.
        num_seen: characters so far.
    """

    say: Say
    num_seen: int = 0
    _rest: str = ""

    def add(self, text: str) -> None:
        """Says the lines that this text completes."""
        self.num_seen += len(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self.say(line)

    def end(self) -> None:
        """Says what had no line end."""
        if self._rest:
            self.say(self._rest)
        self._rest = ""


def follow_log(api: JobsApi, submission_id: str, say: Say, give_up_s: float = GIVE_UP_S) -> Job | None:
    """Says a job's log from its first line to its last; returns the job as it ended, or None where the head is lost.

    Lines come by a connection that stays open; whenever it ends, what it left out is asked for.

    Args:
        api: of the job's cluster.
        submission_id: the job.
        say: takes the lines.
        give_up_s: how long to try to reach a head that does not answer.
    """
    lines = Lines(say)
    lost_since: float | None = None
    while True:
        _follow_once(api, submission_id, lines)
        try:
            job = api.find(submission_id)
            lines.add(api.logs(submission_id)[lines.num_seen :])  # all of it, where the job had ended before
            lost_since = None
        except InputError as error:
            if lost_since is None:
                lost_since = time.monotonic()
                say(f"canopoint: {error}; trying for {give_up_s:.0f} s")
            if time.monotonic() - lost_since > give_up_s:
                return None
        else:
            if job.has_ended:
                lines.end()
                return job
        time.sleep(PAUSE_S)  # also after a good end: a head that ends each connection at once is not to be run over


def _follow_once(api: JobsApi, submission_id: str, lines: Lines) -> None:
    """Follows one connection to its end; whatever ends it, the log is asked for once more."""
    import aiohttp

    with contextlib.suppress(aiohttp.ClientError, RuntimeError, OSError):
        asyncio.run(_read(api.tail(submission_id), lines))


async def _read(stream: AsyncIterator[str], lines: Lines) -> None:
    """It begins with the first word again, so what was seen is skipped."""
    to_skip = lines.num_seen
    while True:
        try:
            text = await asyncio.wait_for(anext(stream), QUIET_S)
        except (StopAsyncIteration, TimeoutError):
            return
        lines.add(text[to_skip:])
        to_skip = max(0, to_skip - len(text))
