"""OpenAI's own client gets the vectors of the encoder, or of the model; what is not honoured is refused by its name."""

import base64

import numpy as np
import openai
import pytest

import vlm_jax
from tests.serving.served import NAME, client_of, served
from tests.tiny_encoders import TEXTS, save_clip

PATH = "/v1/embeddings"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    save_clip(folder)
    return vlm_jax.load_encoder(folder)


@pytest.fixture(scope="module")
def both(model, clip):
    """The server of a model with an encoder beside it."""
    with served(model, encoder=clip, encoder_name=clip.name) as server:
        yield server


def test_the_client_gets_the_encoders_vectors_in_either_form(both, clip):
    texts = [text for text in TEXTS if text]
    with client_of(both) as client:
        found = client.embeddings.create(model="tiny-clip", input=texts)  # base64, as the client asks by itself
        plain = client.embeddings.create(model="tiny-clip", input=texts[0], encoding_format="float")
        assert [model.id for model in client.models.list()] == [NAME, "tiny-clip"]
    np.testing.assert_allclose([item.embedding for item in found.data], clip.encode_texts(texts), atol=1e-6)
    np.testing.assert_allclose(plain.data[0].embedding, clip.embed(texts[0]), atol=1e-6)
    assert [item.index for item in found.data] == [0, 1, 2] and found.model == "tiny-clip"
    assert found.usage.prompt_tokens == found.usage.total_tokens == sum(clip.token_counts(texts))


def test_without_an_encoder_the_model_embeds(server, client, model):
    found = client.embeddings.create(model=NAME, input="a red lamp")
    np.testing.assert_allclose(found.data[0].embedding, model.embed("a red lamp"), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": [1, 2]}, "input", "lists of tokens are not read"),
        ({"input": []}, "input", "must be a text or a list of texts"),
        ({"input": ["a", ""]}, "input", "has an empty text, number 2"),
        ({"input": ["a"] * 2049}, "input", "has 2,049 texts; send at most 2,048"),
        ({"encoding_format": "int8"}, "encoding_format", "must be one of float, base64"),
        ({"dimensions": 7}, "dimensions", "dimensions is 7; vectors of tiny-clip have 20 values"),
        ({"dimensions": 7.5}, "dimensions", "must be a whole number"),
        ({"truncate": True}, "truncate", "'truncate' is not a known parameter"),
        ({"model": None}, "model", "is missing"),
    ],
)
def test_what_is_not_honoured_is_refused_by_its_name(both, fields, param, words):
    status, _, body = both.request(path=PATH, body={"model": "tiny-clip", "input": "a", **fields})
    assert status == 400 and body["error"]["param"] == param and words in body["error"]["message"]


def test_another_model_another_method_and_another_type_are_refused(both):
    with client_of(both) as client, pytest.raises(openai.NotFoundError, match="'tiny-clip' is"):
        client.embeddings.create(model=NAME, input="a")
    assert both.request("GET", PATH)[0] == 405
    assert both.request(path=PATH, body={}, headers={"Content-Type": "text/plain"})[0] == 415


def test_base64_is_of_little_endian_float32(both, clip):
    body = {"model": "tiny-clip", "input": "a", "encoding_format": "base64", "dimensions": 20, "user": "me"}
    text = both.request(path=PATH, body=body)[2]["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(text), "<f4"), clip.embed("a"), atol=1e-6)
