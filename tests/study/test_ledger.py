import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from study import ledger as ledger_module
from study.ledger import LEDGER_FILE, MAX_LINE_BYTES, Event, iter_events, open_ledger, read_ledger
from trainable.config import InputError

ENDED = {"event": "trial_ended", "trial_id": "0123456789ab", "state": "completed", "value": 0.1 + 0.2, "reason": ""}
EVENTS: list[Event] = [
    {"event": "session_started", "host": "h", "pid": 7, "num_gpus": None},
    {
        "event": "proposed",
        "level": {"points_per_image": 10},
        "setting": {"learning_rate": 1e-3},
        "trials": ["aa", "bb"],
    },
    {"event": "trial_started", "trial_id": "aa", "phase": "explore", "attempt": 1},
    {"event": "trial_ended", "trial_id": "aa", "state": "completed", "value": 1 / 3, "reason": 'a "quoted"\nline é'},
    {"event": "session_ended", "reason": "complete", "wall_s": 12.5},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study's folder whose ledger holds EVENTS."""
    with open_ledger(tmp_path) as ledger:
        ledger.append(*EVENTS)
    return tmp_path


def path_of(folder: Path) -> Path:
    return folder / LEDGER_FILE


def plain(events: list[Event]) -> list[Event]:
    """Events as they were appended."""
    return [{name: value for name, value in event.items() if name not in ("seq", "time")} for event in events]


def reopen(folder: Path, **arguments: object) -> list[Event]:
    with open_ledger(folder, **arguments) as ledger:
        return list(ledger.events)


# What is written


def test_events_come_back_as_they_were_appended(folder: Path) -> None:
    for events in (reopen(folder), read_ledger(folder)):
        assert plain(events) == EVENTS
        assert [event["seq"] for event in events] == [0, 1, 2, 3, 4]
        assert all(abs(event["time"] - time.time()) < 60 for event in events)
    with open_ledger(folder) as ledger:
        ledger.append({"event": "extended", "seeds": [3]})
        assert len(ledger.events) == 5  # the history as it was found: nobody needs the rest, and it would grow
    assert read_ledger(folder)[-1]["seq"] == 5


def test_a_new_ledger_is_empty_and_so_is_none(tmp_path: Path) -> None:
    assert read_ledger(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    assert reopen(tmp_path) == []
    assert path_of(tmp_path).read_bytes() == b""


def test_a_line_s_checksum_is_the_one_of_the_line_without_it(folder: Path) -> None:
    """As anybody can check with sha256sum."""
    import hashlib

    for line in path_of(folder).read_text().splitlines():
        body, _, seal = line.partition(', "sha256": "')
        assert hashlib.sha256(f"{body}}}".encode()).hexdigest()[:16] == seal.removesuffix('"}')
        assert json.loads(line)["sha256"] == seal.removesuffix('"}')


@pytest.mark.parametrize(
    ("event", "rule"),
    [
        ({"event": "trial_ended", "value": float("nan")}, "not JSON compliant"),
        ({"event": "trial_ended", "value": float("-inf")}, "not JSON compliant"),
        ({"event": "trial_ended", "value": {1, 2}}, "not JSON serializable"),
        ({"value": 1}, "its kind under `event`"),
        ({"event": 3}, "its kind under `event`"),
        ({"event": "x", "seq": 3}, "no seq of its own"),
        ({"event": "x", "sha256": "0"}, "no sha256 of its own"),
        ({"event": "x", "reason": "x" * MAX_LINE_BYTES}, "bytes; at most 4194304"),
    ],
)
def test_what_is_no_event_is_refused_and_none_of_its_call_is_written(folder: Path, event: Event, rule: str) -> None:
    before = path_of(folder).read_bytes()
    with open_ledger(folder) as ledger:
        with pytest.raises((ValueError, TypeError), match=rule):
            ledger.append(ENDED, event)
        assert path_of(folder).read_bytes() == before
        ledger.append(ENDED)
    assert plain(read_ledger(folder)) == [*EVENTS, ENDED]


def test_text_of_any_kind_comes_back(tmp_path: Path) -> None:
    text = 'line\nbreak \u2028 \r \0 "quotes" {"seq": 1, "sha256": "0123456789abcdef"} árvore 森 \ud800'
    with open_ledger(tmp_path) as ledger:
        ledger.append({"event": "trial_ended", "reason": text}, {"event": text, text: {text: [text]}})
    assert plain(reopen(tmp_path)) == [{"event": "trial_ended", "reason": text}, {"event": text, text: {text: [text]}}]


# Disks and signals


def test_an_append_to_a_full_disk_leaves_nothing_half(folder: Path) -> None:
    """A limit of the file's size stands for the full disk: the system takes a part of the line, then refuses."""
    before = path_of(folder).read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_ledger(folder) as ledger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limit[1]))
        try:
            with pytest.raises(OSError, match="events cannot be written; mend that and run again") as caught:
                ledger.append(ENDED)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert caught.value.filename == str(path_of(folder))
        assert path_of(folder).read_bytes() == before
        ledger.append(ENDED)  # once there is room
    assert plain(reopen(folder)) == [*EVENTS, ENDED]


