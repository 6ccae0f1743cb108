"""The plan of a dry run, wherever storage and data are seen from; the whole of it, with a real head: test_jobs.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.dry_run import _plan
from cluster.preparation import prepare
from cluster.resources import Node
from trainable import object_store
from trainable.trial_files import append_row, write_result

NODES = [Node("n", "host", {"CPU": 4.0})]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No store of the machine's is asked."""
    monkeypatch.setenv("CANOPOINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    object_store._file_system.cache_clear()
    yield
    object_store._file_system.cache_clear()


def test_storage_that_the_cluster_alone_sees_is_planned_for_and_nothing_is_written(make_spec, tmp_path):
    lines = _plan(make_spec("/nowhere/studies"), NODES)
    text = "\n".join(lines)
    for expected in ("explore      2 trials", "0 reused", "4 at a time", "GPU-hours", "/nowhere/studies is not seen"):
        assert expected in text
    assert not Path("/nowhere").exists()
    assert list(tmp_path.iterdir()) == []


def test_what_is_stored_is_reused_and_nothing_is_written(make_spec, tmp_path):
    spec = make_spec(tmp_path / "storage")
    work = prepare(spec)
    trial = work.missing[0]
    rows = [{"epoch": epoch, "val/miou": 0.5, "time/total_s": 5.0 * epoch} for epoch in (1, 2)]
    work.trial_folder(trial).mkdir(parents=True)
    for row in rows:
        append_row(work.trial_folder(trial), row)
    write_result(work.trial_folder(trial), rows, {})
    before = sorted(tmp_path.rglob("*"))
    text = "\n".join(_plan(spec, NODES))
    assert "1 reused, 1 to run" in text
    assert "not seen" not in text
    assert sorted(tmp_path.rglob("*")) == before


def test_data_that_the_cluster_alone_sees_are_planned_for_there(make_spec):
    (line,) = _plan(make_spec("/nowhere/studies", data={"root": "/nowhere/forest"}), NODES)
    assert line == "plan         is made on the cluster: data.root: /nowhere/forest is not seen from here"


def test_a_store_that_is_not_reached_from_here_is_no_bad_input(make_spec):
    (line,) = _plan(make_spec("s3://bucket/studies"), NODES)
    assert line.startswith("plan         is made on the cluster: storage: s3://bucket/studies/tiny: ")
