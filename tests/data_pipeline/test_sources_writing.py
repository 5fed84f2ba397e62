"""Writing in every format: what is read back is equal, what a format cannot hold is told, and files appear whole."""

import base64
import csv
import io
import json
import os
import string
from pathlib import Path

import PIL.Image
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline import sources
from data_pipeline.records import Record, images_of
from vlm_jax.errors import InputError

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
SUFFIX = {
    "records": "a.jsonl",
    "openai": "a.jsonl",
    "llava": "a.json",
    "sharegpt": "a.json",
    "table": "a.csv",
    "imagefolder": "folder",
    "parquet": "a.parquet",
    "arrayrecord": "a.array_record",
}
EMBEDDING = ("parquet", "arrayrecord", "imagefolder")


def test_every_format_that_is_written_is_tested_here():
    assert set(SUFFIX) == set(sources.WRITTEN)


def image(path, shade=0, format=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (32, 32), (shade, 0, 0)).save(path, format)
    return str(path)


def record(id, question, answer, *images, **fields):
    parts = [{"type": "image", "image": image} for image in images]
    content = [*parts, {"type": "text", "text": question}] if images else question
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return Record(id, messages, **fields)


def canonical(record, embedded=False):
    """Texts that follow each other joined; images by their bytes where the format embeds them."""
    turns = []
    for message in record.messages:
        content = message["content"]
        parts = []
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "image":
                image = part["image"]
                if embedded and isinstance(image, str):
                    with open(image, "rb") as file:
                        image = file.read()
                parts.append(image)
            elif parts and isinstance(parts[-1], tuple):
                parts[-1] = (parts[-1][0] + part["text"],)
            else:
                parts.append((part["text"],))
        turns.append((message["role"], parts))
    return record.id, turns, record.answers, record.task, record.provenance


def round_trip(folder, records, format, **fields):
    path = folder / SUFFIX[format]
    sources.write(path, records, format=format, **fields)
    training = all(one.messages[-1]["role"] == "assistant" for one in records)
    back, errors = sources.read(path, format=format, training=training)
    assert errors == []
    automatic, _ = sources.read(path, training=training)
    assert automatic == back  # the format is also recognised
    embedded = format in EMBEDDING or fields.get("embed", False)
    assert [canonical(one, embedded) for one in back] == [canonical(one, embedded) for one in records]
    return back


@pytest.fixture
def simple(tmp_path):
    """Records that every format can hold."""
    images = [image(tmp_path / "images" / f"{n}.jpg", 80 * n) for n in range(2)]
    return [
        record("a", 'Who is "this", and\nwhy?', "เชลซี, แมว", images[0], answers=["เชลซี", "a cat"], task="pets"),
        record("7", "What now?", "Nothing", images[1], provenance={"seed": 3, "models": {"a": [1, 2.5]}}),
        record("c", "And again?", "Still", images[0]),
    ]


@pytest.mark.parametrize("format", SUFFIX)
def test_what_is_written_is_read_back_equal(tmp_path, simple, format):
    round_trip(tmp_path, simple, format)


@pytest.mark.parametrize("format", [format for format in SUFFIX if format not in ("table", "imagefolder")])
def test_conversations_of_several_turns_and_images_come_back(tmp_path, simple, format):
    first, second = (images_of(one)[0] for one in simple[:2])
    image = {"a": {"type": "image", "image": first}, "b": {"type": "image", "image": second}}
    text = [{"type": "text", "text": text} for text in ("Is ", " or ", " older?")]
    conversation = Record(
        "talk",
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [text[0], image["a"], text[1], image["b"], text[2]]},
            {"role": "assistant", "content": "The first"},
            {"role": "user", "content": [image["b"]]},
            {"role": "assistant", "content": "A moon"},
            {"role": "user", "content": [text[0], image["a"], image["b"]]},
            {"role": "assistant", "content": "Yes"},
        ],
    )
    round_trip(tmp_path, [conversation, record("plain", "What?", "That"), *simple], format)


@pytest.mark.parametrize("format", [format for format in SUFFIX if format != "imagefolder"])
def test_questions_without_images_and_without_answers_come_back(tmp_path, format):
    questions = [Record(str(n), [{"role": "user", "content": f"Q{n}?"}], answers=["x"]) for n in range(3)]
    round_trip(tmp_path, questions, format)


@pytest.mark.parametrize("format", ["records", "openai"])
def test_images_are_embedded_as_data_uris_when_asked_for(tmp_path, simple, format):
    back = round_trip(tmp_path, simple, format, embed=True)
    assert all(isinstance(image, bytes) for one in back for image in images_of(one))
    uris = (tmp_path / SUFFIX[format]).read_text().count("data:image/jpeg;base64,")
    assert uris == 3


