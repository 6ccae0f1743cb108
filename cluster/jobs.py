"""Studies handed to a cluster: submitted, followed, stopped and taken up again, by one command each.

A study has one job at a time: whoever submits it again, from wherever, follows the one that runs.
"""

import re
import time
from dataclasses import asdict
from typing import Any

from cluster.job_logs import follow_log
from cluster.jobs_api import STOP_WITHIN_S, Job, JobsApi, folder_on_cluster
from cluster.preparation import Say
from cluster.progress import duration
from cluster.resources import Node, check_cluster_fits
from cluster.staging import STUDY_FILE, StagedFiles, stage
from cluster.terminal import BAD_INPUT, COMPLETE, DEFECT, INCOMPLETE, inert
from study.spec import StudySpec, parse_study
from study.yaml_file import parse_yaml
from trainable.config import InputError

STATE_WITHIN_S = 10.0  # Ray's own bookkeeping, once the driver has ended
POLL_S = 0.5
MAX_TRIES = 20
NUM_LAST_LINES = 3


def submit(spec: StudySpec, address: str | None, say: Say, *, wait: bool = True, accept_changes: bool = False) -> int:
    """Starts a job that runs the study, or finds the one that does, and follows it to its end.

    Args:
        spec: the study; its storage and data lie where every node of the cluster sees them.
        address: of the cluster's Jobs API; None for RAY_API_SERVER_ADDRESS or RAY_ADDRESS.
        say: takes what is said, the job's log included.
        wait: whether to follow the job. Leaving it does not end it.
        accept_changes: as for `canopoint run`.

    Returns:
        The exit code of the job's own `canopoint run`; 0 where it is not waited for.

    Raises:
        InputError: bad input; nothing was started.
    """
    staged = stage(spec)
    api = JobsApi(address)
    options = " --accept-changes" if accept_changes else ""
    job, is_new = _start_or_find(api, spec, staged, options)
    if is_new:
        say(f"job {job.submission_id} is submitted: {len(staged.contents)} files, {staged.num_bytes / 1e6:.1f} MB")
    else:
        say(f"job {job.submission_id} runs this study already ({job.state}): not starting another")
        if job.study_file != staged.contents[STUDY_FILE].decode():
            say("warning: it runs other settings than these; for these to hold, stop it and submit again")
    for line in _commands(job, api):
        say(line)
    if not wait:
        return COMPLETE
    seen = _follow(api, job, say)
    return _exit_code(seen) if seen else INCOMPLETE


def resume(name: str, address: str | None, say: Say, *, wait: bool = True, accept_changes: bool = False) -> int:
    """Submits the study of a job once more; it goes on from what is on disk. Arguments and result as for `submit`."""
    job = JobsApi(address).find(name)
    spec = parse_study(parse_yaml(job.study_file, job.submission_id), job.submission_id)
    return submit(spec, address, say, wait=wait, accept_changes=accept_changes)


def show_logs(name: str, address: str | None, say: Say, *, follow: bool = False) -> int:
    """Says what a job said so far or, following it, all that it will say.

    Returns:
        0, also where the user no longer waits; 3 where the head was lost, and with it the rest of the log.
    """
    api = JobsApi(address)
    job = api.find(name)
    if follow:
        return COMPLETE if _follow(api, job, say) else INCOMPLETE
    for line in api.logs(job.submission_id).splitlines():
        say(line)
    return COMPLETE


def stop(name: str, address: str | None, say: Say, *, wait: bool = True) -> int:
    """Interrupts a job, as Ctrl-C would, and waits for its end.

    Returns:
        0 once it has ended, or was asked to; 3 where it goes on all the same.
    """
    api = JobsApi(address)
    job = api.find(name)
    if job.has_ended:
        say(f"job {job.submission_id}, which worked in {job.folder}, had ended already")
    else:
        api.stop(job.submission_id)
        say(
            f"job {job.submission_id}, which works in {job.folder}, is interrupted; what has not ended after"
            f" {STOP_WITHIN_S} s is killed"
        )
        if not wait:
            return COMPLETE
        job = _await_end(api, job)
    say(_ending(api, job))
    return COMPLETE if job.has_ended else INCOMPLETE


def describe_job(name: str, address: str | None) -> dict[str, Any]:
    """How a job stands, as plain values, with the last lines of its log."""
    api = JobsApi(address)
    job = api.find(name)
    last_lines = api.logs(job.submission_id).splitlines()[-NUM_LAST_LINES:]
    return {**asdict(job), "address": api.head.address, "last_lines": last_lines, "next": _ending(api, job)}


def job_text(described: dict[str, Any]) -> str:
    """The same for a person; a log may hold a terminal's control characters, which are not shown."""
    since = time.strftime("%F %T", time.localtime(described["started"]))
    took = duration((described["ended"] or time.time()) - described["started"])
    lines = [
        f"job          {described['submission_id']}: {described['state']} (submitted {since}, {took})",
        f"study        {described['study']}: {described['folder']} on the cluster",
        *(f"last line    {line}" for line in described["last_lines"]),
        f"next         {described['next']}",
    ]
    return "\n".join(inert(line) for line in lines)


