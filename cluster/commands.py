"""The commands that speak to a cluster: submit, resume, logs, stop, cluster check, manifest; and watch.

Each delegates; imports are lazy, so that errors come at once.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from cluster.terminal import BAD_INPUT, COMPLETE, inert
from trainable.config import InputError

Command = Callable[[argparse.Namespace], int]
Register = Callable[[Command], argparse.ArgumentParser]

ADDRESS_HELP = "of the cluster's Jobs API, as in http://127.0.0.1:8265 (RAY_API_SERVER_ADDRESS or RAY_ADDRESS)"
JOB_HELP = "a job's submission id, or a study's name for its job that runs, else its latest"


def submit(arguments: argparse.Namespace) -> int:
    """Run a study on a cluster through the Ray Jobs API, and follow it; attach where it runs already."""
    from cluster.dry_run import dry_run
    from cluster.jobs import submit as submit_job
    from study.design import open_study

    spec = open_study(arguments.study, arguments.set)
    if arguments.dry_run:
        dry_run(spec, arguments.address, say)
        return COMPLETE
    return submit_job(spec, arguments.address, say, wait=not arguments.no_wait, accept_changes=arguments.accept_changes)


def resume(arguments: argparse.Namespace) -> int:
    """Submit the study of an earlier job again: it goes on from what is on disk."""
    from cluster.jobs import resume as resume_job

    return resume_job(
        arguments.job, arguments.address, say, wait=not arguments.no_wait, accept_changes=arguments.accept_changes
    )


def logs(arguments: argparse.Namespace) -> int:
    """Show what a job has said."""
    from cluster.jobs import show_logs

    return show_logs(arguments.job, arguments.address, say, follow=arguments.follow)


def stop(arguments: argparse.Namespace) -> int:
    """Interrupt a job, as Ctrl-C would, and wait for its end; what is done is kept."""
    from cluster.jobs import stop as stop_job

    return stop_job(arguments.job, arguments.address, say, wait=not arguments.no_wait)


def cluster_check(arguments: argparse.Namespace) -> int:
    """Check every node for a study, as a run does before its first trial; trains nothing."""
    from cluster.cluster_check import check_cluster
    from study.design import open_study

    report = check_cluster(open_study(arguments.study, arguments.set), arguments.address, say)
    for line in report.table().splitlines():
        say(line)
    return BAD_INPUT if report.problems else COMPLETE


def manifest(arguments: argparse.Namespace) -> int:
    """Write the file that runs a study on Kubernetes, on cloud machines or under Slurm."""
    from cluster.manifests import render
    from study.design import open_study

    text = render(arguments.kind, open_study(arguments.study, arguments.set), arguments.image)
    if arguments.out is None:
        print(text, end="", flush=True)  # byte for byte, as into a file
        return COMPLETE
    try:
        with arguments.out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(f"{arguments.out}: exists already; rename it, or give --out another name") from error
    except OSError as error:
        raise InputError(
            f"--out {arguments.out}: cannot be written ({error.strerror}); name a new file in a folder that is there"
        ) from error
    say(f"wrote {arguments.out}; its first lines say how to use it")
    return COMPLETE


def watch(arguments: argparse.Namespace) -> int:
    """Show a study while it runs, live in a terminal, line by line in a log; reads its files alone."""
    from cluster.watch import watch_study

    return watch_study(arguments.study_folder, say, every_s=arguments.every)


def add_commands(command: Register, commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds these commands to the command line; `command` adds one by its function."""
    for function in (submit, resume):
        added = command(function)
        if function is submit:
            add_study(added)
            added.add_argument("--dry-run", action="store_true", help="say what would travel and run; upload nothing")
        else:
            added.add_argument("job", help=JOB_HELP)
        added.add_argument("--address", help=ADDRESS_HELP)
        added.add_argument("--no-wait", action="store_true", help="do not follow the job")
        added.add_argument(
            "--accept-changes", action="store_true", help="go on although data or trainer are not as they were"
        )
    for function in (logs, stop):
        added = command(function)
        added.add_argument("job", help=JOB_HELP)
        added.add_argument("--address", help=ADDRESS_HELP)
        if function is logs:
            added.add_argument("-f", "--follow", action="store_true", help="until the job ends")
        else:
            added.add_argument("--no-wait", action="store_true", help="do not wait for its end")
    added = command(manifest)
    added.add_argument("kind", help="kuberay, ray-aws, ray-gcp, ray-onprem or slurm")
    add_study(added)
    added.add_argument(
        "--image", help="container image, as cluster/manifests/Containerfile builds it (canopoint:VERSION)"
    )
    added.add_argument("--out", type=Path, help="a new file (standard output)")
    added = command(watch)
    added.add_argument("study_folder", help="the study's folder or URL, as in studies/demo or s3://bucket/studies/demo")
    added.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="between two looks (5)")
    parts = commands.add_parser("cluster", help="check: " + str(cluster_check.__doc__)).add_subparsers(
        metavar="check", required=True
    )
    added = parts.add_parser("check", description=cluster_check.__doc__)
    added.set_defaults(command=cluster_check)
    add_study(added)
    added.add_argument("--address", help="HOST:PORT of the head, given on one of its nodes (RAY_ADDRESS, or none)")


def say(line: str) -> None:
    """Prints one line at once, for whoever follows; what a cluster says of others' doing moves no cursor here."""
    print(inert(line.expandtabs()), flush=True)


def add_study(parser: argparse.ArgumentParser) -> None:
    """Adds what every command that takes a study file takes."""
    parser.add_argument("study", help="a study file, or the name of one in the catalog")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in training.epochs=2")
