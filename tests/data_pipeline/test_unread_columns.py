"""Columns beside a conversation or a row that change what is learned elsewhere: refused by name, unless empty."""

import json

import pytest

from data_pipeline import sources
from data_pipeline.records import images_of
from tests.data_pipeline.source_files import error_of, messages, png, write_lines, write_parquet
from tests.data_pipeline.test_other_trainers import FORMS, ROWS

TALKS = [*FORMS, "table"]
ENTRIES = {**FORMS, **ROWS}
ROW = {"image": "a.png", "question": "Which is bigger?", "answer": "dog"}
MESSAGES = {"messages": messages()}
EMPTY = [None, "", [], [None], "[]", {}]


def only(path, **settings):
    (record,), errors = sources.read(path, **settings)
    assert errors == []
    return record


# --- images under other names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", TALKS)
@pytest.mark.parametrize("key", ["image_path", "img", "photo", "imageUrl", "file_name"])
def test_an_image_under_another_name_is_refused_in_every_form(tmp_path, format, key):
    path = write_lines(tmp_path / "a.jsonl", [{**ENTRIES[format], "id": "a", key: "a.png"}])
    error = error_of(path, format=format)
    assert f"line 1 (id 'a'): has {key!r} 'a.png', which is not read, and no other image" in error
    assert f"config.data.columns.image={key}" in error


@pytest.mark.parametrize(
    "key",
    [
        *("image_paths", "image_url", "image_urls", "image_file", "img_path", "image_bytes", "image_base64", "picture"),
        *("pictures", "photos", "Image", "image_1", "left_image", "pixel_values", "media", "frames", "file_names"),
    ],
)
@pytest.mark.parametrize("value", ["a.png", ["a.png"], [{"path": "a.png"}]])
def test_every_name_of_an_image_is_refused_whatever_holds_it(tmp_path, key, value):
    assert f"has {key!r} " in error_of(write_lines(tmp_path / "a.jsonl", [{**MESSAGES, key: value}]))


@pytest.mark.parametrize(
    "beside",
    [
        {"image_id": 7, "image_size": [640, 480], "image_width": 3, "image_source": "coco"},
        {
            "file_name": "chapter.txt",
            "media": "newspaper",
            "frames": 12,
            "path": "/data/x.jsonl",
            "url": "http://a.b/c",
        },
        *({"image_path": empty, "img": empty} for empty in EMPTY),
    ],
)
def test_what_is_no_image_or_nothing_is_passed_over(tmp_path, beside):
    assert only(write_lines(tmp_path / "a.jsonl", [{**MESSAGES, **beside}])).messages == messages()


@pytest.mark.parametrize("entry", [ROW, {**MESSAGES, "images": ["a.png"]}, {"messages": messages(image="a.png")}])
def test_beside_an_image_that_is_read_another_name_only_says_more_of_it(tmp_path, entry):
    beside = {"file_name": "a.png", "image_url": "https://x.y/a.png", "img_path": "a.png"}
    assert len(images_of(only(write_lines(tmp_path / "a.jsonl", [{**entry, **beside}])))) == 1


@pytest.mark.parametrize("key", ["image_2", "image2", "left_image_1"])
def test_a_further_image_of_a_numbered_series_is_not_left_out_in_silence(tmp_path, key):
    error = error_of(write_lines(tmp_path / "a.jsonl", [{**ROW, key: "b.png"}]))
    assert f"has {key!r} 'b.png' beside the images that are read; list all of them under 'images'" in error
    assert only(write_lines(tmp_path / "a.jsonl", [{**ROW, key: None}]))


@pytest.mark.parametrize("key", ["image_path", "pixel", "photos"])
def test_the_remedy_is_one(tmp_path, key):
    path = write_lines(tmp_path / "a.jsonl", [{**MESSAGES, key: ["a.png"]}])
    assert images_of(only(path, columns={"image": key})) == [str(tmp_path / "a.png")]


