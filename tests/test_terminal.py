"""What came from a file or a model is shown on a terminal, and not obeyed by it."""

import pytest

from vlm_jax import terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
        ("a\rb", "a\\x0db"),
        ("\x9b31m", "\\x9b31m"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
        ("\u2066a\u2069", "\\u2066a\\u2069"),
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
        ("\x7f\x00", "\\x7f\\x00"),
    ],
)
def test_what_a_terminal_obeys_is_written_out(text, shown):
    assert terminal.safe(text) == shown
    assert terminal.safe(f"é{text}") == f"é{shown}"


@pytest.mark.parametrize("text", ["", "plain", "แมว ญี่ปุ่น", "a\tb\nc", "👩‍🚀", "क्‍ष", "▂█ × …", "\u00a0"])
def test_words_of_any_script_stay(text):
    assert terminal.safe(text) == text


def test_a_line_is_one_and_has_a_length():
    assert terminal.line(" a\n\n b\r\n") == "a b"
    long = terminal.line("x" * 10**6)
    assert len(long) < 2100 and "998,000 letters" in long
    assert terminal.line("y" * 2000) == "y" * 2000
