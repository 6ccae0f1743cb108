"""sync, analyze, power, report and export, as a user types them, on a finished study that nobody trained."""

import json
from pathlib import Path

import pytest

import canopoint
from bench.made_study import make_study

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's folder; W&B has its runs, by the command."""
    folder = make_study(tmp_path_factory.mktemp("storage")).folder
    assert canopoint.main(["sync", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def without_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key of W&B, and an own working directory."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)


def refusal(capsys: Captured, *command: str) -> str:
    """The one line of a refusal; nothing was written here."""
    before = sorted(Path.cwd().rglob("*"))
    assert canopoint.main(list(command)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sorted(Path.cwd().rglob("*")) == before
    return line


def test_sync_says_that_nothing_is_lacking(study: Path, capsys: Captured) -> None:
    assert canopoint.main(["sync", str(study)]) == 0
    assert capsys.readouterr().out == "W&B lacks nothing of the 22 trials of made\n"


def test_analyze_says_what_it_found_and_where_it_is(study: Path, capsys: Captured) -> None:
    assert canopoint.main(["analyze", str(study), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((study / "analysis" / "findings.json").read_text())
    assert found["recommended"]["parameters"]["points_per_image"] == 50
    assert canopoint.main(["analyze", str(study)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"\n{found['headline'][:40]}")
    assert all(str(study / "analysis" / name) in said for name in ("report.html", "best.yaml"))


def test_results_go_where_they_are_wanted(study: Path, tmp_path: Path) -> None:
    assert canopoint.main(["analyze", str(study), "--out", str(tmp_path / "elsewhere")]) == 0
    assert (tmp_path / "elsewhere" / "analysis" / "report.html").is_file()


def test_power_gives_a_row_for_each_number_of_seeds(study: Path, capsys: Captured) -> None:
    assert canopoint.main(["power", str(study), "--seeds", "3", "6", "--margin", "0.02", "--format", "json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert [row["num_seeds"] for row in described["rows"]] == [3, 6]
    assert described["margin"] == 0.02
    assert canopoint.main(["power", str(study)]) == 0
    assert "hours of training" in capsys.readouterr().out


def test_a_report_without_its_images_says_so_and_is_written(study: Path, capsys: Captured) -> None:
    assert canopoint.main(["report", str(study)]) == 0
    assert "no prediction panels: " in capsys.readouterr().out
    assert (study / "analysis" / "report.html").is_file()


def test_what_nobody_trained_cannot_be_exported(study: Path, tmp_path: Path, capsys: Captured) -> None:
    line = refusal(capsys, "export", str(study), "--out", str(tmp_path / "models"))
    assert str(study / "trials") in line


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["analyze", "wandb://me/forest"], "WANDB_API_KEY"),
        (["analyze", "wandb://forest"], "wandb://ENTITY/PROJECT"),
        (["analyze", "STUDY", "--filter", "group=made"], "--filter"),
        (["analyze", "STUDY", "--map", "points=num_pionts", "--map", "objective=val/miou"], "num_pionts"),
        (["analyze", "nowhere"], "nowhere"),
        (["power", "STUDY", "--seeds", "1"], "--seeds: must be 2 to "),
        (["power", "STUDY", "--margin", "0"], "--margin: must be a number above 0"),
        (["report", "STUDY", "--to-wandb", "a/b/c"], "--to-wandb a/b/c: must be ENTITY/PROJECT"),
        (["export", "nowhere"], "nowhere"),
        (["export", "s3://bucket/studies/demo"], "s3://bucket/studies/demo: "),
        (["sync", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_refused_in_one_line(study: Path, capsys: Captured, command: list[str], said: str) -> None:
    assert said in refusal(capsys, *(str(study) if word == "STUDY" else word for word in command))
