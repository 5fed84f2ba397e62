"""Copies of a model on several devices, and what they answer together."""

import jax
import numpy as np
import pytest

import vlm_jax
from tests.tiny_models import ONE_LAYER, PHOTOS, assistant, save_tiny, user
from vlm_jax.errors import InputError
from vlm_jax.inference.answering import Prompt
from vlm_jax.inference.copies import Copies, _parts
from vlm_jax.inference.sampling import Sampling


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, **ONE_LAYER)
    return vlm_jax.load(folder)


def prompts(model):
    questions = [user("What is it?", PHOTOS / "chelsea.jpg"), user("Hello"), user("And now?", PHOTOS / "chelsea.jpg")]
    questions += [user("word " * (5 * number)) for number in range(1, 5)]
    return [
        Prompt(model.prompt([question], 6), 6, Sampling(temperature=float(number % 2), seed=1), number)
        for number, question in enumerate(questions)
    ]


def test_several_devices_answer_as_one(model):
    asked = prompts(model)
    expected = dict(model.answer_each(asked))
    copies = Copies(model, jax.local_devices()[:3])
    found = dict(copies.answer_each(asked))
    assert sorted(found) == sorted(expected) == list(range(len(asked)))
    for number in expected:
        np.testing.assert_array_equal(found[number].tokens, expected[number].tokens)
        np.testing.assert_allclose(found[number].log_probability, expected[number].log_probability, rtol=1e-4)
    for copy, device in zip(copies.models, jax.local_devices(), strict=False):
        assert {leaf.device for leaf in jax.tree.leaves(copy.parameters)} == {device}


def whole(model):
    """Values of all parameters on the first of a model's devices, and on all together."""
    leaves = jax.tree.leaves(model.parameters)
    return sum(leaf.addressable_shards[0].data.size for leaf in leaves), sum(leaf.size for leaf in leaves)


@pytest.mark.parametrize("quantise", [None, pytest.param("int8", marks=pytest.mark.evidence)])
def test_weights_that_are_divided_among_devices_answer_as_on_one(tmp_path, quantise):
    save_tiny(tmp_path, **{**ONE_LAYER, "layers": 2}, heads=4, head_dim=64)  # small arrays lie on every device
    model, divided = (vlm_jax.load(tmp_path, quantise=quantise, tensor=tensor) for tensor in (1, 2))
    mine, every = whole(divided)
    assert mine < 0.75 * every and whole(model)[0] == every
    asked = prompts(model)
    expected = dict(model.answer_each(asked))
    copies = Copies(divided, jax.local_devices()[:4])
    assert [len(one.placement.devices) for one in copies.models] == [2, 2]
    assert whole(copies.models[1]) == (mine, every)
    for found in (dict(divided.answer_each(asked)), dict(copies.answer_each(asked))):
        for number in expected:
            np.testing.assert_array_equal(found[number].tokens, expected[number].tokens)
    talk = [user("What is it?", PHOTOS / "chelsea.jpg")]
    np.testing.assert_allclose(divided.logits(talk), model.logits(talk), atol=2e-5)
    # A conversation that goes on, from its cache.
    for one in (model, divided):
        one.forget()
        one.generate_tokens([talk], 4)
    more = [*talk, assistant("A cat."), user("And now?")]
    np.testing.assert_array_equal(divided.generate_tokens([more], 4)[0], model.generate_tokens([more], 4)[0])


def test_more_devices_than_there_are_are_refused(tmp_path):
    save_tiny(tmp_path, **ONE_LAYER)
    with pytest.raises(InputError, match="tensor is 9: weights are divided among 1 to 8 devices here"):
        vlm_jax.load(tmp_path, tensor=9)


def test_what_one_of_them_cannot_answer_is_raised(model):
    copies = Copies(model, jax.local_devices()[:2])
    broken = dict(copies.models[1].parameters)
    broken["decoder/norm/scale"] = broken["decoder/norm/scale"] * np.nan
    copies.models[1].parameters = broken
    with pytest.raises(InputError, match="the model computes NaN"):
        dict(copies.answer_each(prompts(model)))


def test_parts_have_about_as_many_tokens_and_keep_what_follows_together(model):
    asked = prompts(model)
    for count in (1, 2, 3, 8, 20):
        parts = _parts(asked, count)
        assert sum(parts, []) == list(range(len(asked))) and len(parts) <= count
    assert _parts([], 4) == [[]]
    first, second = _parts(asked, 2)
    tokens = [sum(len(asked[number].example.input_ids) for number in part) for part in (first, second)]
    assert max(tokens) <= sum(tokens) / 2 + max(len(prompt.example.input_ids) for prompt in asked)
