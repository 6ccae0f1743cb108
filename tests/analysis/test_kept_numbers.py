from pathlib import Path

import pytest

from analysis.kept_numbers import Rows, kept_numbers
from trainable.sealed import write_sealed


class Counted:
    """Counts how often it is asked."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.num_calls = rows, 0

    def __call__(self) -> Rows:
        self.num_calls += 1
        return self.rows


def test_numbers_are_computed_once_for_an_input(tmp_path: Path) -> None:
    path, compute = tmp_path / "cache" / "numbers.json", Counted([[0.1, 2.0]])
    for _ in range(2):
        assert kept_numbers(path, "a", (1, 2), compute) == [[0.1, 2.0]]
    assert compute.num_calls == 1
    kept_numbers(path, "b", (1, 2), compute)
    kept_numbers(path, "a", (1, 2), compute)
    assert compute.num_calls == 3  # one input is kept, the last


def test_without_a_place_nothing_is_kept() -> None:
    compute = Counted([[1.0]])
    kept_numbers(None, "a", (1, 1), compute)
    kept_numbers(None, "a", (1, 1), compute)
    assert compute.num_calls == 2


def test_a_damaged_file_is_set_aside_and_computed_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, compute = tmp_path / "numbers.json", Counted([[1.5]])
    kept_numbers(path, "a", (1, 1), compute)
    path.write_text(path.read_text().replace("1.5", "9.5"))
    assert kept_numbers(path, "a", (1, 1), compute) == [[1.5]]
    assert "numbers.json is damaged" in caplog.text
    assert (tmp_path / "numbers.json.damaged").is_file()


@pytest.mark.parametrize("rows", [None, 3, [], [[1.0]], [[1.0, 2.0, 3.0]], [[1.0, "2"]], [[1.0, True]], [[1.0, 1e999]]])
def test_what_is_none_of_ours_is_computed_anew(tmp_path: Path, rows: object) -> None:
    write_sealed(tmp_path / "numbers.json", {"key": "a", "rows": rows})
    assert kept_numbers(tmp_path / "numbers.json", "a", (1, 2), Counted([[1.0, 2.0]])) == [[1.0, 2.0]]
