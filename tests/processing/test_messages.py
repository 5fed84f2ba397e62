"""Keys of messages and parts: what is read, what is refused by name, and what a turn weighs in the loss."""

import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from vlm_jax.errors import InputError
from vlm_jax.processing.chat import check_messages
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution
from vlm_jax.processing.messages import is_empty, turn_weight, unread_keys, unread_part_keys
from vlm_jax.processing.processor import Processor

ASKED = {"role": "user", "content": "Who?"}


@pytest.fixture(scope="module")
def processor(tokenizer_folder):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return Processor(tokenizer, DynamicResolution().with_token_range((4, 64)), image_token=token, window_side=4)


def answered(**keys):
    return {"role": "assistant", "content": "Eileen", **keys}


@pytest.mark.parametrize(
    ("keys", "weight"),
    [
        ({}, 1),
        ({"weight": 0}, 0),  # OpenAI
        ({"weight": 1}, 1),
        ({"weight": 0.5}, 0.5),
        ({"loss_weight": 0.0}, 0),  # LLaMA-Factory
        ({"loss_weight": 2.5}, 2.5),
        ({"loss": False}, 0),  # ms-swift
        ({"loss": True}, 1),
        ({"loss": None}, 1),
        ({"train": False}, 0),  # axolotl
        ({"training": False}, 0),
        ({"trainable": False}, 0),
        ({"loss_mask": 0}, 0),
        ({"loss_mask": 1}, 1),
        ({"weight": 0, "train": False, "loss": None}, 0),
        ({"weight": 1.0, "loss": True}, 1),
    ],
)
def test_every_trainers_key_says_how_much_of_a_turn_is_learned(keys, weight):
    assert turn_weight(answered(**keys)) == weight


@pytest.mark.parametrize("value", [-1, -0.5, float("inf"), 1e9, 1e-9, "0", "false", [0], [1, 0], {}, 10**400])
def test_a_weight_that_is_none_is_refused(value):
    with pytest.raises(InputError, match=r"^has the weight .* is true, false, 0, or a number from 0.001 to 1000$"):
        turn_weight(answered(weight=value))


@pytest.mark.parametrize("keys", [{"weight": None}, {"weight": float("nan")}, {"loss": float("nan"), "train": None}])
def test_an_empty_cell_says_nothing_of_a_weight(keys):
    assert turn_weight(answered(**keys)) == 1 and turn_weight(answered(**keys, loss_weight=0.5)) == 0.5


def test_weights_that_contradict_each_other_are_refused():
    with pytest.raises(
        InputError, match="^has the weight 0 and the train True, which contradict each other; keep one$"
    ):
        turn_weight(answered(weight=0, train=True))


@pytest.mark.parametrize("role", ["user", "system"])
@pytest.mark.parametrize("key", ["weight", "train", "loss_weight"])
def test_only_an_answer_can_be_learned(role, key):
    for nothing in (0, False, None):
        assert turn_weight({"role": role, "content": "x", key: nothing}) == 0
    with pytest.raises(
        InputError, match=f"has the {key} True, but only the assistant's words are learned, and it is the"
    ):
        turn_weight({"role": role, "content": "x", key: True})


@pytest.mark.parametrize("value", [None, "", " ", [], {}, [None], [""], "[]", [[], [None]]])
def test_what_is_empty_is_not_there(value):
    assert is_empty(value)
    assert unread_keys(answered(videos=value, tool_calls=value, anything=value)) == []
    assert unread_part_keys({"type": "image", "image": "a.png", "min_pixels": value, "text": value}) == []


@pytest.mark.parametrize("value", [0, False, "x", [0], {"a": 1}, b"x"])
def test_what_is_not_empty_is_refused_by_name(value):
    (reason,) = unread_keys(answered(videos=value))
    assert reason.startswith("has the key 'videos', which is not known; remove it (read are role, content, weight,")


def test_notes_about_a_message_change_nothing():
    assert unread_keys(answered(id=3, name="A", timestamp="now", metadata={"a": 1}, language="th")) == []


