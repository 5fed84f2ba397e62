"""Several questions about one image, answered together: it is read once, and nothing else changes."""

import threading
import time

import numpy as np
import pytest
import torch

import vlm_jax
from tests.tiny_models import PHOTOS, assistant, noise, reference_inputs, save_tiny, user
from vlm_jax.inference import batches
from vlm_jax.inference.shared_prefixes import shared_prefixes

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


def instructed(tmp_path):
    """All begin with the same words and go on with other images, or none, one of them with the words alone."""
    words = "You name what a picture shows in one word and in small letters."
    system = {"role": "system", "content": [{"type": "text", "text": words}]}
    asked = [("What is it?", CAT), ("What is it called?", CUP), ("Hello", None), ("A what?", noise(tmp_path, 56, 56))]
    return [[system, user(text, image) if image else user(text)] for text, image in asked]


@pytest.mark.parametrize("method", [None, "divprune", "resize"])
def test_words_that_all_begin_with_are_read_once(made, model, tmp_path, method, monkeypatch):
    if method:
        model = vlm_jax.load(made[0], visual_tokens=0.5, token_reduction=method)
    conversations, read = instructed(tmp_path), []
    expected = alone(model, conversations, repetition_penalty=1.2)
    decoder = model._reader.decoder
    once = decoder.read
    monkeypatch.setattr(decoder, "read", lambda *args, **how: read.append(args[2].tokens.shape) or once(*args, **how))
    before = model.images_encoded
    check(model.answers(conversations, 8, repetition_penalty=1.2), expected)
    assert model.images_encoded - before == 3 and len(read) == 1 and read[0][0] == 1


def test_few_words_or_much_behind_them_are_read_as_a_whole(model, tmp_path):
    def prompts(conversations):
        return [model.prompt(conversation, 8) for conversation in conversations]

    conversations = instructed(tmp_path)
    found = shared_prefixes(prompts(conversations))
    (words,), suffixes = found.prefixes, found.suffixes
    whole = [prompt.input_ids.tolist() for prompt in prompts(conversations)]
    assert [[*words.input_ids, *suffix.input_ids] for suffix in suffixes] == whole and not words.images
    # A quarter of all there is to read, and no more behind them than is seen at one time.
    assert shared_prefixes(prompts([messages[1:] for messages in conversations[:1]])) is None
    long = [[*messages[:1], user("word " * 200)] for messages in conversations]
    assert shared_prefixes(prompts([*conversations, *long[:1]])) is None


def test_batches_side_by_side_come_in_order_and_end_with_the_caller():
    begun, both = [], threading.Barrier(2, timeout=60)

    def one(batch):
        begun.append(batch)
        if batch in ([0], [1]):
            both.wait()  # only two at one time pass
        if batch == [3]:
            raise ValueError("three")
        if batch[0] >= 10:
            time.sleep(0.02)
        return batch[0]

    numbers = [[number] for number in range(3)]
    assert list(batches.side_by_side(one, numbers, 2)) == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        list(batches.side_by_side(one, [*numbers, [3]], 2))
    begun.clear()
    found = batches.side_by_side(one, [[0], [1], *([number] for number in range(10, 500))], 2)
    assert next(found) == 0
    found.close()
    assert len(begun) < 490, "what was not begun never begins"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch")]


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
