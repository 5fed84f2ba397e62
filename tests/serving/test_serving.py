"""OpenAI's own client gets what `vlm_jax` says; whatever else is asked gets OpenAI's form of errors."""

import base64
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image

import vlm_jax
from tests.serving.served import NAME, eventually, served
from tests.serving.speaker import load_speaker
from tests.tiny_models import PHOTOS
from vlm_jax.inference.answering import Answering
from vlm_jax.serving import places

IMAGE = PHOTOS / "chelsea.jpg"
URI = f"data:image/jpeg;base64,{base64.b64encode(IMAGE.read_bytes()).decode()}"
HELLO = [{"role": "user", "content": "Hello"}]
THAI = [{"role": "system", "content": "สั้น"}, {"role": "user", "content": "ดอกไม้สีอะไร"}]
TURNS = [
    {"role": "user", "content": [{"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": "a cat"},
    {"role": "user", "content": "What colour?"},
]
SAID = "ฬ🌺 flower!"
DRAWN = {"temperature": 1.3, "seed": 2}


def about_image(question="What is it?"):
    return [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": URI}}, {"type": "text", "text": question}],
        }
    ]


@pytest.fixture(scope="module")
def model():
    return vlm_jax.load(Path(vlm_jax.__file__).parent / "assets" / "tiny_base")


@pytest.fixture(scope="module")
def server(model):
    with served(model) as server:
        yield server
        assert server.places.requests == server.places.bytes == 0 and server.reports == []


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    """The server of a model that says `SAID` again and again."""
    model = load_speaker(tmp_path_factory.mktemp("speaker") / "model", SAID, endless=True)
    with served(model) as server, client_of(server) as client:
        yield SimpleNamespace(model=model, server=server, client=client)


def client_of(server, **options):
    address = f"http://127.0.0.1:{server.port}/v1"
    return openai.OpenAI(base_url=address, **{"api_key": "none", "max_retries": 0, "timeout": 120, **options})


@pytest.fixture(scope="module")
def client(server):
    with client_of(server) as client:
        yield client


def ask(client, messages, *, stream=False, **options):
    """The answers to a request as (text, finish reason), and its usage."""
    options = {"model": NAME, "messages": messages, "max_tokens": 12, **options}
    own = {key: options.pop(key) for key in ("top_k", "repetition_penalty") if key in options}
    if not stream:
        found = client.chat.completions.create(**options, extra_body=own)
        assert [choice.index for choice in found.choices] == list(range(len(found.choices)))
        return [(choice.message.content, choice.finish_reason) for choice in found.choices], found.usage
    texts, reasons, usage, ids = {}, {}, None, set()
    chunks = client.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}, extra_body=own
    )
    for chunk in chunks:
        assert chunk.object == "chat.completion.chunk" and usage is None
        ids.add(chunk.id)
        usage = chunk.usage
        for choice in chunk.choices:
            assert choice.index not in reasons
            assert (choice.delta.role == "assistant") == (choice.index not in texts)
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason is not None:
                reasons[choice.index] = choice.finish_reason
    assert len(ids) == 1
    return [(texts[index], reasons[index]) for index in sorted(texts)], usage


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("messages", "sampling"),
    [
        (about_image(), {}),
        (about_image(), DRAWN),
        (THAI, {}),
        (THAI, {**DRAWN, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.2}),
        (TURNS, {}),
    ],
    ids=["image", "image drawn", "Thai", "Thai drawn", "turns"],
)
def test_the_client_gets_what_the_model_says(client, model, messages, sampling, stream):
    (answer,), usage = ask(client, messages, stream=stream, **sampling)
    (tokens,) = model.generate_tokens([messages], max_new_tokens=12, **sampling)
    assert answer[0] == model.generate(messages, max_new_tokens=12, **sampling) != ""
    assert answer[1] == ("length" if len(tokens) == 12 else "stop")
    # Counted are the marks of an answer's beginning, and its stop token.
    assert usage.prompt_tokens == len(model.processor.encode(messages, generation_prompt=True).input_ids)
    assert usage.completion_tokens == len(tokens) + (answer[1] == "stop")
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_character_of_several_tokens_comes_as_a_whole(speaker):
    tokens = speaker.model.generate_tokens([HELLO], max_new_tokens=20)[0]
    cut = [count for count in range(1, 20) if "\ufffd" in speaker.model.processor.decode(tokens[:count])]
    assert len(cut) >= 4
    chunks = speaker.client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=20, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == speaker.model.generate(HELLO, max_new_tokens=20)
    assert "".join(pieces).startswith(SAID) and not any("\ufffd" in piece for piece in pieces)
    # Of an answer that is cut off within one, what the model says.
    (answer,), _ = ask(speaker.client, HELLO, max_tokens=cut[0], stream=True)
    assert answer == (speaker.model.generate(HELLO, max_new_tokens=cut[0]), "length") and "\ufffd" in answer[0]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_several_choices_are_those_of_a_list(client, model, stream):
    answers, usage = ask(client, THAI, n=3, stream=stream, **DRAWN)
    tokens = model.generate_tokens([THAI] * 3, max_new_tokens=12, **DRAWN)
    assert [text for text, _ in answers] == [model.processor.decode(one) for one in tokens]
    assert len({text for text, _ in answers}) > 1
    assert usage.completion_tokens == sum(len(one) + (len(one) < 12) for one in tokens)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_answer_ends_before_a_stop(client, model, stream):
    text = model.generate(about_image(), max_new_tokens=12)
    middle = text[len(text) // 2 : len(text) // 2 + 2]
    (answer,), usage = ask(client, about_image(), stop=["not there", middle], stream=stream)
    assert answer == (text[: text.index(middle)], "stop")
    tokens = model.generate_tokens([about_image()], max_new_tokens=12)[0]
    fewest = next(count for count in range(13) if middle in model.processor.decode(tokens[:count]))
    assert usage.completion_tokens == fewest


def test_an_answer_is_as_long_as_asked_and_else_as_the_server_says(speaker):
    for options, length in (({"max_tokens": None}, 16), ({"max_tokens": None, "max_completion_tokens": 3}, 3)):
        (answer,), usage = ask(speaker.client, HELLO, **options)
        assert answer == (speaker.model.generate(HELLO, max_new_tokens=length), "length")
        assert usage.completion_tokens == length


def test_without_a_seed_drawn_answers_differ(client):
    assert len({ask(client, HELLO, temperature=2.0)[0][0][0] for _ in range(5)}) > 1


def test_the_list_of_models_names_the_one(client, server):
    assert [one.id for one in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).object == "model"
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        client.models.retrieve("another/model")
    assert server.request("GET", "/health") == (
        200,
        pytest.approx(server.request("GET", "/health")[1]),
        {"status": "ok"},
    )


def test_fifty_requests_at_once_are_all_answered_each_as_alone(server, client, model, monkeypatch):
    asked = [
        (messages, {"max_tokens": limit, **sampling})
        for limit in (3, 12)
        for messages in (about_image(), about_image("What colour?"), THAI, HELLO, TURNS)
        for sampling in ({}, {"temperature": 1.0, "seed": 1}, DRAWN, {"temperature": 0.9, "top_p": 0.7, "seed": 3}, {})
    ]
    assert len(asked) == 50
    expected = {}
    for messages, options in asked:
        settings = {key: value for key, value in options.items() if key != "max_tokens"}
        key = json.dumps([messages, options])
        if key not in expected:
            expected[key] = model.generate(messages, max_new_tokens=options["max_tokens"], **settings)
    batches, begin = [], model.begin
    monkeypatch.setattr(model, "begin", lambda prompts: batches.append(len(prompts)) or begin(prompts))
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda one: ask(client, one[0], stream=len(one[1]) % 2 == 0, **one[1])[0], asked))
    assert [answers[0][0] for answers in found] == [expected[json.dumps(list(one))] for one in asked]
    assert sum(batches) == 50 and max(batches) == 8 and len(batches) < 25
    assert server.places.requests == server.places.bytes == 0


