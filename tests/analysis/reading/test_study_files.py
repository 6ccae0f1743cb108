import pytest

from analysis.reading.study_files import read_study_json
from trainable.config import InputError
from trainable.sealed import write_sealed


def test_sealed_files_and_older_ones_are_read(tmp_path):
    path = tmp_path / "a.json"
    assert read_study_json(path, "run again") is None
    write_sealed(path, {"trials": ["a"]})
    assert read_study_json(path, "run again") == {"trials": ["a"]}
    path.write_text('["a"]')
    assert read_study_json(path, "run again") == ["a"]
    path.write_text('{"result_sha256": "ab"}')
    assert read_study_json(path, "run again") == {"result_sha256": "ab"}


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"[" * 100_000, b'{"sha256": 1}', b'{"a": 1, "sha256": "0"}'])
def test_what_is_damaged_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: .*run again"):
        read_study_json(path, "run again")
