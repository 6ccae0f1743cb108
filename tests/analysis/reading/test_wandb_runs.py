"""The public reader, `wandb leet inspect`, is the oracle wherever it answers."""

import json
import math
import os
import random
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]
from wandb.util import get_core_path

from analysis.reading.run_files import BLOCK_SIZE, HEADER
from analysis.reading.run_folder import read_runs
from analysis.reading.run_records import read_run
from analysis.reading.wandb_runs import WandbRun
from trainable.config import InputError

TORN_AT = (0, 5, 7, 10, 300, 40_000, 65_536, 130_000, -20, -1)
"""Where the run of several blocks is cut: in the header, in chunk headers and payloads, at a block's end."""


def plain_change(run: Any) -> None:
    run.config.update({"late": [1, {"x": None}]})
    run.config.update({"nested": {"b": 2}}, allow_val_change=True)
    run.summary["gone"] = 1
    del run.summary["gone"]
    run.summary["replaced"] = {"a": 1}
    run.summary["replaced"] = {"b": 2}
    run.name = "renamed"


RUNS: dict[str, dict[str, Any]] = {
    "demo-plain": {
        "rows": [{"epoch": n, "val/miou": 0.1 * n, "a": {"b": {"c": n}}, "val/x.y": 1e-7} for n in (1, 2, 3)],
        "config": {"nested": {"a.b": 1e-4, "nothing": None, "list": [1, 2.5]}, "seed": 0, "text": "ü \u2028 {["},
        "summary": {"state": "completed", "result_sha256": "00ff"},
        "alter": plain_change,
    },
    "demo-nan": {
        "rows": [{"epoch": 1, "loss": math.nan, "up": math.inf, "down": -math.inf, "list": [1, 0.5]}],
        "config": {"nan": math.nan},
        "exit_code": 3,
    },
    # Rows of 1.5 blocks: every record of a row begins in one block and ends in the next or the one after it.
    "demo-big": {"rows": [{"epoch": n, "text": f"{n}" * 48_000} for n in (1, 2, 3)]},
    "demo-empty": {"rows": []},
}


