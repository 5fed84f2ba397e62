"""What makes a record, what is refused, and that records survive being written."""

import base64
import json
from pathlib import Path

import pytest

from data_pipeline.check import check_images
from data_pipeline.records import Record, from_json, images_of, to_json, write_records
from data_pipeline.sources import read
from vlm_jax.errors import InputError

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
QUESTION = {"role": "user", "content": "Who?"}
ANSWER = {"role": "assistant", "content": "Eileen"}


def record_of(*messages, training=True, **fields):
    entry = {"id": "a", "messages": list(messages), **fields}
    return from_json(entry, where="x.jsonl, line 1", image_root="/data", training=training)


def errors_of(*messages, training=True, **fields):
    with pytest.raises(InputError) as caught:
        record_of(*messages, training=training, **fields)
    assert all(line.startswith("x.jsonl, line 1: ") and "\n" not in line for line in caught.value.lines)
    return [line.removeprefix("x.jsonl, line 1: ") for line in caught.value.lines]


def test_a_plain_conversation_is_kept_as_it_is():
    record = record_of({"role": "system", "content": "Be brief."}, QUESTION, ANSWER, QUESTION, ANSWER)
    assert [message["role"] for message in record.messages] == ["system"] + ["user", "assistant"] * 2
    assert record.messages[1] == QUESTION
    assert record.where == "x.jsonl, line 1"
    assert images_of(record) == []


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "b/cat.jpg"},
        {"type": "image", "url": "b/cat.jpg"},
        {"type": "image", "path": "./b/cat.jpg"},
        {"type": "image", "image": "file:///data/b/cat.jpg"},
        {"type": "image_url", "image_url": {"url": "b/cat.jpg"}},
        {"type": "image_url", "image_url": "/data/b/cat.jpg"},
    ],
)
def test_every_spelling_of_an_image_part_becomes_one_absolute_path(part):
    record = record_of({"role": "user", "content": [part, {"type": "text", "text": "Who?"}]}, ANSWER)
    assert record.messages[0]["content"] == [
        {"type": "image", "image": "/data/b/cat.jpg"},
        {"type": "text", "text": "Who?"},
    ]
    assert images_of(record) == ["/data/b/cat.jpg"]


def test_a_data_uri_becomes_the_bytes_of_the_image():
    uri = "data:image/png;base64," + base64.b64encode(b"\x89PNG...").decode()
    part = {"type": "image_url", "image_url": {"url": uri}}
    assert images_of(record_of({"role": "user", "content": [part]}, ANSWER)) == [b"\x89PNG..."]


@pytest.mark.parametrize(
    ("image", "error"),
    [
        ("https://example.org/cat.jpg", "'https://example.org/cat.jpg'; addresses in data are not fetched"),
        ("s3://bucket/cat.jpg", "is the remote image 's3://bucket/cat.jpg'"),
        ("data:image/png;base64,%%%", "is a data URI whose base64 is empty or broken"),
        ("data:image/png,abc", "only base64 is read"),
        ("", "names no image; give a path or a data URI"),
        (None, "names no image; give a path or a data URI"),
        ("a\nb.jpg", "a path has no line breaks"),
        ("a\ud800.jpg", "a path has no line breaks"),
        (7, "names no image; give a path or a data URI"),
    ],
)
def test_an_image_that_is_not_local_is_refused(image, error):
    (line,) = errors_of({"role": "user", "content": [{"type": "image", "image": image}]}, ANSWER)
    assert line.startswith("message 1, part 1 ") and error in line


def test_video_is_refused():
    (line,) = errors_of({"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}, ANSWER)
    reported = "message 1, part 1 is of type 'video', and only text and images can be trained on: remove the record"
    assert line.startswith(reported)


@pytest.mark.parametrize("part", [{"type": "table"}, {}, "text", 3, None])
def test_an_unknown_part_is_refused(part):
    (line,) = errors_of({"role": "user", "content": [part]}, ANSWER)
    assert line.startswith("message 1, part 1 is ") and "'text', 'image' or 'image_url'" in line


@pytest.mark.parametrize("content", ["", "  \n", [], [{"type": "text", "text": " "}]])
def test_an_empty_answer_is_refused(content):
    (line,) = errors_of(QUESTION, {"role": "assistant", "content": content})
    assert line == "message 2 is an empty answer; write the answer or remove the record"


def test_a_question_may_be_an_image_alone_but_not_nothing():
    assert record_of({"role": "user", "content": [{"type": "image", "image": "a.jpg"}]}, ANSWER)
    (line,) = errors_of({"role": "user", "content": ""}, ANSWER)
    assert line == "message 1 (user) is empty; write its text or remove it"


def test_only_the_user_shows_images():
    (line,) = errors_of(QUESTION, {"role": "assistant", "content": [{"type": "image", "image": "a.jpg"}]})
    assert line == "message 2 (assistant) contains an image; only the user's messages can show one"


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([ANSWER, QUESTION], "message 1 is from the assistant where the user should speak"),
        ([QUESTION, QUESTION, ANSWER], "message 2 is from the user where the assistant should speak"),
        ([QUESTION, {"role": "system", "content": "x"}, ANSWER], "message 2 is from the system"),
        ([{"role": "system", "content": "x"}], "a system message only"),
        ([QUESTION], "the last message is not an answer of the assistant"),
        (
            [{"role": "tool", "content": "x"}],
            "message 1 is a tool's (role 'tool'), and tool calls are not supported",
        ),
        (["Who?"], "message 1 must be an object with 'role' and 'content', not a text"),
        ([{"role": "user"}, ANSWER], "message 1 must have a text or a list of parts as 'content', not nothing"),
        ([], "'messages' must be a list of at least one message"),
    ],
)
def test_a_conversation_out_of_order_is_refused(messages, error):
    (line,) = errors_of(*messages)
    assert error in line


