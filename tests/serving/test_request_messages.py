"""What is wrong with a message is said of it by its place, in the words of the API; what can be read is."""

import base64

import pytest

from tests.serving.served import HELLO, NAME, ask
from tests.serving.test_refused_requests import body, image_part, is_error, png
from vlm_jax.serving.refusals import Refused
from vlm_jax.serving.request_messages import read_messages

TEXT = {"type": "text", "text": "What?"}


def user(*parts):
    return {"role": "user", "content": list(parts)}


def image(url, **link):
    return {"type": "image_url", "image_url": {"url": url, **link}}


PNG = png(8, 8)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Hello", "message 2 is not an object"),
        ({"role": "tool", "content": "4"}, "the role 'tool'; known: system, developer, user, assistant"),
        ({"role": ["user"], "content": "4"}, r"the role \['user'\]; known"),
        ({"role": "user", "name": "Ann", "content": "Hi"}, "message 2 has the key 'name', which is not supported"),
        ({"role": "user", "content": None}, "message 2: content is neither a text nor a list of parts"),
        ({"role": "assistant"}, "message 2: content is neither a text nor a list of parts"),
        (user({"type": "input_audio"}), "part 1 of message 2 is of the type 'input_audio'; known: text, image_url"),
        (user({"type": "text"}), "part 1 of message 2 has no text"),
        (user(TEXT, image(PNG, detail="low")), "image 1 of message 2 asks for the detail 'low', which is not supp"),
        (user(image(PNG, detail="high")), 'leave it out, or send "auto"'),
        (user(image(PNG), image(None)), 'image 2 of message 2 has no url; send "image_url": {"url": "data:image/png;'),
        (user({**image(PNG), "min_pixels": 9}), "image 1 of message 2 has the key 'min_pixels', which is not supp"),
        (user(image(PNG[:-1])), r"image 1 of message 2: what follows base64, is not base64 \(Incorrect padding\)"),
        (user(image("data:image/png;base64,##")), "image 1 of message 2: what follows base64, is not base64"),
        (user(image("data:image/png;base64,é")), "image 1 of message 2: what follows base64, is not base64"),
        (user(image("data:image/png;base64,")), "image 1 of message 2 is empty"),
        (user(image("data:image/png,AAAA")), "image 1 of message 2: a data URI must read data:image/png;base64,…"),
        (user(image("/etc/passwd")), "image 1 of message 2 is no data URI"),
    ],
)
def test_what_is_wrong_with_a_message_is_said_of_its_place(message, reason):
    with pytest.raises(Refused, match=reason.replace("{", r"\{")) as error:
        read_messages([*HELLO, message])
    assert (error.value.param, error.value.status) == ("messages", 400)
    for foreign in ("visual_tokens", "config.", "'image': path", "AAAA"):
        assert foreign not in error.value.message


def test_what_clients_send_beside_the_words_is_read():
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [TEXT, image(PNG, detail="auto")], "name": None},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": []},
    ]
    assert read_messages(messages) == [
        {"role": "system", "content": "Be brief."},
        user(TEXT, {"type": "image", "image": base64.b64decode(PNG.partition(",")[2])}),
        {"role": "assistant", "content": ""},
    ]


def test_what_is_wrong_with_an_image_is_said_of_its_place(server):
    text = base64.b64encode(b"This is no image.").decode()
    messages = [*HELLO, user(TEXT, image(PNG), image(f"data:image/png;base64,{text}"))]
    message = is_error(server.request(body=body(messages=messages)), 400, "invalid_value", "messages")
    assert message.startswith("image 2 of message 2: not an image of a format that is read (JPEG, ")
    assert text not in message
    message = is_error(
        server.request(body=body(messages=image_part(png(10_000, 9_000)))), 400, "invalid_value", "messages"
    )
    assert message == "image 1 of message 1: more than 89 million pixels; scale it down first"


def test_errors_of_length_advise_what_a_request_has(server):
    long = [{"role": "user", "content": "word " * 5_000}]
    for fields, param, words in (
        ({"messages": long}, "messages", "this server holds 4,096 at most, with the answer (--cache_tokens)"),
        ({"messages": long * 60}, "messages", "the model reads 128,000 at most, with its answer: send less text"),
        ({"max_tokens": 5_000}, "max_tokens", "max_tokens is 5,000, and behind the prompt's 33 tokens there is room"),
    ):
        message = is_error(server.request(body=body(**fields)), 400, "context_length_exceeded", param)
        assert words in message and "visual_tokens" not in message and "max_new_tokens" not in message


def test_a_conversation_that_the_assistant_begins_is_refused_in_plain_words(server):
    messages = [{"role": "assistant", "content": "Hello"}]
    message = is_error(server.request(body=body(messages=messages)), 400, "invalid_value", "messages")
    assert message == "message 1 is the assistant's; a conversation of this model begins with the system or the user"


def test_an_answer_without_words_is_a_turn_of_no_words(client):
    turns = [*HELLO, {"role": "assistant", "content": None}, *HELLO]
    assert ask(client, turns) == ask(client, [*HELLO, {"role": "assistant", "content": ""}, *HELLO])
    assert client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=1, metadata={"a": "b"}).usage
