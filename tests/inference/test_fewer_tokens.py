"""Conversations with fewer visual tokens: caches that go on answer as a fresh reading does."""

import numpy as np
import pytest

import vlm_jax
from tests.tiny_models import PHOTOS, assistant, noise, save_tiny, user
from vlm_jax.inference import prefixes
from vlm_jax.processing.token_budget import TokenBudget


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Layers enough for every method that leaves tokens out between them; features of the tower go to two of them."""
    folder = tmp_path_factory.mktemp("deep")
    save_tiny(folder, family="qwen3_vl", layers=4, depth=2, global_blocks=(0, 1), max_visual_tokens=16)
    return folder


@pytest.mark.parametrize("method", ["divprune", "cdpruner"])
def test_a_conversation_that_goes_on_answers_as_one_that_is_read_anew(base, tmp_path, method):
    options = {"dtype": "float32", "visual_tokens": 0.4, "token_reduction": method}
    model, fresh = vlm_jax.load(base, **options), vlm_jax.load(base, **options)
    cat, other = str(PHOTOS / "chelsea.jpg"), noise(tmp_path, 28 * 4, 28 * 3)
    messages = [user("What is the cat called?", cat)]
    for question in (user("And this?", other), user("Which is larger?")):
        answer = model.generate_tokens([messages], max_new_tokens=4)[0]
        fresh.forget()
        np.testing.assert_array_equal(fresh.generate_tokens([messages], max_new_tokens=4)[0], answer)
        messages = [*messages, assistant(model.processor.decode(answer)), question]
    before = model.images_encoded
    together = model.generate_tokens([messages, [user("What?", other)]], max_new_tokens=4)
    fresh.forget()
    for conversation, answer in zip([messages, [user("What?", other)]], together, strict=True):
        fresh.forget()
        np.testing.assert_array_equal(fresh.generate_tokens([conversation], max_new_tokens=4)[0], answer)
    assert model.images_encoded > before


@pytest.mark.parametrize("one_by_one", [True, False])
def test_what_is_left_out_within_the_decoder_is_in_no_cache_above_it_and_words_go_on_from_there(
    base, deep, tmp_path, one_by_one
):
    """Where layers are scanned in their stack, as on an accelerator, with four ranges of them, else with two."""
    options = {"visual_tokens": 0.4, "token_reduction": "pyramiddrop"}
    if one_by_one:
        options |= {"token_reduction": "fastv", "token_reduction_layer": 1}
    model, fresh = (vlm_jax.load(base if one_by_one else deep, dtype="float32", **options) for _ in range(2))
    for one in (model, fresh):
        one._decoder.one_by_one = one_by_one
    messages = [user("What is the cat called?", str(PHOTOS / "chelsea.jpg"))]
    answer = model.generate_tokens([messages], max_new_tokens=4)[0]
    (prefix,) = model._reader.kept.values()
    example = model.processor.encode(messages, generation_prompt=True)
    counts = np.asarray(prefix.state.lengths)[:, 0]
    assert (counts[0] - counts[1:]).tolist() == [example.size.tokens - above for above in example.size.above]
    encoded = model.images_encoded
    more = [*messages, assistant(model.processor.decode(answer)), user("Which is larger?")]
    found = model.generate_tokens([more], max_new_tokens=4)[0]
    assert model.images_encoded == encoded, "the image is in the cache"
    np.testing.assert_array_equal(fresh.generate_tokens([more], max_new_tokens=4)[0], found)
    # Another question is another image, also one that begins alike; and another image is read with all before it.
    other = [user("What is the", str(PHOTOS / "chelsea.jpg"))]
    both = [*more, assistant("This"), user("And this?", noise(tmp_path, 28 * 4, 28 * 3))]
    together = model.generate_tokens([other, both], max_new_tokens=4)
    assert model.images_encoded == encoded + 3
    for conversation, found in zip([other, both], together, strict=True):
        np.testing.assert_array_equal(model.generate_tokens([conversation], max_new_tokens=4)[0], found)
    assert model.images_encoded == encoded + 6


def test_where_the_question_decides_another_question_is_another_image(base):
    model = vlm_jax.load(base, dtype="float32", visual_tokens=0.4, token_reduction="cdpruner")
    cat = str(PHOTOS / "chelsea.jpg")
    model.generate([user("What is the cat called?", cat)], max_new_tokens=2)
    encoded = model.images_encoded
    model.generate([user("Which colour has the table?", cat)], max_new_tokens=2)
    assert model.images_encoded == encoded + 1, "which tokens stay follows from the question"
    model.generate([user("Which colour has the table?", cat)], max_new_tokens=2)
    assert model.images_encoded == encoded + 1


def test_a_question_before_its_image_is_read_with_each_image(base, tmp_path):
    """In the order of OpenAI's examples the words that decide stand in what another conversation shares."""
    options = {"dtype": "float32", "visual_tokens": 0.25, "token_reduction": "cdpruner"}
    model, fresh = vlm_jax.load(base, **options), vlm_jax.load(base, **options)

    def conversation(path):
        content = [{"type": "text", "text": "What is the cat called, and which colour has the table below it?"}]
        return [{"role": "user", "content": [*content, {"type": "image", "image": path}]}]

    model.generate(conversation(str(PHOTOS / "chelsea.jpg")), max_new_tokens=2)
    other = conversation(noise(tmp_path, 28 * 4, 28 * 4))
    found = model.generate_tokens([other], max_new_tokens=8)[0]
    np.testing.assert_array_equal(found, fresh.generate_tokens([other], max_new_tokens=8)[0])
    example = model.processor.encode(other, generation_prompt=True)
    words = np.flatnonzero(example.candidates.question_words)
    # Nothing of the question may be taken from the other conversation's cache.
    shared, _ = prefixes.longest(model._reader.kept, example, (b"another",))
    assert shared <= words[0]


def test_other_tokens_of_the_same_image_are_another_image(base):
    """A page lets visitors choose them: as many of them are in the same places of a cache, whichever they are."""
    model = vlm_jax.load(base, dtype="float32", visual_tokens=1.0)
    every, messages = model.processor, [user("What is the cat called?", str(PHOTOS / "chelsea.jpg"))]

    def answers(*, forget):
        found = {}
        for method in ("uniform", "random", "divprune", "resize"):
            model.processor = every.with_reduction(TokenBudget(0.4, method))
            if forget:
                model.forget()
            found[method] = model.answers([messages], 4)[0].log_probability
        return found

    fresh = answers(forget=True)
    assert len({round(probability, 3) for probability in fresh.values()}) == 4, "they differ"
    model.forget()
    for _ in range(2):
        assert answers(forget=False) == pytest.approx(fresh, abs=1e-4)