def test_an_evaluation_record_may_end_with_the_question():
    record = record_of(QUESTION, training=False, answers=["Eileen", "Collins"])
    assert record.answers == ["Eileen", "Collins"]


@pytest.mark.parametrize(
    "token",
    ["im_start", "im_end", "endoftext", "image_pad", "video_pad", "vision_pad", "vision_start", "vision_end"],
)
@pytest.mark.parametrize("as_part", [False, True])
def test_a_special_token_in_a_text_is_refused_by_name(token, as_part):
    text = f"Who?<|{token}|>assistant"
    (line,) = errors_of({"role": "user", "content": [{"type": "text", "text": text}] if as_part else text}, ANSWER)
    assert f"contains the special token '<|{token}|>'" in line


def test_tokens_that_people_write_on_purpose_stay():
    text = "Where is <|object_ref_start|>the cat<|object_ref_end|>, in <b>bold</b>?"
    assert record_of({"role": "user", "content": text}, ANSWER).messages[0]["content"] == text


def test_a_llava_mark_left_in_a_text_is_refused():
    (line,) = errors_of({"role": "user", "content": "<image>\nWho?"}, ANSWER)
    assert "message 1 contains '<image>'" in line


def test_half_a_character_is_refused():
    (line,) = errors_of({"role": "user", "content": "smile \ud83d"}, ANSWER)
    assert "surrogate" in line


def test_all_errors_of_a_record_are_reported_together():
    lines = errors_of(
        {"role": "user", "content": [{"type": "image", "image": "http://a/b.png"}, {"type": "video", "video": "a"}]},
        {"role": "assistant", "content": " "},
        answers="Eileen",
        context="<|im_end|>",
        task=3,
        provenance=[],
    )
    words = ["remote", "video", "empty answer", "'answers'", "'task'", "'context'", "'provenance'"]
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True))


def test_records_written_and_read_again_are_equal(tmp_path):
    records, _ = read(PHOTOS / "photos.json")
    inside = {"type": "image", "image": str(tmp_path / "images" / "a.jpg")}
    records += [
        Record(
            id="everything",
            messages=[
                {"role": "system", "content": "Be\u2028brief."},
                {"role": "user", "content": [inside, {"type": "text", "text": "ใคร\nWho?"}]},
                {"role": "assistant", "content": '"Eileen", Collins'},
            ],
            answers=["Eileen"],
            task="vqa",
            fact_id="f1",
            split="train",
            context="c",
            reasoning="r",
            provenance={"seed": 1, "models": ["m"]},
        ),
        Record("bytes", [{"role": "user", "content": [{"type": "image", "image": b"\x00\xff"}]}, ANSWER]),
    ]
    path = tmp_path / "new" / "records.jsonl"
    write_records(path, records)
    again, errors = read(path)
    assert errors == []
    assert again == records
    assert [item.name for item in path.parent.iterdir()] == ["records.jsonl"]


def test_images_below_the_folder_are_written_relative_to_it(tmp_path):
    inside, outside = str(tmp_path / "images" / "a.jpg"), str(tmp_path.parent / "b.jpg")
    content = [{"type": "image", "image": image} for image in (inside, outside)]
    written = to_json(Record("a", [{"role": "user", "content": content}, ANSWER], where="somewhere"), tmp_path)
    assert [part["image"] for part in written["messages"][0]["content"]] == ["images/a.jpg", outside]
    assert set(written) == {"id", "messages"}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "records.jsonl"
    write_records(path, [Record("old", [QUESTION, ANSWER])])

    def failing():
        yield Record("new", [QUESTION, ANSWER])
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        write_records(path, failing())
    assert json.loads(path.read_text())["id"] == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("address", ["file://[", "file://[::1", "FILE://[a]b/c", "file://\\[/a.png"])
def test_addresses_of_files_that_are_none_are_told(tmp_path, address):
    (tmp_path / "a.jsonl").write_text(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "image": address}]},
                    {"role": "assistant", "content": "I"},
                ]
            }
        )  # fmt: skip
    )
    records, errors = read(tmp_path / "a.jsonl")
    errors += check_images(records)[1]
    assert errors and all("\n" not in error for error in errors), errors
