"""Neighbours of other trainers' files: what lies beside the forms that are read, honoured or refused by name."""

import pytest

from data_pipeline import sources
from data_pipeline.records import images_of
from tests.data_pipeline.source_files import error_of, messages, write_lines

ROW = {"image": "", "question": "Who?", "answer": "I"}


def only(path, **settings):
    (record,), errors = sources.read(path, **settings)
    assert errors == []
    return record


def test_of_a_prompt_and_its_completion_the_completion_alone_is_learned(tmp_path):
    entry = {"prompt": [*messages("A?", "a"), *messages("B?")[:1]], "completion": messages(answer="b")[1:]}
    record = only(write_lines(tmp_path / "a.jsonl", [entry]))
    assert [message.get("weight", 1) for message in record.messages if message["role"] == "assistant"] == [0, 1]


def test_a_prompt_that_says_how_much_is_learned_keeps_it(tmp_path):
    first, second = messages("A?", "a")
    entry = {"prompt": [first, {**second, "train": True}, first], "completion": messages()[1:]}
    record = only(write_lines(tmp_path / "a.jsonl", [entry]))
    assert all(message.get("weight", 1) == 1 for message in record.messages)


@pytest.mark.parametrize("weight", [0, 0.5, False, "0", "0.5", "false", [0, 1]])
@pytest.mark.parametrize("key", ["weight", "loss", "train", "loss_weight", "weights"])
def test_a_weight_beside_a_row_is_refused_by_name(tmp_path, key, weight):
    error = error_of(write_lines(tmp_path / "a.jsonl", [{**ROW, key: weight}]))
    assert f"has {key!r} {weight!r} beside its words, but only a turn has a weight in the loss" in error


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "12 kg", "train", None, ""])
def test_what_is_no_weight_or_one_is_no_reason_to_refuse(tmp_path, value):
    assert only(write_lines(tmp_path / "a.jsonl", [{**ROW, "weight": value, "train": value}]))


@pytest.mark.parametrize("image", ["a.jpg", ["a.jpg"], {"path": "a.jpg", "bytes": None}, [{"path": "a.jpg"}]])
@pytest.mark.parametrize("key", ["image", "images"])
def test_images_of_a_row_are_read_as_those_beside_a_conversation(tmp_path, key, image):
    row = {"question": "Who?", "answer": "I", key: image}
    assert images_of(only(write_lines(tmp_path / "a.jsonl", [row]))) == [str(tmp_path / "a.jpg")]


def test_images_of_a_row_under_two_names_are_refused_where_they_differ(tmp_path):
    row = {**ROW, "image": "a.jpg", "images": ["b.jpg"]}
    assert "has images under 'image' and 'images'; keep one of them" in error_of(
        write_lines(tmp_path / "a.jsonl", [row])
    )


@pytest.mark.parametrize("settings", [{}, {"columns": {"system": "rule"}}])
def test_the_system_message_of_a_row_is_read(tmp_path, settings):
    key = settings["columns"]["system"] if settings else "system"
    record = only(write_lines(tmp_path / "a.jsonl", [{**ROW, key: "Be brief."}]), **settings)
    assert record.messages[0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("mark", ["<img>a.jpg</img>", "<bbox>", "<ref-object>", "<speech>", "<|image_1|>"])
def test_marks_of_other_trainers_are_no_words(tmp_path, mark):
    entry = {"messages": messages(f"{mark}Who?")}
    assert f"message 1 contains '{mark}'" in error_of(write_lines(tmp_path / "a.jsonl", [entry]))


@pytest.mark.parametrize("key", ["messages", "conversation"])
def test_images_without_a_place_come_before_the_first_question(tmp_path, key):
    turns = messages() if key == "messages" else [{"human": "Who?", "assistant": "Eileen"}]
    record = only(write_lines(tmp_path / "a.jsonl", [{key: turns, "images": ["a.jpg", "b.jpg"]}]))
    assert [part["type"] for part in record.messages[0]["content"]] == ["image", "image", "text"]


def test_an_empty_cell_of_pandas_is_nothing(tmp_path):
    nan = float("nan")
    entries = [
        {"messages": messages(), "images": nan, "videos": nan, "system": nan},
        {"query": "Who?", "response": "I", "history": nan, "images": nan},
    ]
    for number, entry in enumerate(entries):
        assert only(write_lines(tmp_path / f"{number}.jsonl", [entry]))
    assert only(write_lines(tmp_path / "row.jsonl", [{**ROW, "image": nan, "videos": nan}]))
