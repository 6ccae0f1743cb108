"""The same study, logged by the real client into files and to a server of ours, gives the same findings."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.find import find
from analysis.reading.runs import load_study
from analysis.reading.source import Source, find_source
from bench.made_study import STUDY, make_study, show_study, write_trial
from bench.wandb_server import ENTITY, WandbServer
from cluster import tracking
from cluster.preparation import Work, find_outcome, trial_record, write_trial_list
from study.design import Trial, list_levels
from study.ledger import open_ledger
from trainable.config import InputError

ONLINE = {"project": "made", "mode": "online"}
PLACE = f"wandb://{ENTITY}/made"


def from_files(tmp_path: Path, **changes: Any) -> str:
    """The findings of a study's run files alone, as JSON; over HTTP there is no study file either."""
    work = show_study(make_study(tmp_path / "offline", **changes))
    bare = tmp_path / "bare" / work.spec.study
    shutil.copytree(work.folder / "wandb", bare / "wandb")
    return findings(Source(bare, bare))


def from_http(tmp_path: Path, **changes: Any) -> str:
    show_study(make_study(tmp_path / "online", **changes, tracking=ONLINE))
    return findings(online(tmp_path))


def extended(work: Work, number: int) -> Work:
    """The study, shown, after so many additions of two seeds to both levels, each shown as it came."""
    show_study(work)
    for first in [103, 105][:number]:
        seeds, levels = [first, first + 1], list_levels(work.spec)
        with open_ledger(work.folder) as ledger:
            work.agenda.record = ledger.append
            work.agenda.extend(levels, seeds)
        while trial := work.agenda.next_trial():
            write_trial(work, trial)
            outcome = find_outcome(work.trial_folder(trial), work.spec.objective.metric)
            assert outcome
            work.agenda.ended(trial, outcome)
        write_trial_list(work)
        show_study(work)
    return work


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


LOOKED = 1 - 0.05 * 0.05
"""How sure each interval is at the third look of a study of two levels."""


def test_a_copy_without_the_study_file_knows_of_the_looks(tmp_path: Path) -> None:
    """Seeds that were added to every level look like planned ones: the runs say which were not."""
    work = extended(make_study(tmp_path), 2)
    bare = tmp_path / "bare" / work.spec.study
    shutil.copytree(work.folder / "wandb", bare / "wandb")
    here, there = load_study(work.folder), load_study(Source(bare, bare))
    assert there.search == here.search
    assert there.search.extensions == [[103, 104], [105, 106]]
    found = find(there)
    assert [level.difference.confidence for level in found.scientific[0].levels if level.difference] == [LOOKED]
    assert found.scientific == find(here).scientific
    assert [caveat.text for caveat in found.caveats] == [caveat.text for caveat in find(here).caveats]


def test_an_extended_study_has_the_same_findings_over_http(server: WandbServer, tmp_path: Path) -> None:
    work = extended(make_study(tmp_path, tracking=ONLINE), 1)
    assert find(load_study(online(tmp_path))).scientific == find(load_study(work.folder)).scientific


def test_of_older_runs_every_seed_beyond_two_counts_as_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not say what was planned; three seeds are two looks."""

    def older(work: Work, trial: Trial) -> dict[str, Any]:
        return {name: value for name, value in trial_record(work, trial).items() if name != "plan"}

    monkeypatch.setattr(tracking, "trial_record", older)
    work = show_study(make_study(tmp_path))
    bare = tmp_path / "bare" / work.spec.study
    shutil.copytree(work.folder / "wandb", bare / "wandb")
    found = find(load_study(Source(bare, bare)))
    assert [level.difference.confidence for level in found.scientific[0].levels if level.difference] == [1 - 0.05 * 0.1]
    assert [caveat.kind for caveat in found.caveats].count("unknown_looks") == 1
    assert "unknown_looks" not in [caveat.kind for caveat in find(load_study(work.folder)).caveats]


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