SIZES = ["min_pixels", "max_pixels", "resized_height", "resized_width", "total_pixels", "nframes", "fps"]


@pytest.mark.parametrize("key", SIZES)
def test_the_size_of_one_image_is_refused_with_the_setting_for_all(key):
    (reason,) = unread_part_keys({"type": "image", "image": "a.png", key: 784})
    assert reason.startswith(f"sets {key!r}; an image has no size of its own here: set the limits of all by ")
    assert "config.model.min_visual_tokens" in reason and "visual_tokens=" in reason


@pytest.mark.parametrize("detail", ["low", "high", "original", 1])
def test_a_detail_besides_auto_is_refused(detail):
    link = {"type": "image_url", "image_url": {"url": "a.png", "detail": detail}}
    for part in (link, {"type": "image", "image": "a.png", "detail": detail}):
        (reason,) = unread_part_keys(part)
        assert reason.startswith(f"asks for the detail {detail!r}; ") and reason.endswith("('auto' may stay)")
    for same in ("auto", None, ""):
        assert unread_part_keys({"type": "image_url", "image_url": {"url": "a.png", "detail": same}}) == []


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "text", "text": "x", "image": "a.png"}, "has the key 'image', which a part of type 'text' does not"),
        (
            {"type": "image", "image": "a.png", "video": "b.mp4"},
            "has the key 'video', which a part of type 'image' does",
        ),
        ({"type": "image_url", "image_url": {"url": "a.png", "crop": 1}}, "has the key 'crop', which a part of type"),
        ({"type": "image", "image": "a.png", "path": "b.png"}, "names an image under 'image' and 'path'; keep one"),
    ],
)
def test_a_part_with_a_key_of_another_kind_is_refused(part, reason):
    (found,) = unread_part_keys(part)
    assert found.startswith(reason)


def test_all_errors_of_a_conversation_are_told_together():
    image = {"type": "image", "image": "a.png", "max_pixels": 5, "detail": "low"}
    messages = [{"role": "user", "content": [image]}, answered(weight=-1, tool_calls=[{"id": "a"}], mood="good")]
    with pytest.raises(InputError) as caught:
        check_messages(messages)
    begun = [
        "message 1, part 1 asks",
        "message 1, part 1 sets",
        "message 2 calls a tool",
        "message 2 has the key 'mood'",
    ]
    begun.append("message 2 has the weight -1")
    assert [error[: len(start)] for error, start in zip(caught.value.lines, begun, strict=True)] == begun
    assert all("\n" not in line for line in caught.value.lines)


def test_the_tokens_of_a_turn_weigh_what_the_turn_does(processor):
    messages = [ASKED, answered(weight=0), ASKED, answered(loss_weight=0.25), ASKED, answered()]
    plain = [{key: message[key] for key in ("role", "content")} for message in messages]
    example, expected = processor.encode(messages), processor.encode(plain)
    assert np.array_equal(example.input_ids, expected.input_ids)
    starts = np.flatnonzero(np.diff(expected.weights, prepend=0) > 0)
    turn = np.searchsorted(starts, np.arange(len(expected.weights)), side="right") - 1
    weights = np.array([0, 0.25, 1], np.float32)[turn] * expected.weights
    assert len(starts) == 3 and expected.weights.dtype == np.float32 and set(expected.weights.tolist()) == {0, 1}
    np.testing.assert_array_equal(example.weights, weights)
    assert example.size.supervised == np.count_nonzero(weights) < expected.size.supervised


def test_messages_as_arrow_unifies_them_are_what_they_were(processor):
    empty = json.loads('{"weight": null, "tool_calls": [], "name": null, "videos": null}')
    messages = [ASKED, answered()]
    example, expected = processor.encode([{**message, **empty} for message in messages]), processor.encode(messages)
    assert np.array_equal(example.input_ids, expected.input_ids)
    assert np.array_equal(example.weights, expected.weights)
