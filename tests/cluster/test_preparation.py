import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cluster.preparation import (
    Work,
    check_free_disk,
    pack_stores,
    prepare,
    read_data_description,
    trial_record,
    write_study,
    write_trial_list,
)
from study.spec import StudySpec, load_study, parse_study
from trainable.config import InputError, SyntheticConfig
from trainable.sealed import read_sealed, write_sealed
from trainable.store import open_store
from trainable.synthetic import write_synthetic
from trainable.trial_files import append_row, write_result

STUDY: dict[str, Any] = {
    "study": "small",
    "data": {"root": "forest"},
    "training": {"encoder": "resnet18", "weights": "none", "image_size": 32, "epochs": 1},
    "parameters": {"points_per_image": {"role": "scientific", "values": [2, 20]}},
    "search": {"seeds": [0, 1]},
}

RANGES = {"weight_decay": {"role": "nuisance", "min": 0.0, "max": 1.0}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a data folder: three scenes of four images each."""
    write_synthetic(SyntheticConfig(num_scenes=3, images_per_scene=4, image_size=32), tmp_path / "forest")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_study(**changes: Any) -> StudySpec:
    return parse_study(copy.deepcopy(STUDY) | changes, "study.yaml")


def finish(work: Work, number: int, time_s: float) -> str:
    trial = work.agenda.trials[number]
    work.trial_folder(trial).mkdir(parents=True)
    row = {"epoch": 1, "val/miou": 0.5, "time/total_s": time_s}
    append_row(work.trial_folder(trial), row)
    write_result(work.trial_folder(trial), [row], {"torch": "2"})
    return trial.trial_id


def test_preparing_finds_the_data_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    work = prepare(make_study())
    assert (len(work.index.pairs), len(work.agenda.trials), len(work.missing)) == (12, 4, 4)
    assert work.folder == folder / "studies" / "small"
    assert sorted(folder.rglob("*")) == before


def test_more_training_images_than_there_are_are_refused(folder: Path) -> None:
    # Three scenes of four images: one scene trains.
    levels = STUDY["parameters"] | {"train_images": {"role": "scientific", "values": [2, 5]}}
    for changes in ({"parameters": levels}, {"training": STUDY["training"] | {"train_images": 5}}):
        with pytest.raises(InputError, match=r"^train_images: must be at most the 4 labelled training images, got 5;"):
            prepare(make_study(**changes))
    levels["train_images"] = {"role": "scientific", "values": [2, 4]}
    assert prepare(make_study(parameters=levels)).plan().num_trials == 8


def test_finished_trials_are_found_and_not_run_again() -> None:
    done = finish(prepare(make_study()), 1, time_s=7.5)
    work = prepare(make_study())
    assert list(work.agenda.outcomes) == [done]
    assert [trial.trial_id for trial in work.missing] == [work.agenda.trials[n].trial_id for n in (0, 2, 3)]
    plan = work.plan()
    assert (plan.num_trials, plan.num_done, plan.num_missing) == (4, 1, 3)
    # Three more trials of the same size, at most three at a time.
    assert plan.expected_s == pytest.approx(3 * 7.5 / min(3, plan.num_concurrent))


def test_an_extended_study_keeps_what_is_done() -> None:
    done = finish(prepare(make_study()), 0, time_s=1.0)
    levels = {"points_per_image": {"role": "scientific", "values": [2, 10, 20]}}
    work = prepare(make_study(parameters=levels, search={"seeds": [0, 1, 2]}))
    assert (len(work.agenda.trials), set(work.agenda.outcomes)) == (9, {done})


def test_made_data_are_made_once(folder: Path) -> None:
    spec = make_study(data={"synthetic": {"num_scenes": 3, "images_per_scene": 1, "image_size": 32}})
    first = prepare(spec)
    made = next((folder / "studies" / ".cache").iterdir())
    written = (made / "meta_data.csv").stat().st_mtime_ns
    assert prepare(spec).index.fingerprint == first.index.fingerprint
    assert (made / "meta_data.csv").stat().st_mtime_ns == written


def test_there_is_a_store_for_every_image_size_that_is_trained(folder: Path) -> None:
    levels = {"image_size": {"role": "scientific", "values": [64, 32]}}
    training = {"encoder": "resnet18", "weights": "none", "points_per_image": 4}
    said: list[str] = []
    stores = pack_stores(prepare(make_study(training=training, parameters=levels)), said.append)
    assert {size: open_store(path).images.shape for size, path in stores.items()} == {
        32: (12, 32, 32, 3),
        64: (12, 64, 64, 3),
    }
    # Each quarter of the twelve images.
    assert said[:4] == [f"packing images at 32 px: {done}/12" for done in (3, 6, 9, 12)]
    assert len(said) == 8
    said.clear()
    pack_stores(prepare(make_study()), said.append)
    assert said == []  # packed already, by another study of the same storage


def test_what_is_to_be_known_of_the_images_is_said_once(folder: Path) -> None:
    for path in (folder / "forest" / "masks").iterdir():
        with Image.open(path) as mask:
            mask.point(lambda value: int(value >= 128)).save(path)
    levels = {"image_size": {"role": "scientific", "values": [64, 32]}}
    training = {"encoder": "resnet18", "weights": "none", "points_per_image": 4}
    said: list[str] = []
    work = prepare(make_study(training=training, parameters=levels))
    stores = pack_stores(work, said.append)
    warnings = [line for line in said if line.startswith("warning: ")]
    (known,) = open_store(stores[32]).warnings
    assert known.startswith("12 of 12 masks hold 0 and 1 alone")
    assert warnings == [f"warning: {known}"]  # of both sizes, and after the packing
    write_study(work, stores)
    described = read_data_description(work.folder)
    assert described is not None
    assert described["warnings"] == [known]


@pytest.mark.parametrize("name", ["small", "1e3", "2020"])
def test_the_study_as_run_reads_as_the_same_study(name: str) -> None:
    work = prepare(make_study(study=name))
    write_study(work, pack_stores(work, lambda line: None))
    write_trial_list(work)
    listed = read_sealed(work.folder / "trials.json")
    assert listed == {"trials": [trial.trial_id for trial in work.agenda.trials]}
    assert load_study(str(work.folder / "study.yaml"), []) == work.spec


def test_the_data_are_described_once(folder: Path) -> None:
    assert read_data_description(folder / "studies" / "small") is None
    work = prepare(make_study())
    write_study(work, pack_stores(work, lambda line: None))
    described = read_data_description(work.folder)
    assert described is not None
    assert (described["num_images"], described["num_scenes"], described["image_size"]) == (12, 3, 32)
    assert described["fingerprint"] == work.index.fingerprint
    assert described["source"] == str(folder / "forest")
    written = (work.folder / "data.json").read_bytes()
    write_study(prepare(make_study()), {32: Path("not read again")})
    assert (work.folder / "data.json").read_bytes() == written


def test_the_scenes_of_evaluated_images_are_listed_in_the_order_of_the_counts() -> None:
    work = prepare(make_study())
    stores = pack_stores(work, lambda line: None)
    write_study(work, stores)
    listed = read_sealed(work.folder / "scenes.json")
    assert listed
    store = open_store(stores[32])
    scene_of = {pair.image.name: pair.scene for pair in work.index.pairs}
    for split in ("val", "test"):
        names = [store.names[i] for i in store.splits[split]]  # as counts.npz has them
        assert list(listed[split].items()) == [(name, scene_of[name]) for name in names]
    (work.folder / "scenes.json").unlink()  # of a study that was made before there was such a list
    write_study(prepare(make_study()), {32: Path("not read again")})
    assert read_sealed(work.folder / "scenes.json") == listed


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"fingerprint": "0" * 64, "num_images": 300}, r"data fingerprint 000000000000 -> \w{12}, images 300 -> 12;"),
        ({"trainer_version": "1"}, r"trainer version 1 -> 2;"),
    ],
)
def test_a_study_made_with_others_is_refused_with_the_differences(changes: dict[str, Any], difference: str) -> None:
    work = prepare(make_study())
    write_study(work, pack_stores(work, lambda line: None))
    described = read_sealed(work.folder / "data.json")
    assert described
    write_sealed(work.folder / "data.json", {**described, **changes})
    with pytest.raises(InputError, match=f"^{work.folder}: this study was made with others: {difference}"):
        prepare(make_study())
    assert prepare(make_study(study="another")).missing  # one remedy works, and so does the other:
    accepted = prepare(make_study(), accept_changes=True)
    write_study(accepted, pack_stores(accepted, lambda line: None))
    assert read_sealed(work.folder / "data.json") == described
    assert prepare(make_study()).missing


def test_a_damaged_description_is_named_set_aside_and_written_anew(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "studies" / "small" / "data.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    work = prepare(make_study())
    assert str(path) in caplog.text
    write_study(work, pack_stores(work, lambda line: None))
    assert read_data_description(work.folder)
    assert path.with_name("data.json.damaged").read_text() == "{"


def test_a_record_tells_all_of_a_trial(folder: Path) -> None:
    work = prepare(make_study())
    write_study(work, pack_stores(work, lambda line: None))
    record = trial_record(work, work.agenda.trials[3])
    assert record == json.loads(json.dumps(record))  # plain values
    assert (record["study"], record["trial_id"], record["seed"]) == ("small", work.agenda.trials[3].trial_id, 1)
    assert record["phase"] == "explore"
    assert record["parameters"] == {"points_per_image": 20}
    assert record["roles"] == {"points_per_image": "scientific"}
    assert record["training"] == work.agenda.trials[3].config.to_mapping()
    assert record["data_config"]["root"] == str(folder / "forest")  # from anywhere
    assert record["data"] == read_data_description(work.folder)
    assert record["objective"] == {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01, "references": {}}
    assert (record["effort"]["point_s"], record["effort"]["hourly_rate"]) == (0.9, None)
    plan = {"parameters": {"points_per_image": {"role": "scientific", "values": [2, 20]}}, "extensions": []}
    assert record["plan"] == {**plan, "confirm_seeds": []}


def test_a_disk_that_cannot_hold_the_checkpoints_is_refused(folder: Path) -> None:
    check_free_disk(prepare(make_study()))
    endless = make_study(search={"seeds": [0], "method": "random", "trials_per_level": 100_000}, parameters=RANGES)
    with pytest.raises(InputError, match=r"^storage: .* the study needs about 5\d\d\d\.\d GB") as caught:
        check_free_disk(prepare(endless))  # 100,000 trials of 57 MB
    assert str(folder) in str(caught.value)  # the disk of the nearest folder that exists
    assert not (folder / "studies").exists()


def test_the_study_as_run_is_text_for_people(folder: Path) -> None:
    work = prepare(make_study())
    write_study(work, pack_stores(work, lambda line: None))
    assert next(iter(yaml.safe_load((work.folder / "study.yaml").read_text()))) == "study"