def test_marks_without_images_are_told_with_the_column_that_has_them(tmp_path):
    talk = [{"from": "human", "value": "<image>Who?"}, {"from": "gpt", "value": "I"}]
    path = write_lines(tmp_path / "a.jsonl", [{"conversations": talk, "image_path": "a.png"}])
    _, errors = sources.read(path)
    assert ["1 <image> mark" in errors[0], "has 'image_path'" in errors[1]] == [True, True]


def test_bytes_under_another_name_are_counted_and_not_printed(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [{**FORMS["query_response"], "image_bytes": png()}])
    assert f"has 'image_bytes' ({len(png())} bytes), which is not read" in error_of(path)


# --- choices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "beside, named",
    [
        ({"choices": ["cat", "dog"]}, "'choices'"),
        ({"options": {"A": "cat", "B": "dog"}}, "'options'"),
        ({"options": "['cat', 'dog']"}, "'options'"),
        ({"A": "cat", "B": "dog", "C": None}, "'A', 'B'"),
        ({"option_a": "cat", "option_b": "dog"}, "'option_a', 'option_b'"),
        ({"choice1": "cat", "choice2": 2}, "'choice1', 'choice2'"),
    ],
)
def test_choices_that_a_question_does_not_name_are_refused(tmp_path, beside, named):
    for entry in (ROW, {"query": "Which?", "response": "1"}, {"instruction": "Which?", "input": "", "output": "B"}):
        error = error_of(write_lines(tmp_path / "a.jsonl", [{**entry, **beside}]))
        assert f"has {named}, choices that its question does not name; write them into the question" in error


def test_mmbenchs_columns_are_refused_in_a_table_of_text(tmp_path):
    (tmp_path / "a.tsv").write_text("index\tquestion\tA\tB\tC\tD\tanswer\timage\n0\tWhich?\tcat\tdog\t\t\tB\ta.png\n")
    assert "line 2: has 'a', 'b', choices that its question" in error_of(tmp_path / "a.tsv")


@pytest.mark.parametrize(
    "beside",
    [
        *({"choices": empty} for empty in EMPTY),
        {"a": "x", "options": 4},
        {"question": "Which is bigger, a cat or a dog?", "choices": ["cat", "dog"]},
        {"question": "Which?\nA. 1.5\nB. 2", "choices": [1.5, 2], "A": "1.5"},
    ],
)
def test_choices_that_are_empty_or_named_are_no_reason_to_refuse(tmp_path, beside):
    assert only(write_lines(tmp_path / "a.jsonl", [{**ROW, **beside}]))


# --- what is learned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 0.5, "0", [0, 1], "[0, 1]"])
@pytest.mark.parametrize("key", ["loss_scale", "loss_masks", "train_on_turn", "sample_weight", "_weight"])
def test_every_name_of_a_weight_beside_a_row_is_refused(tmp_path, key, value):
    for entry in (MESSAGES, ROW):
        error = error_of(write_lines(tmp_path / "a.jsonl", [{**entry, key: value}]))
        assert f"has {key!r} {value!r} beside its words, but only a turn has a weight in the loss" in error


@pytest.mark.parametrize("key, value", [("mask", [0, 1]), ("masks", "[1, 0]"), ("mask", [False, True])])
def test_a_mask_of_turns_is_refused(tmp_path, key, value):
    assert f"has {key!r} {value!r} beside" in error_of(write_lines(tmp_path / "a.jsonl", [{**MESSAGES, key: value}]))


@pytest.mark.parametrize("value", [[1], [-100, 5], [[1, 2]], "[-100, 5]"])
def test_labels_that_are_numbers_are_refused_beside_turns(tmp_path, value):
    error = error_of(write_lines(tmp_path / "a.jsonl", [{**MESSAGES, "labels": value}]))
    assert f"has 'labels' {value!r} beside its words, which say what is learned to other trainers" in error


