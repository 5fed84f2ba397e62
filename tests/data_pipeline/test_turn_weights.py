"""Turns that are left out of the loss, or count less: from every format to the weights of a batch, and back to disk."""

import json

import numpy as np
import pytest

from data_pipeline import sources
from data_pipeline.dataset import open_dataset
from data_pipeline.questions import questions_of
from data_pipeline.records import Record, from_json, to_json
from tests.data_pipeline.source_files import error_of, errors_of, write_lines, write_parquet
from vlm_jax.errors import InputError
from vlm_jax.training.config import default_config

WEIGHTS = [0, 0.5, 1]


def turns(key="weight", values=WEIGHTS, speaker="role", words="content", names=("user", "assistant"), other=None):
    """Questions and answers whose answers have these values under the key."""
    made = []
    for number, value in enumerate(values):
        made.append({speaker: names[0], words: f"Question {number}?", **({} if other is None else {key: other})})
        made.append({speaker: names[1], words: f"Answer {number}", **({} if value is None else {key: value})})
    return made


SHAREGPT = {"speaker": "from", "words": "value", "names": ("human", "gpt")}
ENTRIES = {
    "records": {"id": "a", "messages": turns()},
    "openai": {"messages": turns()},
    "llava": {"conversations": turns(**SHAREGPT)},
    "sharegpt": {"conversations": turns("loss_weight", **SHAREGPT), "images": []},
    "prompt_completion": {"prompt": turns()[:5], "completion": turns()[5:]},
}


def weights_of(record):
    return [message.get("weight", 1) for message in record.messages if message["role"] == "assistant"]


@pytest.mark.parametrize("format", ENTRIES)
def test_weights_of_turns_are_read_in_every_format_of_conversations(tmp_path, format):
    lines = write_lines(tmp_path / "a.jsonl", [ENTRIES[format]])
    table = write_parquet(tmp_path / "a.parquet", [ENTRIES[format]])
    for path in (lines, table):
        ((record,), errors) = sources.read(path, format=format)
        assert errors == [] and weights_of(record) == WEIGHTS
        assert [message.keys() for message in record.messages][-1] == {"role", "content"}  # 1 is as if nothing was said


@pytest.mark.parametrize("key", ["weight", "loss", "train", "training", "trainable", "loss_mask", "loss_weight"])
def test_a_boolean_is_0_or_1_and_prompts_may_say_that_they_are_not_learned(tmp_path, key):
    path = write_lines(tmp_path / "a.jsonl", [{"messages": turns(key, [False, True, None], other=False)}])
    ((record,), errors) = sources.read(path)
    assert errors == [] and weights_of(record) == [0, 1, 1]
    assert all("weight" not in message for message in record.messages if message["role"] != "assistant")


def test_pairs_of_ms_swift_say_it_of_their_answer(tmp_path):
    pairs = [{"human": "Who?", "assistant": "I", "loss": False}, {"human": "Why?", "assistant": "So"}]
    ((record,), errors) = sources.read(write_lines(tmp_path / "a.jsonl", [{"conversation": pairs}]))
    assert errors == [] and weights_of(record) == [0, 1]
    assert [message["content"] for message in record.messages] == ["Who?", "I", "Why?", "So"]


@pytest.mark.parametrize("format", ENTRIES)
@pytest.mark.parametrize("value", [-1, "0", [1, 0], 1e6])
def test_a_weight_that_cannot_be_one_is_a_line(tmp_path, format, value):
    entry = json.loads(json.dumps(ENTRIES[format]).replace("0.5", json.dumps(value)))
    error = error_of(write_lines(tmp_path / "a.jsonl", [entry]), format=format)
    assert "message 4 has the " in error and "is true, false, 0, or a number from 0.001 to 1000" in error


@pytest.mark.parametrize("key", ["weight", "loss", "train"])
def test_nan_is_an_empty_cell_and_says_nothing_of_the_weight(tmp_path, key):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": turns(key, values=[float("nan"), 0, 1])}))
    ((record,), errors) = sources.read(path)
    assert errors == [] and weights_of(record) == [1, 0, 1]
    prompt = {"prompt": turns(key, values=[float("nan"), 1])[:3]}
    path.write_text(json.dumps({**prompt, "completion": [{"role": "assistant", "content": "A"}]}))
    ((record,), errors) = sources.read(path)
    assert errors == [] and weights_of(record) == [0, 1]  # a prompt that says nothing is not learned


@pytest.mark.parametrize("key", ["weight", "train", "loss"])
def test_a_record_of_which_nothing_is_learned_is_refused(tmp_path, key):
    path = write_lines(tmp_path / "a.jsonl", [{"messages": turns(key, [0, False])}, {"messages": turns(key, [0, 1])}])
    assert error_of(path) == (
        f"{path}, line 1: every answer has the weight 0, so there is nothing to learn; remove the record"
    )
    records, errors = sources.read(path, training=False)  # an evaluation learns nothing anyway
    assert len(records) == 2 and errors == []


def test_parts_of_an_answer_that_are_left_out_are_refused_by_name(tmp_path):
    entry = {"conversations": turns(**SHAREGPT)}
    entry["conversations"][1]["train_detail"] = [{"begin_offset": 0, "end_offset": 3, "train": False}]
    assert "message 2 has the key 'train_detail', which is not known" in error_of(
        write_lines(tmp_path / "a.jsonl", [entry])
    )