@pytest.fixture(scope="module")
def files(write_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {run_id: write_run(folder, run_id, **arguments) for run_id, arguments in RUNS.items()}


def inspect(path: Path, *options: str) -> str:
    """What `wandb leet inspect` prints; its program is called directly, ten times as fast as the command line."""
    inspector = [get_core_path(), "leet", "inspect", "--no-observability", "--json", *options]
    command = [*inspector, "--run-file", str(path), str(path.parent)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def spelled(value: Any) -> Any:
    """The oracle prints NaN and the infinities as text, and W&B's own keys; nested keys of rows with dots."""
    if isinstance(value, dict):
        return {key: spelled(inner) for key, inner in value.items() if not key.startswith("_")}
    if isinstance(value, list):
        return [spelled(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    return value


def oracle_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of the oracle; of values that are no numbers, as much as a history keeps."""
    records = map(json.loads, inspect(path).splitlines())
    rows = [spelled(record["history"]["item"]) for record in records if record["type"] == "history"]
    return [{name: _kept(value) for name, value in row.items()} for row in rows]


def _kept(value: Any) -> Any:
    return value if isinstance(value, int | float) or value in ("NaN", "Infinity", "-Infinity") else repr(value)[:80]


def rows_of(run: WandbRun) -> list[dict[str, Any]]:
    return [spelled(row) for row in run.history.rows()]


@pytest.mark.parametrize("run_id", RUNS)
def test_reads_what_the_public_reader_reads(run_id: str, files: dict[str, Path]) -> None:
    run, oracle = read_run(files[run_id]), json.loads(inspect(files[run_id], "--summary"))
    assert rows_of(run) == oracle_rows(files[run_id])
    assert run.config == oracle["config"]
    assert spelled(run.summary) == spelled(oracle["summary"])
    assert (run.run_id, run.name, run.exit_code) == (run_id, oracle["name"], oracle["exit_code"])
    assert run.group == "demo"
    assert run.problems == (() if run.history.num_rows else ("no rows",))


def test_values_survive_as_they_were_logged(files: dict[str, Path]) -> None:
    plain, nan = read_run(files["demo-plain"]), read_run(files["demo-nan"])
    assert plain.history.rows()[2] == {"epoch": 3, "val/miou": 0.1 * 3, "a.b.c": 3, "val/x.y": 1e-7}
    assert plain.config["nested"] == {"a.b": 1e-4, "nothing": None, "list": [1, 2.5], "b": 2}  # merged, not replaced
    assert plain.config["text"] == "ü \u2028 {["
    assert plain.summary["replaced"] == {"b": 2}
    assert "gone" not in plain.summary
    assert math.isnan(nan.history.rows()[0]["loss"])
    assert nan.history.rows()[0]["down"] == -math.inf
    assert nan.config == {"nan": None}  # as W&B stores it
    assert nan.exit_code == 3


def test_a_torn_file_gives_the_rows_before_the_tear(files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["demo-big"].read_bytes()
    assert len(whole) > 4 * BLOCK_SIZE
    torn = [tmp_path / f"run-{index}.wandb" for index in range(len(TORN_AT))]
    for path, position in zip(torn, TORN_AT, strict=True):
        path.write_bytes(whole[:position])
    runs = [read_run(path) for path in torn]
    assert [rows_of(run) for run in runs] == [oracle_rows(path) for path in torn]
    assert {run.history.num_rows for run in runs} == {0, 1, 3}
    assert all(run.exit_code is None and "no exit record" in run.problems for run in runs)
    tears = [[problem for problem in run.problems if problem.startswith("torn")] for run in runs]
    assert [len(found) for found in tears] == [1, 1, 0, 1, 1, 1, 1, 1, 1, 1]  # 7: behind the header there is no record


@pytest.mark.parametrize("position", [700, 32_770, 40_000, 65_540, 100_000, 150_000, -10])
def test_a_damaged_byte_costs_the_rows_that_it_costs_the_public_reader(
    position: int, files: dict[str, Path], tmp_path: Path
) -> None:
    content = bytearray(files["demo-big"].read_bytes())
    content[position] ^= 0xFF
    path = tmp_path / "run-damaged.wandb"
    path.write_bytes(content)
    run = read_run(path)
    assert rows_of(run) == oracle_rows(path)
    assert any(problem.startswith("damaged at byte") for problem in run.problems)


@pytest.fixture(scope="module")
def long_run(write_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file of more than ten blocks, as training writes them: a row and a summary an epoch, few of them plain."""
    rows = [
        {"epoch": n, "val/miou": 1 / n, "val/loss": math.nan if n % 50 == 0 else n / 7, "note": "x" * (n % 90)}
        | {f"val/metric_{i}": (n * i) ** 0.5 for i in range(15)}
        for n in range(1, 251)
    ]
    path = write_run(
        tmp_path_factory.mktemp("long"), "demo-long", rows, config={"seed": 1}, summary={"state": "completed"}
    )
    assert path.stat().st_size > 10 * BLOCK_SIZE
    return path


def agrees_with_the_public_reader(path: Path, *, on_the_rest: bool) -> bool:
    """Same rows; config, summary and end too where asked, as that takes the public reader a second call."""
    run = read_run(path)
    assert rows_of(run) == oracle_rows(path)
    if on_the_rest:
        oracle = json.loads(inspect(path, "--summary"))
        assert (run.config, spelled(run.summary)) == (oracle.get("config", {}), spelled(oracle.get("summary", {})))
        assert run.exit_code == oracle.get("exit_code")
    return True


@pytest.mark.slow
def test_torn_at_sixty_places_it_reads_what_the_public_reader_reads(long_run: Path, tmp_path: Path) -> None:
    content, choose = long_run.read_bytes(), random.Random(60)
    places = [choose.randrange(len(HEADER), len(content)) for _ in range(60)]
    num_rows = []
    for number, place in enumerate(places):
        path = tmp_path / f"run-{number}.wandb"
        path.write_bytes(content[:place])
        assert agrees_with_the_public_reader(path, on_the_rest=number % 4 == 0)
        num_rows.append(read_run(path).history.num_rows)
    assert len(set(num_rows)) > 50
    assert sorted(num_rows) == [rows for _, rows in sorted(zip(places, num_rows, strict=True))]


@pytest.mark.slow
def test_with_sixty_flipped_bits_it_reads_what_the_public_reader_reads(long_run: Path, tmp_path: Path) -> None:
    content, choose = long_run.read_bytes(), random.Random(61)
    num_rows = []
    for number in range(60):
        damaged = bytearray(content)
        damaged[choose.randrange(len(HEADER), len(content))] ^= 1 << choose.randrange(8)
        path = tmp_path / f"run-{number}.wandb"
        path.write_bytes(damaged)
        assert agrees_with_the_public_reader(path, on_the_rest=number % 4 == 0)
        num_rows.append(read_run(path).history.num_rows)
    whole = bytearray(content)
    for place in [choose.randrange(len(HEADER), len(content)) for _ in range(60)]:
        whole[place] ^= 1 << choose.randrange(8)
    path = tmp_path / "run-all.wandb"
    path.write_bytes(whole)
    assert agrees_with_the_public_reader(path, on_the_rest=True)
    assert read_run(path).history.num_rows < min(num_rows) < 250


def test_a_run_that_is_still_going_on_has_no_exit_code(write_run: Callable[..., Path], tmp_path: Path) -> None:
    copies: list[Path] = []

    def copy_file(run: Any) -> None:
        copies.append(Path(shutil.copy(run.settings.sync_file, tmp_path / "run-live.wandb")))

    write_run(tmp_path, "demo-live", [{"epoch": 1}], alter=copy_file)
    assert read_run(copies[0]).exit_code is None
    assert "no exit record" in read_run(copies[0]).problems


# Records made by hand -----------------------------------------------------------------------------------------------


def write_records(folder: Path, *records: bytes, name: str = "run-hand.wandb") -> Path:
    """A run file of small records, each in one FULL chunk: checksum, length, type 1, record (test_run_files.py)."""
    chunks = [
        zlib.crc32(b"\1" + record).to_bytes(4, "little") + len(record).to_bytes(2, "little") + b"\1" + record
        for record in records
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(HEADER + b"".join(chunks))
    return path


def history_record(*items: tuple[list[str], str]) -> bytes:
    record = Record()
    for keys, value in items:
        record.history.item.add(nested_key=keys, value_json=value)
    return bytes(record.SerializeToString())


@pytest.mark.parametrize(
    "value",
    ["[" * 100_000, "[" * 33 + "]" * 33, '{"a":' * 900 + "1" + "}" * 900, "9" * 5000, '"\\ud800"', "nonsense", ""],
)
def test_hostile_values_are_left_out_and_named(value: str, tmp_path: Path) -> None:
    record = history_record((["epoch"], "1"), (["bad"], value[:30_000]))
    run = read_run(write_records(tmp_path, record))
    assert run.history.rows() == [{"epoch": 1}]
    assert run.problems == ("an unreadable value of 'bad', left out", "no exit record")


def test_hostile_records_are_left_out_and_named(tmp_path: Path) -> None:
    deep_key = history_record((["epoch"], "2"), (["k"] * 1000, "1"))
    run = read_run(write_records(tmp_path, *[b"\xff\xff"] * 50, deep_key))
    assert run.run_id == "hand"  # from the file's name, for want of a record
    assert run.history.rows() == [{"epoch": 2}]
    assert run.problems == (
        "a record that is no W&B record, left out",
        "an unreadable value of 'k', left out",
        "no exit record",
    )


# Folders ------------------------------------------------------------------------------------------------------------


def epochs_and_values(run: WandbRun) -> list[tuple[int, float]]:
    return [(row["epoch"], row["v"]) for row in run.history.rows()]


def test_a_run_in_several_folders_is_merged_and_the_later_file_wins(
    write_run: Callable[..., Path], tmp_path: Path
) -> None:
    first = write_run(tmp_path, "demo-b", [{"epoch": n, "v": 0.1} for n in (1, 2)], config={"a": 1, "b": 1})
    first.write_bytes(first.read_bytes()[:-50])  # interrupted: no exit record
    # wandb puts -1, -2, ... behind the name of a folder of the same second; -10 must count as later than -2.
    again = write_run(tmp_path, "demo-b", [{"epoch": n, "v": 0.3} for n in (2, 3)], config={"a": 3})
    again.parent.rename(first.parent.with_name(f"{first.parent.name}-10"))
    between = write_run(tmp_path, "demo-b", [{"epoch": 3, "v": 0.2}], config={"a": 2})
    if between.parent.name != f"{first.parent.name}-2":
        between.parent.rename(first.parent.with_name(f"{first.parent.name}-2"))
    write_run(tmp_path, "demo-a", [{"epoch": 1, "v": 0.5}])

    alone, merged = read_runs(tmp_path / "wandb")
    assert (alone.run_id, merged.run_id) == ("demo-a", "demo-b")
    assert epochs_and_values(merged) == [(1, 0.1), (2, 0.3), (3, 0.3)]
    assert merged.config == {"a": 3, "b": 1}
    assert merged.exit_code == 0
    assert merged.path.parent.name.endswith("-10")
    name = first.parent.name
    assert merged.problems[1:] == (
        f"{name}: no exit record",
        f"merged from {name} and {name}-2",
        f"merged from {name}-2 and {name}-10",
    )
    assert merged.problems[0].startswith(f"{name}: torn at byte ")


def test_files_of_online_runs_count_too_and_the_later_time_wins(tmp_path: Path) -> None:
    for value, folder in enumerate(("run-20260101_120000-x", "offline-run-20260102_120000-x", "run-20260101_130000-x")):
        record = history_record((["epoch"], "1"), (["v"], str(value)))
        write_records(tmp_path / folder, record, name="run-x.wandb")
    (tmp_path / "latest-run").symlink_to("run-20260101_120000-x")  # W&B's own link to the run before
    (run,) = read_runs(tmp_path)
    assert run.history.rows() == [{"epoch": 1, "v": 1}]
    assert [problem for problem in run.problems if problem.startswith("merged")] == [
        "merged from run-20260101_120000-x and run-20260101_130000-x",
        "merged from run-20260101_130000-x and offline-run-20260102_120000-x",
    ]


def test_odd_digits_in_a_folders_name_do_no_harm(tmp_path: Path) -> None:
    write_records(tmp_path / "offline-run-1²2-x", name="run-x.wandb")  # a digit to Unicode, no number to Python
    assert [run.run_id for run in read_runs(tmp_path)] == ["x"]


def test_no_folder_holds_no_runs(tmp_path: Path) -> None:
    assert read_runs(tmp_path / "wandb") == []


@pytest.mark.parametrize("what", ["file", "folder", "dangling", "pipe"])
def test_what_is_not_a_file_of_the_folder_is_refused(what: str, tmp_path: Path) -> None:
    outside = write_records(tmp_path / "outside", name="run-x.wandb")
    folder = tmp_path / "wandb" / "offline-run-x"
    if what == "folder":
        folder.parent.mkdir()
        folder.symlink_to(outside.parent)
    else:
        folder.mkdir(parents=True)
        target = folder / "run-x.wandb"
        {
            "file": lambda: target.symlink_to(outside),
            "dangling": lambda: target.symlink_to(folder / "none"),
            "pipe": lambda: os.mkfifo(target),
        }[what]()
    with pytest.raises(InputError, match=r"run-x\.wandb: .*(symlink out of|regular file)"):
        read_runs(tmp_path / "wandb")


def test_a_symlink_within_the_folder_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "wandb" / "offline-run-x"
    write_records(folder, name="kept")
    (folder / "run-x.wandb").symlink_to(folder / "kept")
    assert [run.run_id for run in read_runs(tmp_path / "wandb")] == ["x"]
