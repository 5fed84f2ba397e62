"""Pieces of an answer, whatever tokens come at a time."""

import random

import numpy as np
import pytest

from vlm_jax.serving.answer_text import AnswerText, first_stop

TEXT = "ดอกไม้ 🌺 is a flower. It is red."
BYTES = np.frombuffer(TEXT.encode(), np.uint8).astype(np.int32)


def decode(tokens):
    """A tokenizer of bytes: every character of Thai is three tokens."""
    return bytes(tokens.astype(np.uint8)).decode("utf-8", errors="replace")


def pieces(stop, steps):
    answer, found, end = AnswerText(decode, stop), [], 0
    for step in steps:
        end = min(end + step, len(BYTES))
        found.append(answer.piece(BYTES[:end], end == len(BYTES)))
        if answer.stop_found or end == len(BYTES):
            return found, answer
    raise AssertionError("the steps are too short")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ((), TEXT),
        (("flower",), "ดอกไม้ 🌺 is a "),
        ((" is red", "is"), "ดอกไม้ 🌺 "),
        (("lower. It", "flow"), "ดอกไม้ 🌺 is a "),
        (("ไม้",), "ดอก"),
        (("nowhere", "red.."), TEXT),
    ],
)
def test_pieces_are_the_text_before_a_stop_however_many_tokens_come_at_a_time(stop, expected, seed):
    rng = random.Random(seed)
    found, answer = pieces(stop, [rng.randint(1, 7) for _ in range(100)])
    assert "".join(found) == expected
    assert answer.stop_found == (expected != TEXT)
    # The fewest tokens with a stop among them.
    fewest = [count for count in range(len(BYTES) + 1) if first_stop(decode(BYTES[:count]), stop)]
    assert answer.tokens == (fewest[0] if fewest else len(BYTES))


def test_no_piece_holds_half_a_character():
    found, _ = pieces((), [1] * 100)
    assert not any("\ufffd" in piece for piece in found) and "ด" in found


def test_an_answer_that_ends_within_a_character_says_so():
    answer = AnswerText(decode)
    assert answer.piece(BYTES[:4], False) == "ด"
    assert answer.piece(BYTES[:4], True) == "\ufffd"


def test_of_several_stops_the_one_that_is_complete_first_counts():
    assert first_stop("abcd", ("abcd", "bc")) == (1, 3)
    assert first_stop("abcd", ("bc", "abc")) == (0, 3)
    assert first_stop("abcd", ("x",)) is None