@pytest.mark.parametrize("value", [0, 0.5, False, [1, 0]])
@pytest.mark.parametrize("key", ["weight", "loss_weight", "loss_mask", "train"])
def test_a_weight_beside_the_turns_is_refused(tmp_path, key, value):
    for entry in ({"messages": turns()}, {"query": "Who?", "response": "I"}):
        error = error_of(write_lines(tmp_path / "a.jsonl", [{**entry, key: value}]))
        assert f"has {key!r} {value!r} beside its words, but only a turn has a weight in the loss" in error


@pytest.mark.parametrize("format", ["records", "openai", "llava", "sharegpt", "parquet", "arrayrecord"])
def test_weights_are_written_and_read_back(tmp_path, format):
    record = from_json({"id": "a", "messages": turns()}, where="here", image_root=tmp_path)
    name = {"llava": "a.json", "sharegpt": "a.json", "parquet": "a.parquet", "arrayrecord": "a.array_record"}
    path = tmp_path / name.get(format, "a.jsonl")
    sources.write(path, [record], format=format)
    ((back,), errors) = sources.read(path, format=format if format in sources.FORMATS else "auto")
    assert errors == [] and back.messages == record.messages and weights_of(back) == WEIGHTS
    again = from_json(json.loads(json.dumps(to_json(record, tmp_path))), where="here", image_root=tmp_path)
    assert again == record


@pytest.mark.parametrize(("format", "name"), [("table", "a.csv"), ("imagefolder", "folder")])
def test_a_format_without_weights_refuses_them(tmp_path, format, name):
    weighted = Record("a", [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I", "weight": 0.5}])
    with pytest.raises(
        InputError, match="record 'a': has an answer with a weight in the loss, which a row cannot hold"
    ):
        sources.write(tmp_path / name, [weighted], format=format)


def batch_of(model, path):
    """The only batch of a file, its fingerprint, and the sizes of its examples."""
    config, processor = model
    data = {**default_config().data.to_dict(), "path": str(path), "threads": 1}
    dataset = open_dataset(data, processor, seed=0)
    assert dataset.errors == []
    batch = {"rows": 2, "sequence_length": 256, "max_sequence_length": 0, "buckets": 1, "patches": 0, "supervised": 96}
    dataset.choose_buckets(batch, config, rows_multiple=1)
    (made,) = dataset.batches(dataset.plan(steps=1, epochs=1, shuffle=False), threads=1)
    return made, dataset.fingerprint(), dataset.examples.sizes[0]


def test_a_batch_holds_the_weights_of_its_turns_and_no_position_for_a_weight_of_0(model, tmp_path):
    plain, print_plain, whole = batch_of(
        model, write_lines(tmp_path / "a.jsonl", [{"messages": turns(values=[1] * 3)}])
    )
    made, print_made, sizes = batch_of(model, write_lines(tmp_path / "b.jsonl", [{"messages": turns()}]))
    stored, ones = (batch.loss_weights[batch.loss_weights > 0] for batch in (made, plain))
    length = len(ones) // 3
    # Two rows hold the same record: of each the answers' tokens in order.
    assert set(ones.tolist()) == {1.0} and sizes[0, 2] < whole[0, 2]
    per_record = np.array([0.5] * (sizes[0, 2] - whole[0, 2] // 3) + [1.0] * (whole[0, 2] // 3), np.float32)
    np.testing.assert_array_equal(stored, np.tile(per_record, len(stored) // len(per_record)))
    assert length and print_plain != print_made
    np.testing.assert_array_equal(np.sort(made.tokens[made.tokens > 0]), np.sort(plain.tokens[plain.tokens > 0]))


def test_an_evaluation_does_not_ask_what_an_answer_of_weight_0_answers(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"messages": turns()}, {"messages": turns(values=[0])}])
    records, _ = sources.read(path, training=False)
    errors: list[str] = []
    asked = [question for record in records for question in questions_of(record, errors)]
    assert [question.answers for question in asked] == [["Answer 1"], ["Answer 2"]]
    assert [len(question.messages) for question in asked] == [3, 5]  # it stays in the context
    assert len(errors) == 1 and "has neither answers nor an assistant's turn to compare with" in errors[0]


def test_text_is_not_cut_so_far_that_only_what_is_not_learned_is_left(model):
    _, processor = model
    text = processor.tokenize(turns(values=[0, 1]))
    first = int(np.flatnonzero(text.weights)[0])
    assert processor.size(text, [], longest=first + 1).supervised == 1
    with pytest.raises(InputError, match="nothing would be left to learn"):
        processor.size(text, [], longest=first)


def test_errors_of_turns_are_told_with_those_of_their_words(tmp_path):
    entry = {
        "messages": [{"role": "user", "content": "<video> What?"}, {"role": "assistant", "content": "", "loss": "no"}]
    }
    first, second, third = errors_of(write_lines(tmp_path / "a.jsonl", [entry]))
    assert "message 1 contains '<video>', and only text and images can be trained on" in first
    assert "message 2 has the loss 'no'" in second and "message 2 is an empty answer" in third
