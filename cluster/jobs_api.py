"""Our jobs on a cluster, through Ray's Jobs API; of other people's it knows nothing.

A job carries its study in its metadata, so that it can be continued by whoever has its name and no file. It carries no
secret: nothing of our environment travels, and the two variables that do say how Ray stops it.
"""

import logging
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.head import Head, check_jobs_api
from cluster.resources import Node
from cluster.staging import STUDY_FILE, StagedFiles
from study.spec import StudySpec
from trainable.config import InputError
from trainable.storage_url import is_url

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

ENTRYPOINT = f"python -m canopoint run {STUDY_FILE}"
MAX_NAMED = 8  # jobs, in a line
STOP_WITHIN_S = 30
"""Time that a driver has to end by itself; then Ray kills it, and the study is continued from what is on disk."""
HOW_TO_STOP = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WITHIN_S)}

METADATA = ("canopoint_study", "canopoint_folder", "canopoint_study_file")
"""What a job of ours says of itself: a study's name, its folder on the cluster, its file's text."""

NODE_GROUP = "ray.io/node-group"
"""Label of nodes that KubeRay or `ray up` made; those of `ray start` have none."""

CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
"""Loggers of Ray's that tell of every upload and every connection."""


@dataclass(frozen=True)
class Job:
    """One job of ours, as it stands.

    Attributes:
        folder: the study's, where the cluster has it.
        study_file: the study that it runs, every override applied.
        state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED, in Ray's words.
        exit_code: canopoint's own; None where it has not ended, or did not end by itself.
        started: unix seconds; of the submission.
        ended: unix seconds, or None.
    """

    submission_id: str
    study: str
    folder: str
    study_file: str
    state: str
    message: str
    exit_code: int | None
    started: float
    ended: float | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it goes on."""
        return self.state not in ("PENDING", "RUNNING")


def folder_on_cluster(spec: StudySpec) -> str:
    """The study's folder, or URL, written in one way only: no two jobs may work in it."""
    storage = spec.storage.rstrip("/") if is_url(spec.storage) else os.path.normpath(spec.storage)
    return f"{storage.rstrip('/')}/{spec.study}"


