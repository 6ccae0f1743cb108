"""The findings in W&B: the real client writes them to a server of ours; they are not taken for a run of the study."""

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.findings import Caveat, Findings
from analysis.reading.run_cache import RunCache
from analysis.reading.wandb_api import read_api_runs
from analysis.report import wandb_report
from analysis.report.wandb_report import write_back
from bench.wandb_server import ENTITY, KEY, WandbServer
from bench.wandb_stored import StoredRun
from trainable.config import InputError

# wandb-workspaces 0.4 is written for pydantic 1.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

PROJECT = f"{ENTITY}/forest"
RUN_ID = "budget-findings"
PAGE = "<!doctype html><title>Findings</title><p>Label 50 points.</p>"


@pytest.fixture
def findings(points_study: Callable[..., Findings]) -> Findings:
    return points_study({10: [0.60, 0.61, 0.60], 50: [0.70, 0.71, 0.70]})


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(PAGE)
    return path


def written(server: WandbServer) -> StoredRun:
    (run,) = server.runs.values()
    return run


def test_a_run_of_the_group_holds_headline_verdicts_and_intervals(
    server: WandbServer, findings: Findings, page: Path
) -> None:
    write_back(findings, page, PROJECT, "budget")
    run = written(server)
    assert (run.name, run.group, run.job_type, run.state) == (RUN_ID, "budget", "canopoint-findings", "finished")
    assert run.summary["headline"] == findings.headline
    recommended, best = run.summary["recommended"], findings.recommended.value
    assert recommended["settings"] == findings.recommended.parameters
    assert (recommended["value"], recommended["low"], recommended["num_seeds"]) == (best.value, best.low, 3)
    found = {name: level["verdict"] for name, level in run.summary["verdicts"]["points_per_image"].items()}
    assert found == {str(level.level): level.verdict for level in findings.factors[0].levels}
    assert run.summary["caveats"] == [caveat.text for caveat in findings.caveats]


def test_the_report_goes_with_it_byte_for_byte(server: WandbServer, findings: Findings, page: Path) -> None:
    write_back(findings, page, PROJECT, "budget")
    run = written(server)
    assert run.files[run.summary["report"]["path"]] == PAGE.encode()


def test_again_it_takes_the_place_of_the_earlier_one(server: WandbServer, findings: Findings, page: Path) -> None:
    first = write_back(findings, page, PROJECT, "budget")
    assert write_back(findings, page, PROJECT, "budget") == first
    assert len(written(server).lines) == 1
    changed = replace(findings, headline="Another headline")
    assert write_back(changed, page, PROJECT, "budget") == first
    assert written(server).summary["headline"] == "Another headline"
    assert len(written(server).lines) == 2


def test_it_is_no_run_of_the_study(server: WandbServer, findings: Findings, page: Path) -> None:
    server.add_run("forest", "trial", [{"epoch": 1}], group="budget")
    write_back(findings, page, PROJECT, "budget")
    assert len(server.runs) == 2
    assert [run.run_id for run in read_api_runs(PROJECT, {"group": "budget"}, RunCache(None))] == ["trial"]


@pytest.mark.skipif(not importlib.util.find_spec("wandb_workspaces"), reason="needs the extra wandb-report")
def test_a_w_and_b_report_says_it_in_words_beside_the_curves(
    server: WandbServer, findings: Findings, page: Path
) -> None:
    hostile = replace(findings, caveats=[Caveat("x", "</script>[click](javascript:alert(1)) <img src=x>")])
    address = write_back(hostile, page, PROJECT, "budget")
    write_back(hostile, page, PROJECT, "budget")
    ((name, view),) = server.answers.views.items()
    assert address.endswith(f"/{PROJECT}/reports/budget-findings--{name}")
    assert (view["displayName"], view["type"]) == ("budget findings", "runs")
    texts = [block["content"] for block in json.loads(view["spec"])["blocks"] if block["type"] == "markdown-block"]
    assert re.sub(r"\\(.)", r"\1", texts[0]) == f"**{findings.headline}**"
    assert "click" in texts[-1]
    assert not set(re.sub(r"\\.", "", texts[-1])) & set("<>[]")  # each has a backslash before it


def test_without_the_extra_there_is_the_run_alone(
    server: WandbServer, findings: Findings, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_report, "has_workspaces", lambda: False)
    assert write_back(findings, page, PROJECT, "budget") == f"{server.url}/{PROJECT}/runs/{RUN_ID}"
    assert server.answers.views == {}


@pytest.mark.parametrize("group", ["a b", "a/b'c;d#e?f:g,h", "x" * 300, "'; drop"])
def test_a_group_of_any_name_gets_a_run_id_that_w_and_b_takes(
    server: WandbServer, findings: Findings, page: Path, group: str
) -> None:
    write_back(findings, page, PROJECT, group)
    run = written(server)
    assert run.group == group
    assert not set(run.name) & set("/\\:;,#?' ")
    assert len(run.name) <= 128


def test_without_a_service_it_is_one_line(server: WandbServer, findings: Findings, page: Path) -> None:
    with server.away(), pytest.raises(InputError, match="does not let us in") as caught:
        write_back(findings, page, PROJECT, "budget")
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)
