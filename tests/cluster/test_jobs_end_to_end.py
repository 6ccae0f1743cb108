"""A study handed to a cluster by the commands that a user types: followed, disturbed, stopped, continued, refused.

The cluster is real: a head with a token and the Jobs API, and a second raylet, as processes of their own. Beside it
runs somebody else's, which must not notice.
"""

import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.chaos_cluster import TwoNodes, one_node, two_nodes
from bench.chaos_study import NAME
from bench.cluster_study import NUM_TRIALS, SETTINGS, TIDY_WITHIN_S, WITHIN_S, ClusterStudy, undisturbed_hashes
from bench.commands import run
from bench.traces import command_line
from trainable.trial_files import read_attempts

pytestmark = pytest.mark.cluster
REFUSED_WITHIN_S = 15.0


@pytest.fixture(scope="module", autouse=True)
def stranger(scratch: Path) -> Iterator[TwoNodes]:
    """Somebody else's Ray on the same machine; at the end all that it was is still there, and it did nothing for us."""
    with one_node(scratch / "stranger", {"TMPDIR": str(scratch)}) as found:
        servers = [each for each in found.processes if "/core/src/ray/" in command_line(each)[0]]
        assert servers
        yield found
        assert all(each.lives for each in servers)
        assert not [each for each in found.processes if "canopoint" in " ".join(command_line(each))]


@pytest.fixture(scope="module")
def cluster(scratch: Path, stranger: TwoNodes) -> Iterator[TwoNodes]:
    with two_nodes(scratch / "ray", {"TMPDIR": str(scratch)}, has_jobs_api=True) as found:
        yield found


@pytest.fixture
def study(scratch: Path, cluster: TwoNodes) -> Iterator[ClusterStudy]:
    found = ClusterStudy(scratch / "study", cluster)
    found.folder.mkdir()
    yield found
    shutil.rmtree(found.folder)


@pytest.fixture(scope="module")
def undisturbed(scratch: Path) -> dict[str, str]:
    hashes = undisturbed_hashes(scratch)
    assert len(hashes) == NUM_TRIALS
    return hashes


def test_a_study_survives_the_loss_of_a_node_and_its_log_is_followed(
    study: ClusterStudy, undisturbed: dict[str, str]
) -> None:
    with study.submit() as submit:
        lost = study.wait_until_the_second_node_trains(submit)
        study.cluster.lose_node()
        exit_code = submit.wait(WITHIN_S)
    study.cluster.add_node()
    assert exit_code == 0, submit.said
    assert study.copy.hashes() == undisturbed
    assert lost
    for trial_id in lost:
        assert len(read_attempts(study.copy.study_folder / "trials" / trial_id)) > 1
    for text in (f"canopoint-{NAME}-", "trials to train", "test/miou", "SUCCEEDED"):
        assert text in submit.said
    assert (study.copy.study_folder / "analysis" / "report.html").is_file()
    study.wait_until_nothing_runs()


def test_a_stopped_study_is_continued_by_submit_and_by_resume(study: ClusterStudy, undisturbed: dict[str, str]) -> None:
    with study.submit() as first:
        job = study.wait_until_it_trains(first)
        with study.submit() as second:
            second.wait_until_it_says(f"job {job} runs this study already", WITHIN_S)
            stop(study, job)
            for waiting in (first, second):
                assert waiting.wait(TIDY_WITHIN_S) == 3, waiting.said
                assert f"canopoint resume {job}" in waiting.said
    before = study.copy.hashes()
    with study.submit() as again:
        stop(study, study.wait_until_it_trains(again))
        assert again.wait(TIDY_WITHIN_S) == 3, again.said
    code, said = study.say("resume", NAME)
    assert code == 0, said
    assert before.items() <= study.copy.hashes().items()
    assert study.copy.hashes() == undisturbed
    attempts = [each for path in study.copy.trial_folders() for each in read_attempts(path)]
    assert sum(each["from_epoch"] > 0 for each in attempts) >= 2
    study.wait_until_nothing_runs()
    code, said = study.say("logs", NAME)
    assert code == 0
    assert "report:" in said
    code, said = study.say("status", NAME)
    assert code == 0
    assert "SUCCEEDED" in said


def stop(study: ClusterStudy, job: str) -> None:
    """Stops a job by its name; it ends, says how to continue, and leaves nothing that runs."""
    code, said = study.say("stop", job)
    assert code == 0, said
    assert f"canopoint resume {job}" in said
    study.wait_until_nothing_runs()


REFUSALS: dict[str, tuple[dict[str, str], list[str], str]] = {
    "no token": ({"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": ""}, [], "asks for a token"),
    "no token, and the mode alone": ({"RAY_AUTH_TOKEN": ""}, [], "asks for a token"),
    "a wrong token": ({"RAY_AUTH_TOKEN": secrets.token_hex(32)}, [], "does not accept our token"),
    "nobody there": ({}, ["--address", "http://127.0.0.1:9"], "nothing answers there"),
    "no address": ({}, ["--address", ""], "--address: is missing"),
    "a GPU": ({}, ["--set", "resources.gpus_per_trial=1"], "resources.gpus_per_trial"),
    "more CPUs than there are": ({}, ["--set", "resources.cpus_per_trial=64"], "resources: a trial asks for 64 CPUs"),
    "storage that stays here": ({}, ["--set", "storage=studies"], "storage: studies is relative"),
    "data that stay here": ({}, ["--set", "data={root: forest}"], "data.root: forest is relative"),
    "a secret": ({}, ["--set", "tracking.api_key=hunter2"], "tracking.api_key: looks like a secret"),
    "a study that is none": ({}, ["--set", "training.epochs=0"], "training.epochs: must be at least 1"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_is_refused_at_once_and_nothing_starts(study: ClusterStudy, case: str) -> None:
    changes, options, reason = REFUSALS[case]
    environment = {**study.cluster.environment, "HOME": str(study.folder), **changes}  # a token may lie at home, too
    settings = [part for each in [*SETTINGS, f"storage={study.folder / 'studies'}"] for part in ("--set", each)]
    arguments = ["submit", "demo", *settings, "--address", study.cluster.jobs_url, *options]
    started = time.monotonic()
    code, said = run(study.folder, environment, *arguments)
    assert (code, len(said.splitlines())) == (2, 1), said
    assert time.monotonic() - started < REFUSED_WITHIN_S
    assert said.startswith("canopoint: ")
    assert reason in said
    assert "hunter2" not in said
    assert [path.name for path in study.folder.iterdir()] == ["said-0.txt"]
    known_jobs = study.say("logs", "no-such-job")[1]
    assert "no such job" in known_jobs
    assert not study.processes()
