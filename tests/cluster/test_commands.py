"""The commands around `run`, as a user types them, on one tiny study that each test takes further."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from study.ledger import read_ledger
from trainable.trial_files import read_result

pytestmark = pytest.mark.cluster
WAIT_S = 300


@pytest.fixture(scope="module")
def study(tmp_path_factory, make_spec, write_spec) -> tuple[Path, Path]:
    """A study file with one confirmation seed, which decides nothing; and the folder of its results."""
    folder = tmp_path_factory.mktemp("commands")
    spec = make_spec(folder / "storage", confirm={"seeds": [100]}, budget={"trials": 3})
    return write_spec(spec, folder / "tiny.yaml"), spec.folder


def canopoint(command: str, *arguments: str) -> tuple[int, str]:
    program = str(Path(sys.executable).parent / "canopoint")
    ended = subprocess.run(
        [program, command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=WAIT_S
    )
    return ended.returncode, ended.stdout


def trained(folder: Path) -> list[tuple[int, float, int]]:
    """(points, learning rate, seed) of every finished trial, in the order of their ends."""
    ids = [event["trial_id"] for event in read_ledger(folder) if event["event"] == "trial_ended"]
    configs = [json.loads((folder / "trials" / each / "config.json").read_text())["training"] for each in ids]
    assert all(read_result(folder / "trials" / each) for each in ids)
    return [(config["points_per_image"], config["learning_rate"], config["seed"]) for config in configs]


def test_a_budget_of_trials_ends_the_run_cleanly_and_the_status_says_so(study):
    path, folder = study
    code, output = canopoint("run", str(path))
    assert code == 3, output
    assert "trials still to run: 1; the same command continues" in output
    assert sorted(trained(folder)) == [(2, 1e-3, 0), (2, 1e-3, 100), (20, 1e-3, 0)]
    assert read_ledger(folder)[-1]["reason"] == "budget"
    code, output = canopoint("status", str(folder), "--format", "json")
    assert code == 0, output
    assert json.loads(output)["study"] == "tiny"
    code, output = canopoint("status", str(folder))
    assert "budget" in output


def test_with_more_budget_the_rest_runs_and_nothing_else(study):
    path, folder = study
    code, output = canopoint("run", str(path), "--set", "budget.trials=4")
    assert code == 0, output
    assert trained(folder)[3:] == [(20, 1e-3, 100)]
    assert "test/miou" in output


def test_an_undecided_study_is_extended_where_it_is_undecided(study):
    path, folder = study
    code, output = canopoint("extend", str(path), "--undecided", "--seeds", "2", "--set", "budget.trials=null")
    assert code == 0, output
    assert sorted(trained(folder)[4:]) == [(points, 1e-3, seed) for points in (2, 20) for seed in (101, 102)]
    findings = json.loads((folder / "analysis" / "findings.json").read_text())
    assert [arm["seeds"] for arm in findings["arms"]] == [[100, 101, 102]] * 2


def test_given_cells_are_confirmed_alone(study):
    path, folder = study
    cell = "{points_per_image: 2, learning_rate: 1e-2}"
    code, output = canopoint("confirm", str(path), "--cell", cell, "--set", "budget.trials=null")
    assert code == 0, output
    assert sorted(trained(folder)[8:]) == [(2, 1e-2, seed) for seed in (100, 101, 102)]


def test_then_there_is_nothing_left_to_run(study):
    path, folder = study
    before = trained(folder)
    code, output = canopoint("run", str(path), "--set", "budget.trials=null")
    assert code == 0, output
    assert "nothing to train" in output
    assert trained(folder) == before


def test_bad_wishes_are_refused(study):
    path, folder = study
    before = sorted(folder.rglob("*"))
    for arguments, message in {
        ("confirm", str(path), "--cell", "{points_per_image: 2}"): "must give each of points_per_image, learning_rate",
        ("confirm", str(path), "--set", "confirm=null"): "has no confirm section",
        ("confirm", str(path), "--set", "search.seeds=[0, 1]"): "2 trials of exploration are still to run",
        ("extend", str(path), "--undecided", "--seeds", "0"): "--seeds: must be 1 to 1000, got 0",
        ("status", str(path.parent)): "canopoint: ",
    }.items():
        code, output = canopoint(*arguments)
        assert (code, message in output) == (2, True), output
    assert sorted(folder.rglob("*")) == before