@pytest.mark.parametrize(
    "beside",
    [
        {"mask": "mask.png", "masks": [[1.5, 2.5, 3.0]], "labels": ["a"], "loss_scale": 1, "sample_weight": "1.0"},
        {"mask": [1, 1], "loss_masks": [True], "train_on_turn": [1], "_weight": "12 kg"},
        {"mask": None, "labels": [], "loss_scale": "", "sample_weight": float("nan")},
    ],
)
def test_what_says_that_all_is_learned_or_something_else_is_passed_over(tmp_path, beside):
    for entry in (MESSAGES, ROW):
        assert only(write_lines(tmp_path / "a.jsonl", [{**entry, **beside}]))


@pytest.mark.parametrize("value", [0, 1, 0.0, True, "true", "False", "0"])
@pytest.mark.parametrize("format", list(FORMS))
def test_a_label_of_good_and_bad_answers_is_refused_however_it_is_written(tmp_path, format, value):
    error = error_of(write_lines(tmp_path / "a.jsonl", [{**FORMS[format], "label": value}]), format=format)
    assert f"has 'label' {value!r}, which marks a good or a bad answer" in error


@pytest.mark.parametrize("value", ["cat", 7, "", None, ["0"]])
def test_a_label_that_is_a_class_is_passed_over(tmp_path, value):
    assert only(write_lines(tmp_path / "a.jsonl", [{**MESSAGES, "label": value}]))


# --- answers in a shape that is not read ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answers, words",
    [
        ("['green', 'lime']", "'answers' is the text \"['green', 'lime']\", which is no list in JSON"),
        ("green", "'answers' is the text 'green', which is no list in JSON"),
        ({"text": ["green"]}, "'answers' must be a list of texts, and is an object"),
        ([{"text": "green"}], "'answers' must be a list of texts, and is a list with an object in it"),
        (5, "'answers' must be a list of texts, and is a number"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_answers_in_a_shape_that_is_not_read_are_refused_with_or_without_an_answer(tmp_path, answers, words, training):
    for row in (ROW, {**ROW, "answer": ""}):
        path = write_lines(tmp_path / "a.jsonl", [{**row, "answers": answers}])
        assert words in error_of(path, format="table", training=training)
    path = write_lines(tmp_path / "b.jsonl", [{**FORMS["sharegpt"], "answers": answers}])
    if not training:  # an evaluation would compare with them
        assert words in error_of(path, training=False)
    else:
        assert only(path)


@pytest.mark.parametrize("answers", [["green", "lime"], '["green", "lime"]', ' ["green", "lime"]'])
def test_answers_as_a_list_or_as_json_are_read(tmp_path, answers):
    path = write_lines(tmp_path / "a.jsonl", [{**ROW, "answers": answers}])
    assert only(path).answers == ["green", "lime"]


# --- words that look like nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[]", "{}", " [] "])
def test_a_text_that_is_not_empty_is_a_text(tmp_path, text):
    entry = {"instruction": "What does len() give?", "input": text, "output": "0", "system": text}
    record = only(write_lines(tmp_path / "a.jsonl", [entry]))
    assert [message["content"] for message in record.messages] == [text, f"What does len() give?\n{text}", "0"]
    talk = {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": text, "content": "I"}]}
    assert f"turn 2 has 'value' {text!r} and 'content' 'I'" in error_of(
        write_lines(tmp_path / "b.jsonl", [talk]), format="llava"
    )


def test_the_lines_of_a_file_are_each_their_own(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({**MESSAGES, **beside}) + "\n" for beside in ({}, {"img": "a.png"}, {})))
    records, errors = sources.read(path)
    assert len(records) == 2 and len(errors) == 1 and f"{path}, line 2: has 'img'" in errors[0]


@pytest.mark.parametrize("key", ["note", "choices", "weight", "images", "answers", "labels", "media"])
@pytest.mark.parametrize("inside", ["[]", '{"a": }'])
def test_data_nested_a_thousand_deep_is_a_line_and_not_the_end(tmp_path, key, inside):
    begin, end = inside[:-1], inside[-1]
    deep = begin * 900 + "1" + end * 900
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({**ROW, key: "DEEP"}).replace('"DEEP"', deep) + "\n" + json.dumps(ROW) + "\n")
    records, errors = sources.read(path, training=False)
    assert len(records) >= 1 and all("line 1: " in error and len(error) < 400 for error in errors)
