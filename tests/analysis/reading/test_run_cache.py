"""The cache gives back what was read, notices every damage, and trusts no file."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.reading import cache_file, run_cache
from analysis.reading.cache_file import DamagedCacheError
from analysis.reading.run_cache import RunCache
from analysis.reading.run_table import to_table
from analysis.reading.wandb_runs import WandbRun

MakeRun = Callable[..., WandbRun]


def spelled(run: WandbRun) -> str:
    """All that a run holds, NaN and odd values too."""
    history = run.history
    parts = (
        history.rows(),
        dict(history.odd),
        history.in_order,
        {name: [*map(int, history.absent[name])] for name in history.absent},
    )
    return repr((run.run_id, run.group, run.name, run.config, run.summary, run.exit_code, run.problems, parts))


@pytest.fixture
def runs(make_run: MakeRun) -> list[WandbRun]:
    """With other metrics, gaps, odd values, no rows, no end."""
    odd = [{"epoch": 1, "a": "text", "x.y": 1}, {"epoch": 2, "a": None}, {"epoch": 2.5, "b": float("inf")}]
    return [
        make_run(run_id="plain", summary={"state": "completed", "n": float("nan"), "d": {"x": [1]}}),
        make_run(run_id="odd", history=odd, problems=("torn at byte 7", "no exit record"), exit_code=None),
        make_run(run_id="empty", history=[], config={}, exit_code=-1),
        make_run(run_id="none", history=[{"other": 1}, {}], name="\u2028 </script>"),
    ]


def filled(folder: Path | None, runs: list[WandbRun]) -> RunCache:
    cache = RunCache(folder)
    cache.add((f"{run.run_id}/file", "1", run) for run in runs[:2])
    cache.add((f"{run.run_id}/file", "1", run) for run in runs[2:])
    return cache


WANTED = {f"{name}/file": "1" for name in ("plain", "odd", "empty", "none")}


@pytest.mark.parametrize("where", ["memory", "written", "again"])
def test_runs_come_back_as_they_were(where: str, runs: list[WandbRun], tmp_path: Path) -> None:
    cache = filled(None if where == "memory" else tmp_path / "cache", runs)
    if where == "again":
        cache = RunCache(tmp_path / "cache")
    found = cache.load(WANTED, Path("root"))
    assert {key: spelled(run) for key, run in found.items()} == {f"{run.run_id}/file": spelled(run) for run in runs}
    assert {run.path for run in found.values()} == {Path("root", key) for key in WANTED}
    assert all(run.fingerprint == "1" for run in found.values())


def test_another_state_of_a_run_is_not_at_hand_and_the_newer_one_counts(runs: list[WandbRun], tmp_path: Path) -> None:
    cache = filled(tmp_path, runs)
    assert cache.load({"plain/file": "2"}) == {}
    cache.add([("plain/file", "2", runs[1])])
    again = RunCache(tmp_path)
    assert again.load({"plain/file": "2"})["plain/file"].run_id == "odd"
    assert again.load({"plain/file": "1"})["plain/file"].run_id == "plain"


def test_many_small_files_become_one(runs: list[WandbRun], tmp_path: Path) -> None:
    cache = RunCache(tmp_path)
    for number in range(run_cache.MAX_FILES + 1):
        cache.add([(f"run{number % 4}", str(number), runs[number % 4])])
    wanted = {f"run{number % 4}": str(number) for number in range(run_cache.MAX_FILES + 1)}
    before = {key: spelled(run) for key, run in cache.load(wanted).items()}
    cache.tidy(wanted)
    assert len(list(tmp_path.iterdir())) == 1
    for each in (cache, RunCache(tmp_path)):
        assert {key: spelled(run) for key, run in each.load(wanted).items()} == before
        assert len(before) == 4
    cache.add([("new", "1", runs[0])])
    assert len(RunCache(tmp_path).load({**wanted, "new": "1"})) == 5


def read_all(folder: Path) -> dict[str, str]:
    """What the cache gives, after a second try where a file had to be set aside."""
    for _ in range(2):
        try:
            return {key: spelled(run) for key, run in RunCache(folder).load(WANTED).items()}
        except DamagedCacheError:
            continue
    raise AssertionError("damaged twice")


def test_every_flipped_bit_is_noticed_or_harmless(runs: list[WandbRun], tmp_path: Path) -> None:
    filled(tmp_path / "whole", runs)
    whole = read_all(tmp_path / "whole")
    (path, _) = sorted((tmp_path / "whole").iterdir())
    content, choose = path.read_bytes(), random.Random(6)
    num_noticed = 0
    for number in range(150):
        place = choose.randrange(len(content))
        folder = tmp_path / str(number)
        folder.mkdir()
        damaged = bytearray(content)
        damaged[place] ^= 1 << choose.randrange(8)
        (folder / path.name).write_bytes(damaged)
        found = read_all(folder)
        assert found.items() <= whole.items()
        aside = list(folder.glob("*.damaged"))
        assert bool(aside) == (len(found) < 2)
        num_noticed += bool(aside)
    assert num_noticed > 100  # the rest is padding and what nobody reads


@pytest.mark.parametrize("size", [0, 3, 8, 100, -1])
def test_a_torn_file_is_set_aside(size: int, runs: list[WandbRun], tmp_path: Path) -> None:
    filled(tmp_path, runs)
    path = min(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:size])
    assert len(read_all(tmp_path)) == 2
    assert [each.name for each in tmp_path.glob("*.damaged")] == [f"{path.name}.damaged"]


def hostile(folder: Path, table: pa.Table) -> None:
    folder.mkdir()
    cache_file.write_file(folder, 1, table)


def test_a_file_with_other_columns_is_set_aside(runs: list[WandbRun], tmp_path: Path) -> None:
    table = to_table([("plain/file", "1", runs[0])])
    tables = {
        "less": table.drop_columns(["problems"]),
        "pickled": table.append_column("metric/x", pa.array([b"\x80\x04."])),
        "typed": table.set_column(7, "exit_code", pa.array(["0"])),
        "nothing": pa.table({"a": [1]}),
    }
    for name, each in tables.items():
        hostile(tmp_path / name, each)
        assert read_all(tmp_path / name) == {}
        assert len(list((tmp_path / name).glob("*.damaged"))) == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [("metrics", '["val/miou", "nowhere"]'), ("config", ["[1"]), ("odd", "[[0]]"), ("summary", "[" * 100_000)],
)
def test_content_that_we_never_wrote_is_set_aside(
    column: str, value: Any, runs: list[WandbRun], tmp_path: Path
) -> None:
    table = to_table([("plain/file", "1", runs[0])])
    place = table.column_names.index(column)
    hostile(tmp_path / "cache", table.set_column(place, table.field(place), pa.array([value], table.field(place).type)))
    if column != "metrics":
        assert read_all(tmp_path / "cache") == {}
    else:
        with pytest.raises(DamagedCacheError, match=r"runs-0001-.*damaged .*run the same command again"):
            RunCache(tmp_path / "cache").load(WANTED)["plain/file"].history.rows()


def test_a_file_that_asks_for_too_much_is_set_aside(
    runs: list[WandbRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, runs)
    monkeypatch.setattr(cache_file, "MAX_VALUES", 10)
    assert read_all(tmp_path) == {}
    assert len(list(tmp_path.glob("*.damaged"))) == 2


def test_links_and_files_of_others_are_left_alone(runs: list[WandbRun], tmp_path: Path) -> None:
    filled(tmp_path / "elsewhere", runs)
    folder = tmp_path / "cache"
    folder.mkdir()
    (path, _) = sorted((tmp_path / "elsewhere").iterdir())
    (folder / path.name).symlink_to(path)
    (folder / "runs-x.parquet").write_text("mine")
    assert read_all(folder) == {}
    assert sorted(each.name for each in folder.iterdir()) == sorted([path.name, "runs-x.parquet"])


def test_it_is_parquet_that_others_read(runs: list[WandbRun], tmp_path: Path) -> None:
    filled(tmp_path, runs)
    table = pq.read_table(min(tmp_path.iterdir()))
    assert table["run_id"].to_pylist() == ["plain", "odd"]
    assert table["metric/val/miou"].to_pylist() == [[0.1, 0.2, 0.3], None]


@pytest.mark.parametrize("num_before", [0, 2])
def test_a_cache_that_cannot_be_written_is_only_left_out(
    num_before: int,
    runs: list[WandbRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = filled(tmp_path / "cache", runs[:num_before])
    files = sorted((tmp_path / "cache").glob("*"))

    def refuse(*_: Any) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_cache, "write_file", refuse)
    monkeypatch.setattr(run_cache, "MAX_FILES", 0)
    cache.add((f"{run.run_id}/file", "1", run) for run in runs[num_before:])
    cache.tidy(WANTED)
    assert cache.load(WANTED).keys() == WANTED.keys()
    assert sorted((tmp_path / "cache").glob("*")) == files
    assert "No space left on device" in caplog.text
