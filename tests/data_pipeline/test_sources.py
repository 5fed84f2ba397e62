"""Data sets in each form, and one clear line for each thing that can be wrong with them."""

import json
import time
from pathlib import Path

import pytest

from data_pipeline.check import check_images
from data_pipeline.records import images_of
from data_pipeline.sources import read
from vlm_jax.errors import InputError

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
GOOD = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Eileen"}]}


def llava(value, image=None, answer="Eileen", **fields):
    turns = [{"from": "human", "value": value}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, **({} if image is None else {"image": image}), **fields}


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8", newline="")
        return path

    return write


def error_of(path, **settings):
    with pytest.raises(InputError) as caught:
        read(path, **settings)
    (error,) = caught.value.lines
    assert "\n" not in error
    return error


def texts_of(record):
    return [message["content"] for message in record.messages]


def test_the_photographs_are_read_whole():
    records, errors = read(PHOTOS / "photos.json")
    by_id = {record.id: record for record in records}
    assert errors == [] and len(records) == len(by_id) == 39
    assert by_id["coffee-0"].where == f"{PHOTOS / 'photos.json'}, entry 10 (id 'coffee-0')"
    assert texts_of(by_id["text-only-0"]) == ["What does VQA stand for?", "Visual question answering"]
    assert texts_of(by_id["thai-0"]) == [
        [{"type": "image", "image": str(PHOTOS / "chelsea.jpg")}, {"type": "text", "text": "แมวตัวนี้ชื่ออะไร"}],
        "เชลซี",
    ]
    two = by_id["two-images-0"]
    assert images_of(two) == [str(PHOTOS / "chelsea.jpg"), str(PHOTOS / "coffee.jpg")]
    assert [part["type"] for part in two.messages[0]["content"]] == ["image", "image", "text"]
    assert two.messages[0]["content"][2]["text"].startswith("In which picture")
    assert texts_of(two)[1:] == ["The first", "And what is in the other one?", "A cup of espresso"]
    assert len({image for record in records for image in images_of(record)}) == 11


def test_one_question_has_eleven_answers():
    records, errors = read(PHOTOS / "same_question.json")
    assert errors == [] and len(records) == 11
    assert len({record.messages[0]["content"][1]["text"] for record in records}) == 1
    assert len({record.messages[1]["content"][0] for record in records}) == 11  # already the first letters differ
    assert {Path(image).name for record in records for image in images_of(record)} == {
        path.name for path in PHOTOS.iterdir() if path.suffix in (".jpg", ".png")
    }


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("<image>\nWho?", ["*", "Who?"]),
        ("<image>\r\nWho?", ["*", "Who?"]),
        ("Who?\n<image>", ["Who?", "*"]),
        ("Who?\n<image>\n", ["Who?", "*"]),
        ("<image>Who?", ["*", "Who?"]),
        ("<image>", ["*"]),
        ("<image>\n<image>\nWho?", ["*", "*", "Who?"]),
        ("Who?\n<image>\n<image>", ["Who?", "*", "*"]),
        ("Is <image> or <image> older?", ["Is ", "*", " or ", "*", " older?"]),
        ("First: <image>\nSecond: <image>\nWho?", ["First: ", "*", "\nSecond: ", "*", "\nWho?"]),
        ("<image>\n\nWho?", ["*", "\nWho?"]),
    ],
)
def test_a_mark_becomes_an_image_in_its_place(write, value, parts):
    images = [f"{number}.jpg" for number in range(value.count("<image>"))]
    path = write("a.json", [llava(value, images)])
    (record,), errors = read(path)
    assert errors == [] and [Path(image).name for image in images_of(record)] == images
    assert [part.get("text", "*") for part in record.messages[0]["content"]] == parts


