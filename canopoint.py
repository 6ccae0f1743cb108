"""The command line: every command on one screen, each delegates. Imports are lazy, so that errors come at once.

Exit codes: 0 every trial reached its end; 2 bad input, nothing written; 3 incomplete, run again to continue;
1 a defect of ours.
"""

import argparse
import errno
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.commands import ADDRESS_HELP, add_commands, add_study
from cluster.terminal import BAD_INPUT, COMPLETE, INCOMPLETE, program, shown
from trainable.config import DataConfig, InputError, SyntheticConfig, TrainConfig, from_mapping
from trainable.storage_url import is_url

if TYPE_CHECKING:
    from analysis.analyze import Analysis, Draw
    from analysis.findings import Findings
    from analysis.reading.runs import StudyRuns
    from analysis.reading.source import Source
    from cluster.remote_study import RemoteStudy

STUDY_HELP = "the study's folder or URL, as in studies/demo or s3://bucket/studies/demo"
DISK_TROUBLES = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = _parser().parse_args(argv)
    _say_warnings_once()
    try:
        code: int = arguments.command(arguments)
    except InputError as error:
        print(f"canopoint: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("\ncanopoint: interrupted; the same command continues where this one stopped", file=sys.stderr)
        _exit_now(INCOMPLETE)
    except BrokenPipeError:  # whoever read our output, as `head` does, has gone
        os._exit(INCOMPLETE)
    except OSError as error:
        if error.errno not in DISK_TROUBLES:
            raise
        print(f"canopoint: {error}; the same command continues once that is mended", file=sys.stderr)
        return INCOMPLETE
    return code


def init(arguments: argparse.Namespace) -> int:
    """Copy a study of the catalog here, to be edited."""
    from study.spec import find_study

    source = find_study(arguments.name)
    target = Path(f"{source.stem}.yaml")
    if target.exists():
        raise InputError(f"{target}: exists already; rename it or edit it as it is")
    shutil.copyfile(source, target)
    _say(f"wrote {target}; edit it, then: {program('canopoint')} plan {target}")
    return COMPLETE


def validate(arguments: argparse.Namespace) -> int:
    """Check a study file and its data."""
    from cluster.preparation import prepare
    from study.design import open_study

    work = prepare(open_study(arguments.study, arguments.set))
    _say(f"{arguments.study}: valid; {len(work.index.pairs)} images, {work.plan().num_trials} trials")
    return COMPLETE


def plan(arguments: argparse.Namespace) -> int:
    """Show what would run, what is reused, and the cost: trials of both phases, expected time and GPU-hours."""
    from cluster.preparation import prepare
    from cluster.progress import plan_text
    from study.design import open_study
    from study.plan import describe_plan

    planned = prepare(open_study(arguments.study, arguments.set)).plan()
    _say(json.dumps(describe_plan(planned), indent=2) if arguments.format == "json" else plan_text(planned))
    return COMPLETE


def run(arguments: argparse.Namespace) -> int:
    """Run what is missing of a study, then say what it found."""
    return _run(arguments)


def confirm(arguments: argparse.Namespace) -> int:
    """Confirm on fresh seeds without exploring: given cells, or the winners of a finished exploration."""
    from study.design import open_study, read_cell

    spec = open_study(arguments.study, arguments.set)
    if not spec.confirm:
        raise InputError(f"{arguments.study}: has no confirm section; add confirm: {{seeds: [100, 101, 102]}}")
    return _run(arguments, confirm_alone=[read_cell(spec, text) for text in arguments.cell])


def extend(arguments: argparse.Namespace) -> int:
    """Add confirmation seeds at the scientific levels that the findings leave undecided, and run them."""
    from cluster.extension import undecided_levels
    from study.design import open_study

    spec = open_study(arguments.study, arguments.set)
    levels, seeds = undecided_levels(spec, arguments.seeds)
    if not levels:
        _say("the findings leave no level undecided: nothing to add")
        return COMPLETE
    _say(f"seeds {', '.join(map(str, seeds))} for {', '.join(levels)}")
    return _run(arguments, extend_levels=list(levels.values()), extend_seeds=seeds)


def status(arguments: argparse.Namespace) -> int:
    """Show how a study stands, also while it runs, by its files alone; or how a cluster's job stands."""
    from cluster.head import named_address

    is_here = is_url(arguments.study) or Path(arguments.study).exists()
    if arguments.address or (not is_here and named_address()):
        from cluster.jobs import describe_job, job_text

        job = describe_job(arguments.study, arguments.address)
        _say(json.dumps(job, indent=2) if arguments.format == "json" else job_text(job))
        return COMPLETE
    from cluster.remote_study import find_remote
    from cluster.status import describe_status, read_status, status_text

    remote = find_remote(arguments.study)
    found = read_status(remote.folder, driver=remote.find_driver()) if remote else read_status(Path(arguments.study))
    _say(json.dumps(describe_status(found), indent=2) if arguments.format == "json" else status_text(found))
    return COMPLETE


def _run(arguments: argparse.Namespace, **wishes: Any) -> int:
    from cluster.head import driver_address
    from cluster.remote_study import RemoteStudy
    from cluster.tuner import Wishes, run_study
    from study.design import open_study

    spec = open_study(arguments.study, arguments.set)
    wanted = Wishes(address=driver_address(arguments.address), accept_changes=arguments.accept_changes, **wishes)
    outcome = run_study(spec, _say, wanted)
    lines = {
        "failed": outcome.failures,
        "diverged": outcome.diverged,
        "problem": outcome.problems,
        "not in W&B": outcome.mirror_problems,
    }
    for label, texts in lines.items():
        for text in texts:
            _say(f"{label}: {text}")
    if not outcome.complete:
        why = f"stopped by {outcome.stopped_by}; " if outcome.stopped_by else ""
        left = f"trials still to run: {outcome.num_missing}" if outcome.num_missing else "W&B does not show all"
        how = f"{program('canopoint')} run" if arguments.command is extend else "the same command"
        where = spec.url or shown(outcome.folder)
        _say(f"{why}{left}; {how} continues; {program('canopoint')} analyze {where} reads what is done")
        if outcome.is_mirror_stuck:
            _exit_now(INCOMPLETE)
        return INCOMPLETE
    _say("reading the W&B runs and comparing")
    _show_findings(outcome.folder, as_json=False, draw=_draw_panels)
    if spec.url:
        RemoteStudy(spec.url).push_analysis()
    return COMPLETE


def analyze(arguments: argparse.Namespace) -> int:
    """Turn W&B runs into findings, a report and the best configuration: a study's, or those of any W&B project."""
    with _source(arguments) as source:
        _show_findings(source, as_json=arguments.format == "json")
    return COMPLETE


def report(arguments: argparse.Namespace) -> int:
    """Do what analyze does, with pictures of the best and the worst scenes; show it in W&B, if asked."""
    if arguments.to_wandb and not re.fullmatch(r"[^/]+/[^/]+", arguments.to_wandb):
        raise InputError(f"--to-wandb {arguments.to_wandb}: must be ENTITY/PROJECT, as in me/canopoint")
    with _source(arguments) as source:
        analysis = _show_findings(source, as_json=False, draw=_draw_panels)
        if arguments.to_wandb:
            from analysis.report.wandb_report import write_back

            address = write_back(analysis.findings, analysis.report_path, arguments.to_wandb, analysis.findings.study)
            _say(f"in W&B:   {address}")
    return COMPLETE


def power(arguments: argparse.Namespace) -> int:
    """What a study would show with more seeds, judged from this one as a pilot: differences, seeds, hours."""
    from analysis.find import find
    from analysis.power import SEEDS, describe_power, plan_power, power_text
    from analysis.reading.runs import load_study

    _, source = _find_source(arguments)
    runs = load_study(source)
    planned = plan_power(runs, find(runs, with_topics=False), arguments.seeds or SEEDS, arguments.margin)
    _say(json.dumps(describe_power(planned), indent=2) if arguments.format == "json" else power_text(planned))
    return COMPLETE


def export(arguments: argparse.Namespace) -> int:
    """Export the best model of each level: configuration, weights, model card, graphs; and a zoomed study file."""
    from analysis.export.bundles import plan_bundles
    from analysis.export.zoom import export_zoomed
    from analysis.find import find
    from analysis.reading.runs import load_study
    from trainable.exported import ModelExport, export_models

    if is_url(arguments.study):
        raise InputError(f"{arguments.study}: export takes a folder; copy the study here, its checkpoints too")
    folder = Path(arguments.study)
    runs = load_study(folder)
    findings = find(runs)
    out = arguments.out or folder / "analysis" / "export"
    bundles = plan_bundles(folder, runs, findings, onnx=arguments.onnx)
    models = [
        ModelExport(folder / "trials" / each.trial_id, out / each.name, each.texts, each.header) for each in bundles
    ]
    export_models(models, onnx=arguments.onnx, say=_say)
    (recommended,) = (each.name for each in bundles if each.is_recommended)
    _say(f"recommended: {shown(out / recommended)}")
    if zoomed := export_zoomed(folder, out, runs, findings):
        _say(f"{shown(zoomed)}: the question again, around the best of this study")
    return COMPLETE


def sync(arguments: argparse.Namespace) -> int:
    """Name what W&B lacks of a study's trials, and show it to W&B; trains nothing."""
    from analysis.reading.gaps import find_gaps
    from analysis.reading.source import ONLINE, find_source
    from cluster.preparation import Work
    from cluster.sync import sync_study

    def look(work: Work, project: str | None) -> dict[str, str]:
        place, filters = (work.folder, []) if project is None else (ONLINE + project, [f"group={work.spec.study}"])
        runs = find_source(place, filters, out=work.folder).read() if project != "" else []
        return find_gaps(work.folder, runs)

    return sync_study(arguments.study, _say, look)


@contextmanager
def _source(arguments: argparse.Namespace) -> "Iterator[Source]":
    """What is to be read; the results of a study in an object store are pushed there in the end."""
    remote, source = _find_source(arguments)
    yield source
    if remote:
        remote.push_analysis()


def _find_source(arguments: argparse.Namespace) -> "tuple[RemoteStudy | None, Source]":
    """What is to be read, and the study in an object store that it is the local copy of."""
    from analysis.reading.source import ONLINE, find_source
    from cluster.remote_study import find_remote

    remote = None if arguments.study.startswith(ONLINE) else find_remote(arguments.study)
    place = remote.folder if remote else arguments.study
    return remote, find_source(place, arguments.filter, arguments.map, arguments.out)


def _show_findings(place: "Source | Path", *, as_json: bool, draw: "Draw | None" = None) -> "Analysis":
    from analysis.analyze import analyze_study

    analysis = analyze_study(place, draw)
    if as_json:
        _say(analysis.findings_path.read_text().rstrip())
        return analysis
    _say(f"\n{analysis.text}\n")
    places = {"report": analysis.report_path, "best": analysis.best_path}
    for label, path in places.items():
        if path:
            _say(f"{label + ':':<10}{shown(path)}")
    if analysis.best_path:
        _say(f"\nnext:     {program('canopoint')} train {shown(analysis.best_path)}   (trains that model)")
    if folder := analysis.runs.study_dir:
        _say(f"          {program('canopoint')} export {shown(folder)}   (weights, model cards, ONNX)")
        _say(f"          {program('wandb')} leet {shown(folder / 'wandb')}   (every run's curves, in the terminal)")
    return analysis


def _draw_panels(runs: "StudyRuns", findings: "Findings", out: Path) -> None:
    """Pictures of the recommended model's scenes beside the other results, where the study's trials are at hand."""
    from trainable.panel_files import lacks_panels

    trial_id = findings.recommended.trial_ids[0]
    if runs.study_dir and lacks_panels(runs.study_dir, trial_id, out):
        from trainable.panels import draw_panels  # torch: seconds, which only new pictures are worth

        data = from_mapping(DataConfig, runs.data_config, "data_config")
        draw_panels(runs.study_dir, trial_id, data, runs.study_dir.parent / ".cache", _say, out=out)


def train(arguments: argparse.Namespace) -> int:
    """Train one configuration, as `run` exports it."""
    from cluster.single import train_file
    from study.training_file import read_training_file

    trained = train_file(read_training_file(arguments.file), arguments.out, _say)
    if trained.trained_before:
        _say("trained already: nothing to do")
    if trained.diverged:
        _say(f"{trained.diverged}; lower the learning rate")
    _say(f"weights and metrics: {shown(trained.folder)}")
    if trained.same_trial is False:
        _say("its settings, data or trainer differ from those of the trial it was exported from; so do its metrics")
    elif trained.same_trial and trained.same_bits is not None:
        equal = "reproduces the exported trial bit by bit"
        _say(equal if trained.same_bits else "differs from the exported trial: another machine or version of torch?")
    return COMPLETE


def data(arguments: argparse.Namespace) -> int:
    """Write the made data set into a folder, as an example of how a data folder looks."""
    from trainable.atomic import new_folder
    from trainable.synthetic import write_synthetic

    if arguments.folder.exists():
        raise InputError(f"{arguments.folder}: exists already; give a new folder")
    with new_folder(arguments.folder) as scratch:
        write_synthetic(SyntheticConfig(), scratch)
    _say(f"wrote {arguments.folder}: images/, masks/, meta_data.csv")
    return COMPLETE


def points(arguments: argparse.Namespace) -> int:
    """Write out which pixels of a folder's images to label: CSV or GeoJSON."""
    from trainable.labelling import write_points_to_label

    settings = {
        "points_per_image": arguments.points,
        "point_strategy": arguments.strategy,
        "image_size": arguments.image_size,
        "seed": arguments.seed,
    }
    rows = write_points_to_label(
        arguments.folder, from_mapping(TrainConfig, settings, "points"), arguments.out, arguments.group
    )
    _say(f"wrote {arguments.out}: {len(rows)} points in {len({row.image for row in rows})} images")
    if not rows[0].class_name:
        _say(f"fill in the column class, then train on it: data.annotations: {{format: {arguments.out.suffix[1:]}}}")
    return COMPLETE


def predict(arguments: argparse.Namespace) -> int:
    """Map forest in images of any size with a trained model."""
    from trainable.trained import predict_files

    predict_files(arguments.trained, arguments.images, arguments.out, arguments.overlap, _say)
    return COMPLETE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="canopoint",
        description="How many points per image must be labelled, and with which learning rate and focal gamma?",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(function: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(
            function.__name__, help=function.__doc__, description=function.__doc__
        )
        added.set_defaults(command=function)
        return added

    command(init).add_argument("name", nargs="?", default="demo", help="a study of the catalog")
    for function in (validate, plan, run, confirm, extend):
        _add_study_options(command(function), function)
    added = command(status)
    added.add_argument("study", help=f"{STUDY_HELP}; or a job")
    added.add_argument("--format", choices=("table", "json"), default="table")
    added.add_argument("--address", help=ADDRESS_HELP)
    for function in (analyze, report, power):
        _add_source_options(command(function), function)
    added = command(export)
    added.add_argument("study", help="the study's folder, as in studies/demo")
    added.add_argument("--onnx", action="store_true", help="ONNX files too (pip install 'canopoint[onnx]')")
    added.add_argument("--out", type=Path, help="folder of the exports (STUDY/analysis/export)")
    command(sync).add_argument("study", help=STUDY_HELP)
    add_commands(command, commands)
    added = command(train)
    added.add_argument("file", type=Path, help="a training file, as in studies/demo/analysis/best.yaml")
    added.add_argument("--out", type=Path, default=Path("trained"), help="folder for the trained models")
    command(data).add_argument("folder", type=Path, help="a new folder")
    added = command(points)
    added.add_argument("folder", type=Path, help="a folder that holds images/, and perhaps masks/")
    added.add_argument("--out", type=Path, required=True, help="a new file, .csv or .geojson")
    added.add_argument("--points", type=int, default=50, help="points per image (50)")
    added.add_argument("--strategy", default="uniform", help="uniform, grid, clustered; more where there are masks")
    added.add_argument("--seed", type=int, default=0, help="draw seed (0)")
    added.add_argument("--group", default="scene", help="column of meta_data.csv that names the scene (scene)")
    added.add_argument("--image-size", type=int, default=256, help="side that a study resizes images to (256)")
    added = command(predict)
    added.add_argument(
        "trained", type=Path, help="a trained run's folder, as in studies/demo/trials/ID, or an exported"
    )
    added.add_argument("images", type=Path, nargs="+", help="image files of any size")
    added.add_argument("--out", type=Path, default=Path("predicted"), help="folder for the masks")
    added.add_argument("--overlap", type=int, default=None, help="pixels that tiles share (a quarter of a tile)")
    return parser


def _add_study_options(added: argparse.ArgumentParser, function: Callable[[argparse.Namespace], int]) -> None:
    """Flags of the commands that take a study file."""
    add_study(added)
    if function is plan:
        added.add_argument("--format", choices=("table", "json"), default="table")
    if function in (run, confirm, extend):
        joined = "HOST:PORT of a running Ray's head to join, or local (RAY_ADDRESS, or a Ray of our own)"
        added.add_argument("--address", help=joined)
        added.add_argument(
            "--accept-changes", action="store_true", help="go on although data or trainer are not as they were"
        )
    if function is confirm:
        cell = "as in '{points_per_image: 50, learning_rate: 1e-3}'; repeat for more"
        added.add_argument("--cell", action="append", default=[], metavar="LEVELS", help=cell)
    if function is extend:
        added.add_argument("--undecided", action="store_true", required=True, help="where the findings say so")
        added.add_argument("--seeds", type=int, default=3, help="how many seeds to add (3)")


def _add_source_options(added: argparse.ArgumentParser, function: Callable[[argparse.Namespace], int]) -> None:
    """Flags of the commands that read W&B runs."""
    added.add_argument("study", help=f"{STUDY_HELP}; or wandb://ENTITY/PROJECT")
    only = "of a W&B project, the runs of this group, state, tag or config.NAME, as in group=demo; repeat for more"
    added.add_argument("--filter", action="append", default=[], metavar="KEY=VALUE", help=only)
    named = "runs of other projects: where a name of ours stands in theirs, as in points=num_points; repeat for more"
    added.add_argument("--map", action="append", default=[], metavar="NAME=COLUMN", help=named)
    added.add_argument("--out", type=Path, help="folder of the results (STUDY; of a W&B project, ./PROJECT-GROUP)")
    if function is not report:
        added.add_argument("--format", choices=("table", "json"), default="table")
    else:
        added.add_argument("--to-wandb", metavar="ENTITY/PROJECT", help="show the findings there, in the study's group")
    if function is power:
        added.add_argument("--seeds", type=int, nargs="+", help="numbers of seeds to look at (2 to 20)")
        added.add_argument("--margin", type=float, help="in place of the study's own")


def _say_warnings_once() -> None:
    """Shows what is logged as a warning, such as a file that was damaged; a second time is once too often."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        is_known = text in said
        said.add(text)
        return not is_known

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    handler.addFilter(is_new)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _exit_now(code: int) -> None:
    """Ends the process without W&B's exit handlers, which wait half a minute for a server that does not answer.

    All that is ours is on disk, and the next run catches up.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
