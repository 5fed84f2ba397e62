"""Files as TRL, ms-swift, LLaMA-Factory and OpenAI write them: read alike from JSON and Parquet, or refused by name."""

import copy
import json

import pytest

from data_pipeline import sources
from data_pipeline.dataset import open_dataset
from data_pipeline.ledger import Ledger
from data_pipeline.records import images_of
from tests.data_pipeline.source_files import error_of, errors_of, messages, png, write_lines, write_parquet
from vlm_jax.training.config import default_config

TEXT, PLACE = {"type": "text", "text": "Which?"}, {"type": "image"}
V1_TEXT = {"type": "text", "value": "Which?"}
SYSTEM = {"role": "system", "content": "B"}
ANSWER = [{"role": "assistant", "content": "Both"}]
ASKED = [{"role": "user", "content": [PLACE, PLACE, TEXT]}]
MARKED = "<image><image>Which?"
TWO = ["a.jpg", "b.jpg"]
READ = {
    "TRL, places": ("prompt_completion", {"prompt": ASKED, "completion": ANSWER, "images": TWO}),
    "TRL, texts": ("prompt_completion", {"prompt": messages("Which?")[:1], "completion": ANSWER, "images": TWO}),
    "TRL, messages": ("sharegpt", {"messages": ASKED + ANSWER, "images": TWO}),
    "ms-swift, query": ("query_response", {"query": MARKED, "response": "Both", "images": TWO}),
    "ms-swift, query without marks": ("query_response", {"query": "Which?", "response": "Both", "images": TWO}),
    "ms-swift, messages": ("sharegpt", {"messages": messages(MARKED, "Both"), "images": TWO}),
    "ms-swift, pairs": ("sharegpt", {"conversation": [{"human": MARKED, "assistant": "Both"}], "images": TWO}),
    "ms-swift, objects": (
        "query_response",
        {"query": MARKED, "response": "Both", "images": [{"path": p} for p in TWO]},
    ),
    "LLaMA-Factory, alpaca": (
        "alpaca",
        {"instruction": MARKED, "input": "", "output": "Both", "images": TWO},
    ),
    "LLaMA-Factory, sharegpt": (
        "sharegpt",
        {
            "conversations": [{"from": "human", "value": MARKED}, {"from": "gpt", "value": "Both"}],
            "images": TWO,
            "tools": "",
            "videos": [],
        },
    ),
    "LLaMA-Factory v1": (
        "records",
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "value": path} for path in TWO] + [V1_TEXT],
                    "loss_weight": 0.0,
                },
                {"role": "assistant", "content": [{"type": "text", "value": "Both"}], "loss_weight": 1.0},
            ]
        },
    ),
    "the hub, places with an index": (
        "sharegpt",
        {
            "messages": [
                {"role": "user", "content": [{"index": n, "type": "image", "text": None} for n in (0, 1)] + [TEXT]},
                *ANSWER,
            ],
            "images": TWO,
        },
    ),
}


def shown(record):
    """Who says what, texts joined."""
    turns = []
    for message in record.messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        turns.append((message["role"], [part["type"] for part in parts], "".join(p.get("text", "") for p in parts)))
    return turns


@pytest.mark.parametrize("name", READ)
def test_a_trainers_file_is_read_with_its_images_in_place(tmp_path, name):
    format, entry = READ[name]
    source = sources.open_source(write_lines(tmp_path / "a.jsonl", [entry]))
    assert source.format == format
    record = source[0]
    assert images_of(record) == [str(tmp_path / path) for path in TWO]
    assert shown(record) == [("user", ["image", "image", "text"], "Which?"), ("assistant", ["text"], "Both")]
    assert all(message.keys() == {"role", "content"} for message in record.messages)