def test_embedded_images_stay_the_encoded_files_they_were(tmp_path, simple):
    paths = [images_of(one)[0] for one in simple]
    contents = [open(path, "rb").read() for path in paths]
    for format in EMBEDDING:
        back = round_trip(tmp_path / format, simple, format)
        found = [image if isinstance(image, bytes) else open(image, "rb").read() for (image,) in map(images_of, back)]
        assert found == contents
    names = sorted(os.listdir(tmp_path / "imagefolder" / "folder" / "images"))
    assert len(names) == 2 and all(name.endswith(".jpg") for name in names)  # an image shown twice is there once


def test_what_is_embedded_goes_from_any_format_to_any_that_embeds(tmp_path, simple):
    for start in EMBEDDING:
        back = round_trip(tmp_path / start, simple, start)
        for target in (*EMBEDDING, "records", "openai"):
            round_trip(tmp_path / start / target, back, target)


def test_relative_images_move_with_the_folder(tmp_path, simple):
    for format in ("records", "openai", "llava", "sharegpt", "table"):
        sources.write(tmp_path / SUFFIX[format], simple, format=format)
        text = (tmp_path / SUFFIX[format]).read_text()
        assert "images/0.jpg" in text and str(tmp_path) not in text


def test_the_formats_look_as_others_write_them(tmp_path, simple):
    first, second = simple[:2]
    sources.write(tmp_path / "a.json", [first], format="llava")
    (entry,) = json.loads((tmp_path / "a.json").read_text())
    assert entry["image"] == "images/0.jpg" and entry["conversations"][0] == {
        "from": "human",
        "value": '<image>\nWho is "this", and\nwhy?',
    }
    assert entry["conversations"][1] == {"from": "gpt", "value": "เชลซี, แมว"}
    sources.write(tmp_path / "b.json", [first], format="sharegpt")
    (entry,) = json.loads((tmp_path / "b.json").read_text())
    assert entry["images"] == ["images/0.jpg"] and [m["role"] for m in entry["messages"]] == ["user", "assistant"]
    sources.write(tmp_path / "c.csv", [first, second], format="table")
    with open(tmp_path / "c.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["id", "image", "question", "answer"] and rows[1]["answer"] == "Nothing"
    sources.write(tmp_path / "d.jsonl", [first], format="openai", embed=True)
    part = json.loads((tmp_path / "d.jsonl").read_text())["messages"][0]["content"][0]
    header, _, payload = part["image_url"]["url"].partition(",")
    assert part["type"] == "image_url" and header == "data:image/jpeg;base64"
    assert base64.b64decode(payload) == open(images_of(first)[0], "rb").read()
    sources.write(tmp_path / "e.parquet", simple, format="parquet")
    (image,) = pyarrow.parquet.read_table(tmp_path / "e.parquet").to_pylist()[0]["images"]
    assert set(image) == {"bytes", "path"} and PIL.Image.open(io.BytesIO(image["bytes"])).size == (32, 32)
    sources.write(tmp_path / "f", [first], format="imagefolder")
    row = json.loads((tmp_path / "f" / "metadata.jsonl").read_text())
    assert (tmp_path / "f" / row["file_name"]).is_file() and row["answers"] == ["เชลซี", "a cat"]


def test_any_vqa_file_becomes_a_training_file(tmp_path):
    entry = {"question": "what brand?", "question_id": 7, "image_id": "00a", "answers": ["a", "b", "b"]}
    (tmp_path / "textvqa.json").write_text(json.dumps({"data": [entry]}))
    image(tmp_path / "00a.jpg")
    records, _ = sources.read(tmp_path / "textvqa.json")
    for format in SUFFIX:
        (back,) = round_trip(tmp_path, records, format)
        assert back.answers == ["a", "b", "b"] and back.task == "textvqa" and back.messages[1]["content"] == "b"


@pytest.mark.parametrize("format", [format for format in SUFFIX if format not in ("table", "imagefolder")])
def test_the_photographs_go_through_every_format_of_conversations(tmp_path, format):
    records, _ = sources.read(PHOTOS / "photos.json")
    assert len(round_trip(tmp_path, records, format)) == 39


def errors_of(path, records, **fields):
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(InputError) as caught:
        sources.write(path, records, **fields)
    assert all("\n" not in line for line in caught.value.lines)
    assert sorted(path.parent.rglob("*")) == before  # nothing was written, not even in part
    return caught.value.lines


TALK = Record("talk", [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")])
EMBEDDED = record("inside", "What?", "This", b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("format", "wrong", "error"),
    [
        ("table", TALK, "record 'talk': has the turns user, assistant, user, assistant; a row holds one question"),
        ("table", record("two", "Q", "A", "/a.jpg", "/b.jpg"), "record 'two': has more than one image, or text"),
        ("table", record("blank", " Q", "A"), "table cannot hold its messages without a change (blanks at the ends"),
        ("table", EMBEDDED, "record 'inside': shows an embedded image, and this format names images by their"),
        ("llava", EMBEDDED, "record 'inside': shows an embedded image"),
        ("sharegpt", EMBEDDED, "record 'inside': shows an embedded image"),
        ("llava", record("line", "Q\r\nR", "A", "/a.jpg"), "llava cannot hold its messages without a change"),
        ("imagefolder", TALK, "record 'talk': has the turns"),
        ("imagefolder", record("bare", "Q", "A"), "record 'bare': shows no image, and each line"),
        ("parquet", record("gone", "Q", "A", "/no/a.jpg"), "record 'gone': the image /no/a.jpg cannot be read"),
        ("arrayrecord", record("gone", "Q", "A", "/no/a.jpg"), "record 'gone': the image /no/a.jpg cannot be read"),
        ("records", record("far", "Q", "A", "gs://b/a.jpg"), "is the remote image 'gs://b/a.jpg'"),
        ("llava", record("mark", "Q <image>", "A"), "1 <image> mark in the text but 0 images"),
    ],
)
def test_what_a_format_cannot_hold_is_told_before_anything_is_written(tmp_path, simple, format, wrong, error):
    (line,) = errors_of(tmp_path / SUFFIX[format], [simple[0], wrong, simple[1]], format=format)
    assert line.startswith(f"record '{wrong.id}': ") and error in line


def test_all_errors_are_told_together(tmp_path, simple):
    errors = errors_of(tmp_path / "a.csv", [TALK, *simple, EMBEDDED, simple[0]], format="table")
    assert [error.partition(":")[0] for error in errors] == ["record 'talk'", "record 'inside'", "record 'a'"]
    assert errors[2] == "record 'a': the id 'a' is already that of another record; give it its own"


def test_where_and_how_to_write_is_checked_first(tmp_path, simple):
    assert errors_of(tmp_path / "a.jsonl", simple, format="lava")[0].startswith("unknown format 'lava' to write")
    (error,) = errors_of(tmp_path / "a.jsonl", simple, format="llava")
    assert error.endswith("llava is written to a file that ends in .json; name it so")
    assert "only records and openai can embed" in errors_of(tmp_path / "a.csv", simple, format="table", embed=True)[0]
    assert errors_of(tmp_path / "a.csv", [], format="table") == [f"{tmp_path / 'a.csv'}: there are no records to write"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    assert "the folder is not empty" in errors_of(tmp_path / "full", simple, format="imagefolder")[0]
    with pytest.raises(InputError, match="records are written to a disk only"):
        sources.write("gs://bucket/a.jsonl", simple, format="records")


@pytest.mark.parametrize("format", SUFFIX)
def test_an_older_file_stays_whole_when_writing_breaks_off(tmp_path, simple, format):
    path = tmp_path / SUFFIX[format]
    if format != "imagefolder":
        path.write_text("old")

    def breaking():
        yield simple[0]
        raise KeyboardInterrupt

    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        sources.write(path, breaking(), format=format)
    assert sorted(tmp_path.rglob("*")) == before
    assert format == "imagefolder" or path.read_text() == "old"
    sources.write(path, simple, format=format)
    assert len(sources.read(path)[0]) == 3


def test_records_are_written_one_after_the_other(tmp_path):
    count = 1000
    sources.write(
        tmp_path / "a.array_record", (record(str(n), f"Q{n}", "A") for n in range(count)), format="arrayrecord"
    )
    source = sources.open_source(tmp_path / "a.array_record")
    sources.write(tmp_path / "a.parquet", (source[n] for n in range(count)), format="parquet")
    assert len(sources.open_source(tmp_path / "a.parquet")) == count


TEXTS = st.text(st.sampled_from(string.ascii_letters + " \n\t,\"'\\;{}[]แมว\u2028é🐈"), min_size=1, max_size=20).filter(
    str.strip
)
IMAGES = st.sampled_from([b"\x89PNG one", b"\xff\xd8\xff two", b"\x00"])


@st.composite
def conversations(draw):
    messages = [{"role": "system", "content": draw(TEXTS)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        parts = draw(
            st.lists(
                st.one_of(
                    TEXTS.map(lambda text: {"type": "text", "text": text}),
                    IMAGES.map(lambda image: {"type": "image", "image": image}),
                ),
                min_size=1,
                max_size=5,
            )
        )
        messages.append({"role": "user", "content": draw(TEXTS) if draw(st.booleans()) else parts})
        messages.append({"role": "assistant", "content": draw(TEXTS)})
    answers = draw(st.none() | st.lists(TEXTS, min_size=1, max_size=3))
    return {"messages": messages, "answers": answers, "task": draw(st.none() | TEXTS)}


@pytest.mark.parametrize("format", ["records", "openai", "parquet", "arrayrecord"])
@given(one=conversations())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_conversation_with_embedded_images_comes_back(tmp_path, format, one):
    round_trip(tmp_path, [Record("a", **one)], format)


@pytest.mark.parametrize("format", ["llava", "sharegpt", "table"])
@given(one=conversations())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_conversation_with_named_images_comes_back_or_is_refused(tmp_path, format, one):
    for message in one["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "image":
                part["image"] = str(tmp_path / f"{part['image'].hex()}.jpg")
    try:
        round_trip(tmp_path, [Record("a", **one)], format)
    except InputError as error:
        (line,) = error.lines
        assert "cannot hold its messages" in line or "a row holds" in line