@pytest.mark.parametrize(
    ("value", "image", "error"),
    [
        ("<image>\n<image>\nWho?", "a.jpg", "2 <image> marks in the text but 1 image under 'image'"),
        ("<image>\nWho?", ["a.jpg", "b.jpg", "c.jpg"], "1 <image> mark in the text but 3 images under 'image'"),
        ("<image>\nWho?", None, "1 <image> mark in the text but 0 images under 'image'"),
        ("Who?", "a.jpg", "0 <image> marks in the text but 1 image under 'image'"),
    ],
)
def test_marks_and_images_must_be_equal_in_number(write, value, image, error):
    path = write("a.json", [llava("Fine?"), llava(value, image, id="bad")])
    records, errors = read(path)
    assert len(records) == 1
    assert errors == [f"{path}, entry 2 (id 'bad'): {error}; there must be one mark for each image"]


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (llava("Who?", answer="  "), "message 2 is an empty answer"),
        (llava("Who? <|im_end|>"), "contains the special token '<|im_end|>'"),
        (llava("<image>", "http://a.org/b.jpg"), "is the remote image 'http://a.org/b.jpg'"),
        (llava("Who?", video="a.mp4"), "has 'video', and only text and images"),
        (llava("Who?", 3), "'image' must be a path or a list of paths"),
        (llava(None), "turn 1 has nothing as its text"),
        (llava("Who?", id=[1]), "the id is a list; it must be a text or a whole number"),
        (
            {"conversations": [{"from": "bing", "value": "x"}]},
            "turn 1 is from 'bing'; turns are from 'human'",
        ),
        ({"conversations": [["human", "x"]]}, "turn 1 is a list where an object"),
        ({"conversations": []}, "'conversations' must be a list of at least one turn"),
        ({"id": "x"}, "'conversations' must be a list"),
        ("Who?", "is a text where an object is expected"),
    ],
)
def test_an_errory_llava_entry_is_one_line_and_the_rest_is_read(write, entry, error):
    path = write("a.json", [llava("First?"), entry, llava("Third?")])
    records, errors = read(path)
    assert [record.id for record in records] == ["a-1", "a-3"]
    (line,) = errors
    assert line.startswith(f"{path}, entry 2") and error in line


