"""Several questions about one image, answered together: it is read once, and nothing else changes."""

import numpy as np
import pytest
import torch

import vlm_jax
from tests.tiny_models import PHOTOS, assistant, noise, reference_inputs, save_tiny, user
from vlm_jax.inference import batches

CAT, CUP = str(PHOTOS / "chelsea.jpg"), str(PHOTOS / "coffee.jpg")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return folder, save_tiny(folder, layers=2, depth=2, global_blocks=(1,), max_visual_tokens=16)


@pytest.fixture(scope="module")
def model(made):
    return vlm_jax.load(made[0])


def questions(tmp_path):
    first = [user("What is it called?", CAT)]
    return [
        first,
        [user("What is in it?", CUP)],
        [user("Hello")],
        [user("And what colour is it? Say it in many words", CAT)],
        first,
        [user("What is it called", CAT)],
        [user("Which is larger?", noise(tmp_path, 84, 140))],
        [user("Is it full?", CUP)],
        [*first, assistant("Chelsea"), user("Is it asleep?")],
        [user("Two images", CAT), assistant("No"), user("Now", CUP)],
    ]


def alone(model, conversations, **how):
    found = []
    for conversation in conversations:
        model.forget()
        found += model.answers([conversation], 8, **how)
    return found


def check(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        assert one.stopped == other.stopped
        np.testing.assert_allclose(one.log_probability, other.log_probability, rtol=1e-4)


@pytest.mark.parametrize("penalty", [None, 1.4])
def test_each_is_answered_as_alone_and_an_image_is_looked_at_once(model, tmp_path, penalty):
    conversations = questions(tmp_path)
    expected = alone(model, conversations, repetition_penalty=penalty)
    before = model.images_encoded
    check(model.answers(conversations, 8, repetition_penalty=penalty), expected)
    assert model.images_encoded - before == 3 + 2  # one conversation has two of its own
    before = model.images_encoded
    check(model.answers(conversations, 8, repetition_penalty=penalty, at_once=3), expected)
    assert model.images_encoded - before <= 7


def test_drawn_answers_are_those_of_prompts_that_are_read_apart(model, tmp_path):
    conversations, how = questions(tmp_path), {"temperature": 1.0, "top_p": 0.9, "seed": 3}
    found = model.answers(conversations, 8, **how)
    # Each has the draws of its place in the list; `at_once=1` reads them one by one.
    check(found, model.answers(conversations, 8, at_once=1, **how))
    assert not np.array_equal(found[0].tokens, found[4].tokens)


@pytest.mark.parametrize("method, shared", [("divprune", True), ("cdpruner", False), ("fastv", False)])
def test_where_a_question_decides_what_is_seen_nothing_is_shared(made, tmp_path, method, shared):
    layer = {"token_reduction_layer": 1} if method == "fastv" else {}
    model = vlm_jax.load(made[0], visual_tokens=0.5, token_reduction=method, **layer)
    conversations = questions(tmp_path)[:4]
    expected = alone(model, conversations)
    before = model.images_encoded
    check(model.answers(conversations, 8), expected)
    assert model.images_encoded - before == (2 if shared else 3)


def test_an_image_that_comes_after_other_words_is_read_with_them(model):
    image = {"type": "image", "image": CAT}
    conversations = [
        [{"role": "user", "content": [{"type": "text", "text": words}, image, {"type": "text", "text": "?"}]}]
        for words in ("What is", "Who is")
    ]
    check(model.answers(conversations, 8), alone(model, conversations))


def test_the_probability_of_an_answer_is_that_of_transformers(made, model):
    folder, theirs = made
    messages = [user("What is it called?", CAT)]
    inputs = reference_inputs(folder, model.processor.tokenizer, messages, generation_prompt=True)
    with torch.no_grad():
        told = theirs.generate(
            **inputs, max_new_tokens=8, do_sample=False, output_scores=True, return_dict_in_generate=True
        )
    scores = theirs.compute_transition_scores(told.sequences, told.scores, normalize_logits=True)
    model.forget()
    (found,) = model.answers([messages], 8)
    np.testing.assert_allclose(found.log_probability, float(scores.sum()), rtol=1e-4)
    assert 0 < found.probability < 1 and np.isclose(np.log(found.probability), found.log_probability)


def test_a_batch_is_as_large_as_memory_holds(model, tmp_path):
    examples = [model.prompt(conversation, 8) for conversation in questions(tmp_path)]
    limits = [8] * len(examples)
    assert sorted(sum(batches.in_batches(examples, limits, most=16), [])) == list(range(10))
    (whole,) = batches.in_batches(examples, limits, most=16)
    first, *_, last = sorted(whole.index(number) for number in (0, 3, 4, 5))
    assert last - first == 3, "those of one image stand together"
    fits = batches.Fits(model.config, 4, 0)
    sizes = [example.size for example in examples]
    fits.memory = fits.bytes_of(sizes[:4], 8)
    parts = batches.in_batches(examples, limits, most=16, fits=fits)
    assert sorted(sum(parts, [])) == list(range(10)) and len(parts) > 2
    assert all(len(part) == 1 or fits.bytes_of([sizes[n] for n in part], 8) <= fits.memory for part in parts)
    fits.memory = 0
    assert batches.in_batches(examples, limits, most=16, fits=fits) == [[n] for n in whole]