class Gate:
    """Holds the model before each batch, until it is opened."""

    def __init__(self, model, monkeypatch):
        self.entered, self.opened, self.batches = threading.Event(), threading.Event(), []
        begin = model.begin

        def held(prompts):
            self.batches.append(len(prompts))
            self.entered.set()
            assert self.opened.wait(60)
            return begin(prompts)

        monkeypatch.setattr(model, "begin", held)


def test_when_the_queue_is_full_a_request_is_told_when_to_come_again(model, monkeypatch):
    gate = Gate(model, monkeypatch)
    with served(model, batch=1, queue=1) as small, client_of(small) as client, ThreadPoolExecutor(3) as pool:
        taken = [pool.submit(ask, client, HELLO) for _ in range(2)]
        assert eventually(lambda: small.places.requests == 2) and gate.entered.wait(20)
        with pytest.raises(openai.RateLimitError, match="2 requests wait already; try again in") as error:
            ask(client, about_image())
        assert 1 <= int(error.value.response.headers["retry-after"]) <= 60
        gate.opened.set()
        assert taken[0].result() == taken[1].result()
        assert ask(client, HELLO) == taken[0].result()


def test_a_client_that_goes_away_while_it_waits_is_never_answered(server, client, model, monkeypatch):
    gate = Gate(model, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, client, HELLO)
        assert gate.entered.wait(20)
        with pytest.raises(openai.APITimeoutError):
            ask(client.with_options(timeout=0.5), THAI)
        assert eventually(lambda: server.places.requests == 1)
        gate.opened.set()
        first.result()
    assert ask(client, HELLO) == first.result()
    assert gate.batches == [1, 1]


