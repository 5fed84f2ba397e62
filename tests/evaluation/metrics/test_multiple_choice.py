"""Which option a reply chooses, and that no doubtful reply chooses any."""

import pytest

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import score
from vlm_jax.evaluation.metrics.multiple_choice import chosen, options_in

COLOURS = {"A": "red", "B": "dark red", "C": "blue", "D": "None of the above"}
THAI = {"ก": "แมว", "ข": "หมา", "ค": "นก"}


@pytest.mark.parametrize(
    "question, expected",
    [
        ("Which?\nA. red\nB. dark red\nC. blue\nAnswer with the letter.", {"A": "red", "B": "dark red", "C": "blue"}),
        ("Which? (A) cat (B) a big dog (C) bird", {"A": "cat", "B": "a big dog", "C": "bird"}),
        ("Which? (A)cat (B)dog", {"A": "cat", "B": "dog"}),
        ("Pick: a) red, b) blue; c) green", {"A": "red", "B": "blue", "C": "green"}),
        ("Options: A: 1.5 kg B: 2 kg", {"A": "1.5 kg", "B": "2 kg"}),
        ("Vitamin A. What does it do? A. see B. hear C. walk", {"A": "see", "B": "hear", "C": "walk"}),
        ("ข้อใดถูก ก. แมว ข. หมา ค. นก", THAI),
        ("What did J. K. Rowling write?", {}),
        ("What is this?", {}),
        ("", {}),
    ],
)
def test_options_are_read_from_a_question(question, expected):
    assert options_in(question) == expected


@pytest.mark.parametrize(
    "letter, replies",
    [
        (
            "B",
            "B|b|(B)|B.|b)|[B]|**B**|'B'|B. dark red"
            "|(B) dark red|B: dark red|Dark red.|The answer is B|The answer is B."
            "|Answer: B|answer: b|**Answer:** B|The correct answer is (B).|Option B|The answer is option B, dark red"
            "|I would choose B because it is deep.|It's B|B is correct|It is dark red.|I think B fits|\\boxed{B}"
            "|So \\boxed{\\text{B}}|The answer is B, since A is too light.|B. dark red\nA is too light.",
        ),
        ("A", "red|It is red|The answer is A because it is|Answer: A|A.|The answer is a|It is not blue but red"),
        ("C", "A. red\nB. dark red\nC. blue\nD. None of the above\nAnswer: C|BLUE!|A: no.\nB: no.\nThe answer is C."),
        ("D", "None of the above|D|none of the above."),
    ],
)
def test_a_choice_is_found_in_every_form(letter, replies):
    for reply in replies.split("|"):
        assert chosen(reply, COLOURS) == letter, reply


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "?",
        "E",
        "ABCD",
        "A and B",
        "A or B",
        "(A) or (B)?",
        "The answer is A or B",
        "The answer is A. However, the answer is B.",
        "B. blue",
        "The answer is B, blue",
        "A. red\nB. dark red\nC. blue",
        "red or blue",
        "Red. No wait, blue.",
        "The answer is not B",
        "Not B",
        "not red",
        "A cat sits there",
        "The answer is a cat",
        "green",
    ],
)
def test_a_reply_in_doubt_chooses_nothing(reply):
    assert chosen(reply, COLOURS) is None


def test_thai_letters_and_texts_choose():
    for reply in ("ข", "ข.", "(ข)", "คำตอบคือ ข", "ตอบข้อ ข", "เลือกข้อ ข. หมา", "คำตอบ: ข. หมา", "เป็นหมาครับ"):
        assert chosen(reply, THAI) == "ข", reply
    for reply in ("คำตอบคือ ขนม", "ข. นก", "แมวหรือหมา"):
        assert chosen(reply, THAI) is None, reply


def test_scores_by_letter_or_text_from_the_question_or_from_options():
    question = "What colour?\n(A) red (B) blue"
    assert score("multiple_choice", "The answer is B", "B", question) == 1.0
    assert score("multiple_choice", "blue", "(B)", question) == 1.0
    assert score("multiple_choice", "B", "Blue", question) == 1.0
    assert score("multiple_choice", "A", ["B", "blue"], question) == 0.0
    assert score("multiple_choice", "A", ["B", "A"], question) == 1.0
    assert score("multiple_choice", "b", "green", options=["red", "green"]) == 1.0
    assert score("multiple_choice", "2", "green", options={"1": "red", "2": "green"}) == 1.0
    assert score("multiple_choice", "The answer is B.", "B") == 1.0  # letters alone are known
    assert score("multiple_choice", "Vitamin C", "C") == 0.0
    thought = "A is a cat.\nB is a dog.\n**Answer:** (B)"
    assert score("final_answer:multiple_choice", thought, "B", question) == 1.0


def test_answers_that_are_no_option_and_options_that_are_none_are_refused():
    with pytest.raises(InputError, match="'green' is no option; there is A. red, B. blue"):
        score("multiple_choice", "A", "green", "What? A. red B. blue")
    with pytest.raises(InputError, match="'B' is the letter of one option and the text of another"):
        score("multiple_choice", "A", "B", options=["B", "C"])
    with pytest.raises(InputError, match="'red' is no option; there is no text of the question"):
        score("multiple_choice", "A", "red", "What colour?")
    for options in ([], ["red"], {"AB": "red", "C": "blue"}, {"a": "x", "A": "y"}, {"]": "x", "^": "y"}):
        with pytest.raises(InputError, match="wanted two or more, each with a letter of its own"):
            score("multiple_choice", "A", "A", options=options)
