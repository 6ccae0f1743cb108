import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.compare import Line, print_line, take_turns, times_less, times_more, write_lines


def test_contestants_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []

    def contestant(name: str) -> Callable[[], None]:
        def call() -> None:
            calls.append(name)
            time.sleep(0.15)

        return call

    seconds = take_turns({name: contestant(name) for name in "ab"}, rounds=2)
    assert "".join(calls) == "ab" * 3
    assert seconds == pytest.approx({"a": 0.15, "b": 0.15}, rel=0.5)


def test_short_calls_are_repeated_within_a_turn() -> None:
    calls: list[int] = []
    seconds = take_turns({"short": lambda: calls.append(1) or time.sleep(0.01)}, rounds=1)
    assert 5 <= len(calls) <= 11  # a tenth of a second, and the warm-up
    assert seconds["short"] < 0.05


def test_without_a_warm_up_every_round_counts() -> None:
    calls: list[int] = []
    take_turns({"only": lambda: calls.append(1)}, rounds=2, warm_up=False)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("line", "ratio", "verdict"),
    [
        (times_less("time", 6.0, 2.0, "s", floor=3), 3, "at least x3: reached"),
        (times_less("time", 6.0, 4.0, "s", floor=3), 1.5, "at least x3: MISSED"),
        (times_less("share", 30.0, 2.0, "%", ceiling=2), 15, "at most 2 %: reached"),
        (times_less("share", 30.0, 3.0, "%", ceiling=2), 10, "at most 2 %: MISSED"),
        (times_more("rate", 50.0, 200.0, "images/s"), 4, ""),
    ],
)
def test_ratio_and_verdict(line: Line, ratio: float, verdict: str) -> None:
    assert (line.ratio, line.verdict()) == (ratio, verdict)


def test_a_row_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    print_line(times_less("loading", 8.0, 2.0, "ms", floor=5))
    assert " ".join(capsys.readouterr().out.split()) == "loading 8 2 ms x4 at least x5: MISSED"


def test_the_file_holds_the_five_fields_and_replaces_lines_by_name(tmp_path: Path) -> None:
    path = tmp_path / "build" / "bench.json"
    write_lines([times_less("a", 4.0, 2.0, "s", floor=1), times_less("b", 9.0, 3.0, "%", ceiling=1)], path)
    write_lines([times_less("a", 8.0, 2.0, "s")], path)
    assert json.loads(path.read_text()) == [
        {"name": "a", "baseline": 8.0, "ours": 2.0, "ratio": 4.0, "unit": "s"},
        {"name": "b", "baseline": 9.0, "ours": 3.0, "ratio": 3.0, "unit": "%"},
    ]


def test_what_is_no_number_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    with pytest.raises(ValueError, match="JSON compliant"):
        write_lines([times_less("a", float("nan"), 2.0, "s")], path)
    assert not path.exists()