def as_arrow(entry):
    """An entry whose contents are all lists, where one is: Arrow has one type for all."""
    entry = copy.deepcopy(entry)
    turns = [turn for value in entry.values() if isinstance(value, list) for turn in value if isinstance(turn, dict)]
    if any(isinstance(turn.get("content"), list) for turn in turns):
        for turn in turns:
            if isinstance(turn["content"], str):
                turn["content"] = [{"type": "text", "text": turn["content"]}]
    return entry


@pytest.mark.parametrize("name", [name for name, (_, entry) in READ.items() if "images" in entry])
def test_and_from_parquet_with_the_images_in_it(tmp_path, name):
    """Arrow gives every message and part the keys of all, null where they are not."""
    format, entry = READ[name]
    entry = as_arrow(entry)
    images = [{"bytes": png(shade), "path": None} for shade in (1, 2)]
    path = write_parquet(tmp_path / "a.parquet", [{**entry, "images": images, "note": None}] * 2)
    source = sources.open_source(path)
    assert source.format == format and images_of(source[1]) == [png(1), png(2)]
    assert shown(source[1]) == [("user", ["image", "image", "text"], "Which?"), ("assistant", ["text"], "Both")]


def test_history_and_system_come_before_the_last_question(tmp_path):
    history, system = [["<image>A?", "a"], ["B?", 2]], {"system": "Be brief."}
    later = [*messages("B?", 2), *messages("C?", "c")]
    entries = [
        {**system, "query": "C?", "response": "c", "history": history, "images": "x.png"},
        {**system, "instruction": "C?", "output": "c", "history": history, "images": ["x.png"]},
        {"system_prompt": "Be brief.", "messages": [*messages("<image>A?", "a"), *later], "images": ["x.png"]},
        {**system, "messages": [*messages("A?", "a", "x.png"), *later]},
    ]
    for number, entry in enumerate(entries):
        ((record,), errors) = sources.read(write_lines(tmp_path / f"{number}.jsonl", [entry]))
        assert errors == [] and len(images_of(record)) == 1
        spoken = [(role, text) for role, _, text in shown(record)]
        assert spoken[0] == ("system", "Be brief.") and [text for _, text in spoken[1:]] == [
            "A?",
            "a",
            "B?",
            "2",
            "C?",
            "c",
        ]


def test_alpacas_input_is_the_next_line_of_its_instruction(tmp_path):
    entries = [
        {"instruction": "Name it.", "input": supplied, "output": "Eileen"} for supplied in ("In Thai.", "", None)
    ]
    records, errors = sources.read(write_lines(tmp_path / "a.jsonl", entries))
    assert errors == []
    assert [record.messages[0]["content"] for record in records] == ["Name it.\nIn Thai.", "Name it.", "Name it."]


@pytest.mark.parametrize("images", [[], ["a.jpg"], [*TWO, "c.jpg"], None])
@pytest.mark.parametrize("name", ["TRL, places", "ms-swift, query", "ms-swift, pairs", "LLaMA-Factory, alpaca"])
def test_as_many_places_as_images_are_wanted(tmp_path, name, images):
    _, entry = READ[name]
    error = error_of(write_lines(tmp_path / "a.jsonl", [{**entry, "images": images}]))
    assert f"2 <image> marks in the text but {len(images or [])} image" in error


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({"query": 5, "response": "x"}, "'query' is a number; it must be a text"),
        ({"query": "Who?", "response": ""}, "the answer ('response') is empty; it must be a text"),
        ({"query": "Who?", "response": ["x", "y"]}, "the answer ('response') is a list; it must be a text"),
        ({"query": "Who?", "response": "x", "history": [["A?"]]}, "'history' must be a list of pairs"),
        ({"query": "Who?", "response": "x", "system": 5}, "'system' is a number; it must be a text"),
        ({"instruction": ["x"], "output": "y"}, "'instruction' and 'input' must be texts"),
        ({"prompt": "The sky is", "completion": ANSWER}, "'prompt' is a text, which TRL"),
        ({"prompt": messages()[:1], "completion": " blue."}, "'completion' is a text, which TRL trains on"),
        ({"prompt": [], "completion": ANSWER}, "'prompt' must be a list of at least one turn"),
        ({"system": "A", "messages": [SYSTEM, *messages()]}, "has a system message and 'system' that differs"),
        ({"messages": messages("<image>"), "image": "a", "images": ["b"]}, "has images under 'images' and 'image'"),
        (
            {"messages": [{"role": "user", "content": [{**PLACE, "index": 1}, TEXT]}, *ANSWER], "images": ["a.jpg"]},
            "a place for an image has the index 1 where image 0 of the list comes next",
        ),
    ],
)  # fmt: skip
def test_what_a_form_cannot_mean_is_one_line(tmp_path, entry, error):
    assert error in error_of(write_lines(tmp_path / "a.jsonl", [entry]))


