"""What chaos concludes, by hand; the kills themselves are in tests/cluster/test_faults.py."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb

from bench.chaos import main
from bench.chaos_cluster import two_nodes
from bench.chaos_report import Tally, table
from bench.chaos_study import NAME, Scale, Standing, StudyCopy
from bench.chaos_verdict import Kill, Reruns, Verdict, count_reruns, judge
from bench.processes import descendants, process, wait_for
from study.ledger import open_ledger
from study.spec import load_study
from trainable.sealed import sealed_line, write_sealed
from trainable.trial_files import append_attempt, append_row, read_result, write_result

ROOT = Path(__file__).resolve().parent.parent.parent
TRIALS = ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
WAIT_S = 120
MakeCopy = Callable[..., StudyCopy]


def add_trial(copy: StudyCopy, trial_id: str, *, num_epochs: int = 2) -> Path:
    folder = copy.study_folder / "trials" / trial_id
    folder.mkdir(parents=True)
    append_attempt(folder, 0, 0)
    rows = [{"epoch": epoch, "val/miou": 0.5, "time/total_s": 1.0 * epoch} for epoch in range(1, num_epochs + 1)]
    for row in rows:
        append_row(folder, row)
    write_result(folder, rows, {})
    return folder


def add_wandb_run(copy: StudyCopy, trial_id: str, *, miou: float = 0.5, seconds: float = 1.0) -> None:
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_save_requirements=False)
    run = wandb.init(
        id=f"{NAME}-{trial_id}", dir=str(copy.study_folder), mode="offline", reinit="create_new", settings=settings
    )
    for epoch in (1, 2):
        run.log({"epoch": epoch, "val/miou": miou, "time/total_s": seconds * epoch}, step=epoch)
    run.finish(exit_code=0)


@pytest.fixture
def finished(tmp_path: Path) -> StudyCopy:
    """A study of two trials that is at its end, by hand."""
    copy = StudyCopy.make(tmp_path / "copy", Scale().study())
    for trial_id in TRIALS:
        add_trial(copy, trial_id)
        add_wandb_run(copy, trial_id)
    wandb.teardown()
    write_sealed(copy.study_folder / "trials.json", {"trials": TRIALS})
    with open_ledger(copy.study_folder, TRIALS) as ledger:
        ledger.append(*({"event": "trial_ended", "trial_id": each, "state": "completed"} for each in TRIALS))
    return copy


def test_the_study_is_one_that_canopoint_takes(tmp_path: Path) -> None:
    copy = StudyCopy.make(tmp_path / "copy", Scale(num_seeds=3, epochs=4).study())
    spec = load_study(str(copy.folder / "study.yaml"), [])
    assert (spec.study, spec.training["epochs"], spec.search.seeds) == (NAME, 4, [0, 1, 2])


def test_a_whole_study_is_clean_and_times_do_not_count(finished: StudyCopy) -> None:
    undisturbed = finished.hashes()
    assert judge(finished, undisturbed) == Verdict([], [], [])
    (path,) = finished.study_folder.glob(f"wandb/offline-run-*-{TRIALS[0]}")
    shutil.rmtree(path)
    add_wandb_run(finished, TRIALS[0], seconds=9.0)
    wandb.teardown()
    assert judge(finished, undisturbed).is_clean


def test_another_result_is_a_mismatch(finished: StudyCopy) -> None:
    assert judge(finished, {**finished.hashes(), TRIALS[1]: "other"}) == Verdict([], [], [TRIALS[1]])


@pytest.mark.parametrize("part", ["result", "directory", "plan", "run", "ledger"])
def test_a_trial_without_any_of_its_parts_is_missing(finished: StudyCopy, part: str) -> None:
    undisturbed = finished.hashes()
    folder = finished.study_folder / "trials" / TRIALS[0]
    if part == "result":
        (folder / "result.json").unlink()
    elif part == "directory":
        shutil.rmtree(folder)
    elif part == "plan":
        write_sealed(finished.study_folder / "trials.json", {"trials": TRIALS[1:]})
    elif part == "run":
        (path,) = finished.study_folder.glob(f"wandb/offline-run-*-{TRIALS[0]}")
        shutil.rmtree(path)
    else:
        (finished.study_folder / "ledger.jsonl").unlink()
        with open_ledger(finished.study_folder, TRIALS) as ledger:
            ledger.append({"event": "trial_ended", "trial_id": TRIALS[1], "state": "completed"})
    assert judge(finished, undisturbed) == Verdict([TRIALS[0]], [], [])


def test_a_run_that_holds_other_rows_is_missing(finished: StudyCopy) -> None:
    (path,) = finished.study_folder.glob(f"wandb/offline-run-*-{TRIALS[0]}")
    shutil.rmtree(path)
    add_wandb_run(finished, TRIALS[0], miou=0.4)
    wandb.teardown()
    assert judge(finished, finished.hashes()).missing == [TRIALS[0]]


def test_what_is_there_twice_is_named(finished: StudyCopy) -> None:
    undisturbed = finished.hashes()
    add_trial(finished, "cccccccccccc")
    with open_ledger(finished.study_folder, TRIALS) as ledger:
        ledger.append({"event": "trial_ended", "trial_id": TRIALS[0], "state": "completed"})
    (path,) = finished.study_folder.glob(f"wandb/offline-run-*-{TRIALS[1]}")
    shutil.copytree(path, path.with_name(f"offline-run-20990101_000000-{NAME}-{TRIALS[1]}"))
    assert judge(finished, undisturbed).duplicated == [*TRIALS, "cccccccccccc"]


def add_attempt(folder: Path, time: float, rows: int, from_epoch: int) -> None:
    with (folder / "attempts.jsonl").open("a") as file:
        file.write(sealed_line({"time": time, "pid": 1, "rows": rows, "from_epoch": from_epoch}))


def test_epochs_trained_again_are_counted_from_what_was_on_disk(tmp_path: Path) -> None:
    copy = StudyCopy(tmp_path)
    folder = copy.study_folder / "trials" / TRIALS[0]
    folder.mkdir(parents=True)
    for attempt in [(10.0, 0, 0), (20.0, 3, 2), (30.0, 5, 5)]:
        add_attempt(folder, *attempt)
    first = Kill(15.0, (Standing(TRIALS[0], rows=3, checkpoint=2, pid=1),))  # a row without its checkpoint
    second = Kill(25.0, (Standing(TRIALS[0], rows=5, checkpoint=5, pid=1),))  # in the middle of the sixth epoch
    last = Kill(35.0, (Standing(TRIALS[0], rows=9, checkpoint=9, pid=1),))  # nothing was left to train
    assert count_reruns(copy, [first, second, last]) == Reruns(whole=1, worst=1, partial=1)
    add_attempt(folder, 40.0, 9, 6)
    assert count_reruns(copy, [first, second, last]) == Reruns(whole=4, worst=3, partial=1)


def test_a_trial_goes_on_with_its_first_epoch_after_that_moment(tmp_path: Path) -> None:
    copy = StudyCopy(tmp_path)
    folder = copy.study_folder / "trials" / TRIALS[0]
    folder.mkdir(parents=True)
    add_attempt(folder, 10.0, 0, 0)
    row = {"epoch": 1, "val/miou": 0.5, "time/total_s": 1.0}
    append_row(folder, row)
    assert copy.went_on(9.0)
    assert not copy.went_on(15.0)
    add_attempt(folder, 20.0, 1, 1)
    assert not copy.went_on(15.0)
    append_row(folder, {**row, "epoch": 2})
    assert copy.went_on(15.0)
    assert copy.went_on(15.0, [TRIALS[0]])
    assert not copy.went_on(15.0, [TRIALS[1]])
    assert copy.unfinished() == [Standing(TRIALS[0], rows=2, checkpoint=0, pid=1)]
    write_result(folder, [row], {})
    assert copy.unfinished() == []
    assert copy.went_on(read_result(folder)["finished_at"] - 1)


def test_figures_and_table() -> None:
    hit = (Standing(TRIALS[0], 3, 2, 1),)
    kills = [Kill(1.0, hit, 4.0), Kill(2.0, (), None, 3, 2.5), Kill(3.0, hit, 20.0, -9, 5.1, 2)]
    tally = Tally([2.0, 4.0], kills, [(Verdict([], [], []), Reruns(1, 1, 1)), (Verdict([], [], []), Reruns(1, 1, 0))])
    found = tally.describe()
    assert tally.is_clean
    assert (found["kills"], found["live_trials_hit"], found["rerun_epochs"], found["partial_epochs"]) == (3, 2, 2, 1)
    assert (found["recoveries"], found["recovery_median_s"], found["recovery_max_s"]) == (2, 12.0, 20.0)
    assert (found["exits_with_3"], found["longest_exit_s"], found["left_behind"]) == (1, 5.1, 2)
    assert "12.0 s, 20.0 s (median at most 13.0 s, Ray alone 3.0 s: reached)" in table({"terms": found})
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("verdict", "reruns"),
    [
        (Verdict([TRIALS[0]], [], []), Reruns(0, 0, 0)),
        (Verdict([], [TRIALS[0]], []), Reruns(0, 0, 0)),
        (Verdict([], [], [TRIALS[0]]), Reruns(0, 0, 0)),
        (Verdict([], [], []), Reruns(2, 2, 0)),
    ],
)
def test_anything_wrong_is_not_clean(verdict: Verdict, reruns: Reruns) -> None:
    assert not Tally([1.0], [Kill(1.0, ())], [(verdict, reruns)]).is_clean


@pytest.mark.parametrize("count", ["many", "-1"])
def test_what_is_no_count_is_refused(capsys: pytest.CaptureFixture[str], count: str) -> None:
    with pytest.raises(SystemExit) as refused:
        main([f"--workers={count}"])
    assert refused.value.code == 2
    assert "argument --workers" in capsys.readouterr().err


@pytest.mark.cluster
def test_a_cluster_of_ours_and_a_strangers_do_not_meet() -> None:
    scratch = Path(tempfile.mkdtemp(prefix="cf-"))  # a short name, for Ray's sockets
    try:
        with two_nodes(scratch / "stranger", {}) as stranger:
            workers = stranger.workers
            with two_nodes(scratch / "ours", {}) as ours:
                assert ours.address != stranger.address
                ours.lose_node()
                ours.add_node()
            assert workers
            assert all(each.lives for each in workers)
        assert not any(each.lives for each in workers)
    finally:
        shutil.rmtree(scratch)


@pytest.mark.cluster
def test_interrupted_it_ends_everything_that_it_has_started(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.chaos", "--workers", "1", "--seed", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as popen:
        found = process(popen.pid)
        assert found
        # The driver, Ray's servers and its workers.
        wait_for(lambda: len(descendants(found)) >= 6 or popen.poll() is not None, WAIT_S, "a Ray at work")
        below = descendants(found)
        popen.send_signal(signal.SIGTERM)
        said, _ = popen.communicate(timeout=WAIT_S)
    assert popen.returncode == 130, said
    assert "interrupted" in said
    assert below
    assert not any(each.lives for each in below)
    (scratch,) = {line.rpartition(" ")[2] for line in said.splitlines() if "without disturbance, in" in line}
    assert not Path(scratch).exists()
