"""Images beside a conversation and images in its parts: each shown once, in its place, or refused by name."""

import base64

import pytest

from data_pipeline import sources
from data_pipeline.records import images_of
from tests.data_pipeline.source_files import error_of, errors_of, messages, png, write_lines

TEXT = {"type": "text", "text": "Who?"}


def asked(*parts):
    return [{"role": "user", "content": [*parts, TEXT]}, {"role": "assistant", "content": "I"}]


def shown(tmp_path, entry):
    (record,), errors = sources.read(write_lines(tmp_path / "a.jsonl", [entry]))
    assert errors == []
    return [image.rpartition("/")[2] for image in images_of(record)]


@pytest.mark.parametrize(
    "part, key",
    [
        ({"type": "image", "image_url": "b.png"}, "image_url"),
        ({"type": "image", "image_url": {"url": "b.png"}}, "image_url"),
        ({"type": "image_url", "image": "b.png"}, "image"),
        ({"type": "image_url", "path": "b.png"}, "path"),
    ],
)
@pytest.mark.parametrize("images", [["a.png"], ["b.png"], []])
def test_an_image_under_the_key_of_another_type_is_refused_with_and_without_images(tmp_path, part, key, images):
    errors = errors_of(write_lines(tmp_path / "a.jsonl", [{"messages": asked(part), "images": images}]))
    told = f"message 1, part 1 has the key {key!r}, which a part of type {part['type']!r} does not have"
    assert told in errors[0]


@pytest.mark.parametrize("part", [{"image": "a.png"}, {"path": "a.png"}, {"url": "a.png"}, {"value": "a.png"}])
def test_images_that_parts_name_and_a_list_repeats_are_shown_once(tmp_path, part):
    assert shown(tmp_path, {"messages": asked({"type": "image", **part}), "images": ["a.png"]}) == ["a.png"]


@pytest.mark.parametrize("names, images", [("ab", "ab"), ("a_", "ab"), ("_b", "ab"), ("b_", "a"), ("__", "ab")])
def test_places_take_the_images_that_no_part_names(tmp_path, names, images):
    parts = [{"type": "image"} if name == "_" else {"type": "image", "image": name} for name in names]
    expected = {"b_": ["b", "a"]}.get(names, ["a", "b"])
    assert shown(tmp_path, {"messages": asked(*parts), "images": list(images)}) == expected


DIFFERING = [("a", "b"), ("ab", "ba"), ("ab", "a"), ("a", "ab"), ("a_", "bca"), ("a_", "bc")]


@pytest.mark.parametrize("names, images", DIFFERING)
def test_images_that_are_not_those_of_the_parts_are_refused(tmp_path, names, images):
    parts = [{"type": "image"} if name == "_" else {"type": "image", "image": name} for name in names]
    error = error_of(write_lines(tmp_path / "a.jsonl", [{"messages": asked(*parts), "images": list(images)}]))
    assert "under 'images' are not those; give each image once" in error and f"({names[0]!r}" in error


@pytest.mark.parametrize("detail", ["high", "low", "auto"])
def test_a_place_that_asks_for_a_detail_is_no_exception(tmp_path, detail):
    part = {"type": "image_url", "image_url": {"url": None, "detail": detail}}
    entry = {"messages": asked(part), "images": ["a.png"]}
    if detail == "auto":
        assert shown(tmp_path, entry) == ["a.png"]
    else:
        assert f"asks for the detail '{detail}'" in error_of(write_lines(tmp_path / "a.jsonl", [entry]))


# --- places in error lines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [["<image>Who?"], ["Look:", "<image>Who?"], ["<image>", "Who?", "<image>"]])
def test_a_mark_in_a_part_is_told_of_the_part_that_has_it(tmp_path, texts):
    content = [{"type": "text", "text": text} for text in texts]
    entry = {"messages": [{"role": "user", "content": content}, *messages()[1:]], "images": ["a.png"]}
    errors = errors_of(write_lines(tmp_path / "a.jsonl", [entry]))
    numbers = [number for number, text in enumerate(texts, 1) if "<image>" in text]
    for number, error in zip(numbers, errors, strict=False):
        assert f"message 1, part {number} contains '<image>'" in error
    assert len(errors) >= len(numbers)


@pytest.mark.parametrize(
    "content, place",
    [
        ("<image>Who <bbox>?", "message 1 contains"),
        ("Who <bbox>?", "message 1 contains"),
        ([{"type": "text", "text": "Who"}, {"type": "text", "text": "<bbox>?"}], "message 1, part 2 contains"),
    ],
)
def test_what_is_put_before_a_message_is_not_counted_among_its_parts(tmp_path, content, place):
    entry = {"messages": [{"role": "user", "content": content}, *messages()[1:]], "images": ["a.png"]}
    assert place in error_of(write_lines(tmp_path / "a.jsonl", [entry]))


# --- forms that do not depend on the order ----------------------------------------------------------------------------

KINDS = [
    {"messages": messages()},
    {"messages": messages("<image>Who?"), "images": ["a.png"]},
    {"messages": asked({"type": "image"}), "image": "a.png"},
    {"messages": messages(image="a.png")},
    {"messages": [{"role": "human", "content": "Who?"}, {"role": "gpt", "content": "I"}]},
    {"messages": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "I"}]},
]


@pytest.mark.parametrize("first", range(len(KINDS)))
def test_a_mixed_file_is_read_alike_whatever_comes_first(tmp_path, first):
    order = [KINDS[(first + step) % len(KINDS)] for step in range(len(KINDS))]
    records, errors = sources.read(write_lines(tmp_path / "a.jsonl", order))
    assert errors == []
    counts = {len(images_of(records[(KINDS.index(entry) - first) % len(KINDS)])) for entry in KINDS[1:4]}
    assert counts == {1} and all(record.messages[1]["role"] == "assistant" for record in records)


