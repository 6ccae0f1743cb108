"""The folder of preflight's tokens, on disks that are as they should be and on others."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from cluster import preflight
from cluster.node_checks import unread_tokens
from cluster.node_tasks import Answer
from cluster.preflight_rules import DRIVER
from cluster.preflight_tokens import OLD_S, folder_of_tokens
from cluster.preparation import prepare
from cluster.resources import Node


def test_all_that_was_made_for_it_is_gone_at_the_end(tmp_path: Path) -> None:
    with folder_of_tokens(tmp_path / "storage" / "study") as (folder, problem):
        assert problem == ""
        assert unread_tokens(folder, [DRIVER]) == []
    assert list(tmp_path.iterdir()) == []


def test_two_at_the_same_time_leave_each_other_alone(tmp_path: Path) -> None:
    study = tmp_path / "study"
    with folder_of_tokens(study):
        second = folder_of_tokens(study)
        folder, _ = second.__enter__()
    assert unread_tokens(folder, [DRIVER]) == []  # the first one has ended
    second.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == [study]  # its maker could not remove it
    assert list(study.iterdir()) == []


def test_what_cannot_be_removed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, where a file that somebody has open goes on under another name."""
    removed = os.rmdir

    def refuse(path: Any, *arguments: Any, **options: Any) -> None:
        if ".preflight-" in str(path):
            raise OSError(39, "Directory not empty")
        removed(path, *arguments, **options)

    monkeypatch.setattr(os, "rmdir", refuse)
    with folder_of_tokens(tmp_path / "study"):
        pass
    monkeypatch.undo()
    [left] = (tmp_path / "study").iterdir()
    with folder_of_tokens(tmp_path / "study"):
        assert left.exists()
    day_before = time.time() - OLD_S - 60
    os.utime(left, (day_before, day_before))
    (tmp_path / "study" / "trials").mkdir()
    with folder_of_tokens(tmp_path / "study"):
        assert not left.exists()
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["trials"]


def test_a_driver_that_cannot_make_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "study").write_text("no folder")
    with folder_of_tokens(tmp_path / "study") as (folder, problem):
        assert problem == f"cannot make {folder} (Not a directory)"
    assert (tmp_path / "study").read_text() == "no folder"


def test_storage_that_the_driver_cannot_write_is_not_the_fault_of_nodes(
    tmp_path: Path, make_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that answer as they would; the checks themselves run here."""

    def ask(nodes: list[Node], function: Any, arguments: Any, *_: Any, **__: Any) -> dict[Node, Answer]:
        return {node: Answer(function(*arguments(node)), "", time.time(), time.time()) for node in nodes}

    monkeypatch.setattr(preflight, "ask", ask)
    work = prepare(make_spec(tmp_path / "storage"))
    nodes = [Node(name, name, {"CPU": 1.0}) for name in ("a", "b")]
    shutil.rmtree(tmp_path / "storage", ignore_errors=True)
    (tmp_path / "storage").write_text("no folder")
    checks = preflight._Preflight(work, {})
    assert checks.compare(nodes) == nodes
    [problem] = checks.report.problems
    assert problem.node.startswith("driver on ")
    assert problem.check == "storage"
    assert problem.what.startswith(f"cannot make {tmp_path}/storage/tiny/.preflight-")
