"""The same study, logged by the real client into files and to a server of ours, gives the same findings."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.find import find
from analysis.reading.runs import load_study
from analysis.reading.source import Source, find_source
from bench.made_study import STUDY, make_study
from bench.wandb_server import ENTITY, WandbServer, wandb_server
from cluster.preparation import Work
from cluster.tracking import Mirror
from trainable.config import InputError

ONLINE = {"project": "made", "mode": "online"}
PLACE = f"wandb://{ENTITY}/made"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    with wandb_server() as started:
        for name, value in {**started.environment, "HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        yield started
        assert started.unknown == []


def shown(work: Work) -> Work:
    mirror = Mirror(work)
    for trial in work.agenda.trials:
        mirror.update(trial)
    mirror.close()
    assert mirror.problems == {}
    return work


def from_files(tmp_path: Path, **changes: Any) -> str:
    """The findings of a study's run files alone, as JSON; over HTTP there is no study file either."""
    work = shown(make_study(tmp_path / "offline", **changes))
    bare = tmp_path / "bare" / work.spec.study
    shutil.copytree(work.folder / "wandb", bare / "wandb")
    return findings(Source(bare, bare))


def from_http(tmp_path: Path, **changes: Any) -> str:
    shown(make_study(tmp_path / "online", **changes, tracking=ONLINE))
    return findings(online(tmp_path))


def online(tmp_path: Path) -> Source:
    return find_source(PLACE, ["group=made"], out=tmp_path / "out")


def findings(source: Source) -> str:
    return json.dumps(find(load_study(source)).to_mapping())


CHANGES: dict[str, dict[str, Any]] = {
    "confirmed": {},
    "explored": {"confirm": None},
    "known results": {"objective": {"margin": 0.0, "references": {"boosting": 0.6, "seed": 1.0}}, "confirm": None},
    "dense arm": {
        "parameters": {
            **STUDY["parameters"],
            "points_per_image": {"role": "scientific", "values": [10, "dense"]},
        },
        "confirm": None,
    },
}


@pytest.mark.parametrize(
    ("kind", "exports"),
    [
        ("confirmed", False),
        *(pytest.param(kind, kind == "confirmed", marks=pytest.mark.slow) for kind in CHANGES),
    ],
)
def test_files_and_http_give_the_same_findings(server: WandbServer, tmp_path: Path, kind: str, exports: bool) -> None:
    server.answers.exports = exports
    assert from_http(tmp_path, **CHANGES[kind]) == from_files(tmp_path, **CHANGES[kind])


def test_from_the_cache_they_are_the_same_again(server: WandbServer, tmp_path: Path) -> None:
    first = from_http(tmp_path, confirm=None)
    server.asked.clear()
    assert findings(online(tmp_path)) == first
    assert not {"RunParquetHistory", "HistoryPage", "GET exports"} & set(server.asked)


def test_runs_that_crashed_or_lack_an_epoch_are_listed_with_their_reason(server: WandbServer, tmp_path: Path) -> None:
    from_http(tmp_path, confirm=None)
    crashed, torn = (server.runs[name] for name in sorted(server.runs)[:2])
    crashed.state = "crashed"
    del torn.lines[1]
    torn.heartbeat_at = "later"
    excluded = dict(load_study(online(tmp_path)).excluded)
    assert excluded[crashed.name].startswith("no exit record")
    assert excluded[torn.name].startswith("3 of 4 epochs")


@pytest.mark.slow
def test_a_group_that_is_not_there_is_said_to_be_none(server: WandbServer, tmp_path: Path) -> None:
    from_http(tmp_path, confirm=None)
    with pytest.raises(InputError, match=rf"^{PLACE}: no W&B runs that fit .*'group': 'other'"):
        load_study(find_source(PLACE, ["group=other"], out=tmp_path / "none"))