def test_images_beside_messages_are_not_passed_over(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"messages": messages()}, {"messages": messages(), "images": TWO}])
    assert "has images under 'images' beside its messages, which is the format 'sharegpt'" in error_of(
        path, format="openai"
    )
    records, errors = sources.read(path)
    assert errors == [] and images_of(records[1]) == [str(tmp_path / name) for name in TWO]
    alone = write_lines(tmp_path / "b.jsonl", [{"messages": messages("<image>Who?"), "image": "a.jpg"}])
    assert sources.open_source(alone).format == "sharegpt"


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_pair_beside_messages_is_refused_and_no_matter_of_format(tmp_path, kind):
    entry = {"prompt": "Who?", "messages": messages(), "chosen": messages(), "rejected": messages(answer="No")}
    write = write_lines if kind == "jsonl" else write_parquet
    assert "has 'chosen' and 'rejected', a pair of a better and a worse" in error_of(
        write(tmp_path / f"a.{kind}", [entry])
    )
    pair = {"prompt": messages()[:1], "chosen": messages()[1:], "rejected": messages(answer="No")[1:]}
    assert "has 'chosen' and 'rejected', a pair of a" in errors_of(write(tmp_path / f"b.{kind}", [pair]))[0]


def test_structures_of_nothing_are_nothing(tmp_path):
    """As `datasets` writes parts of several kinds: the objects of the others are there, with nothing in them."""
    empty = {"image_url": {"url": None, "detail": None}, "min_pixels": None}
    asked = {"role": "user", "content": [{**TEXT, **empty}], "tool_calls": [{"function": {"name": None}}]}
    entry = {"messages": [asked, *ANSWER], "objects": {"ref": [], "bbox": [[]]}}
    ((record,), errors) = sources.read(write_lines(tmp_path / "a.jsonl", [entry]))
    assert errors == [] and record.messages[0]["content"] == [TEXT]


# --- what is content elsewhere ----------------------------------------------------------------------------------------

FORMS = {
    "records": {"id": "a", "messages": messages()},
    "openai": {"messages": messages()},
    "llava": {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "I"}]},
    "sharegpt": {"messages": messages(), "images": []},
    "query_response": {"query": "Who?", "response": "I"},
    "alpaca": {"instruction": "Who?", "output": "I"},
    "prompt_completion": {"prompt": messages()[:1], "completion": messages()[1:]},
}
ROWS = {
    "table": {"image": "", "question": "Who?", "answer": "I"},
    "chartqa": {"imgname": "a.png", "query": "Who?", "label": "I"},
}


@pytest.mark.parametrize("format", [*FORMS, *ROWS])
@pytest.mark.parametrize("key", ["video", "videos", "audio", "audios", "video_path"])
def test_media_that_are_no_images_are_refused_in_every_format(tmp_path, format, key):
    entry = {**FORMS, **ROWS}[format]
    path = tmp_path / "a.jsonl"
    error = error_of(write_lines(path, [entry, {**entry, "id": "b", key: ["a.mp4"]}]), format=format)
    assert f"line 2 (id 'b'): has {key!r}, and only text and images can be trained on: remove the record" in error
    nothing = [{**entry, "id": str(number), key: empty} for number, empty in enumerate([None, "", [], [None]])]
    records, errors = sources.read(write_lines(path, nothing), format=format)
    assert len(records) == 4 and errors == []


