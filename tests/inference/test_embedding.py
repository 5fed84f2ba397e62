"""A model's vector of a text or an image is transformers' last hidden state, where it would begin to answer."""

import numpy as np
import pytest
import torch

import vlm_jax
from tests.tiny_models import ONE_LAYER, PHOTOS, reference_inputs, save_tiny
from vlm_jax.errors import InputError
from vlm_jax.inference import embedding

IMAGE = str(PHOTOS / "chelsea.jpg")
ITEMS = [("a cat", None), (None, IMAGE), ("a cat", IMAGE), ("a much longer text about a rocket on its way", None)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedding") / "model"
    return save_tiny(folder, **ONE_LAYER), folder, vlm_jax.load(folder)


def test_vectors_are_the_last_hidden_state_of_the_question_for_one_word(pair):
    reference, folder, model = pair
    found = model.embeddings(ITEMS)
    assert found.dtype == np.float32 and found.shape == (len(ITEMS), model.config.decoder.hidden)
    for (text, image), vector in zip(ITEMS, found, strict=True):
        messages = embedding.conversation(text, image)
        inputs = reference_inputs(folder, model.processor.tokenizer, messages, generation_prompt=True)
        with torch.no_grad():
            hidden = reference(**inputs, output_hidden_states=True).hidden_states[-1][0, -1].numpy()
        np.testing.assert_allclose(vector, hidden / np.linalg.norm(hidden), atol=1e-5)
    np.testing.assert_allclose(model.embed(*ITEMS[2]), found[2], atol=1e-5)


def test_a_text_an_image_and_both_are_asked_in_their_own_words(pair):
    words = [embedding.conversation(*item)[0]["content"][-1]["text"] for item in ITEMS[:3]]
    assert words[0] == "a cat\nSummary above sentence in one word: "
    assert words[1] == "Summary above image in one word: "
    assert words[2].startswith("a cat\nSummary above image and sentence")


def test_nothing_to_embed_is_refused_and_no_items_are_no_vectors(pair):
    model = pair[2]
    assert model.embeddings([]).shape == (0, model.config.decoder.hidden)
    with pytest.raises(InputError, match="there is nothing to embed: give a text, an image, or both"):
        model.embed()


def test_weights_that_are_no_numbers_are_said_to_be_none():
    with pytest.raises(InputError, match="the model computes NaN"):
        embedding.unit(np.array([[1.0, np.nan]], np.float32))


def test_a_model_folder_is_an_encoder_too(pair):
    model, folder = pair[2], pair[1]
    encoder = vlm_jax.load_encoder(folder)
    np.testing.assert_allclose(encoder.encode_texts(["a cat"])[0], model.embed("a cat"), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_images([IMAGE])[0], model.embed(image=IMAGE), atol=1e-6)
    assert encoder.fingerprint() == vlm_jax.load_encoder(str(folder)).fingerprint()
    assert encoder.dimension == model.config.decoder.hidden and encoder.longest is None