class JobsApi:
    """The Jobs API of one head.

    Attributes:
        head: what was found at the address.
    """

    def __init__(self, address: str | None) -> None:
        """Checks the head, and that it lets us in.

        Raises:
            InputError: one line that says why not.
        """
        self.head: Head = check_jobs_api(address)
        with self._answering():
            from ray.job_submission import JobSubmissionClient

            for name in CHATTY:
                logging.getLogger(name).setLevel(logging.WARNING)
            self._client = JobSubmissionClient(self.head.address)

    def jobs(self) -> list[Job]:
        """Our jobs, those that have ended included, the latest last."""
        with self._answering():
            found = [each for each in self._client.list_jobs() if each.submission_id]
        return sorted((_job(each) for each in found if _is_ours(each)), key=lambda job: job.started)

    def find(self, name: str) -> Job:
        """The job of that submission id, or the one of the study of that name.

        Raises:
            InputError: there is none, or which study is meant cannot be told.
        """
        jobs = self.jobs()
        if job := find_job(jobs, name):
            return job
        known = ", ".join(job.submission_id for job in jobs[-MAX_NAMED:]) or "none"
        raise InputError(
            f"{name}: no such job at {self.head.address} (there are: {known}); a cluster that was started anew knows"
            f" none any more: submit the study again, it continues"
        )

    def start(self, submission_id: str, spec: StudySpec, staged: StagedFiles, options: str = "") -> bool:
        """Starts a job under an id; False where another has taken that id meanwhile.

        Args:
            submission_id: of the new job.
            spec: the study.
            staged: what travels.
            options: appended to the command.
        """
        with self._answering(), tempfile.TemporaryDirectory(prefix="canopoint-staged-") as folder:
            staged.write(Path(folder))
            try:
                self._client.submit_job(
                    entrypoint=f"{ENTRYPOINT}{options}",
                    submission_id=submission_id,
                    metadata=_metadata(spec, staged),
                    runtime_env={"working_dir": folder, "env_vars": HOW_TO_STOP},
                )
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise
                return False
        return True

    def stop(self, submission_id: str) -> None:
        """Sends the interrupt; Ray kills what has not ended after STOP_WITHIN_S."""
        with self._answering():
            self._client.stop_job(submission_id)

    def logs(self, submission_id: str) -> str:
        """All that a job has said so far."""
        with self._answering():
            return str(self._client.get_job_logs(submission_id))

    def tail(self, submission_id: str) -> AsyncIterator[str]:
        """What a job says, from its first word to its end; whatever breaks the connection is raised as it is."""
        found: AsyncIterator[str] = self._client.tail_job_logs(submission_id)
        return found

    def nodes(self) -> tuple[list[Node], bool]:
        """The nodes that are alive, and whether there may be more: an operator that made them can make others."""
        from ray.util.state import list_nodes
        from ray.util.state.exception import RayStateApiException

        with self._answering():
            try:
                # Asked for those that are alive alone, Ray takes the dead ones for lost in transit.
                found = [node for node in list_nodes(self.head.address, limit=10_000) if node.state == "ALIVE"]
            except RayStateApiException as error:
                raise RuntimeError(str(error)) from error
        nodes = [Node(node.node_id, f"{node.node_name} ({node.node_ip})", node.resources_total) for node in found]
        return nodes, any(NODE_GROUP in node.labels for node in found)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Says in one line what went wrong between us and the head; and that head is asked, not the environment's."""
        import requests
        from ray.exceptions import AuthenticationError

        before = os.environ.get("RAY_API_SERVER_ADDRESS")
        os.environ["RAY_API_SERVER_ADDRESS"] = self.head.address  # Ray prefers it to the address that it is given
        try:
            yield
        except (RuntimeError, ConnectionError, AuthenticationError, requests.RequestException) as error:
            raise InputError(
                f"--address {self.head.address}: the Jobs API fails ({_last_words(error)}); see that the cluster is"
                f" well (ray status, on its head), then try again"
            ) from error
        finally:
            os.environ.pop("RAY_API_SERVER_ADDRESS")
            if before is not None:
                os.environ["RAY_API_SERVER_ADDRESS"] = before


def find_job(jobs: list[Job], name: str) -> Job | None:
    """The job of that submission id; or of a study's name its latest one, which is the one that lives. None of no job.

    Several people of one cluster may call a study the same, and nobody's job is taken for another's.

    Args:
        jobs: to choose from, the latest last.
        name: a submission id, or a study's name.

    Raises:
        InputError: studies in several folders have that name.
    """
    if named := [job for job in jobs if job.submission_id == name]:
        return named[0]
    named = [job for job in jobs if job.study == name]
    latest = {job.folder: job for job in named}
    if len(latest) > 1:
        known = ", ".join(f"{job.submission_id} in {job.folder}" for job in [*latest.values()][-MAX_NAMED:])
        raise InputError(f"{name}: is a study in {len(latest)} folders; name one of their jobs: {known}")
    return named[-1] if named else None


def _is_ours(details: "JobDetails") -> bool:
    return all(name in (details.metadata or {}) for name in METADATA)


def _metadata(spec: StudySpec, staged: StagedFiles) -> dict[str, str]:
    told = (spec.study, folder_on_cluster(spec), staged.contents[STUDY_FILE].decode())
    return dict(zip(METADATA, told, strict=True))


def _job(details: "JobDetails") -> Job:
    study, folder, study_file = ((details.metadata or {})[name] for name in METADATA)
    return Job(
        submission_id=details.submission_id or "",
        study=study,
        folder=folder,
        study_file=study_file,
        state=details.status.value,
        message=details.message or "",
        exit_code=details.driver_exit_code,
        started=(details.start_time or 0) / 1000,
        ended=details.end_time / 1000 if details.end_time else None,
    )


def _last_words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1][:200] if lines else type(error).__name__
