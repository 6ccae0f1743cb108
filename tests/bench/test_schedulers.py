import json
from typing import Any

import pytest

from bench import schedulers
from bench.schedulers import STUDY, compare, print_round, read_search, run_search, summarise, write_study
from study.spec import parse_study


def events(values: dict[float, float | None], num_epochs: int = 9) -> list[dict[str, Any]]:
    """A ledger of one trial a setting, each taking ten seconds; one without a value was stopped after an epoch."""
    written: list[dict[str, Any]] = [{"event": "session_started", "time": 0.0}]
    for number, (rate, value) in enumerate(values.items()):
        trial, start = f"t{number}", 100.0 + 10 * number
        setting = {"learning_rate": rate, "focal_gamma": 2}
        epochs, state = (1, "stopped") if value is None else (num_epochs, "completed")
        written += [
            {"event": "proposed", "time": start, "setting": setting, "trials": [trial]},
            {"event": "trial_started", "time": start, "trial_id": trial},
            {
                "event": "trial_ended", "time": start + 10, "trial_id": trial, "state": state, "epochs": epochs,
                "value": value,
            },
        ]  # fmt: skip
    return [*written, {"event": "session_ended", "time": 999.0}]


NONE = read_search(events({1e-4: 0.5, 1e-3: 0.7, 1e-2: 0.69, 1e-1: 0.3}), wall_s=90.0)
ASHA = read_search(events({1e-4: None, 1e-3: None, 1e-2: 0.69, 1e-1: 0.3}), wall_s=60.0)


def test_a_ledger_says_how_long_a_search_took_and_what_it_chose():
    assert NONE.search_s == 40.0
    assert NONE.epochs == 36
    assert NONE.states == {"completed": 4}
    assert NONE.choice == "learning_rate=0.001 focal_gamma=2"
    assert ASHA.epochs == 20
    assert ASHA.states == {"completed": 2, "stopped": 2}
    assert ASHA.choice == "learning_rate=0.01 focal_gamma=2"


def test_the_regret_is_read_in_the_run_that_stopped_nothing():
    found = compare(0, {"none": NONE, "asha": ASHA})
    assert found["regret"] == pytest.approx(0.01)
    assert not found["same_choice"]
    assert found["num_mismatches"] == 0
    assert found["ratios"] == {"wall_s": 1.5, "search_s": 1.0, "epochs": 1.8}
    same = compare(1, {"none": NONE, "asha": NONE})
    assert (same["regret"], same["same_choice"]) == (0.0, True)


def test_a_result_that_differs_between_the_runs_is_counted():
    other = read_search(events({1e-4: None, 1e-3: None, 1e-2: 0.68, 1e-1: 0.3}), wall_s=60.0)
    assert compare(0, {"none": NONE, "asha": other})["num_mismatches"] == 1


def test_the_summary_is_plain_json(capsys):
    found = summarise([compare(0, {"none": NONE, "asha": ASHA}), compare(1, {"none": NONE, "asha": NONE})])
    assert found["median_ratios"] == {"wall_s": 1.25, "search_s": 1.0, "epochs": 1.4}
    assert found["largest_regret"] == pytest.approx(0.01)
    assert found["same_choices"] == "1 of 2"
    assert json.loads(json.dumps(found, allow_nan=False))["searches"][0]["asha"]["epochs"] == 20
    print_round(found["searches"][0])
    assert "none / asha: wall_s x1.50  search_s x1.00  epochs x1.80; regret of ASHA's choice 0.0100" in (
        capsys.readouterr().out
    )


def test_the_study_is_a_valid_one():
    parse_study({**STUDY, "data": {**STUDY["data"], "root": "data/forest"}}, "bench")
    for scheduler in schedulers.CONTESTANTS:
        search = {**STUDY["search"], "scheduler": scheduler}
        parse_study({**STUDY, "search": search, "data": {"synthetic": {}}}, "bench")


@pytest.mark.cluster
def test_both_contestants_run_on_made_images(tmp_path):
    from trainable.config import SyntheticConfig
    from trainable.synthetic import write_synthetic

    data, storage = tmp_path / "data", tmp_path / "storage"
    data.mkdir()
    storage.mkdir()
    write_synthetic(SyntheticConfig(num_scenes=3, images_per_scene=4, image_size=32), data)
    small = {
        **STUDY,
        "training": {**STUDY["training"], "image_size": 32, "epochs": 3},
        "search": {**STUDY["search"], "trials_per_level": 4},
    }
    path = write_study(small, data, storage)
    found = compare(0, {name: run_search(path, name, seed=0) for name in schedulers.CONTESTANTS})
    assert found["none"]["epochs"] == 12
    assert found["none"]["states"] == {"completed": 4}
    assert found["num_mismatches"] == 0
    assert found["regret"] >= 0
