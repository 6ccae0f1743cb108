import pytest
import yaml

from study.yaml_file import parse_yaml, to_yaml


@pytest.mark.parametrize("value", ["1e3", "1234567e8901", "010", "1:30", "0x1f", "true", "null", "~", "a: b", "é\n"])
def test_text_that_looks_like_something_else_is_read_back_as_text(value: str) -> None:
    assert parse_yaml(to_yaml({"key": value}), "test") == {"key": value}


@pytest.mark.parametrize("value", [1e-5, 1e22, 0.1 + 0.2, 5e-324, -0.0, 3, -7, True, None, [1, [2.5]], {"a": {}}])
def test_other_values_are_read_back_bit_by_bit(value: object) -> None:
    read = parse_yaml(to_yaml({"key": value}), "test")["key"]
    assert (repr(read), type(read)) == (repr(value), type(value))
    assert repr(yaml.safe_load(to_yaml({"key": value}))["key"]) == repr(value)