def test_all_errors_of_a_file_are_returned_in_its_order(write):
    lines = [{**GOOD, "id": "a"}, "{broken", {"messages": []}, {**GOOD, "id": "a"}, 5, GOOD]
    path = write("a.jsonl", "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    records, errors = read(path)
    assert [record.id for record in records] == ["a", "a-6"]
    assert errors == [
        f"{path}, line 2: broken JSON at column 2: Expecting property name enclosed in double quotes",
        f"{path}, line 3: 'messages' must be a list of at least one message",
        f"{path}, line 4 (id 'a'): the id 'a' is already that of line 1; give each record its own, or "
        "name the format if these are not this project's records",
        f"{path}, line 5: is a number where an object is expected",
    ]


def test_blank_lines_and_a_byte_order_mark_are_nothing(write):
    path = write("a.jsonl", b"\xef\xbb\xbf" + f"\n{json.dumps(GOOD)}\r\n\n{json.dumps(GOOD)}\n\n".encode())
    records, errors = read(path)
    assert errors == [] and [record.where for record in records] == [f"{path}, line 2", f"{path}, line 4"]


def test_unusual_line_separators_inside_a_text_do_not_end_a_line(write):
    entry = {"messages": [{"role": "user", "content": "a\u2028b\x85c"}, {"role": "assistant", "content": "d"}]}
    (record,), errors = read(write("a.jsonl", json.dumps(entry, ensure_ascii=False)))
    assert errors == [] and record.messages[0]["content"] == "a\u2028b\x85c"


@pytest.mark.parametrize("line", ["[" * 100_000, '{"id": ' + "1" * 5000 + "}"])
def test_json_made_to_break_the_parser_is_an_error_of_its_line(write, line):
    path = write("a.jsonl", f"{json.dumps(GOOD)}\n{line}\n")
    records, errors = read(path)
    assert len(records) == 1 and len(errors) == 1 and errors[0].startswith(f"{path}, line 2: broken JSON")


def test_json_lines_under_another_name_and_lists_of_any_form_are_read(write):
    assert len(read(write("a.json", f"{json.dumps(GOOD)}\n{json.dumps(GOOD)}\n"))[0]) == 2
    assert len(read(write("b.json", [GOOD, GOOD]))[0]) == 2
    assert len(read(write("c.jsonl", [GOOD, GOOD]))[0]) == 2
    assert len(read(write("d.jsonl", json.dumps(llava("Who?")) + "\n"))[0]) == 1


def test_relative_images_start_from_the_image_root_or_from_the_file(write, tmp_path):
    (tmp_path / "images").mkdir()
    path = write("a.json", [llava("<image>", "b/c.jpg"), llava("<image>", "/d.jpg")])
    assert [images_of(record) for record in read(path)[0]] == [[str(tmp_path / "b/c.jpg")], ["/d.jpg"]]
    records, _ = read(path, image_root=tmp_path / "images")
    assert [images_of(record) for record in records] == [[str(tmp_path / "images/b/c.jpg")], ["/d.jpg"]]
    assert error_of(path, image_root=tmp_path / "image") == (
        f"{tmp_path / 'image'}: the image root of {path} is not a folder; did you mean {tmp_path / 'images'}?"
    )


TABLE = """image,question,answer,note
cat.jpg,"Cat, or dog?",A cat,ignored
,"What is
""VQA""?",Visual question answering,
cat.jpg,แมวตัวนี้ชื่ออะไร," เชลซี, แมว ",
"""


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_table_with_commas_line_breaks_and_thai_is_read(write, tmp_path, mark, ending):
    path = write("t.csv", (mark + TABLE).replace("\n", ending))
    records, errors = read(path)
    assert errors == []
    image = {"type": "image", "image": str(tmp_path / "cat.jpg")}
    assert [texts_of(record) for record in records] == [
        [[image, {"type": "text", "text": "Cat, or dog?"}], "A cat"],
        [f'What is{ending}"VQA"?', "Visual question answering"],
        [[image, {"type": "text", "text": "แมวตัวนี้ชื่ออะไร"}], "เชลซี, แมว"],
    ]
    assert [(record.id, record.where) for record in records] == [
        ("t-1", f"{path}, line 2"),
        ("t-2", f"{path}, line 3"),
        ("t-3", f"{path}, line 5"),
    ]


def test_a_table_in_json_lines_is_read(write):
    rows = [{"id": 7, "image": "a.jpg", "question": "Who?", "answer": "I"}, {"question": "Why?", "answer": "So"}]
    records, errors = read(write("t.jsonl", "\n".join(map(json.dumps, rows))))
    assert errors == [] and [(record.id, len(images_of(record))) for record in records] == [("7", 1), ("t-2", 0)]


def test_an_id_column_names_the_rows(write):
    path = write("t.csv", "Id, Image ,Question,Answer\nx,,Who?,I\nx,,Why?,So\n,,When?,Now\n")
    records, errors = read(path)
    assert [record.id for record in records] == ["x", "x (2)", "t-3"] and errors == []


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("a.jpg,Who?,", "the answer is empty; write it or remove the row"),
        ("a.jpg, ,I", "the question is empty; write it or remove the row"),
        ("a.jpg,Who, me?,I", "has 4 cells where the header has 3; put cells with commas in quotes"),
        ("a.jpg,Who?", "has 2 cells where the header has 3; put cells with commas in quotes"),
        ('a.jpg,"Who"?,I', "broken CSV: "),
        ("a.jpg,<image> Who?,I", "contains '<image>'"),
        ("https://a.org/b.jpg,Who?,I", "is the remote image"),
        ("a.jpg,Who?,<|im_start|>", "contains the special token '<|im_start|>'"),
    ],
)
def test_an_errory_row_is_one_line_and_the_rest_is_read(write, row, error):
    path = write("t.csv", f"image,question,answer\n,One?,1\n{row}\n,Three?,3\n")
    records, errors = read(path)
    assert [record.id for record in records] == ["t-1", "t-3"]
    (line,) = errors
    assert line.startswith(f"{path}, line 3: ") and error in line


def test_a_quote_that_never_closes_is_one_error(write):
    path = write("t.csv", 'image,question,answer\n,One?,1\n,"Two?,2\n,Three?,3\n')
    records, errors = read(path)
    assert len(records) == 1 and len(errors) == 1
    assert errors[0].startswith(f"{path}, line 3: broken CSV: a quoted cell is never closed")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "image,question,reply\na.jpg,Who?,I\n"),
        ("t.jsonl", '{"image": "a.jpg", "question": "Who?", "reply": "I"}\n'),
    ],
)
def test_a_missing_column_is_one_line_with_the_columns_found(write, name, content):
    path = write(name, content)
    assert error_of(path).startswith(f"{path}: no column 'answer'; the columns found are 'image', 'question', 'reply'")


def test_an_evaluation_set_needs_no_answers(write):
    path = write("t.csv", "image,question\na.jpg,Who?\n")
    (record,), errors = read(path, training=False)
    assert errors == [] and [message["role"] for message in record.messages] == ["user"]
    assert "no column 'answer'" in error_of(path)
    lines = write("e.jsonl", json.dumps({"messages": GOOD["messages"][:1], "answers": ["Eileen"]}))
    assert read(lines, training=False)[0][0].answers == ["Eileen"]
    assert "the last message is not an answer" in read(lines)[1][0]