@pytest.mark.parametrize("mark", ["<video>", "<audio>"])
@pytest.mark.parametrize("format", [*FORMS, *ROWS])
def test_marks_of_other_media_are_refused_in_every_format(tmp_path, format, mark):
    entry = json.loads(json.dumps({**FORMS, **ROWS}[format]).replace("Who?", f"{mark}Who?"))
    error = error_of(write_lines(tmp_path / "a.jsonl", [entry]), format=format)
    assert (
        "message 1" in error
        and f" contains '{mark}', and only text and images can be trained on: remove the record, or" in error
    )


@pytest.mark.parametrize("kind", ["video", "video_url", "audio", "audio_url", "input_audio"])
def test_parts_of_other_media_are_refused(tmp_path, kind):
    asked = {"role": "user", "content": [{"type": kind, kind: "a.mp4"}, TEXT]}
    for beside in ({}, {"images": []}):
        error = error_of(write_lines(tmp_path / "a.jsonl", [{"messages": [asked, *ANSWER], **beside}]))
        assert f"message 1, part 1 is of type '{kind}', and only text and images can be trained on" in error


@pytest.mark.parametrize("format", FORMS)
@pytest.mark.parametrize(
    ("column", "error"),
    [
        ({"tools": [{"type": "function"}]}, "has 'tools', and tool calls are not supported"),
        ({"tools": '[{"name": "a"}]'}, "has 'tools', and tool calls are not supported"),
        ({"rejected": "x", "chosen": "y"}, "has 'chosen' and 'rejected', a pair of a better and a worse answer"),
        ({"rejected_response": "x"}, "has 'rejected_response', a pair of a better and a worse answer"),
        ({"label": False}, "has 'label' False, which marks a good or a bad answer"),
        ({"kto_tag": True}, "has 'kto_tag' True, which marks a good or a bad answer"),
        ({"kto_tag": 0}, "has 'kto_tag' 0, which marks a good or a bad answer"),
        ({"input_ids": [1, 2], "completion_mask": [0, 1]}, "is tokenised already ('input_ids', 'completion_mask')"),
        ({"objects": {"bbox": [[1, 2, 3, 4]]}}, "has 'objects', boxes that are not written into the text here"),
        ({"chat_template_kwargs": {"a": 1}}, "has 'chat_template_kwargs', and the template is the model's"),
    ],
)
def test_columns_that_are_content_to_other_trainers_are_refused(tmp_path, format, column, error):
    path = write_lines(tmp_path / "a.jsonl", [{**FORMS[format], **column}])
    assert error in error_of(path, format=format)


@pytest.mark.parametrize("format", [*FORMS, *ROWS])
def test_other_columns_and_empty_ones_change_nothing(tmp_path, format):
    entry = {**FORMS, **ROWS}[format]
    notes = {"source": "web", "score": 0.5, "licence": None, "topics": ["a"], "label_name": "x", "labels": ["a", "b"]}
    empty = {"tools": "[]", "videos": [None], "objects": {}, "rejected": "", "chosen": None, "functions": []}
    source = sources.open_source(write_lines(tmp_path / "a.jsonl", [entry, {**entry, **notes, **empty}]), format=format)
    assert source[0].messages == source[1].messages


@pytest.mark.parametrize("format", [name for name in FORMS if name not in ("query_response", "alpaca")])
def test_history_is_refused_where_it_is_not_read(tmp_path, format):
    path = write_lines(tmp_path / "a.jsonl", [{**FORMS[format], "history": [["Before?", "Yes"]]}])
    assert "has 'history' beside its turns, which is not read there" in error_of(path, format=format)