def test_a_stream_that_is_closed_ends_its_answer_and_frees_its_place(speaker, monkeypatch):
    places, opened, finished, advance = speaker.server.places, threading.Event(), [], Answering.advance

    def held(self, tokens):
        assert self._count == 1 or opened.wait(20)
        advance(self, tokens)

    finish = Answering.finish
    monkeypatch.setattr(Answering, "advance", held)
    monkeypatch.setattr(Answering, "finish", lambda self, row: finished.append(self._count) or finish(self, row))
    stream = speaker.client.chat.completions.create(model=NAME, messages=HELLO, stream=True, max_tokens=2000)
    next(iter(stream))
    assert places.requests == 1
    stream.close()
    assert eventually(lambda: places.requests == 0)
    opened.set()
    assert ask(speaker.client, HELLO, max_tokens=3)[0][0][0] == speaker.model.generate(HELLO, max_new_tokens=3)
    assert finished[0] <= 9 and finished[1:] == [3, 3]


def test_a_model_that_fails_is_told_and_the_next_request_is_answered(model, monkeypatch):
    with served(model) as other, client_of(other) as client:
        with monkeypatch.context() as patched:
            patched.setattr(model, "begin", lambda prompts: (_ for _ in ()).throw(RuntimeError("of /secret/file")))
            for stream in (False, True):
                with pytest.raises(openai.InternalServerError, match="the model failed") as error:
                    ask(client, HELLO, stream=stream)
                assert "secret" not in str(error.value)
        assert other.reports == ["error: a batch of 1 requests failed: RuntimeError: of /secret/file"] * 2
        assert ask(client, HELLO)[0][0][0] == model.generate(HELLO, max_new_tokens=12)


