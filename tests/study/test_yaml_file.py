import time
from pathlib import Path

import pytest

from study.yaml_file import MAX_BYTES, parse_yaml, read_yaml
from trainable.config import InputError

# Nine levels of nine aliases each: 9^9 strings from 200 characters, if aliases were expanded.
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),  # PyYAML alone: the string "1e-3", for it wants a point
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1e-05", -1e-5),  # as Python prints it
        ("+.5e+2", 50.0),
        ("1.5", 1.5),
        ("10", 10),
        ("-3", -3),
        ("e3", "e3"),  # no digit, no number
        (".", "."),
        ("resnet18", "resnet18"),
        ('"1e-3"', "1e-3"),  # quoted: text
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, value: object) -> None:
    read = parse_yaml(text, "study.yaml")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "rule"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' stands twice"),
        ("a:\n  b: 1\n  b: 1\n", 3, "'b' stands twice"),
        ("a: &x 1\nb: *x\n", 2, "aliases"),
        (BOMB, 2, "aliases"),
        ("a: {<<: {b: 1}}\n", 1, "merge"),
        ("1: a\n", 1, "key 1 "),
        ("a: 1\ntrue: a\n", 2, "key True "),
        ("a: 1\n~: a\n", 2, "key None "),
        ("a: 1\n[b, c]: a\n", 2, "key"),
        ("{b: c}: a\n", 1, "key"),
        ('a: !!python/object/apply:os.system ["true"]\n', 1, "python/object/apply"),
        ("a: 1\nb: !!python/name:os.system\n", 2, "python/name"),
        ("a:\n\tb: 1\n", 2, r"\t"),
        ("a: [1, 2\nb: 3\n", 2, "']'"),
        ("a: 1\n---\nb: 2\n", 2, "document"),
        ("a: 1\nb: 2020-01-02\n", 2, "2020-01-02"),  # no setting is a date; nobody asked for a datetime.date
        ("a: 1\nb: 2020-13-45\n", 2, ""),  # no such month
        ("a: !!timestamp x\n", 1, ""),
        ('a: !!int ""\n', 1, ""),
        ("a: !!float x\n", 1, ""),
    ],
)
def test_what_is_not_allowed_is_refused_with_its_line(text: str, line: int, rule: str) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=f"^study.yaml: line {line}: ") as caught:
        parse_yaml(text, "study.yaml")
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 20_000, "- " * 20_000, "[" * 2000 + "]" * 2000])
def test_deep_nesting_is_refused_in_words_of_the_file(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=r"^study.yaml: ") as caught:
        parse_yaml(text, "study.yaml")
    assert "recursion" not in str(caught.value)  # Python's trouble, not the user's
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"a: \xff\xfe\n", "UTF-8"),
        (b"a: \x00\n", "#x0000"),
        (b"#" * (MAX_BYTES + 1), f"larger than {MAX_BYTES} bytes"),
        (b"a: " + b"9" * 5000, ""),  # more digits than Python turns into an int
    ],
)
def test_a_file_that_is_no_page_of_text_is_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_yaml(path)


def test_the_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(b"# mine\r\na: {b: [1e-3, x]}")
    assert read_yaml(path) == {"a": {"b": [1e-3, "x"]}}
    assert path.read_bytes() == b"# mine\r\na: {b: [1e-3, x]}"
