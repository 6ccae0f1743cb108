import pytest

from analysis.markdown_text import JOINER, markdown_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.713 [0.660, 0.766]; -0.02 | `a_b`", "0.713 \\[0.660, 0.766\\]; -0.02 \\| \\`a\\_b\\`"),
        ("</script><img src=x>", "&lt;/script&gt;&lt;img src=x&gt;"),
        ("![x](javascript:1)", "!\\[x\\](javascript:1)"),
        ("two\nlines\x1b[0m", "two lines \\[0m"),
        ("$x$ and $$y$$", "\\$x\\$ and \\$\\$y\\$\\$"),
        ("# heading", "\\# heading"),
        ("1. one", f"{JOINER}1. one"),
        ("- item", f"{JOINER}- item"),
        ("===", f"{JOINER}==="),
    ],
)
def test_a_name_stays_a_name(text, shown):
    assert markdown_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://evil.example/x", f"see https:{JOINER}//evil.example/x"),
        ("see WWW.evil.example", f"see WWW{JOINER}.evil.example"),
        ("@you", f"@{JOINER}you"),
        ("me@evil.example", f"me@{JOINER}evil.example"),
    ],
)
def test_no_address_and_no_mention_becomes_a_link(text, shown):
    """GitHub and others link bare addresses, which no backslash prevents: a character of no width parts them."""
    assert markdown_text(text) == shown
