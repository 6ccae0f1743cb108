import json
from pathlib import Path
from typing import Any

import pytest

from cluster.extension import undecided_levels
from cluster.preparation import prepare
from study.design import make_trial
from study.ledger import open_ledger
from study.spec import StudySpec
from trainable.atomic import sole_user
from trainable.config import InputError
from trainable.trial_files import append_row, write_result


@pytest.fixture
def spec(tmp_path: Path, make_spec: Any) -> StudySpec:
    """A finished study of two levels, as far as its files say."""
    made: StudySpec = make_spec(tmp_path / "storage", confirm={"seeds": [100]})
    work = prepare(made)
    confirming = [make_trial(made, work.index.fingerprint, t.parameters, 100, "confirm") for t in work.agenda.trials]
    for trial in [*work.agenda.trials, *confirming]:
        work.trial_folder(trial).mkdir(parents=True)
        row = {"epoch": 2, "val/miou": 0.5, "time/total_s": 1.0}
        append_row(work.trial_folder(trial), row)
        write_result(work.trial_folder(trial), [row], {"torch": "2"})
    return made


def write_findings(spec: StudySpec, **verdicts: str) -> None:
    levels = [{"level": int(name[1:]), "verdict": verdict, "rivals": []} for name, verdict in verdicts.items()]
    best = next((each["level"] for each in levels if each["verdict"] == "best"), None)
    factor = {"name": "points_per_image", "role": "scientific", "best_level": best, "levels": levels}
    rate = {"level": 1e-3, "verdict": "undecided", "rivals": []}
    nuisance = {"name": "learning_rate", "role": "nuisance", "best_level": 1e-3, "levels": [rate]}
    (spec.folder / "analysis").mkdir(exist_ok=True)
    (spec.folder / "analysis" / "findings.json").write_text(json.dumps({"factors": [factor, nuisance]}))


def test_an_undecided_level_and_the_best_one_get_seeds_that_nothing_has(spec: StudySpec) -> None:
    write_findings(spec, _2="undecided", _20="best")
    levels, seeds = undecided_levels(spec, 2)
    assert levels == {"points_per_image=2": {"points_per_image": 2}, "points_per_image=20": {"points_per_image": 20}}
    assert seeds == [101, 102]
    with sole_user(spec.folder), open_ledger(spec.folder) as ledger:
        ledger.append({"event": "extended", "phase": "confirm", "level": {"points_per_image": 99}, "seeds": [101]})
    assert undecided_levels(spec, 2)[1] == [102, 103]


def test_where_all_is_decided_nothing_is_added(spec: StudySpec) -> None:
    write_findings(spec, _2="not enough", _20="best")
    assert undecided_levels(spec, 2)[0] == {}


def test_what_cannot_be_extended_says_why(tmp_path: Path, spec: StudySpec, make_spec: Any) -> None:
    with pytest.raises(InputError, match=r"findings.json: no findings yet; run the study first"):
        undecided_levels(spec, 2)
    write_findings(spec, _2="undecided", _20="best")
    with pytest.raises(InputError, match=r"^--seeds: must be 1 to 1000, got 0"):
        undecided_levels(spec, 0)
    with pytest.raises(InputError, match=r"has no confirm section to extend"):
        undecided_levels(make_spec(tmp_path / "storage"), 2)
    with pytest.raises(InputError, match=r"2 trials are still to run; canopoint run continues them, then extend"):
        undecided_levels(make_spec(tmp_path / "storage", confirm={"seeds": [100, 101]}), 2)
    (spec.folder / "analysis" / "findings.json").write_text('{"factors": [{"name": 1}]}')
    with pytest.raises(InputError, match=r"findings.json: damaged"):
        undecided_levels(spec, 2)