def test_those_that_wait_are_told_when_the_server_stops(model, monkeypatch):
    gate = Gate(model, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        with served(model, batch=1) as other:
            client = client_of(other)
            waiting = [pool.submit(ask, client, HELLO, stream=stream) for stream in (False, True)]
            assert gate.entered.wait(20) and eventually(lambda: other.places.requests == 2)
            threading.Timer(1.0, gate.opened.set).start()
        for one in waiting:
            with pytest.raises(openai.InternalServerError, match="is being stopped"):
                one.result()


def is_error(found, status, code, param=None):
    error = found[2]["error"]
    assert set(found[2]) == {"error"} and set(error) == {"message", "type", "param", "code"}
    assert (found[0], error["code"], error["param"]) == (status, code, param), error
    assert error["message"] and "\n" not in error["message"]
    return error["message"]


def body(**fields):
    return {"model": NAME, "messages": HELLO, "max_tokens": 4, **fields}


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b"\xff", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'{"model": "a", "model": "b"}', 400, "invalid_json"),
        (b'{"temperature": NaN}', 400, "invalid_json"),
        (b'{"model": "\\ud800"}', 400, "invalid_json"),
        (b"1" * 10_000, 400, "invalid_json"),
    ],
)
def test_what_is_no_json_of_a_request_is_refused(server, data, status, code):
    is_error(server.request(body=data), status, code)


def image_part(url):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def png(width, height, mode="1"):
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": None}, 400, "missing_required_parameter", "model"),
        ({"model": "gpt-7"}, 404, "model_not_found", "model"),
        ({"messages": None}, 400, "missing_required_parameter", "messages"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": "Hi"}, 400, "invalid_type", "messages"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": "Hi", "weight": 1}]}, 400, None, "messages"),
        ({"messages": image_part("https://example.org/a.png")}, 400, "invalid_image_url", "messages"),
        ({"messages": image_part(str(IMAGE))}, 400, "invalid_image_url", "messages"),
        ({"messages": image_part(f"file://{IMAGE}")}, 400, "invalid_image_url", "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "image": str(IMAGE)}]}]},
            400,
            "invalid_image_url",
            "messages",
        ),
        ({"messages": image_part("data:image/png;base64,####")}, 400, "invalid_value", "messages"),
        ({"messages": image_part("data:image/png,AAAA")}, 400, "invalid_value", "messages"),
        ({"messages": image_part(URI[: len(URI) // 2])}, 400, "invalid_value", "messages"),
        ({"messages": image_part(png(10_000, 9_000))}, 400, "invalid_value", "messages"),
        (
            {"messages": [{"role": "user", "content": image_part(png(9_000, 9_000))[0]["content"] * 2}]},
            400,
            "images_too_large",
            "messages",
        ),
        ({"messages": [{"role": "user", "content": "word " * 5_000}]}, 400, "context_length_exceeded", "messages"),
        ({"max_tokens": 5_000}, 400, "context_length_exceeded", "messages"),
        ({"max_tokens": 200_000}, 400, "context_length_exceeded", "messages"),
        ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
        ({"max_completion_tokens": 5}, 400, None, "max_tokens"),
        ({"temperature": -1}, 400, "invalid_value", "temperature"),
        ({"temperature": True}, 400, "invalid_type", "temperature"),
        ({"top_p": 0}, 400, "invalid_value", "top_p"),
        ({"seed": 2**63}, 400, "invalid_value", "seed"),
        ({"n": 9}, 400, "invalid_value", "n"),
        ({"stop": [""]}, 400, "invalid_type", "stop"),
        ({"stop": ["a"] * 5}, 400, "invalid_value", "stop"),
        ({"stream": "yes"}, 400, "invalid_type", "stream"),
        ({"stream_options": {"include_usage": True}}, 400, None, "stream_options"),
        ({"stream": True, "stream_options": {"more": 1}}, 400, "unknown_parameter", "stream_options.more"),
        ({"response_format": {"type": "json_object"}}, 400, "unsupported_parameter", "response_format"),
        ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
        ({"logprobs": True}, 400, "unsupported_parameter", "logprobs"),
        ({"frequency_penalty": 0.5}, 400, "unsupported_parameter", "frequency_penalty"),
        ({"beams": 4}, 400, "unknown_parameter", "beams"),
    ],
)
def test_a_bad_request_gets_the_error_form_of_the_api(server, fields, status, code, param):
    is_error(server.request(body=body(**fields)), status, code, param)


def test_parameters_that_ask_for_the_default_are_taken(server):
    defaults = {
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "logit_bias": {},
        "logprobs": False,
        "n": 1,
        "response_format": {"type": "text"},
        "stop": None,
        "store": False,
        "tool_choice": "none",
        "top_p": 1.0,
        "user": "somebody",
    }
    assert server.request(body=body(**defaults))[2]["choices"] == server.request(body=body())[2]["choices"]


def test_a_request_that_is_too_large_is_told_whether_or_not_it_says_so(server):
    data = b" " * (places.MAX_BODY + 1)
    is_error(server.request(body=data), 413, "request_too_large")

    def chunks():
        for start in range(0, len(data), 1 << 20):
            yield data[start : start + (1 << 20)]

    url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
    found = httpx2.post(url, content=chunks(), headers={"Content-Type": "application/json"}, timeout=60)
    is_error((found.status_code, {}, found.json()), 413, "request_too_large")
    assert server.places.bytes == 0


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 403, "wrong_host"),
        ({"Host": "evil.example:8000"}, 403, "wrong_host"),
        ({"Host": "127.0.0.1.evil.example"}, 403, "wrong_host"),
        ({"Host": "[::1"}, 403, "wrong_host"),
        ({"Origin": "https://evil.example"}, 403, "wrong_origin"),
        ({"Origin": "null"}, 403, "wrong_origin"),
        ({"Origin": "http://127.0.0.1:1"}, 403, "wrong_origin"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "wrong_origin"),
        ({"Content-Type": "text/plain"}, 415, "wrong_content_type"),
        ({"Content-Type": None}, 415, "wrong_content_type"),
    ],
)
def test_requests_of_other_sites_and_names_are_refused(server, headers, status, code):
    is_error(server.request(body=body(), headers=headers), status, code)


