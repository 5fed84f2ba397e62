"""Texts that can never fit are not tokenised whole, and come to the same as if they were."""

import copy

import numpy as np
import pytest
from transformers import AutoTokenizer

from tests.processing.test_chat import PUBLISHED_TEMPLATE, SETTINGS, assistant
from vlm_jax.processing.processor import Processor

MOST = 50


class Counting:
    """A tokenizer that notes the longest text it was given."""

    def __init__(self, tokenizer):
        self.tokenizer, self.longest = tokenizer, 0

    def __call__(self, text, **how):
        self.longest = max(self.longest, len(text))
        return self.tokenizer(text, **how)

    def __getattr__(self, name):
        return getattr(self.__dict__["tokenizer"], name)


@pytest.fixture
def whole(tokenizer_folder):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return Processor(Counting(tokenizer), SETTINGS, image_token=image_token, window_side=4, template=PUBLISHED_TEMPLATE)


@pytest.fixture
def cut(whole):
    other = copy.copy(whole)
    other.tokenizer, other.most_tokens = Counting(whole.tokenizer.tokenizer), MOST
    return other


def user(text, images=0):
    return {
        "role": "user",
        "content": [{"type": "image", "image": "a.png"}] * images + [{"type": "text", "text": text}],
    }


LONG = "What is the cat called? " * 20_000
SPACES = "What " + " " * 400_000 + "is it?"


@pytest.mark.parametrize(
    "messages",
    [
        [user(LONG), assistant("It")],
        [user("What?"), assistant(LONG)],
        [user("What?", 1), assistant("That."), user(LONG, 2), assistant("It.")],
        [user(LONG, 3), assistant(LONG), user("And?", 1), assistant("That.")],
    ],
)
def test_only_the_beginning_of_a_long_text_is_tokenised(whole, cut, messages):
    expected, found = whole.tokenize(messages), cut.tokenize(messages)
    assert cut.tokenizer.longest < 10_000 < 400_000 < whole.tokenizer.longest
    count = int(np.argmax(found.ids[: 2 * MOST] != expected.ids[: 2 * MOST])) or 2 * MOST
    assert count == 2 * MOST < len(found.ids)  # more than any row holds, and beyond that the same
    np.testing.assert_array_equal(found.weights[:count], expected.weights[:count])
    assert (found.ids == cut.image_token).sum() == (expected.ids == cut.image_token).sum()
    images = [(2, 2)] * int((found.ids == cut.image_token).sum())
    if not images and expected.weights[:MOST].any():
        assert cut.size(found, images, longest=MOST) == whole.size(expected, images, longest=MOST)
    assert cut.size(found, images).tokens > 2 * MOST


@pytest.mark.parametrize("text", ["What?", "What is the cat called? " * 3, "🚀" * 10, ""])
def test_what_may_fit_is_tokenised_as_ever(whole, cut, text):
    messages = [user(text, 1), assistant(text or "x")]
    expected, found = whole.tokenize(messages), cut.tokenize(messages)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.weights, expected.weights)


def test_long_words_that_are_few_tokens_are_tokenised_as_ever(merging_tokenizer_folder):
    tokenizer = AutoTokenizer.from_pretrained(merging_tokenizer_folder)
    tokenizer.add_tokens(["long" * 500])
    both = []
    for most in (None, MOST):
        both.append(Processor(tokenizer, SETTINGS, image_token=0, window_side=4, template=PUBLISHED_TEMPLATE))
        both[-1].most_tokens = most
    expected, found = (one.tokenize([user("long" * 500 * 20), assistant("It.")]) for one in both)
    np.testing.assert_array_equal(found.ids, expected.ids)
    assert len(found.ids) < 2 * MOST