def test_an_interrupt_within_an_append_leaves_all_or_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path_of(folder).read_bytes()

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    with open_ledger(folder) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ledger.append(ENDED)
        assert path_of(folder).read_bytes() == before
        ledger.append(ENDED)
    assert plain(reopen(folder)) == [*EVENTS, ENDED]


APPEND = """
import sys
from pathlib import Path
from study.ledger import open_ledger
with open_ledger(Path(sys.argv[1])) as ledger:
    n = len(ledger.events)
    while True:
        ledger.append({"event": "a", "n": n}, {"event": "b", "n": n, "filling": "x" * 20_000})
        n += 2
        print(n, flush=True)
"""


def test_what_append_has_returned_from_outlives_kill_9(tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / str(number)
        folder.mkdir()
        process = subprocess.Popen([sys.executable, "-c", APPEND, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline())]
        time.sleep(0.02 * number)
        process.send_signal(signal.SIGKILL)
        acknowledged += map(int, process.communicate()[0].splitlines())
        events = [event for event in reopen(folder) if event["event"] != "repaired"]
        assert len(events) >= acknowledged[-1]
        # Of the last call the first event alone may be there.
        assert [event["event"] for event in events] == ["a", "b"] * (len(events) // 2) + ["a"] * (len(events) % 2)
        assert [event["n"] // 2 for event in events] == [position // 2 for position in range(len(events))]


# Damage


def test_a_torn_tail_is_cut_and_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = path_of(folder).read_bytes()
    path_of(folder).write_bytes(whole[:-20])
    assert plain(read_ledger(folder)) == EVENTS[:-1]
    assert path_of(folder).read_bytes() == whole[:-20]  # readers change nothing
    events = plain(reopen(folder))
    repaired = {"event": "repaired", "reason": "a last line without its end", "lost": 1, "file": None, "trials": []}
    assert events == [*EVENTS[:-1], repaired]
    assert caplog.messages == [f"{path_of(folder)}: a last line without its end; events lost: 1"]
    assert plain(reopen(folder)) == events  # once
    assert [each.name for each in folder.iterdir()] == [LEDGER_FILE]


def test_an_event_that_lacks_its_line_break_alone_is_kept(folder: Path) -> None:
    path_of(folder).write_bytes(path_of(folder).read_bytes()[:-1])
    *events, repaired = plain(reopen(folder))
    assert events == EVENTS
    assert repaired["lost"] == 0


@pytest.mark.parametrize("tail", [b"\0" * 5000, b'{"seq": 5, "ti' + b"\0" * 5000, b"\xff", b"x" * 9_000_000])
def test_what_a_power_cut_leaves_at_the_end_is_cut(folder: Path, tail: bytes) -> None:
    with path_of(folder).open("ab") as file:
        file.write(tail)
    *events, repaired = plain(reopen(folder))
    assert events == EVENTS
    assert repaired["reason"] == "a last line without its end"


def damaged(whole: bytes) -> dict[str, tuple[bytes, list[int], int]]:
    """Name -> the file's bytes, which events are left, how many are lost."""
    lines = whole.splitlines(keepends=True)
    return {
        "a flipped byte": (whole.replace(b'"pid": 7', b'"pid": 8'), [1, 2, 3, 4], 1),
        "a flipped byte in the last line": (whole.replace(b"12.5", b"13.5"), [0, 1, 2, 3], 1),
        "a flipped line break": (lines[0][:-1] + b"\x0b" + b"".join(lines[1:]), [0, 1, 2, 3, 4], 0),
        "two lines glued": (lines[0] + lines[1][:-1] + b"".join(lines[2:]), [0, 1, 2, 3, 4], 0),
        "two torn lines glued": (lines[0] + lines[1][:-30] + b"".join(lines[2:]), [0, 2, 3, 4], 1),
        "a line that is missing": (lines[0] + b"".join(lines[2:]), [0, 2, 3, 4], 1),
        "all but the last missing": (lines[4], [4], 4),
        "a line that stands twice": (lines[0] + whole, [0, 1, 2, 3, 4], 0),
        "a whole file that stands twice": (whole + whole, [0, 1, 2, 3, 4], 0),
        "an empty line": (lines[0] + b"\n" + b"".join(lines[1:]), [0, 1, 2, 3, 4], 0),
        "lines of Windows": (whole.replace(b"\n", b"\r\n"), [0, 1, 2, 3, 4], 0),
        "an absurd line": (lines[0] + b"x" * 10_000_000 + b"\n" + b"".join(lines[1:]), [0, 1, 2, 3, 4], 0),
        "another file": (b"learning_rate: 1e-3\nseeds: [0]\n", [], 2),
        "zeros instead": (b"\0" * 400 + b"\n", [], 1),
        "damage and a torn tail": (whole.replace(b'"pid": 7', b'"pid": 8')[:-20], [1, 2, 3], 2),
    }


def distinct(events: list[Event]) -> list[Event]:
    return [event for number, event in enumerate(events) if event not in events[:number]]


@pytest.mark.parametrize("name", list(damaged(b"\n" * 5)))
def test_a_damaged_ledger_is_set_aside_and_what_verifies_goes_on(
    folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    content, left, lost = damaged(path_of(folder).read_bytes())[name]
    path_of(folder).write_bytes(content)
    assert distinct(plain(read_ledger(folder))) == [EVENTS[number] for number in left]
    assert path_of(folder).read_bytes() == content
    *events, repaired = plain(reopen(folder))
    assert events == [EVENTS[number] for number in left]
    assert (repaired["event"], repaired["lost"], repaired["file"]) == ("repaired", lost, "ledger.damaged-1.jsonl")
    assert (folder / "ledger.damaged-1.jsonl").read_bytes() == content
    assert len(caplog.messages) == 1
    assert "ledger.damaged-1.jsonl" in caplog.messages[0]
    assert plain(reopen(folder)) == [*events, repaired]  # whole again
    assert len(caplog.messages) == 1


def test_a_second_damaged_ledger_does_not_replace_the_first(folder: Path) -> None:
    for number in (1, 2):
        path_of(folder).write_bytes(b"damage %d\n" % number + path_of(folder).read_bytes())
        assert reopen(folder)[-1]["file"] == f"ledger.damaged-{number}.jsonl"
    assert (folder / "ledger.damaged-1.jsonl").read_bytes().startswith(b"damage 1\n")


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of repairs do not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def survivors(folder: Path, content: bytes) -> list[Event]:
    """Opens a ledger of these bytes; what is left of EVENTS is unaltered and in order, and all else is named."""
    path_of(folder).write_bytes(content)
    from_reader = plain(read_ledger(folder))
    events = plain(reopen(folder))
    kept = [event for event in events if event["event"] != "repaired"]
    numbers = [EVENTS.index(event) for event in kept]  # ValueError: an event was altered
    assert numbers == sorted(set(numbers))
    assert from_reader == kept
    lost = sum(event.get("lost", 0) for event in events)
    assert len(kept) + lost >= content.count(b"\n")  # nothing went silently
    return kept


@pytest.mark.usefixtures("quick_disk")
def test_cut_at_every_byte_the_whole_lines_are_left(folder: Path) -> None:
    whole = path_of(folder).read_bytes()
    for size in range(len(whole) + 1):
        kept = survivors(folder, whole[:size])
        whole_lines = whole[:size].count(b"\n") + (whole[size : size + 1] == b"\n")
        assert kept == EVENTS[:whole_lines], size


@pytest.mark.usefixtures("quick_disk")
def test_with_a_flipped_bit_anywhere_one_event_is_lost_at_most(folder: Path) -> None:
    whole = path_of(folder).read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        assert len(survivors(folder, bytes(flipped))) >= len(EVENTS) - 1, place
        for aside in folder.glob("ledger.damaged-*"):
            aside.unlink()


def test_a_ledger_that_is_gone_where_trials_have_begun_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert plain(reopen(folder, begun=["aa", "bb"])) == EVENTS
    assert not caplog.messages
    lines = path_of(folder).read_bytes().splitlines(keepends=True)
    for content in (b"", lines[0]):  # gone, or cut at a line break: in itself whole
        path_of(folder).write_bytes(content)
        *events, repaired = plain(reopen(folder, begun={"bb", "aa"}))
        assert events == EVENTS[: len(content.splitlines())]
        assert repaired["trials"] == ["aa", "bb"]
        assert "it is new, or has lost its end: no event names the trials aa, bb" in caplog.messages[-1]
    path_of(folder).unlink()
    assert plain(reopen(folder, begun={"aa"}))[-1]["trials"] == ["aa"]
    assert len(caplog.messages) == 3
    assert len(reopen(folder, begun={"aa"})) == 1  # told once


def test_all_trials_of_the_largest_study_fit_into_one_event(tmp_path: Path) -> None:
    assert len(reopen(tmp_path, begun=[f"{number:012x}" for number in range(100_000)])[0]["trials"]) == 100_000


def test_a_kill_while_the_ledger_is_mended_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = path_of(folder).read_bytes()
    content = whole.replace(b'"pid": 7', b'"pid": 8')
    path_of(folder).write_bytes(content)

    def killed(path: Path, content: bytes) -> None:
        (folder / f".{LEDGER_FILE}-123").write_bytes(content[:50])  # a killed writer leaves its scratch file
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger_module, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            reopen(folder)
    assert path_of(folder).read_bytes() == content
    assert plain(reopen(folder))[:-1] == EVENTS[1:]
    assert sorted(each.name for each in folder.iterdir()) == [
        "ledger.damaged-1.jsonl",
        "ledger.damaged-2.jsonl",
        "ledger.jsonl",
    ]


# A folder may be anyone's


@pytest.mark.parametrize("use", [read_ledger, reopen])
def test_what_is_no_file_is_refused_and_what_a_link_names_left_alone(
    tmp_path: Path, use: Callable[[Path], object]
) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    path_of(tmp_path).symlink_to(precious)
    with pytest.raises(InputError, match=r"ledger\.jsonl: cannot be opened: is a link"):
        use(tmp_path)
    assert precious.read_text() == "mine"
    path_of(tmp_path).unlink()
    path_of(tmp_path).mkdir()
    with pytest.raises(InputError, match=r"ledger\.jsonl: "):
        use(tmp_path)
    path_of(tmp_path).rmdir()
    os.mkfifo(path_of(tmp_path))
    with pytest.raises(InputError, match=r"ledger\.jsonl: must be a file"):
        use(tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        b"[1]", b"{}", b'{"seq": 0}', b'{"seq": true, "time": 1, "event": "a"}',
        b'{"seq": -1, "time": 1, "event": "a"}', b'{"seq": 0, "time": "1", "event": "a"}',
        b'{"seq": 0, "time": 1, "event": null}',
        b'{"seq": 0, "time": 1, "event": "a", "value": 1e999}',
        b'{"seq": 0, "time": NaN, "event": "a"}', b"[" * 100_000 + b"}", b'{"seq": ' + b"1" * 5000 + b"}",
        b'{"seq": 0, "time": 1, "event": "\xff"}',
    ],
)  # fmt: skip
def test_a_line_with_a_true_checksum_that_is_no_event_is_damage(tmp_path: Path, body: bytes) -> None:
    path_of(tmp_path).write_bytes(ledger_module._sealed(body) + b"\n")
    assert read_ledger(tmp_path) == []
    assert plain(reopen(tmp_path))[0]["event"] == "repaired"


# Scale


def test_appending_and_reading_stay_cheap(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with open_ledger(tmp_path) as ledger:
        ledger.append(*[ENDED] * 20_000)
        ledger.append(ENDED)
        tracemalloc.start()
        for _ in range(200):
            ledger.append(ENDED)
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        assert sum(1 for _ in iter_events(tmp_path)) == 20_201
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert grown < 20_000  # bytes
    assert peak < 200_000
