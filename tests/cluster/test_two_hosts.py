"""A cluster of two hosts with an address each, as network namespaces are: what loopback would hide shows here."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.chaos_cluster import one_node, two_nodes
from bench.chaos_study import NAME
from bench.cluster_study import TIDY_WITHIN_S, WITHIN_S, ClusterStudy, undisturbed_hashes
from bench.hosts import Host, NoHostsError, two_hosts
from trainable.trial_files import read_attempts

pytestmark = pytest.mark.cluster
REFUSED_WITHIN_S = 15.0


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    try:
        with two_hosts() as found:
            yield found
    except NoHostsError as error:
        pytest.skip(str(error))


def environment(scratch: Path) -> dict[str, str]:
    return {"TMPDIR": str(scratch), "HOME": str(scratch)}


def test_a_study_goes_to_the_other_host_survives_its_loss_is_stopped_and_continued(
    scratch: Path, hosts: tuple[Host, Host]
) -> None:
    undisturbed = undisturbed_hashes(scratch)
    with two_nodes(scratch / "ray", environment(scratch), has_jobs_api=True, hosts=hosts) as cluster:
        assert cluster.jobs_url.startswith(f"http://{hosts[0].address}:")
        study = ClusterStudy(scratch / "study", cluster, host=hosts[1])
        study.folder.mkdir()
        with study.submit() as submit:
            lost = study.wait_until_the_second_node_trains(submit)
            assert lost, submit.said
            cluster.lose_node()
            job = study.wait_until_it_trains(submit)
            code, said = study.say("stop", job)
            assert code == 0, said
            assert f"canopoint resume {job}" in said
            assert submit.wait(TIDY_WITHIN_S) == 3, submit.said
        study.wait_until_nothing_runs()
        cluster.add_node()
        with study.submit() as again:
            assert again.wait(WITHIN_S) == 0, again.said
        assert study.copy.hashes() == undisturbed
        for trial_id in lost:
            assert len(read_attempts(study.copy.study_folder / "trials" / trial_id)) > 1
        study.wait_until_nothing_runs()


def test_storage_that_the_other_host_does_not_share_is_refused_before_the_first_trial(
    scratch: Path, hosts: tuple[Host, Host]
) -> None:
    folder = scratch / "unshared"
    (folder / "studies").mkdir(parents=True)
    unshared = (hosts[0], hosts[1].without(folder / "studies"))
    with two_nodes(scratch / "ray-u", environment(scratch), has_jobs_api=True, hosts=unshared) as cluster:
        study = ClusterStudy(folder, cluster, host=hosts[1])
        started = time.monotonic()
        with study.submit() as submit:
            assert submit.wait(WITHIN_S) == 2, submit.said
        assert time.monotonic() - started < 2 * REFUSED_WITHIN_S
        refusal = next(line for line in submit.said.splitlines() if line.startswith("canopoint: "))
        assert hosts[1].address in refusal
        assert "storage" in refusal
        assert not study.copy.trial_folders()
        study.wait_until_nothing_runs()


def test_a_head_that_anyone_can_use_is_refused(scratch: Path, hosts: tuple[Host, Host]) -> None:
    open_to_all = {**environment(scratch), "RAY_AUTH_MODE": "disabled"}
    with one_node(scratch / "ray-o", open_to_all, has_jobs_api=True, hosts=hosts) as cluster:
        study = ClusterStudy(scratch / "open", cluster, host=hosts[1])
        study.folder.mkdir()
        started = time.monotonic()
        with study.submit() as submit:
            assert submit.wait(WITHIN_S) == 2, submit.said
        assert time.monotonic() - started < REFUSED_WITHIN_S
        assert len(submit.said.splitlines()) == 1
        assert "CVE-2023-48022" in submit.said
        assert [path.name for path in study.folder.iterdir()] == [submit.log.name]
        code, said = study.say("logs", NAME)
        assert (code, "CVE-2023-48022" in said) == (2, True), said
