"""Watching by the command that a user types, in a pseudo-terminal and in a pipe; what is watched are real files."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.chaos_driver import Driver
from bench.chaos_study import Scale, StudyCopy
from bench.processes import kill_trees, process, wait_for
from cluster.tracking_address import note_address, read_address
from cluster.watch import Looks, watch_study
from cluster.watch_log import MAX_NAMED, ChangeLog
from cluster.watch_picture import Picture
from cluster.watch_screen import ENTER, HOME, LEAVE
from study.design import Trial, make_trial
from study.ledger import Event, open_ledger
from study.spec import StudySpec
from study.yaml_file import to_yaml
from trainable.atomic import sole_user
from trainable.config import InputError
from trainable.sealed import write_sealed
from trainable.trial_files import append_row, write_result

WAIT_S = 60.0
ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = {
    "points_per_image": {"role": "scientific", "values": [2, 20]},
    "learning_rate": {"role": "nuisance", "values": [1e-3, 1e-2]},
}
STARTED = {"event": "session_started", "host": "h", "pid": 7, "trainer_version": "3", "fingerprint": "0" * 64}


class Files:
    """A study's folder, written as a driver writes it."""

    def __init__(self, spec: StudySpec) -> None:
        self.spec, self.folder = spec, spec.folder
        self.folder.mkdir(parents=True)
        (self.folder / "study.yaml").write_text(to_yaml(spec.to_mapping()))
        self.trials = [self.trial(points, rate, seed) for seed in spec.search.seeds for points in (2, 20) for rate in
                       (1e-3, 1e-2)]  # fmt: skip
        write_sealed(self.folder / "trials.json", {"trials": [trial.trial_id for trial in self.trials]})

    def trial(self, points: int, rate: float, seed: int) -> Trial:
        return make_trial(self.spec, "0" * 64, {"points_per_image": points, "learning_rate": rate}, seed)

    def log(self, *events: Event) -> None:
        with sole_user(self.folder), open_ledger(self.folder) as ledger:
            ledger.append(*events)

    def begin(self, trial: Trial, num_rows: int) -> Path:
        folder = self.folder / "trials" / trial.trial_id
        folder.mkdir(parents=True)
        write_sealed(folder / "config.json", {"training": trial.config.to_mapping()})
        for epoch in range(1, num_rows + 1):
            append_row(folder, {"epoch": epoch, "val/miou": epoch / 10, "time/total_s": 3.0 * epoch})
        return folder

    def finish(self, trial: Trial, value: float, **arguments: Any) -> None:
        rows = [{"epoch": epoch, "val/miou": value, "time/total_s": 5.0 * epoch} for epoch in (1, 2)]
        write_result(self.begin(trial, 0), rows, {}, **arguments)

    def picture(self) -> Picture:
        return Looks(str(self.folder)).first()


def started(*trials: Trial) -> list[Event]:
    return [{"event": "trial_started", "trial_id": trial.trial_id, "phase": trial.phase} for trial in trials]


def ended(trial: Trial, state: str, reason: str = "") -> Event:
    told = {"trial_id": trial.trial_id, "phase": trial.phase, "state": state, "epochs": 2, "value": None}
    return {"event": "trial_ended", **told, "time_s": 10.0, "reason": reason}


def session_ended(reason: str) -> Event:
    return {"event": "session_ended", "reason": reason, "detail": "", "wall_s": 1.0, "gpu_hours": 0.0}


@pytest.fixture
def make_files(tmp_path: Path, make_spec: Callable[..., StudySpec]) -> Callable[..., Files]:
    def make(**changes: Any) -> Files:
        search = {"method": "grid", "seeds": [0, 1]}
        return Files(make_spec(tmp_path / "storage", **{"parameters": PARAMETERS, "search": search, **changes}))

    return make


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster of the machine's is asked."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def mixed(make_files: Callable[..., Files]) -> Files:
    """One trial of each state."""
    files = make_files(search={"method": "random", "trials_per_level": 2, "seeds": [0, 1], "scheduler": "asha"})
    done, diverged, stopped, failed, running, interrupted = files.trials[:6]
    files.finish(done, 0.5)
    files.finish(diverged, 0.5, infeasible="the loss is nan")
    for trial in (stopped, failed, running, interrupted):
        files.begin(trial, num_rows=1)
    files.log(STARTED, *started(interrupted))
    files.log(STARTED, ended(stopped, "stopped"), ended(failed, "failed", "out of memory"), *started(running))
    return files


