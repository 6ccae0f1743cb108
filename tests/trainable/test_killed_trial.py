"""Processes killed without warning at every place of a save: whoever goes on gets the bits of the undisturbed trial."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trainable import checkpoint
from trainable.config import TrainConfig
from trainable.store import Store
from trainable.trial import run_trial
from trainable.trial_files import read_result, read_rows

pytestmark = pytest.mark.slow
SameResult = Callable[[Path, Path], None]

# The place in the saving of an epoch -> what the process is about to do when it is killed: an audit event of Python
# (https://docs.python.org/3/library/audit_events.html) on a file whose name begins so; and the epochs that are safe
# then, when it happens for the first time after the first epoch.
PLACES = {
    "before the row": ("open", "metrics.jsonl", 1),
    "between row and counts": ("open", ".counts.npz", 1),
    "before the counts are renamed": ("os.rename", ".counts.npz", 1),
    "between counts and checkpoint": ("open", ".writing", 1),
    "while the checkpoint is written": ("write", "", 1),
    "before the checkpoint is renamed": ("os.rename", ".writing", 1),
    "before the older checkpoint is removed": ("os.remove", "state-000001", 2),
    "between last checkpoint and result": ("open", ".result.json", 3),
    "before the result is renamed": ("os.rename", ".result.json", 3),
}

# Runs a trial in a forked process for each place, and lets it die there.
KILLED_PROCESSES = """
import json, os, resource, signal, sys
from pathlib import Path
from trainable.config import TrainConfig, from_mapping
from trainable.store import open_store
from trainable.trial import run_trial

MIDDLE_OF_A_CHECKPOINT = 10_000_000  # bytes; all other files are smaller

def die_before(event, start):
    def watch(happening, arguments):
        if happening == event and os.path.basename(str(arguments[0])).startswith(start):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)

def die_while_writing():
    # The system itself ends the process at that byte, once Python no longer asks it not to.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIDDLE_OF_A_CHECKPOINT, resource.RLIM_INFINITY))

def train(folder, num_undisturbed, event, start):
    rows = run_trial(from_mapping(TrainConfig, settings, "training"), open_store(store), folder)
    for _ in range(num_undisturbed):
        next(rows)
    die_while_writing() if event == "write" else die_before(event, start)
    for row in rows:
        pass

settings, store, orders = json.loads(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
for folder, *order in orders:
    child = os.fork()
    if child == 0:
        train(Path(folder), *order)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

ONE_PROCESS = """
import json, sys
from pathlib import Path
from trainable.config import TrainConfig, from_mapping
from trainable.store import open_store
from trainable.trial import run_trial

settings, store, folder = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
for row in run_trial(from_mapping(TrainConfig, settings, "training"), open_store(store), folder):
    pass
"""


def command(script: str, config: TrainConfig, store_folder: Path, argument: str) -> list[str]:
    return [sys.executable, "-c", script, json.dumps(config.to_mapping()), str(store_folder), argument]


def exit_codes(config: TrainConfig, store_folder: Path, orders: list[tuple[str, int, str, str]]) -> list[int]:
    """Has a trial killed for each (folder, epochs undisturbed, event, start of the file's name)."""
    parent = command(KILLED_PROCESSES, config, store_folder, json.dumps(orders))
    done = subprocess.run(parent, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    return [int(line) for line in done.stdout.split()]


@pytest.fixture(scope="module")
def killed(config: TrainConfig, store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Place -> the directory of a trial that was killed there."""
    root = tmp_path_factory.mktemp("killed")
    folders = {place: root / place.replace(" ", "-") for place in PLACES}
    orders = [(str(folders[place]), 1, *PLACES[place][:2]) for place in PLACES]
    codes = dict(zip(PLACES, exit_codes(config, store_folder, orders), strict=True))
    by_the_system = "while the checkpoint is written"
    assert codes.pop(by_the_system) == -signal.SIGXFSZ
    assert set(codes.values()) == {-signal.SIGKILL}
    return folders


@pytest.mark.parametrize("place", PLACES)
def test_a_trial_killed_there_ends_as_if_it_had_not_been(
    config: TrainConfig,
    store: Store,
    stopped: dict[int, Path],
    killed: dict[str, Path],
    assert_same_result: SameResult,
    place: str,
) -> None:
    folder, num_safe = killed[place], PLACES[place][2]
    assert read_result(folder) is None
    found = checkpoint.load_latest(folder / "checkpoint")
    assert found is not None
    assert found[0] == num_safe  # the process died where it was meant to
    epochs = [row["epoch"] for row in run_trial(config, store, folder)]
    assert epochs == (list(range(num_safe + 1, 4)) or [3])
    assert_same_result(folder, stopped[3])
    assert len(os.listdir(folder / "checkpoint")) == 1


def test_a_trial_killed_again_and_again_ends_as_if_it_had_not_been(
    config: TrainConfig,
    store_folder: Path,
    store: Store,
    stopped: dict[int, Path],
    folder: Path,
    assert_same_result: SameResult,
) -> None:
    places = [PLACES[place] for place in PLACES if place != "before the row"]  # which every new start opens first
    codes = exit_codes(config, store_folder, [(str(folder), 0, event, name) for event, name, _ in places])
    assert set(codes) == {-signal.SIGKILL, -signal.SIGXFSZ}
    assert [row["epoch"] for row in run_trial(config, store, folder)] == [3]
    assert_same_result(folder, stopped[3])


def test_a_fresh_process_gives_the_same_bits(
    config: TrainConfig, store_folder: Path, stopped: dict[int, Path], folder: Path, assert_same_result: SameResult
) -> None:
    process = command(ONE_PROCESS, config, store_folder, str(folder))
    subprocess.run(process, check=True, env={**os.environ, "PYTHONHASHSEED": "1"}, timeout=120)
    assert_same_result(folder, stopped[3])


@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_a_process_killed_at_any_time_is_taken_over(
    config: TrainConfig,
    store_folder: Path,
    store: Store,
    stopped: dict[int, Path],
    folder: Path,
    assert_same_result: SameResult,
    delay_s: float,
) -> None:
    with subprocess.Popen(command(ONE_PROCESS, config, store_folder, str(folder))) as process:
        deadline = time.monotonic() + 120
        while not read_rows(folder) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(delay_s)
        process.kill()
    assert 1 <= len(read_rows(folder)) <= 3
    assert list(run_trial(config, store, folder))[-1]["epoch"] == 3
    assert_same_result(folder, stopped[3])