HUMAN = {"from": "human", "value": "Who?"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"from": "gpt", "value": "I", "content": "You"}, "'value' 'I' and 'content' 'You'"),
        ({"from": "gpt", "role": "user", "value": "I"}, "'from' 'gpt' and 'role' 'user'"),
        ({"from": "gpt", "role": "user", "value": "I", "content": "You"}, "'from' 'gpt' and 'role' 'user', 'value'"),
    ],
)
def test_a_turn_that_says_two_things_is_refused(tmp_path, answer, error):
    path = write_lines(tmp_path / "a.jsonl", [{"conversations": [HUMAN, answer]}])
    assert f"turn 2 has {error}" in error_of(path, format="llava")


@pytest.mark.parametrize(
    "answer",
    [
        {"from": "gpt", "role": "assistant", "value": "I", "content": "I"},
        {"from": "gpt", "role": None, "value": "", "content": "I"},
        {"from": "", "role": "assistant", "value": None, "content": "I"},
    ],
)
def test_a_turn_that_says_one_thing_twice_is_read(tmp_path, answer):
    ((record,), errors) = sources.read(write_lines(tmp_path / "a.jsonl", [{"conversations": [HUMAN, answer]}]))
    assert errors == [] and record.messages == messages("Who?", "I")


def test_turns_in_two_columns_are_refused(tmp_path):
    entry = {"conversations": [HUMAN, {"from": "gpt", "value": "I"}], "messages": messages(), "images": []}
    assert "has turns under 'conversations' and 'messages'; keep one" in error_of(
        write_lines(tmp_path / "a.jsonl", [entry]), format="sharegpt"
    )


# --- tools ------------------------------------------------------------------------------------------------------------

CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
TOOLS = {
    "OpenAI": {"messages": [messages()[0], CALL, {"role": "tool", "tool_call_id": "1", "content": "5"}, *ANSWER]},
    "OpenAI, old": {"messages": [messages()[0], {"role": "function", "name": "f", "content": "5"}, *ANSWER]},
    "LLaMA-Factory": {
        "conversations": [
            {"from": speaker, "value": "x"} for speaker in ("human", "function_call", "observation", "gpt")
        ],
        "images": [],
    },
    "LLaMA-Factory v1": {
        "messages": [
            messages()[0],
            {"role": "assistant", "content": [{"type": "tool_call", "value": "{}"}]},
            *messages(),
        ]
    },
    "ms-swift": {"messages": [messages()[0], {"role": "tool_call", "content": "{}"}, *ANSWER], "images": []},
}


@pytest.mark.parametrize("name", TOOLS)
def test_turns_of_tools_are_refused_by_name_and_nothing_else_is_said_of_them(tmp_path, name):
    entry = as_arrow(TOOLS[name])
    for path in (write_lines(tmp_path / "a.jsonl", [entry]), write_parquet(tmp_path / "a.parquet", [entry])):
        for error in errors_of(path):
            assert "tool" in error and "tool calls are not supported: remove the record, or leave such records" in error


def opened(processor, path, **data):
    ledger = Ledger()
    data = {**default_config().data.to_dict(), "path": str(path), "threads": 1, **data}
    dataset = open_dataset(data, processor, ledger=ledger, seed=0)
    return dataset, dataset.errors, ledger


def test_records_with_tools_and_videos_are_dropped_where_that_is_asked(processor, tmp_path):
    entries = [{"messages": messages()}, *TOOLS.values(), {"messages": messages(), "videos": ["a.mp4"]}]
    path = write_lines(tmp_path / "a.jsonl", [entry for entry in entries if "messages" in entry])
    dataset, errors, ledger = opened(processor, path, on_error="drop")
    assert errors == [] and (dataset.examples.sizes[0][:, 0] >= 0).tolist() == [True] + [False] * 5
    assert any("has 'videos'" in reason for reason in ledger.reasons())