@contextmanager
def driver(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the folder, as a driver does."""
    hold = "import sys, time; from pathlib import Path; from trainable.atomic import sole_user\n"
    hold += "with sole_user(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", hold, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as held:
        assert held.stdout is not None
        held.stdout.readline()
        try:
            yield held
        finally:
            held.kill()


# The picture


def test_a_table_shows_each_trial_of_each_cell(mixed: Files) -> None:
    with driver(mixed.folder):
        lines = mixed.picture().lines(100, 30)
    text = "\n".join(lines)
    assert "points_per_image  learning_rate   seed 0   seed 1" in lines
    assert "               2          0.001    0.500      1/2" in lines
    assert "               2           0.01 diverged    (1/2)" in lines
    assert "              20          0.001  stopped        -" in lines
    assert "              20           0.01   FAILED        ." in lines
    assert "failed       1 trial: out of memory" in text
    assert "diverged     1 trial: the loss is nan" in text
    assert "best so far  points_per_image=2: val/miou 0.500 at learning_rate=0.001 (1 seed)" in text
    assert re.search(r"^explore +\[=+ +\] 3 of \d+ done, 1 failed, 1 infeasible", text, re.M)
    assert "about" in lines[0]


def test_cells_that_have_not_begun_are_in_the_table_of_a_grid(make_files: Callable[..., Files]) -> None:
    lines = make_files().picture().lines(100, 30)
    assert sum(line.endswith(".        .") for line in lines) == 4


def test_where_to_see_more_is_told(make_files: Callable[..., Files]) -> None:
    files = make_files()
    shown = "\n".join(files.picture().lines(200, 30))
    assert re.search(rf"curves +\S*wandb leet {files.folder}/wandb", shown)
    assert re.search(rf"search +\S*optuna-dashboard {files.folder}/optuna.journal", shown)
    narrow = "".join(files.picture().lines(50, 40))
    assert f"leet {files.folder}/wandb" in narrow  # cut nowhere


def test_online_the_address_of_the_project_is_told(make_files: Callable[..., Files]) -> None:
    files = make_files(tracking={"project": "forest", "mode": "online"})
    assert "project forest" in "\n".join(files.picture().lines(120, 30))
    note_address(files.folder, "https://wandb.ai/lab/forest")
    assert "W&B          https://wandb.ai/lab/forest" in files.picture().lines(120, 30)


@pytest.mark.parametrize("url", ["https://x/\x1b[2J", "javascript:alert(1)", "http://a b", 3, None])
def test_an_address_that_is_none_is_not_told(tmp_path: Path, url: object) -> None:
    write_sealed(tmp_path / "wandb.json", {"project_url": url})
    assert read_address(tmp_path) == ""
    (tmp_path / "wandb.json").write_text("{")
    assert read_address(tmp_path) == ""


@pytest.mark.parametrize("seeds", [1, 40, 200])
def test_it_fits_whatever_there_is_to_show(make_files: Callable[..., Files], seeds: int) -> None:
    rates = [round(1e-4 * (1 + number / 50), 8) for number in range(min(90, 1000 // seeds))]
    wide = {**PARAMETERS, "learning_rate": {"role": "nuisance", "values": [1e-3, 1e-2, *rates]}}
    files = make_files(parameters=wide, search={"method": "grid", "seeds": list(range(seeds))})
    files.begin(files.trials[-1], num_rows=1)
    files.finish(files.trials[0], 0.5)
    picture = files.picture()
    for width, height in [(200, 50), (80, 24), (40, 12), (20, 5), (1, 1)]:
        lines = picture.lines(width, height)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width


def test_of_too_many_cells_those_are_shown_that_matter(make_files: Callable[..., Files]) -> None:
    rates = [round(1e-4 * (1 + number), 8) for number in range(100)]
    wide = {**PARAMETERS, "learning_rate": {"role": "nuisance", "values": [1e-3, 1e-2, *rates[10:90]]}}
    files = make_files(parameters=wide)
    best, running = files.trial(20, 8e-3, 0), files.trial(20, 8.5e-3, 1)
    for rate in rates[20:40]:
        files.finish(files.trial(2, rate, 0), 0.3)
    files.finish(best, 0.9)
    files.begin(running, num_rows=1)
    write_sealed(files.folder / "trials.json", {"trials": [path.name for path in files.folder.glob("trials/*")]})
    lines = files.picture().lines(80, 16)
    assert any(line.split() == ["20", "0.008", "0.900", "."] for line in lines)
    assert any(line.split() == ["20", "0.0085", ".", "(1/2)"] for line in lines)
    assert any(re.fullmatch(r"\.\.\. \d+ more cells: \d+ done, \d+ waiting", line) for line in lines)


def test_many_seeds_become_a_letter_each_and_then_their_numbers(make_files: Callable[..., Files]) -> None:
    files = make_files(search={"method": "grid", "seeds": list(range(30))})
    files.finish(files.trials[0], 0.5)
    picture = files.picture()
    assert any(line.endswith(f" #{'.' * 29}") for line in picture.lines(80, 24))
    assert any("1 done, 29 waiting" in line for line in picture.lines(50, 24))


def test_text_of_others_moves_no_cursor(make_files: Callable[..., Files]) -> None:
    files = make_files()
    evil = "\x1b[2J\x1b]0;title\x07\x9b5A\u202eabc\r\nnext rm -rf"
    files.begin(files.trials[0], 1)
    files.finish(files.trials[1], 0.5, infeasible=evil)
    files.log({**STARTED, "host": evil}, ended(files.trials[0], "failed", evil))
    log, picture = ChangeLog(), files.picture()
    for line in [*picture.lines(200, 50), *log.lines(picture)]:
        assert line.isprintable(), line


# Lines


def test_a_log_gets_what_has_changed_and_no_more(make_files: Callable[..., Files]) -> None:
    files, log = make_files(), ChangeLog()
    files.finish(files.trials[0], 0.5)
    first = log.lines(files.picture())
    assert any("[==                  ] 1 of 8 done" in line for line in first)
    assert any("wandb leet" in line for line in first)
    assert log.lines(files.picture()) == []
    files.finish(files.trials[1], 0.75)
    files.begin(files.trials[2], 1)
    news = [line.split(" ", 1)[1] for line in log.lines(files.picture())]
    assert news[:2] == [
        "completed    points_per_image=2 learning_rate=0.01 seed=0: val/miou 0.750",
        "unfinished   points_per_image=20 learning_rate=0.001 seed=0 after 1 of 2 epochs",
    ]
    assert news[2] == "best so far  points_per_image=2: val/miou 0.750 at learning_rate=0.01 (1 seed)"
    assert news[3].startswith("explore      [=====               ] 2 of 8 done, 5 not started, 1 unfinished")
    assert not any("leet" in line for line in news)
    assert log.lines(files.picture()) == []


def test_many_trials_that_end_between_two_looks_are_counted(make_files: Callable[..., Files]) -> None:
    files, log = make_files(search={"method": "grid", "seeds": list(range(MAX_NAMED))}), ChangeLog()
    log.lines(files.picture())
    for trial in files.trials[: MAX_NAMED + 1]:
        files.finish(trial, 0.5)
    assert next(line.split(" ", 1)[1] for line in log.lines(files.picture())) == f"{MAX_NAMED + 1} trials: completed"


def test_a_study_that_is_over_is_shown_once(make_files: Callable[..., Files]) -> None:
    files, said = make_files(), list[str]()
    assert watch_study(str(files.folder), said.append) == 3
    assert said[-2:] == [
        "tiny: nobody works on it any more; trials still to run: 8",
        f"next         canopoint run {files.folder}/study.yaml",
    ]
    for trial in files.trials:
        files.finish(trial, 0.5)
    files.log(STARTED, session_ended("complete"))
    said.clear()
    assert watch_study(str(files.folder), said.append) == 0
    assert said[-2:] == ["tiny is complete", f"next         canopoint analyze {files.folder}"]


@pytest.mark.parametrize("every_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pace_that_makes_no_sense_is_refused(tmp_path: Path, every_s: float) -> None:
    with pytest.raises(InputError, match=r"--every .*: must be between"):
        watch_study(str(tmp_path), print, every_s=every_s)


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no study"):
        watch_study(str(tmp_path), print)


# As a process


class Terminal:
    """`canopoint watch` in a terminal of its own, and what it wrote there."""

    def __init__(self, folder: Path, width: int, height: int) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(width, height)
        command = [sys.executable, "-m", "canopoint", "watch", str(folder), "--every", "0.2"]
        environment = {**os.environ, "TERM": "xterm"}
        self.popen = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.text = ""

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def read(self) -> str:
        """All that came until now; ended by the end of the process."""
        while select.select([self._ours], [], [], 0.05)[0]:
            try:
                self.text += os.read(self._ours, 65536).decode()
            except OSError:  # the other side is closed
                break
        return self.text

    def frames(self) -> list[list[str]]:
        """The pictures, as lines."""
        frames = re.split(re.escape(HOME), self.read())[1:]
        return [re.sub(r"\x1b\[[KJ]", "", frame.partition(LEAVE)[0]).split("\r\n") for frame in frames]

    def shows(self, text: str) -> None:
        """Waits for a picture with that text."""
        wait_for(lambda: any(text in line for line in (self.frames() or [[]])[-1]), WAIT_S, f"{text!r}")

    def end(self) -> tuple[int, str]:
        """(exit code, what stands on the screen after the pictures)."""
        wait_for(lambda: (self.read(), self.popen.poll() is not None)[1], WAIT_S, "the end")
        return self.popen.returncode, self.read().partition(LEAVE)[2]

    def close(self) -> None:
        if found := process(self.popen.pid):
            kill_trees([found])
        self.popen.wait()
        os.close(self._ours)


@pytest.fixture
def open_terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def make(folder: Path, width: int = 100, height: int = 30) -> Terminal:
        opened.append(Terminal(folder, width, height))
        return opened[-1]

    yield make
    for terminal in opened:
        terminal.close()


def test_in_a_terminal_a_picture_is_kept_up_to_date_until_the_driver_has_ended(
    make_files: Callable[..., Files], open_terminal: Callable[..., Terminal]
) -> None:
    files = make_files()
    files.log(STARTED, *started(files.trials[0]))
    with driver(files.folder) as held:
        terminal = open_terminal(files.folder)
        terminal.shows("0 of 8 done")
        files.finish(files.trials[0], 0.625)
        terminal.shows("0.625")
        terminal.resize(60, 12)
        wait_for(lambda: len(terminal.frames()[-1]) <= 12, WAIT_S, "a smaller picture")
        assert max(map(len, terminal.frames()[-1])) <= 60
        held.kill()
        code, left = terminal.end()
    assert code == 3
    assert terminal.text.startswith(ENTER)
    assert terminal.text.count(LEAVE) == 1
    assert "nobody works on it any more; trials still to run: 7" in left
    assert "next         canopoint run" in left
    assert "\x1b" not in left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_watching_alone(
    make_files: Callable[..., Files], open_terminal: Callable[..., Terminal], number: signal.Signals
) -> None:
    files = make_files()
    with driver(files.folder) as held:
        terminal = open_terminal(files.folder)
        terminal.shows("of 8 done")
        os.kill(terminal.popen.pid, number)
        code, left = terminal.end()
        assert held.poll() is None
    assert code == 3
    assert left.strip() == "no longer watched; the study itself goes on"


def test_in_a_pipe_there_are_plain_lines(make_files: Callable[..., Files]) -> None:
    files = make_files()
    command = [sys.executable, "-m", "canopoint", "watch", str(files.folder), "--every", "0.2"]
    with (
        driver(files.folder) as held,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ}) as watching,
    ):
        assert watching.stdout is not None
        assert "is at work" in watching.stdout.readline()
        files.finish(files.trials[0], 0.5)
        time.sleep(1)
        held.kill()
        rest = watching.stdout.read()
    assert watching.returncode == 3
    assert "completed    points_per_image=2 learning_rate=0.001 seed=0: val/miou 0.500" in rest
    assert rest.count("wandb leet") == 1
    assert "\x1b" not in rest


@pytest.mark.cluster
def test_a_run_is_watched_to_its_end(tmp_path: Path, open_terminal: Callable[..., Terminal]) -> None:
    copy = StudyCopy.make(tmp_path / "copy", Scale(num_seeds=1, epochs=6).study())
    with Driver(copy, {}) as run:
        wait_for(lambda: bool(copy.unfinished()) or run.has_ended, 120, "a trial")
        terminal = open_terminal(copy.study_folder)
        command = [sys.executable, "-m", "canopoint", "watch", str(copy.study_folder), "--every", "0.5"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as watching:
            terminal.shows("/6")
            run.run_to_end()
            code, left = terminal.end()
            lines = watching.communicate(timeout=WAIT_S)[0]
    assert (code, watching.returncode) == (0, 0)
    assert "chaos is complete" in left
    assert lines.rstrip().splitlines()[-2:] == [
        "chaos is complete",
        f"next         canopoint analyze {copy.study_folder}",
    ]
    assert len(re.findall(r"completed +points_per_image=\d+ seed=0: val/miou 0\.\d+", lines)) == 2
