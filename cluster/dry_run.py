"""What `submit` would do: the files that would travel, the plan, what a trial gets and what the cluster has."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from cluster.jobs import check_fits_now, live_job, next_submission_id
from cluster.jobs_api import ENTRYPOINT, JobsApi, folder_on_cluster
from cluster.preparation import Say, find_work
from cluster.progress import plan_text
from cluster.remote_study import open_remote
from cluster.resources import GIB, Node, num_concurrent, num_fitting, trial_request
from cluster.staging import MAX_BYTES, StagedFiles, stage
from study.spec import StudySpec
from trainable.config import InputError


def dry_run(spec: StudySpec, address: str | None, say: Say) -> None:
    """Says what `submit` would do; asks the head how it is, and hands nothing over.

    Raises:
        InputError: as `submit` would.
    """
    staged = stage(spec)
    api = JobsApi(address)
    jobs, (nodes, may_grow) = api.jobs(), api.nodes()
    job = live_job(jobs, spec)
    if not job:
        check_fits_now(spec, nodes, may_grow)
    for line in _file_lines(staged):
        say(line)
    doing = f"follow {job.submission_id} ({job.state})" if job else f"start {next_submission_id(jobs, spec.study)}"
    say(f"would        {doing} at {api.head.address} (Ray {api.head.ray_version}): {ENTRYPOINT}")
    say(f"folder       {folder_on_cluster(spec)}, as every node sees it")
    say(f"a trial gets {_amounts(trial_request(spec.resources))}")
    for node in nodes:
        at_once = num_fitting(spec.resources, node.resources)
        say(f"node         {node.name}: {_amounts(node.resources)}: {_count(at_once, 'trial')} at a time")
    if may_grow:
        say("more nodes   may come: an operator makes them")
    for line in _plan(spec, nodes):
        say(line)
    say("nothing was uploaded or started")


def _file_lines(staged: StagedFiles) -> list[str]:
    width = max(map(len, staged.contents))
    lines = [f"  {name:<{width}} {len(content):>9,} B" for name, content in staged.contents.items()]
    total = f"{len(staged.contents)} files, {staged.num_bytes:,} B of at most {MAX_BYTES:,} B"
    return ["would travel:", *lines, f"  {total}"]


def _amounts(resources: Mapping[str, float]) -> str:
    """CPUs and GPUs, and memory in GiB."""
    memory = f", {resources['memory'] / GIB:.1f} GiB of memory" if resources.get("memory") else ""
    return f"{_count(resources.get('CPU', 0), 'CPU')}, {_count(resources.get('GPU', 0), 'GPU')}{memory}"


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'s' * (number != 1)}"


def _plan(spec: StudySpec, nodes: list[Node]) -> list[str]:
    """The plan with the cluster's cores, by the data and what is stored of the study, where they are seen from here."""
    try:
        if spec.data.root and not Path(spec.data.root).is_dir():
            raise InputError(f"data.root: {spec.data.root} is not seen from here")
        remote = open_remote(spec)
    except InputError as error:
        return [f"plan         is made on the cluster: {error}"]
    with TemporaryDirectory(prefix="canopoint-data-") as scratch:  # for made data: nothing is written elsewhere
        work = find_work(spec, remote, Path(scratch))
    lines = plan_text(work.plan(num_concurrent(spec.resources, nodes))).splitlines()
    if not remote and not spec.folder.parent.is_dir():
        lines.append(
            f"note         storage: {spec.storage} is not seen from here; what is done there already is not counted"
        )
    return lines