def live_job(jobs: list[Job], spec: StudySpec) -> Job | None:
    """The job that works in the study's folder, or is about to."""
    folder = folder_on_cluster(spec)
    return next((job for job in jobs if job.folder == folder and not job.has_ended), None)


def check_fits_now(spec: StudySpec, nodes: list[Node], may_grow: bool) -> None:
    """Refuses a study whose trials fit on no node, where no other will come; else the driver finds out.

    Raises:
        InputError: names what is asked for and what the nodes have.
    """
    if not may_grow:
        check_cluster_fits(spec.resources, nodes)


def next_submission_id(jobs: list[Job], study: str) -> str:
    """The same for everyone who knows of the same jobs."""
    pattern = re.compile(rf"canopoint-{re.escape(study)}-(\d+)")
    numbers = [int(match[1]) for job in jobs if (match := pattern.fullmatch(job.submission_id))]
    return f"canopoint-{study}-{max(numbers, default=0) + 1}"


def _start_or_find(api: JobsApi, spec: StudySpec, staged: StagedFiles, options: str) -> tuple[Job, bool]:
    """(the study's job, whether it is new).

    Who looks for a job of the study and who chooses a new id go by one list: of two that submit at once, one is told
    that the id is taken, looks again, and finds the other's job.
    """
    for _ in range(MAX_TRIES):
        jobs = api.jobs()
        if job := live_job(jobs, spec):
            return job, False
        check_fits_now(spec, *api.nodes())
        submission_id = next_submission_id(jobs, spec.study)
        if api.start(submission_id, spec, staged, options):
            return api.find(submission_id), True
    raise InputError(f"{spec.study}: no free name for a job was found in {MAX_TRIES} tries; give --set study=NAME")


def _follow(api: JobsApi, job: Job, say: Say) -> Job | None:
    """Says the job's log to its end; returns the job as it ended, as it was where the user left it, None where lost."""
    try:
        ended = follow_log(api, job.submission_id, say)
    except KeyboardInterrupt:
        say("")  # an end to the line that shows ^C
        say(f"job {job.submission_id} goes on without us")
        for line in _commands(job, api):
            say(line)
        return job
    lost = f"job {job.submission_id} is out of sight, and may go on: {_command('logs', job, api)} --follow"
    say(_ending(api, ended) if ended else lost)
    return ended


def _await_end(api: JobsApi, job: Job) -> Job:
    """The job once it has ended, or as it is when it should have."""
    started = time.monotonic()
    while not job.has_ended and time.monotonic() - started < STOP_WITHIN_S + STATE_WITHIN_S:
        time.sleep(POLL_S)
        job = api.find(job.submission_id)
    return job


def _exit_code(job: Job) -> int:
    """That of the job's `canopoint run`; one that did not end by itself is to be continued."""
    if job.exit_code is None or _signal(job):
        return COMPLETE if job.state == "SUCCEEDED" else INCOMPLETE
    return job.exit_code if job.exit_code in (COMPLETE, BAD_INPUT, INCOMPLETE) else DEFECT


def _ending(api: JobsApi, job: Job) -> str:
    """How a job ended, and what to type now."""
    if not job.has_ended:
        return f"job {job.submission_id} is {job.state}: {_command('logs', job, api)} --follow"
    code = _exit_code(job)
    if code == COMPLETE:
        return f"job {job.submission_id} {job.state}: every trial reached its end, in {job.folder}"
    return f"job {job.submission_id} {job.state}: {_trouble(job, code)}; {_command('resume', job, api)} continues"


def _trouble(job: Job, code: int) -> str:
    """Why a job did not do what it was to do."""
    if signal := _signal(job):
        return f"was killed (signal {signal})"
    if job.exit_code is None and job.state == "FAILED":  # not by its own doing: a lost head, a package that is missing
        return job.message.strip().splitlines()[0][:300] if job.message.strip() else "without a word"
    return {
        BAD_INPUT: "its input was refused, as its last line says",
        DEFECT: f"it failed with exit code {job.exit_code}, as its log says",
    }.get(code, "incomplete")


def _signal(job: Job) -> int:
    """Number of the signal that killed the driver, or 0: Ray tells it by a minus, the shell in between by 128 more."""
    code = job.exit_code or 0
    return -code if code < 0 else max(0, code - 128)


def _commands(job: Job, api: JobsApi) -> list[str]:
    uses = {"follow": "logs", "look": "status", "stop": "stop", "continue": "resume"}
    return [
        f"{use + ':':<10} {_command(command, job, api)}{' --follow' if use == 'follow' else ''}"
        for use, command in uses.items()
    ]


def _command(command: str, job: Job, api: JobsApi) -> str:
    return f"canopoint {command} {job.submission_id} --address {api.head.address}"