@pytest.mark.parametrize("beside", [{}, {"images": []}, {"images": ["a.png"]}])
@pytest.mark.parametrize("roles", [("human", "gpt"), ("user", "bot"), ("human", "assistant")])
def test_speakers_of_other_programs_are_read_with_and_without_images(tmp_path, beside, roles):
    turns = [{"role": role, "content": text} for role, text in zip(roles, ("Who?", "I"), strict=True)]
    (record,), errors = sources.read(write_lines(tmp_path / "a.jsonl", [{"messages": turns, **beside}]))
    assert errors == [] and [message["role"] for message in record.messages] == ["user", "assistant"]


# --- marks of other trainers ------------------------------------------------------------------------------------------

MARKS = [
    *("<|image|>", "<|image_1|>", "<|image_2|>", "<image 1>", "<Image>", "<IMAGE>", "[IMG]", "<image_placeholder>"),
    *('<img src="b.png">', "<img  src='b.png' />", "<ImageHere>", "<IMG_CONTEXT>", "<start_of_image>", "<image_1>"),
]


@pytest.mark.parametrize("mark", MARKS)
def test_marks_of_other_trainers_are_refused_where_images_are_given(tmp_path, mark):
    parts = asked({"type": "image", "image": "a.png"}, {"type": "text", "text": mark})
    for entry in ({"messages": messages(f"{mark}Who?"), "images": ["a.png"]}, {"messages": parts}):
        error = error_of(write_lines(tmp_path / "a.jsonl", [entry]))
        assert "message 1" in error and f"contains {mark!r}, which would be read as words" in error


@pytest.mark.parametrize("words", ['<img src="b.png">', "<image 1>", "[IMG]"])
def test_without_images_and_in_answers_they_are_words(tmp_path, words):
    entries = [{"messages": messages(f"What is {words}?")}, {"messages": messages("Code?", words, image="a.png")}]
    records, errors = sources.read(write_lines(tmp_path / "a.jsonl", entries))
    assert errors == [] and len(records) == 2


@pytest.mark.parametrize("words", ["<images>", "[Image 1] shows it", "a < image > b", "<imagine>", "img src=x"])
def test_words_beside_images_stay_words(tmp_path, words):
    assert shown(tmp_path, {"messages": messages(words), "images": ["a.png"]}) == ["a.png"]


# --- images as texts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["image", "images"])
@pytest.mark.parametrize(
    "cell, names",
    [
        ('["a.png", "b.png"]', ["a.png", "b.png"]),
        ('[{"path": "a.png"}]', ["a.png"]),
        ("[]", []),
        ("[a].png", ["[a].png"]),
    ],
)
def test_a_cell_with_a_list_of_images_is_read_as_json(tmp_path, key, cell, names):
    row = {key: cell, "question": "Who?", "answer": "I"}
    assert shown(tmp_path, row) == names
    (tmp_path / "a.csv").write_text(f'{key},question,answer\n"{cell.replace(chr(34), chr(34) * 2)}",Who?,I\n')
    (record,), _ = sources.read(tmp_path / "a.csv")
    assert len(images_of(record)) == len(names)


@pytest.mark.parametrize("cell", ["['a.png']", "[a.png, b.png]", "[a]"])
def test_a_list_that_is_not_in_json_is_refused(tmp_path, cell):
    row = {"images": cell, "question": "Who?", "answer": "I"}
    assert "a list that is not in JSON; write it as" in error_of(write_lines(tmp_path / "a.jsonl", [row]))


@pytest.mark.parametrize("content", [png() * 40, b"\xff\xd8\xff\xe0" + bytes(200), bytes(9000)])
def test_a_bare_image_in_base64_is_refused_without_being_printed(tmp_path, content):
    text = base64.b64encode(content).decode()
    for entry in ({"image": text, "question": "Who?", "answer": "I"}, {"messages": messages(image=text)}):
        error = error_of(write_lines(tmp_path / "a.jsonl", [entry]))
        assert len(error) < 400 and "begins with data:image/png;base64," in error


@pytest.mark.parametrize(
    "name", ["file:///photos/" + "%E0%B8%81" * 40 + ".png", "ก" * 80 + ".png", "a/" * 300 + "a.png"]
)
def test_a_long_path_is_a_path(tmp_path, name):
    (record,), errors = sources.read(write_lines(tmp_path / "a.jsonl", [{"messages": messages(image=name)}]))
    assert errors == [] and len(images_of(record)) == 1


@pytest.mark.parametrize("beside", [{"images": ["a.png"]}, {}])
@pytest.mark.parametrize(
    "text, told", [("<bbox>", "message 1, part 1 contains '<bbox>'"), ("Who?", "message 3 is from")]
)
def test_a_system_message_of_a_column_is_not_counted_among_the_messages(tmp_path, beside, text, told):
    content = [{"type": "text", "text": text}]
    entry = {"system": "Be brief.", "messages": [{"role": "user", "content": content}, *messages()[1:]], **beside}
    if text == "Who?":
        entry["messages"] += messages()[1:]
    assert told in error_of(write_lines(tmp_path / "a.jsonl", [entry]))
    wrong = {**entry, "system": "Be <bbox>.", "messages": messages()}
    assert "the system message contains '<bbox>'" in error_of(write_lines(tmp_path / "a.jsonl", [wrong]))
