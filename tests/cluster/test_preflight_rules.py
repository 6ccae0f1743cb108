"""From what a node said to what is wrong with it."""

import pytest

from cluster.preflight_report import Report
from cluster.preflight_rules import (
    DRIVER,
    PROCESS_BYTES,
    different_store,
    different_versions,
    slow_store,
    storage_problems,
    too_little_disk,
    too_little_memory,
    trial_bytes,
    wrong_clock,
)
from cluster.resources import GIB
from trainable.config import InputError


def test_other_versions_are_named_with_the_drivers():
    ours = {"ray": "2.60.0", "torch": "2.15.0"}
    assert different_versions(ours, {**ours, "more": "1"}) == ""
    found = different_versions(ours, {"ray": "2.60.0", "torch": "2.14.0"})
    assert found == "torch 2.14.0 (the driver has 2.15.0)"
    assert different_versions(ours, {"torch": "2.15.0"}) == "ray unknown (the driver has 2.60.0)"


@pytest.mark.parametrize(
    ("unwritten", "unread", "at_fault"),
    [
        ({"a": "", "b": ""}, {DRIVER: [], "a": [], "b": []}, {}),
        ({"a": "", "b": "not there"}, {DRIVER: ["b"], "a": ["b"], "b": [DRIVER, "a"]}, {"b": "not there"}),
        # A folder of its own in the place of the driver's: it writes, and nobody sees it.
        (
            {"a": "", "b": ""},
            {DRIVER: ["b"], "a": ["b"], "b": [DRIVER, "a"]},
            {"b": "cannot read what the driver wrote"},
        ),
        ({"a": "", "b": ""}, {DRIVER: ["b"], "a": ["b"], "b": []}, {"b": "the driver cannot read what it wrote"}),
        ({"a": "", "b": ""}, {DRIVER: [], "a": ["b"], "b": []}, {"a": "cannot read what 1 other nodes wrote"}),
    ],
)
def test_a_token_that_one_wrote_must_be_read_by_all(unwritten, unread, at_fault):
    assert storage_problems(unwritten, unread) == at_fault


def test_another_store_is_named():
    ours = {"checksums": "aa", "sizes": {"images.npy": 5}, "problem": ""}
    assert different_store("/s", ours, dict(ours)) == ""
    assert different_store("/s", ours, {"problem": "/s is not there"}) == "/s is not there"
    assert different_store("/s", ours, {**ours, "checksums": "bb"}).startswith("/s is not what the driver packed")


@pytest.mark.parametrize(
    ("time_s", "what"),
    [
        (100.0, ""),
        (132.0, ""),  # received at 102: 30 s ahead is the most
        (133.0, "its clock is 31 s ahead of the driver's; 30 s are the most"),
        (70.0, ""),
        (68.0, "its clock is 32 s behind the driver's; 30 s are the most"),
    ],
)
def test_a_clock_is_judged_by_the_span_in_which_it_was_read(time_s, what):
    assert wrong_clock(time_s, 100.0, 102.0) == what


def test_memory_is_that_of_the_trials_and_the_store_only_a_note(tmp_path, make_spec):
    spec = make_spec(tmp_path)
    one = PROCESS_BYTES + 16 * 14.3e6  # ResNet-18: weights, gradients and two moments
    assert trial_bytes(spec) == one
    assert too_little_memory(2 * one, 2, spec) == ""
    assert too_little_memory(2 * one - 1, 2, spec) == "1.6 GiB of memory are free, 2 trials need 1.6"
    on_gpu = make_spec(tmp_path, resources={"gpus_per_trial": 0.5})
    assert trial_bytes(on_gpu) == PROCESS_BYTES
    stated = make_spec(tmp_path, resources={"memory_gib_per_trial": 3.0})
    assert too_little_memory(5 * GIB, 2, stated) == "5.0 GiB of memory are free, 2 trials need 6.0"
    assert slow_store(2 * one + 10, 2, spec, 10) == ""
    assert "epochs read disk" in slow_store(2 * one + 9, 2, spec, 10)


def test_disk_is_two_checkpoints_a_trial_and_the_images_where_they_are_copied(tmp_path, make_spec):
    spec = make_spec(tmp_path)
    needed = 2 * 6 * 4 * 14.3e6 + 100e6
    assert too_little_disk(needed, 2, spec, 0) == ""
    assert too_little_disk(needed, 2, spec, 1e9) == "0.8 GB are free, 2 trials need 1.8"


def test_a_report_shows_every_node_and_refuses_in_one_line():
    report = Report()
    report.judge("a (10.0.0.1)", "storage", "", "mount it")
    report.judge("driver on a", "W&B", "", "", otherwise="offline")
    report.refuse()
    for number in range(5):
        report.judge(f"n{number}", "storage", "is not there", "mount it")
    report.judge("n0", "clock", "is late", "set it")
    report.notes.append("slow")
    assert report.failed("n0")
    assert not report.failed("a (10.0.0.1)")
    lines = [" ".join(line.split()) for line in report.table().splitlines()]
    assert lines[0] == "node answer versions storage data weights disk memory GPU clock W&B"
    assert lines[1] == "a (10.0.0.1) - - ok - - - - - - -"
    assert lines[2] == "driver on a - - - - - - - - - offline"
    assert lines[3] == "n0 - - PROBLEM - - - - - PROBLEM -"
    assert lines[-1] == "note: slow"
    with pytest.raises(InputError) as refused:
        report.refuse()
    assert str(refused.value) == (
        "cluster: n0, n1, n2 and 2 more: storage: is not there; mount it | n0: clock: is late; set it"
    )
