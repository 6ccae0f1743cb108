"""Studies that nobody means are refused at once by the command line: exit code 2, one line, nothing written."""

import subprocess
import sys
from pathlib import Path

import pytest

import canopoint

SCRIPT = Path(sys.executable).parent / "canopoint"
STUDY = """\
study: small
data: {root: forest}
training: {encoder: resnet18, weights: none, image_size: 96, epochs: 4, batch_size: 2}
parameters:
  points_per_image: {role: scientific, values: [2, 20]}
  learning_rate: {role: nuisance, min: 1e-4, max: 1e-2, scale: log}
search: {method: random, trials_per_level: 4, seeds: [0, 1, 2]}
confirm: {seeds: [100, 101]}
"""
RANGE = "learning_rate: {role: nuisance, min: 1e-4, max: 1e-2, scale: log}"
LEVELS = "points_per_image: {role: scientific, values: [2, 20]}"
THOUSAND = str(list(range(1, 1001)))
MANY = (
    f"points_per_image: {{role: ROLE, values: {THOUSAND}}}\n"
    f"  warmup_epochs: {{role: ROLE, values: {[each / 1000 for each in range(1, 1001)]}}}\n"
    f"  focal_gamma: {{role: ROLE, values: {list(range(11))}}}"
)  # 1.1 * 10^7 combinations
GRID = "search: {method: grid, seeds: [0, 1, 2]}"
SEARCH = "search: {method: random, trials_per_level: 4, seeds: [0, 1, 2]}"
NESTED_ALIASES = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"

BAD = {
    "a grid of 10^7 cells": ([(RANGE, ""), (LEVELS, MANY.replace("ROLE", "nuisance")), (SEARCH, GRID)], "33000000"),
    "a search at 10^7 levels": ([(RANGE, ""), (LEVELS, MANY.replace("ROLE", "scientific"))], "at most 100000"),
    "a search of too many trials": ([("trials_per_level: 4", "trials_per_level: 50000")], "at most 100000"),
    "min above max": ([("min: 1e-4, max: 1e-2", "min: 1e-2, max: 1e-4")], "min must be less than max, got min 0.01"),
    "log from 0": ([(RANGE, "focal_gamma: {role: nuisance, min: 0, max: 5, scale: log}")], "greater than 0 on a log"),
    "log below 0": ([(RANGE, "focal_gamma: {role: nuisance, min: -1, max: 5, scale: log}")], "greater than 0 on a log"),
    "no end": ([("max: 1e-2", "max: .inf")], "parameters.learning_rate.max: must be a finite number"),
    "a range of words": ([(RANGE, "optimizer: {role: nuisance, min: 0, max: 1}")], "parameters.optimizer: "),
    "a range in a grid": ([(SEARCH, GRID)], "parameters.learning_rate: a grid needs values"),
    "a draw of points to choose": (
        [(RANGE, "points_seed: {role: nuisance, values: [0, 1]}")],
        "parameters.points_seed: must not have role: nuisance, as the draw of points that is chosen is the luckiest"
        " one; give it role: scientific",
    ),
    "a scientific range": ([("role: nuisance", "role: scientific")], "parameters.learning_rate: a scientific factor"),
    "no seeds": ([("seeds: [0, 1, 2]", "seeds: []")], "search.seeds: must have at least 1 item"),
    "a seed twice": ([("seeds: [0, 1, 2]", "seeds: [0, 1, 0]")], "search.seeds: each value stands once, got 0"),
    "seeds confirmed by themselves": ([("[100, 101]", "[100, 2]")], "confirm.seeds: 2 is one of search.seeds too"),
    "a level twice": ([("values: [2, 20]", "values: [2, 20, 2]")], "points_per_image.values: each value stands once"),
    "1 and 1.0": ([(RANGE, "focal_gamma: {role: nuisance, values: [1, 1.0]}")], "focal_gamma.values: each value"),
    "1e-3 and 0.001": ([("min: 1e-4, max: 1e-2, scale: log", "values: [1e-3, 0.001]")], "values: each value stands"),
    "an unending search": ([(", trials_per_level: 4", "")], "search.trials_per_level: is missing"),
    "a hasty scheduler": ([("seeds: [0", "scheduler: asha, grace_epochs: 4, seeds: [0")], "search.grace_epochs: "),
    "a path for a name": ([("study: small", "study: a/b")], "study: must be a short name"),
    "a path upwards": ([("study: small", "study: ..")], "study: must be a short name"),
    "a long name": ([("study: small", f"study: {300 * 'x'}")], "study: must be a short name"),
    "a name with a line break": ([("study: small", 'study: "small\\n"')], "study: must be a short name"),
    "nested aliases": ([("study: small", f"{NESTED_ALIASES}study: small")], "line 2: aliases (*name) are not allowed"),
    "deep nesting": ([("[2, 20]", 500 * "[" + 500 * "]")], "nested more than 20 deep"),
    "a number of 5000 digits": ([("[2, 20]", f"[{5000 * '1'}]")], "line 5"),
}
by_the_program = pytest.mark.parametrize(
    "name",
    [
        pytest.param("a grid of 10^7 cells"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("min above max", "log from 0", "no seeds", "1e-3 and 0.001", "a long name", "nested aliases")
        ),
    ],
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str) -> str:
    """Writes the bad study; returns what its refusal says."""
    changes, said = BAD[name]
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    Path("study.yaml").write_text(text)
    return said


@pytest.mark.parametrize("command", ["plan", "run", "validate"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_study_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], name: str, command: str) -> None:
    said = write(name)
    assert canopoint.main([command, "study.yaml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("canopoint: study.yaml: ")
    assert said in captured.err
    assert len(captured.err) < 400
    assert [path.name for path in folder.iterdir()] == ["study.yaml"]


@by_the_program
def test_the_installed_program_refuses_it_too(folder: Path, name: str) -> None:
    said = write(name)
    for command in ("plan", "run"):
        done = subprocess.run([SCRIPT, command, "study.yaml"], capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert said in done.stderr
    assert [path.name for path in folder.iterdir()] == ["study.yaml"]


def test_a_file_name_that_no_file_can_have_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert canopoint.main(["plan", 300 * "x"]) == 2
    assert canopoint.main(["plan", "a\0b"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_study_is_valid_without_the_fault(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("study.yaml").write_text(STUDY)
    assert canopoint.main(["plan", "study.yaml"]) == 2
    assert "forest: no such folder" in capsys.readouterr().err  # its data are not there; all else was accepted
