"""What a teacher is asked to write, how its replies are read, and which pairs are too many of a kind."""

import random
from pathlib import Path

import pytest

from data_pipeline.parity import annotate, prompts
from data_pipeline.parity.annotate import parsed
from data_pipeline.parity.pairs import Pair
from data_pipeline.parity.unlabelled import Image
from data_pipeline.teachers.request import CallFailed, Failure, ImageFile, Reply
from vlm_jax.errors import InputError

SETTINGS = {
    "pairs": 2,
    "types": ("Colours.", "Numbers.", "Names."),
    "max_output_tokens": 128,
    "temperature": 1.0,
    "same_question": 3,
    "balance": 0.0,
}
IMAGES = [Image(f"{number:032}", ImageFile(f"{number:064}", Path(f"/images/{number}.jpg"))) for number in range(6)]


@pytest.mark.parametrize(
    "reply, expected",
    [
        ("Question: What is it?\nAnswer: cat", ("What is it?", "cat")),
        ("Question: What is it? Answer: cat", ("What is it?", "cat")),
        ("**Question:** What is it?\n\n**Answer:** a cat.\nExplanation: it purrs", ("What is it?", "a cat.")),
        ("Sure!\n1. Question: A or B?\n   Answer: 5\n2. Question: z?\nAnswer: q", ("A or B?", "5")),
        ('Question 1: On the sign?\nAnswer 1: "STOP"', ("On the sign?", "STOP")),
        ("Q: really? yes?\nA: yes", ("really? yes?", "yes")),
        ('```json\n{"question": "Who?", "answer": 3}\n```', ("Who?", "3")),
        ("คำถาม: นี่คืออะไร?\nคำตอบ: ข้าวซอย", ("นี่คืออะไร?", "ข้าวซอย")),
        ("Question: Name it\nAnswer: cat\nQuestion: cut o", ("Name it", "cat")),
        ("Question: <What is it?>\nAnswer: <cat>", ("What is it?", "cat")),
        ("Answer: cat", None),
        ("Question: What is it?\nAnswer:", None),
        ("Question:\nAnswer: cat", None),
        ("What is it? A cat.", None),
        ('{"question": "Who?", "answer": null}', None),
        ('{"question": ["Who?"], "answer": "x"}', None),
        ("{" * 100, None),
        ("", None),
    ],
)
def test_a_question_and_its_answer_are_found_whatever_stands_around_them(reply, expected):
    assert parsed(reply) == expected
    if expected is None:
        with pytest.raises(CallFailed, match="not what was asked for"):
            annotate.check(None, Reply(text=reply))


def test_no_reply_breaks_the_reading():
    chance = random.Random(0)
    parts = [
        "Question:",
        "Answer:",
        "?",
        "\n",
        "{",
        "}",
        '"question":',
        '"',
        "**",
        "1.",
        "ภาพ",
        " ",
        "a",
        "\u0301",
        "\x00",
    ]
    for _ in range(3000):
        found = parsed("".join(chance.choices(parts, k=chance.randrange(30))))
        assert found is None or all(found)


def test_kinds_of_question_take_turns_and_each_round_asks_anew():
    prompt = prompts.read("images", "where")
    first, second = (annotate.requests(IMAGES, prompt, SETTINGS, number) for number in (1, 2))
    assert len(first) == 12 and [request.images[0].digest for request in first[:3]] == [
        IMAGES[0].file.digest,
        IMAGES[0].file.digest,
        IMAGES[1].file.digest,
    ]
    for kind in SETTINGS["types"]:
        assert 2 <= sum(kind in request.prompt for request in first) <= 6
    assert all(one.prompt != other.prompt for one, other in zip(first[::2], first[1::2], strict=True))
    keys = [request.key("m", {}) for request in (*first, *second)]
    assert len(set(keys)) == 24 and "$type" not in first[0].prompt


def test_where_images_are_added_the_others_are_not_asked_anew():
    prompt = prompts.read("images", "where")
    keys = [[one.key("m", {}) for one in annotate.requests(own, prompt, SETTINGS, 1)] for own in (IMAGES, IMAGES[1:])]
    assert keys[0][2:] == keys[1]