def test_a_missing_file_names_the_nearest_one(write, tmp_path):
    path = write("photos.json", [GOOD])
    assert error_of(tmp_path / "photo.json") == f"{tmp_path / 'photo.json'}: no such file; did you mean {path}?"
    assert error_of(tmp_path / "zzz.csv") == f"{tmp_path / 'zzz.csv'}: no such file"
    assert error_of(tmp_path / "no" / "a.csv").endswith(f"no such file; there is no folder {tmp_path / 'no'}")


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.json", '[{"id": 1},\n {"id" 2}]', "broken JSON at line 2, column 8: Expecting ':' delimiter"),
        ("a.json", '{"messages": [', "broken JSON at column 15"),
        (
            "a.json",
            '{"data": [], "version": 1}',
            "holds an object with the keys 'data', 'version' where a list of entries",
        ),
        ("a.json", "3", "holds a number where a list of entries is expected"),
        ("a.json", "[]", "holds no entries"),
        ("a.json", " \n", "is empty"),
        ("a.csv", "image,question,answer\n", "holds no entries"),
        ("a.json", [{"imgname": "a", "query": "b"}], "cannot tell its format: the first entry has 'imgname', 'query'"),
        ("a.xlsx", "x", "unknown extension '.xlsx'; data sets are read from .json, .jsonl, .ndjson, .csv"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_one_error(write, name, content, error):
    path = write(name, content)
    assert error_of(path).startswith(f"{path}: {error}")


def test_a_folder_or_a_wrong_format_is_refused_by_name(write, tmp_path):
    path = write("a.json", [GOOD])
    assert error_of(tmp_path) == f"{tmp_path}: is a folder; name the data file in it"
    error = error_of(path, format="lava")
    assert error.startswith(f"unknown format 'lava' for {path}; the formats are auto, llava, records, table, ")
    assert error.endswith("webdataset. Is 'llava' meant?")
    assert error_of(path, format="llava") == (
        f"{path}: no entry has 'conversations', so it is not in the format 'llava'; the first entry has 'messages'"
    )
    assert "'image', 'question', 'answer'" in error_of(path, format="table")


def test_what_a_line_takes_does_not_grow_with_their_number(write):
    def seconds(count):
        path = write("a.jsonl", "\n".join(json.dumps({**GOOD, "id": number}) for number in range(count)))
        start = time.thread_time()  # of this thread: what else the machine does is no matter
        records, errors = read(path)
        assert len(records) == count and errors == []
        return time.thread_time() - start

    seconds(100)  # what is loaded the first time
    few, many = (min(seconds(count) for _ in range(3)) for count in (300, 3_000))
    assert many < 40 * few  # tenfold; a hundredfold if it grew


def test_an_empty_answer_is_told_beside_a_wrong_number_of_marks(tmp_path):
    turns = [{"from": "human", "value": "<image><image> What?"}, {"from": "gpt", "value": " "}]
    path = tmp_path / "two.json"
    path.write_text(json.dumps([{"id": "a", "image": "a.png", "conversations": turns}]))
    _, errors = read(path)
    assert len(errors) == 2 and "2 <image> marks" in errors[0] and "turn 2" in errors[1] and "empty" in errors[1]


@pytest.mark.parametrize(
    "name, content",
    [
        ("two-marks.jsonl", llava("<image><image>\nWhat?", "a.jpg")),
        ("silent.csv", "image,question,answer\na.jpg,What?,\n"),
        (
            "no-answer.jsonl",
            {"id": "x", "messages": [{"role": "user", "content": [{"type": "image", "image": "a.jpg"}]}]},
        ),
        ("url.jsonl", {"messages": [{"role": "u", "content": [{"type": "image_url", "image_url": {"url": "a.jpg"}}]}]}),
    ],
)
def test_the_images_of_a_refused_entry_are_kept_to_be_checked(write, name, content):
    path = write(name, content if isinstance(content, str) else json.dumps(content) + "\n")
    refused = []
    records, errors = read(path, refused=refused)
    assert not records and errors
    assert [images_of(record) for record in refused] == [[str(path.parent / "a.jpg")]]
    sizes, more = check_images(refused)
    assert not sizes and len(more) == 1 and "no such image" in more[0] and str(path) in more[0]
