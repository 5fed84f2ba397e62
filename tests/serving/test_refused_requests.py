"""Whatever cannot be answered gets OpenAI's form of errors, and nothing is fetched or opened for it."""

import base64
import io
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

import vlm_jax
from tests.serving.served import HELLO, NAME, ask, client_of, served
from tests.tiny_models import PHOTOS
from vlm_jax.serving import places

IMAGE = PHOTOS / "chelsea.jpg"
URI = f"data:image/jpeg;base64,{base64.b64encode(IMAGE.read_bytes()).decode()}"


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
        ({"messages": [{"role": "user", "content": "Hi", "weight": 1}]}, 400, "unknown_key", "messages"),
        ({"messages": image_part("https://example.org/a.png")}, 400, "invalid_image_url", "messages"),
        ({"messages": image_part(str(IMAGE))}, 400, "invalid_image_url", "messages"),
        ({"messages": image_part(f"file://{IMAGE}")}, 400, "invalid_image_url", "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "image": str(IMAGE)}]}]},
            400,
            "invalid_image_url",
            "messages",
        ),
        ({"messages": image_part("data:image/png;base64,####")}, 400, "invalid_image_url", "messages"),
        ({"messages": image_part("data:image/png,AAAA")}, 400, "invalid_image_url", "messages"),
        ({"messages": image_part(URI[: len(URI) // 2])}, 400, "invalid_value", "messages"),
        ({"messages": image_part(png(10_000, 9_000))}, 400, "invalid_value", "messages"),
        (
            {"messages": [{"role": "user", "content": image_part(png(9_000, 9_000))[0]["content"] * 2}]},
            400,
            "images_too_large",
            "messages",
        ),
        ({"messages": [{"role": "user", "content": "word " * 5_000}]}, 400, "context_length_exceeded", "messages"),
        ({"max_tokens": 5_000}, 400, "context_length_exceeded", "max_tokens"),
        (
            {"max_tokens": None, "max_completion_tokens": 200_000},
            400,
            "context_length_exceeded",
            "max_completion_tokens",
        ),
        ({"user": 5}, 400, "invalid_type", "user"),
        ({"metadata": 5}, 400, "invalid_type", "metadata"),
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
        "metadata": {"purpose": "a test"},
        "reasoning_effort": None,
        "beams": None,
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
        ({"Content-Encoding": "gzip"}, 415, "wrong_content_encoding"),
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


def test_a_token_is_asked_for_before_anything_else(server):
    with served(server.model, host="0.0.0.0", token="right-token") as other:
        for bearer in (None, "Bearer wrong", "Bearer right-token2", "Basic right-token", "Bearer \xe9", "Bearer"):
            for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/nowhere")):
                message = is_error(
                    other.request(method, path, body(), {"Authorization": bearer}), 401, "invalid_api_key"
                )
                assert "right" not in message
        assert other.request("GET", "/health", headers={"Host": "model.example"})[0] == 200
        with client_of(other, api_key="right-token") as client:
            assert ask(client, HELLO)[0][0][0] == other.model.generate(HELLO, max_new_tokens=12)
        assert other.reports == []


def test_images_of_more_patches_than_are_seen_at_one_time_are_refused(server):
    # 16 patches of a small image fill a window of 64.
    fits = [{"role": "user", "content": image_part(png(56, 56))[0]["content"] * 4}]
    with served(server.model, patches=256) as other:
        assert other.request(body=body(messages=fits))[0] == 200
        for fields in (
            {"messages": [{"role": "user", "content": image_part(png(56, 56))[0]["content"] * 5}]},
            {"messages": fits, "n": 2},
        ):
            message = is_error(other.request(body=body(**fields)), 400, "images_too_large", "messages")
            assert "this server sees 256 at one time (--patches)" in message


def test_weights_that_are_no_numbers_are_told_by_name():
    model = vlm_jax.load(Path(vlm_jax.__file__).parent / "assets" / "tiny_base")
    scale = np.array(model.parameters["decoder/norm/scale"])
    scale[3] = np.nan
    model.parameters = {**model.parameters, "decoder/norm/scale": scale}
    with served(model) as other:
        message = is_error(other.request(body=body()), 500, "internal_error")
        assert "the model computes NaN: decoder/norm/scale" in message