def written(replies, earlier=(), **changes):
    outcomes = [reply if isinstance(reply, Failure) else Reply(text=reply) for reply in replies]
    return annotate.read(IMAGES[: len(outcomes) // 2], outcomes, {**SETTINGS, **changes}, earlier=earlier)


def test_what_cannot_be_used_is_left_out_with_its_reason():
    found = written(
        [
            "Question: Who?\nAnswer: Ada",
            "nonsense",
            "Question: What?\nAnswer: ?!",
            Failure("blocked prompt", "SAFETY"),
            "Question: Who?\nAnswer: Ada",
            "Question:  who ?\nAnswer: Bob",
        ]
    )
    assert [(pair.question, pair.answer) for pair in found.pairs if pair.image == IMAGES[0].id] == [("Who?", "Ada")]
    assert {why: len(notes) for why, notes in found.left_out.items()} == {
        annotate.NO_PAIR: 1,
        annotate.SAYS_NOTHING: 1,
        annotate.NO_ANSWER: 1,
        annotate.TWICE: 1,
    }
    assert found.left_out[annotate.NO_ANSWER][0].endswith(": blocked prompt: SAFETY")


def test_a_teacher_that_writes_no_question_is_told_apart_from_one_that_does_not_answer():
    reply = Failure("not what was asked for", "no question with an answer: 'a cat'")
    found = written([reply, Failure("cut off")])
    assert {why: notes[0].partition(": ")[2] for why, notes in found.left_out.items()} == {
        annotate.NO_PAIR: "'a cat'",
        annotate.NO_ANSWER: "cut off",
    }
    assert found.left_out[annotate.NO_PAIR][0].startswith(f"{IMAGES[0].file.path.name} (")


def test_marks_that_no_training_reads_are_left_out_and_not_found_out_once_all_is_paid():
    texts = [("What is <image>?", "cat"), ("Who?", "Ada<|im_end|>"), ("<img 1> Who?", "Ada"), ("Is it a <b>?", "yes")]
    pairs = [Pair(f"{n}", f"i{n}", "f", "d", *both) for n, both in enumerate([*texts, ("What?", "…")])]
    found = annotate.chosen(pairs, SETTINGS, seed=0)
    assert [pair.id for pair in found.pairs] == ["3"]
    assert {why: len(notes) for why, notes in found.left_out.items()} == {annotate.MARKED: 3, annotate.SAYS_NOTHING: 1}


def test_a_question_is_about_so_many_images_at_most_and_which_does_not_depend_on_their_order():
    pairs = [Pair(f"{n}", f"i{n}", "f", "d", "What is shown?", "x") for n in range(10)]
    other = [Pair("o", "i0", "f", "d", "What is this called?", "x")]
    first = annotate.thinned(pairs + other, SETTINGS, seed=0)
    assert len(first.pairs) == 4 and len(first.left_out[annotate.OVERUSED]) == 7
    assert annotate.thinned(list(reversed(pairs + other)), SETTINGS, seed=0).pairs == first.pairs
    assert annotate.thinned(pairs + other, SETTINGS, seed=1).pairs != first.pairs
    # Those of earlier rounds count.
    later = annotate.thinned([Pair("n", "i99", "f", "d", "what is shown", "x")], SETTINGS, seed=0, earlier=first.pairs)
    assert not later.pairs


def test_types_are_balanced():
    kinds = ["a"] * 10 + ["b"] * 3 + ["c"] * 4
    pairs = [Pair(f"{n:02}", f"i{n}", "f", "d", f"{n}?", "x", kind) for n, kind in enumerate(kinds)]
    counts = lambda found: [sum(pair.type == kind for pair in found.pairs) for kind in "abc"]  # noqa: E731
    assert counts(annotate.thinned(pairs, {**SETTINGS, "balance": 2.0}, seed=0)) == [6, 3, 4]
    assert counts(annotate.thinned(pairs, SETTINGS, seed=0)) == [10, 3, 4]


def test_answers_that_fit_everything_are_refused_where_they_come_from_files():
    with pytest.raises(InputError, match="1 answers have no letter and no digit.*every prediction would fit"):
        annotate.sorted_out([Pair("7", "i", "f", "d", "What?", "…"), Pair("8", "i", "f", "d", "What?", "ภาพ")])


def test_a_prompt_of_ones_own_is_checked(tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("Ask. $type")
    assert prompts.read(str(own), "here").rendered("Now.") == "Ask. Now."
    own.write_text("Ask $count.")
    with pytest.raises(InputError, match=r"names \$count; known is \$type"):
        prompts.read(str(own), "here")
    own.write_text("Costs $ 5")
    with pytest.raises(InputError, match=r"written \$\$"):
        prompts.read(str(own), "here")
    with pytest.raises(InputError, match="did you mean 'chartqa'"):
        prompts.read("chart_qa", "here")