def test_requests_to_names_of_this_machine_are_answered(server):
    for name in ("localhost", f"LOCALHOST:{server.port}", f"127.0.0.1:{server.port}", "[::1]:80"):
        assert server.request(body=body(), headers={"Host": name, "Origin": f"http://{name}"})[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/completions", 404),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/v1/models/", 404),
        ("GET", "/", 404),
    ],
)
def test_paths_that_are_not_there_are_told_in_the_same_form(server, method, path, status):
    found = server.request(method, path)
    assert found[0] == status and set(found[2]["error"]) == {"message", "type", "param", "code"}


def test_a_token_is_asked_for_before_anything_else(model):
    with served(model, host="0.0.0.0", token="right-token") as other:
        for bearer in (None, "Bearer wrong", "Bearer right-token2", "Basic right-token", "Bearer \xe9", "Bearer"):
            for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/nowhere")):
                message = is_error(
                    other.request(method, path, body(), {"Authorization": bearer}), 401, "invalid_api_key"
                )
                assert "right" not in message
        assert other.request("GET", "/health", headers={"Host": "model.example"})[0] == 200
        with client_of(other, api_key="right-token") as client:
            assert ask(client, HELLO)[0][0][0] == model.generate(HELLO, max_new_tokens=12)
        assert other.reports == []


def test_weights_that_are_no_numbers_are_told_by_name():
    model = vlm_jax.load(Path(vlm_jax.__file__).parent / "assets" / "tiny_base")
    scale = np.array(model.parameters["decoder/norm/scale"])
    scale[3] = np.nan
    model.parameters = {**model.parameters, "decoder/norm/scale": scale}
    with served(model) as other:
        message = is_error(other.request(body=body()), 500, "internal_error")
        assert "the model computes NaN: decoder/norm/scale" in message
