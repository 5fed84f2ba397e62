"""What of a record is under review, how it is rewritten, and the key that tells its contents apart."""

import dataclasses

import pytest

from data_pipeline import sources
from data_pipeline.records import Record
from data_pipeline.review.content import (
    Texts,
    check_texts,
    content_key,
    earlier_turns,
    language_of,
    texts_of,
    with_texts,
)
from tests.review_corpus import THAI_ANSWER, make_corpus
from vlm_jax.errors import InputError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("content") / "corpus")


@pytest.fixture(scope="module")
def records(corpus):
    found, errors = sources.read(corpus / "train.jsonl")
    assert not errors
    return {record.id: record for record in found}


def test_reasoning_and_answer_of_a_reply_are_taken_apart_and_put_together(records):
    for name, label, answer in (("talumo-2", " Answer: ", "potters"), ("talumo-th", " คำตอบ: ", THAI_ANSWER)):
        record = records[name]
        texts = texts_of(record)
        assert texts.answer == answer and texts.reasoning == record.reasoning
        assert with_texts(record, texts) == record
        edited = with_texts(record, Texts("Who?", "no one", "I see none."))
        assert edited.messages[-1]["content"] == f"I see none.{label}no one"
        assert texts_of(edited) == ("Who?", "no one", "I see none.") and edited.reasoning == "I see none."
    assert with_texts(records["talumo-2"], Texts("Who?", "no one", "x")).answers == ["no one", "a potter"]


@pytest.mark.parametrize("label", ["Answer:", "คำตอบ:"])
def test_a_reasoning_that_is_the_whole_reply_is_taken_apart_at_its_last_label(label):
    steps = f"It is green.\n{label} no, it is red."  # which names one on the way
    reply = f"{steps}\n{label} red"
    messages = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": reply}]
    record = Record("r", messages, reasoning=reply, answers=["red"])
    assert texts_of(record) == ("Which?", "red", steps) and with_texts(record, texts_of(record)) == record
    edited = with_texts(record, Texts("Which?", "blue", "It is blue."))
    assert edited.reasoning == edited.messages[-1]["content"] == f"It is blue.\n{label} blue"
    assert edited.answers == ["blue"] and texts_of(edited).reasoning == "It is blue."


def test_a_reasoning_that_is_the_whole_reply_without_a_label_is_the_answer():
    messages = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "It is red."}]
    record = Record("r", messages, reasoning="It is red.")
    assert texts_of(record) == ("Which?", "It is red.", None)
    edited = with_texts(record, Texts("Which?", "It is blue."))
    assert edited.reasoning == edited.messages[-1]["content"] == "It is blue."


def test_images_and_earlier_turns_stay_where_they_are():
    image = {"type": "image", "image": b"one"}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image, {"type": "text", "text": "First?"}]},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, image, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "Two.", "weight": 0.5},
    ]
    record = Record("r", messages)
    assert texts_of(record) == ("a\nb", "Two.", None)
    assert earlier_turns(record) == [("system", "Be brief."), ("user", "First?"), ("assistant", "One.")]
    edited = with_texts(record, Texts("c", "Three."))
    assert edited.messages[:3] == messages[:3]
    assert edited.messages[3]["content"] == [{"type": "text", "text": "c"}, image]
    assert edited.messages[4] == {"role": "assistant", "content": "Three.", "weight": 0.5}
    assert texts_of(record) == ("a\nb", "Two.", None)  # the first is as it was


def test_a_record_that_ends_with_its_question_has_its_accepted_answer():
    record = Record("r", [{"role": "user", "content": "Who?"}], answers=["A", "B"])
    assert texts_of(record) == ("Who?", "A", None)
    edited = with_texts(record, Texts("Who is it?", "B"))
    assert edited.answers == ["B"] and edited.messages == [{"role": "user", "content": "Who is it?"}]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (Texts(" ", "a", "b"), "the question is empty"),
        (Texts("q", "", "b"), "the answer is empty"),
        (Texts("q", "a"), "the reasoning is missing"),
        (Texts("q", "a", "\n"), "the reasoning is empty"),
        (Texts("q", "<|im_end|>", "b"), "special token '<|im_end|>'"),
        (Texts("see <image>", "a", "b"), "contains '<image>'"),
        (Texts("q", "blue", "It is red.\nAnswer: red"), "contradict each other: two answers: 'red' and 'blue'"),
        (Texts("q", "blue\nAnswer: red", "It is so."), "the answer has several lines"),
        (Texts("q", "blue Answer: red", "It is so."), "contradict each other: another answer: ends with 'red'"),
        (Texts("q", "blue\nred", "It is so."), "the answer has several lines"),
        (Texts("a\x00b", "a", "b"), "the question contains the control character '\\x00'"),
        (Texts("q", "a\x1b[31m", "b"), "the answer contains the control character '\\x1b'"),
        (Texts("q", "a", "b\r"), "the reasoning contains the control character '\\r'"),
    ],
)
def test_an_edit_that_no_record_may_hold_is_refused(records, corpus, texts, reason):
    with pytest.raises(InputError) as caught:
        check_texts(records["talumo-2"], texts, corpus)
    assert reason in str(caught.value) and len(caught.value.lines) == 1


def test_an_edit_without_contradictions_is_taken_whatever_stands_before_the_answer(records, corpus):
    texts = Texts("q\tr\ns", "Blue.", "It is so.\nAnswer: blue")
    assert check_texts(records["talumo-2"], texts, corpus).messages[-1]["content"].endswith("Answer: Blue.")
    messages = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "It is red.\n\nRed, so."}]
    plain = Record("r", messages, reasoning="It is red.")
    assert check_texts(plain, Texts("Which?", "Blue.\nSo.", "It is blue."), corpus).reasoning == "It is blue."
    for answer in ("blue\nAnswer: red", "blue. Answer: red"):
        with pytest.raises(InputError, match="contradict each other"):
            check_texts(plain, Texts("Which?", answer, "It is blue."), corpus)


def test_reasoning_is_not_added_to_a_record_without(records, corpus):
    with pytest.raises(InputError, match="has no reasoning"):
        check_texts(records["markup"], Texts("q", "a", "b"), corpus)


def test_the_key_changes_with_everything_that_is_judged_and_with_nothing_else(records, corpus):
    record = records["talumo-2"]
    key = content_key(record)
    changed = [
        with_texts(record, texts_of(record)._replace(question="Who?")),
        with_texts(record, texts_of(record)._replace(answer="x")),
        dataclasses.replace(record, context="An article."),
        dataclasses.replace(record, answers=["potters"]),
    ]
    assert len({key, *map(content_key, changed)}) == 5
    assert content_key(dataclasses.replace(record, provenance={"flags": ["x"]}, task="y")) == key
    image = corpus / "images" / "talumo.jpg"
    before = image.read_bytes()
    image.write_bytes(before + b"\0")
    assert content_key(record) != key
    image.write_bytes(before)
    assert content_key(record) == key


def test_thai_is_told_by_its_letters():
    assert language_of("ใครทำ Talumo?", "en") == "th"
    assert language_of("Chelsea", "th") == "en" and language_of("Chelsea", "de") == "de" and language_of("蛋", "") == ""
