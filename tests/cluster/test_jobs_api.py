"""Which jobs are ours, and which one is meant; a whole head: test_jobs.py."""

from dataclasses import replace

import pytest
from ray.job_submission import JobDetails

from cluster.jobs_api import METADATA, Job, _is_ours, find_job
from trainable.config import InputError


def job(submission_id: str, folder: str, state: str, study: str = "tiny") -> Job:
    known = Job(submission_id, study, folder, "", state, "", None, 1e9, None)
    return replace(known, ended=None if state == "RUNNING" else 2e9)


def details(metadata: dict[str, str] | None) -> JobDetails:
    return JobDetails(type="SUBMISSION", submission_id="j", status="RUNNING", entrypoint="true", metadata=metadata)


def test_a_job_that_says_a_part_of_what_ours_say_is_somebody_elses():
    whole = dict.fromkeys(METADATA, "x")
    assert _is_ours(details({**whole, "owner": "me"}))
    for metadata in (None, {}, *({k: v for k, v in whole.items() if k != name} for name in METADATA)):
        assert not _is_ours(details(metadata))


OURS, THEIRS = "/lab/ours/tiny", "/lab/theirs/tiny"


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([("a", OURS, "STOPPED"), ("b", OURS, "FAILED")], "b"),
        ([("a", OURS, "FAILED"), ("b", OURS, "RUNNING")], "b"),
        ([("a", THEIRS, "RUNNING", "other"), ("b", OURS, "FAILED")], "b"),
        ([("tiny", THEIRS, "FAILED", "other"), ("b", OURS, "RUNNING")], "tiny"),
        ([("a", THEIRS, "RUNNING", "other")], None),
        ([], None),
    ],
)
def test_a_name_is_that_of_a_job_or_of_a_study_whose_latest_job_is_meant(jobs, expected):
    found = find_job([job(*each) for each in jobs], "tiny")
    assert (found and found.submission_id) == expected


@pytest.mark.parametrize("state", ["RUNNING", "STOPPED"])
def test_where_the_name_is_that_of_several_studies_nobodys_job_is_taken_for_anothers(state):
    jobs = [job("a", OURS, "STOPPED"), job("b", OURS, state), job("c", THEIRS, state), job("d", "/lab/d", "STOPPED")]
    with pytest.raises(InputError) as caught:
        find_job(jobs, "tiny")
    line = str(caught.value)
    assert "\n" not in line
    assert f"b in {OURS}" in line
    assert f"c in {THEIRS}" in line
    assert "d in /lab/d" in line
    assert find_job(jobs, "c") == jobs[2]
